"""The blueprint: which address leads to which page, and which form does what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint, Flask
from werkzeug.exceptions import HTTPException

from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.settings.front import Front
from embedqueue.values.budget import read_prices

from . import asked, find, item, items, jobs, letters, money, overview, runs, space
from .changes import Changes
from .guard import Authenticate, Guard
from .pages import Pages
from .sources import Source, Sources

#: Seconds between two looks of the page's script.
LOOK_SECONDS = 2


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
    """Pages on queues, for a Flask application.

    ::

        app.register_blueprint(dashboard(queue, authenticate=is_admin), url_prefix="/embeddings")

    Args:
        queues: a queue, queues by name, or the extension ``EmbedQueue``. They are looked at, never started.
        authenticate: called before every request, in its context: True lets it in, False and None do not, and an
            answer (a redirect to a login) is sent.
        open: in place of it: everybody is let in who can reach the page, and so can strangers' pages in their browsers.
            For where something in front asks who is there.
        allow_changes: whether dead letters may be retried and discarded, queues paused and resumed, and runs and batch
            jobs stopped; or a function that tells so for a request.
        show_texts: whether the texts of items are shown. Without it, what a reason quotes of them is left out.
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
    known = read_prices(prices)
    pages = Pages(Sources(queues), guard, show_texts)
    changes, watches = Changes(pages, known), overview.Watches()
    blueprint = Blueprint(name, __package__, static_folder="static", static_url_path="/static")
    blueprint.before_request(guard.admit)
    blueprint.after_request(guard.seal)
    blueprint.register_error_handler(HTTPException, pages.refused)

    def page(path: str, room: str, fill: Callable[[EmbeddingBatchQueue], dict[str, Any]]) -> None:
        blueprint.add_url_rule(path, room, lambda: pages.show(f"{room}.html", fill), methods=["GET"])

    def first(queue: EmbeddingBatchQueue) -> dict[str, Any]:
        found = overview.live(queue, watches)
        return found | overview.dead(queue, show_texts, found["stats"].dead) | {"look_ms": LOOK_SECONDS * 1000}

    page("/", "index", first)
    page("/live", "live", lambda queue: overview.live(queue, watches))
    page("/items", "waiting", lambda queue: items.listed(queue, show_texts))
    page("/item", "item", lambda queue: item.shown(queue, show_texts))
    page("/find", "find", find.found)
    page("/dead", "letters", lambda queue: letters.listed(queue, show_texts))
    page("/money", "money", lambda queue: money.spent(queue, known))
    page("/space", "space", space.agreed)
    page("/jobs", "jobs", jobs.listed)
    page("/runs", "runs", runs.listed)
    page("/pause", "pause", lambda queue: {"stats": queue.stats(), "most_chars": asked.PAUSE_REASON_CHARS})
    blueprint.add_url_rule("/dead", "dead", changes.dead, methods=["POST"])
    blueprint.add_url_rule("/pause", "hold", changes.pause, methods=["POST"])
    blueprint.add_url_rule("/jobs", "job", changes.job, methods=["POST"])
    blueprint.add_url_rule("/runs", "run", changes.run, methods=["POST"])
    return blueprint


def dashboard_app(queues: Source, **options: Any) -> Flask:
    """The page as a WSGI application of its own; arguments as with :func:`dashboard`.

    Flask's extension is asked for its queues at once: call it in the context of the application that has them.
    """
    if isinstance(queues, Front):  # while a page is made, the current app is this one
        queues = queues.queues
    app = Flask("embedqueue_dashboard", static_folder=None)
    app.register_blueprint(dashboard(queues, **options))
    return app
