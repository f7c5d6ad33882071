"""A page: which queue it is of, what stands around it, and what it says where Redis does not answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Response, abort, request, url_for
from jinja2 import Environment, PackageLoader, StrictUndefined
from redis.exceptions import RedisError, ResponseError
from werkzeug.exceptions import HTTPException

from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.settings.settings import SettingsError

from . import asked, words
from .guard import TOKEN_FIELD, Guard
from .sources import Sources

#: The pages by the end of their endpoint, and what links to them say.
ROOMS = {
    "index": "Overview",
    "waiting": "Items",
    "letters": "Dead letters",
    "money": "Money",
    "space": "Space",
    "jobs": "Batch jobs",
    "runs": "Runs",
}


class Pages:
    """Renders the pages of a dashboard.

    Args:
        sources: whose queues they are.
        guard: who may look and act.
        show_texts: whether texts are shown.
    """

    def __init__(self, sources: Sources, guard: Guard, show_texts: bool) -> None:
        self.guard = guard
        self.show_texts = show_texts
        self._sources = sources
        # Of our own: an application's filters, context and escaping are its business.
        self._templates = Environment(
            loader=PackageLoader("embedqueue.dashboard"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        filters = (
            words.count, words.rate, words.duration, words.money, words.clock, words.day, words.iso, words.pace,
            words.size, words.short,
        )  # fmt: skip
        self._templates.filters.update({one.__name__: one for one in filters})
        self._templates.globals["percent"] = words.percent

    def chosen(self, name: str | None) -> tuple[str, EmbeddingBatchQueue]:
        """The queue of this name, or the first one."""
        try:
            names = self._sources.names()
            if not names:
                abort(404, "There is no queue.")
            if name is None:
                name = names[0]
            if name not in names:
                abort(404, "There is no such queue.")
            return name, self._sources[name]
        except SettingsError as error:
            abort(503, str(error))

    def show(self, template: str, fill: Callable[[EmbeddingBatchQueue], dict[str, Any]]) -> Any:
        """A page on the queue that the address names.

        Args:
            template: its file.
            fill: asks the queue for what the template needs.
        """
        name, queue = self.chosen(request.args.get("queue"))
        context: dict[str, Any] = {"problem": None}
        try:
            context |= fill(queue)
        except RedisError as error:
            context = {"problem": problem(error)}
        answer = self.render(
            template,
            queue_name=name,
            queue_names=self._sources.names(),
            options=queue.options,
            rooms=ROOMS,
            room=(request.endpoint or "").rpartition(".")[2],
            done=asked.done(),
            show_texts=self.show_texts,
            **context,
        )
        answer.status_code = 503 if context["problem"] else 200
        return answer

    def refused(self, error: HTTPException) -> Any:
        """A page for whoever is not let in, or has asked for something that is not there."""
        if error.response is not None or error.code is None or error.code < 400:
            return error
        answer = self.render("refused.html", code=error.code, title=error.name, sentence=error.description or "")
        answer.status_code = error.code
        return answer

    def render(self, template: str, **context: Any) -> Response:
        """A template, with what all of them need."""
        may_change = self.guard.may_change() if template != "refused.html" else False
        return Response(
            self._templates.get_template(template).render(
                may_change=may_change,
                token=self.guard.token() if may_change else "",
                token_field=TOKEN_FIELD,
                nonce=self.guard.nonce(),
                index_url=url_for(".index"),
                url=url_for,
                **context,
            ),
            mimetype="text/html",
        )


def problem(error: RedisError) -> str:
    """What is wrong with Redis, in a sentence."""
    return f"Redis {'refuses' if isinstance(error, ResponseError) else 'does not answer'}: {error}"
