"""embedqueue for Flask.

::

    embeddings = EmbedQueue()

    def create_app():
        app = Flask(__name__)
        app.config["EMBEDQUEUE_REDIS_URL"] = "redis://localhost:6379/0"
        embeddings.init_app(app)
        return app

    @app.post("/notes")
    def save_note():
        ...
        embeddings.enqueue(f"note:{note.id}", note.text)

Settings stand in ``app.config`` as ``EMBEDQUEUE_REDIS_URL``, ``EMBEDQUEUE_PROVIDER`` and so on (see
``embedqueue.settings.settings``). What is not there may stand in the environment, under the same names. More queues
stand in ``EMBEDQUEUE_QUEUES``: ``{"images": {"MODEL": ...}}``, and are used as ``embeddings["images"].enqueue(...)``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from flask import Flask, current_app
from redis import Redis

from embedqueue.embedders import Embedder
from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.settings.application import DEFAULT, Queues
from embedqueue.settings.front import Front
from embedqueue.settings.settings import ENVIRONMENT_PREFIX, read_queues

from .commands import group

if TYPE_CHECKING:
    from embedqueue.settings.eager import Eager

#: The key of our state in ``app.extensions``.
EXTENSION = "embedqueue"


class EmbedQueue(Front):
    """The Flask extension. Its methods are those of the queue of the current app.

    Nothing is connected and no thread runs before the first request or use, in whichever process that is: under
    gunicorn each worker has its own, with and without ``--preload``.

    Args:
        app: the application; or call :meth:`init_app` later.
    """

    def __init__(self, app: Flask | None = None) -> None:
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Set an application up. Its configuration is read at the first use, so it may still change."""
        if EXTENSION in app.extensions:
            return  # a second object for the same app: both speak of the same queues
        config = app.config  # not the app: what it holds must not hold it
        queues = app.extensions[EXTENSION] = Queues(lambda: read_queues(config, ENVIRONMENT_PREFIX))
        app.before_request(queues.wake)
        app.cli.add_command(group)

    @property
    def queues(self) -> Queues:
        """All queues of the current app.

        Raises:
            RuntimeError: outside of an application's context, or ``init_app`` was not called.
        """
        found = current_app.extensions.get(EXTENSION)
        if not isinstance(found, Queues):
            raise RuntimeError(f"embedqueue is not set up for {current_app.name!r}: call init_app(app) of EmbedQueue")
        return found

    def __getitem__(self, name: str) -> EmbeddingBatchQueue:
        """The queue of this name in ``EMBEDQUEUE_QUEUES``, started."""
        return self.queues[name]

    @property
    def queue(self) -> EmbeddingBatchQueue:
        """The current app's queue itself, started. It also works in threads that have no application's context.

        Raises:
            SettingsError: a setting cannot work; the sentence tells which, and what to set.
        """
        return self.queues[DEFAULT]

    @property
    def redis(self) -> Redis:
        """The client that the queue was made with, for reading hashes."""
        return self.queues.redis()


@contextlib.contextmanager
def eager(app: Flask, embedder: Embedder | None = None, redis: Redis | None = None) -> Iterator[Eager]:
    """Within the ``with``, every enqueue of the app is finished when it returns, offline. For the app's own tests.

    Args:
        app: set up with :class:`EmbedQueue`.
        embedder: instead of one that needs no network: texts that share words are near each other there.
        redis: a client instead of a fake Redis of this block's own.

    Yields:
        An object with the ``redis`` and the ``embedders`` that were used.
    """
    with app.app_context():
        queues = EmbedQueue().queues
    with queues.eagerly(embedder, redis) as used:
        yield used
