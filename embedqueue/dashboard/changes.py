"""What the buttons do: letters put back or discarded, queues and runs paused. Nothing without a question."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Response, abort, redirect, request, url_for
from redis.exceptions import RedisError

from embedqueue.operating import shown
from embedqueue.operating.estimate import estimate
from embedqueue.operating.hiding import Reader
from embedqueue.queue import EmbeddingBatchQueue

from . import asked, words
from .jobs import CANCEL
from .pages import Pages, problem
from .runs import ASKED

#: Names that the page of the question lists.
LISTED_NAMES = 10


class Changes:
    """The views that change something. Each is behind the guard.

    Args:
        pages: renders.
        prices: dollars for a million tokens by model, that were given.
    """

    def __init__(self, pages: Pages, prices: Mapping[str, float]) -> None:
        self._pages = pages
        self._prices = prices

    def dead(self) -> Any:
        """Retry or discard dead letters, once the page that asks was answered."""
        self._pages.guard.check_change()
        name, queue = self._pages.chosen(request.form.get("queue"))
        verb, _, scope = request.form.get("do", "").partition(":")
        if verb not in ("retry", "discard") or not scope:
            asked.wrong("The form does not say what to do.")
        try:
            found = self._scope(queue, scope)
            if found is not None and not found:
                return self._back(".letters", name, verb, 0)
            if request.form.get("sure") != "yes":
                return self._ask(name, queue, verb, scope, found)
            done = queue.retry_dead(found) if verb == "retry" else queue.discard_dead(found)
        except RedisError as error:
            abort(503, problem(error))
        return self._back(".letters", name, verb, done)

    def pause(self) -> Any:
        """Pause the queue, or end its pause."""
        self._pages.guard.check_change()
        name, queue = self._pages.chosen(request.form.get("queue"))
        verb, store = request.form.get("do", ""), queue._engine.store
        if verb not in ("pause", "resume"):
            asked.wrong("The form does not say what to do.")
        try:
            if verb == "pause":
                store.hold(asked.pause_seconds(), asked.pause_reason() or "paused on the dashboard")
                return self._back(".index", name, verb, 1)
            return self._back(".index", name, verb, int(store.unhold()))
        except RedisError as error:
            abort(503, problem(error))

    def run(self) -> Any:
        """Have a named run stand still, go on, or stop, once the page that asks was answered."""
        self._pages.guard.check_change()
        name, queue = self._pages.chosen(request.form.get("queue"))
        wanted, _, run = request.form.get("do", "").partition(":")
        if wanted not in ASKED or not run:
            asked.wrong("The form does not say what to do.")
        label, sentence = ASKED[wanted]
        try:
            if request.form.get("sure") != "yes":
                question = f"{label} the run {words.short(run)}?"
                return self._ask_of("run", name, question, sentence, label, danger=wanted == "stop")
            found = queue.ask_run(run, wanted)
        except RedisError as error:
            abort(503, problem(error))
        if found is None or not found.at_work:
            abort(404, "Nobody is at work on that run any more.")
        return self._back(".runs", name, "asked", 1)

    def job(self) -> Any:
        """Cancel a batch job, once the page that asks was answered."""
        self._pages.guard.check_change()
        name, queue = self._pages.chosen(request.form.get("queue"))
        wanted, _, job = request.form.get("do", "").partition(":")
        if wanted != "cancel" or not job:
            asked.wrong("The form does not say what to do.")
        try:
            if request.form.get("sure") != "yes":
                question = f"Cancel the batch job {words.short(job)}?"
                return self._ask_of("job", name, question, CANCEL, "Cancel the job", danger=True)
            back = queue.cancel_job(job)
        except KeyError:
            abort(404, "There is no such batch job any more, or it is over.")
        except RedisError as error:
            abort(503, problem(error))
        return self._back(".jobs", name, "cancel", back)

    def _ask_of(self, kind: str, name: str, question: str, sentence: str, label: str, *, danger: bool) -> Response:
        """The question of a run or a job; its answer comes with the same words of what to do."""
        return self._pages.render(
            "ask.html",
            queue_name=name,
            question=question,
            sentence=sentence,
            action=url_for(f".{kind}"),
            do=request.form["do"],
            danger=danger,
            label=label,
            back=url_for(f".{kind}s", queue=name),
        )

    def _ask(
        self, name: str, queue: EmbeddingBatchQueue, verb: str, scope: str, found: list[str | bytes] | None
    ) -> Response:
        """The question: how many, and what they cost. Of a reason, the answer looks again which letters those are."""
        told = estimate(queue, found, self._prices) if verb == "retry" else None
        count = told.letters if told is not None else queue.stats().dead if found is None else len(found)
        named = scope.partition(":")[0] in ("selected", "one")
        return self._pages.render(
            "confirm.html",
            verb=verb,
            queue_name=name,
            count=count,
            estimate=told,
            scope="selected" if named else scope,
            names=(found or [])[:LISTED_NAMES],
            more=max(0, len(found or []) - LISTED_NAMES),
            ids=[shown.form_id(one) for one in found or []] if named else [],
            looked=shown.RETRIED_LETTERS if scope.startswith("reason:") else None,
        )

    def _scope(self, queue: EmbeddingBatchQueue, scope: str) -> list[str | bytes] | None:
        """Names of letters; None for all."""
        kind, _, rest = scope.partition(":")
        if kind == "all":
            return None
        if kind == "reason":
            return shown.of_reason(queue, Reader(self._pages.show_texts), rest)
        if kind not in ("selected", "one"):
            asked.wrong("The form does not say which letters.")
        return shown.names(queue, [rest] if kind == "one" else request.form.getlist("id"))

    @staticmethod
    def _back(endpoint: str, name: str, verb: str, count: int) -> Any:
        place: dict[str, Any] = {"queue": name, "did": verb, "count": count}
        return redirect(url_for(endpoint, **place), 303)
