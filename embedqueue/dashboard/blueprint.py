"""The blueprint: one page, the part of it that changes, and one form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint, Flask, Response, abort, redirect, request, url_for
from jinja2 import Environment, PackageLoader, StrictUndefined
from redis.exceptions import RedisError
from werkzeug.exceptions import HTTPException

from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.settings.settings import SettingsError
from embedqueue.values.budget import read_prices

from . import letters, words
from .guard import TOKEN_FIELD, Authenticate, Guard
from .page import dead, live
from .sources import Source, Sources

#: Seconds between two looks of the page's script.
LOOK_SECONDS = 2
#: Digits of the largest count that an address may tell the page.
_COUNT_DIGITS = 15


def dashboard(
    queues: Source,
    *,
    authenticate: Authenticate | None = None,
    open: bool = False,  # noqa: A002 - it shall read like that
    allow_changes: bool | Callable[[], bool] = False,
    show_texts: bool = False,
    prices: Mapping[str, float] | None = None,
    name: str = "embedqueue_dashboard",
) -> Blueprint:
    """A page on queues, for a Flask application.

    ::

        app.register_blueprint(dashboard(queue, authenticate=is_admin), url_prefix="/embeddings")

    Args:
        queues: a queue, queues by name, or the extension ``EmbedQueue``. They are looked at, never started.
        authenticate: called before every request, in its context: True lets it in, False and None do not, and an
            answer (a redirect to a login) is sent.
        open: in place of it: everybody is let in who can reach the page, and so can strangers' pages in their browsers.
            For where something in front asks who is there.
        allow_changes: whether dead letters may be retried and discarded, or a function that tells so for a request.
        show_texts: whether the texts of dead letters are shown. Without it, what a reason quotes of them is left out.
        prices: dollars for a million tokens, by model; for others the queue's own ``prices`` hold, and the list's.
        name: of the blueprint.

    Raises:
        TypeError, ValueError: an argument that cannot work; neither ``authenticate`` nor ``open``.
    """
    if authenticate is not None and not callable(authenticate):
        raise TypeError("authenticate must be a function")
    if (authenticate is None) is (open is not True):
        raise ValueError(
            "say who may see the dashboard: either authenticate=..., a function that lets a request in (such as "
            "password(...)), or open=True, for everybody who can reach it"
        )
    guard = Guard(authenticate or (lambda: True), allow_changes)
    views = _Views(Sources(queues), guard, show_texts, read_prices(prices))
    blueprint = Blueprint(name, __package__, static_folder="static", static_url_path="/static")
    blueprint.before_request(views.guard.admit)
    blueprint.after_request(views.guard.seal)
    blueprint.register_error_handler(HTTPException, views.refused)
    blueprint.get("/")(views.index)
    blueprint.get("/live")(views.live)
    blueprint.post("/dead")(views.dead)
    return blueprint


def dashboard_app(queues: Source, **options: Any) -> Flask:
    """The page as a WSGI application of its own; arguments as with :func:`dashboard`."""
    app = Flask("embedqueue_dashboard", static_folder=None)
    app.register_blueprint(dashboard(queues, **options))
    return app


def _count(text: str) -> int:
    if len(text) > _COUNT_DIGITS:
        raise ValueError  # for the library, which then takes it for absent
    return int(text)


class _Views:
    def __init__(self, sources: Sources, guard: Guard, show_texts: bool, prices: Mapping[str, float]) -> None:
        self.guard = guard
        self._sources = sources
        self._show_texts = show_texts
        self._prices = prices
        # Of our own: an application's filters, context and escaping are its business.
        self._templates = Environment(
            loader=PackageLoader("embedqueue.dashboard"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        filters = (words.count, words.rate, words.duration, words.money, words.clock, words.day, words.iso)
        self._templates.filters.update({one.__name__: one for one in filters})
        self._templates.globals["percent"] = words.percent

    def index(self) -> Any:
        """The page."""
        return self._page("page.html", whole=True)

    def live(self) -> Any:
        """The part of the page that changes."""
        return self._page("live.html", whole=False)

    def dead(self) -> Any:
        """Retry or discard dead letters; discarding asks once more, and so does what costs more than a dollar."""
        self.guard.check_change()
        name, queue = self._chosen(request.form.get("queue"))
        verb, _, scope = request.form.get("do", "").partition(":")
        if verb not in ("retry", "discard") or not scope:
            abort(400, "The form does not say what to do.")
        try:
            found = self._scope(queue, scope)
            if found is not None and not found:
                return self._back(name, verb, 0)
            asks = request.form.get("sure") != "yes"
            cost = letters.cost(queue, found, self._prices) if asks and verb == "retry" else None
            if asks and (verb == "discard" or cost is not None):
                count = queue.stats().dead if found is None else len(found)
                asked = {"queue_name": name, "count": count, "everything": found is None, "names": found or []}
                ids = [letters.form_id(one) for one in found or []]
                return self._render("confirm.html", verb=verb, cost=cost, ids=ids, **asked)
            done = queue.retry_dead(found) if verb == "retry" else queue.discard_dead(found)
        except RedisError as error:
            abort(503, f"Redis does not answer: {error}")
        return self._back(name, verb, done)

    def _scope(self, queue: EmbeddingBatchQueue, scope: str) -> list[str | bytes] | None:
        """Names of letters; None for all."""
        kind, _, rest = scope.partition(":")
        if kind == "all":
            return None
        if kind == "reason":
            reader = letters.Reader(self._show_texts)
            return [letters.name_of(letter) for letter in letters.every(queue) if reader.died_of(letter, rest)]
        if kind not in ("selected", "one"):
            abort(400, "The form does not say which letters.")
        return letters.names(queue, [rest] if kind == "one" else request.form.getlist("id"))

    def _back(self, name: str, verb: str, count: int) -> Response:
        place = {"queue": name, "page": request.form.get("page", "1"), "did": verb, "count": count}
        return redirect(url_for(".index", **place, _anchor="dead"), 303)  # type: ignore[arg-type, return-value]

    def _chosen(self, name: str | None) -> tuple[str, EmbeddingBatchQueue]:
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

    def _page(self, template: str, *, whole: bool) -> Any:
        name, queue = self._chosen(request.args.get("queue"))
        page = request.args.get("page", 1, type=int)
        context: dict[str, Any] = {"problem": None}
        try:
            context |= live(queue, self._prices)
            if whole:
                context |= dead(queue, page, self._show_texts)
        except RedisError as error:
            context = {"problem": f"Redis does not answer: {error}"}
        done = (request.args.get("did"), request.args.get("count", type=_count))
        options = queue._options
        answer = self._render(
            template,
            queue_name=name,
            queue_names=self._sources.names(),
            namespace=options.namespace,
            model=options.model,
            done=done if done[0] in ("retry", "discard") and done[1] is not None else None,
            show_texts=self._show_texts,
            live_url=url_for(".live", queue=name),
            look_ms=LOOK_SECONDS * 1000,
            **context,
        )
        answer.status_code = 503 if context["problem"] else 200
        return answer

    def refused(self, error: HTTPException) -> Any:
        """A page for whoever is not let in, or has asked for something that is not there."""
        if error.response is not None or error.code is None or error.code < 400:
            return error
        answer = self._render("refused.html", code=error.code, title=error.name, sentence=error.description or "")
        answer.status_code = error.code
        return answer

    def _render(self, template: str, **context: Any) -> Response:
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
