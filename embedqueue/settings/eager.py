"""An application's queues in its own tests: offline, and finished when ``enqueue`` returns."""

from __future__ import annotations

from typing import Any

from redis import Redis

from embedqueue.embedders import Embedder
from embedqueue.testing import EagerQueue, FakeEmbedder, fake_redis
from embedqueue.values.options import EMBED_DIMENSIONS

from .settings import Settings


class Eager:
    """What a test may look at.

    Attributes:
        redis: the client that all queues use.
        embedder: the embedder that all queues use, or None for one each (see ``embedders``).
        embedders: embedders by namespace.
    """

    def __init__(self, embedder: Embedder | None, client: Redis | None) -> None:
        self.redis = fake_redis() if client is None else client
        self.embedder = embedder
        self.embedders: dict[str, Embedder] = {}

    def queue(self, settings: Settings, **overrides: Any) -> EagerQueue:
        """A queue as the settings say, but for Redis, the provider and time.

        Args:
            settings: of the queue.
            overrides: options of the queue that differ from the settings.
        """
        if settings.successor is not None and "successor" not in overrides:
            overrides["successor"] = self.queue(settings.second(**settings.successor))
        embedder = FakeEmbedder(settings.width or EMBED_DIMENSIONS) if self.embedder is None else self.embedder
        queue = EagerQueue(embedder, self.redis, settings.model, **settings.options | overrides)
        self.embedders[queue.options.namespace] = embedder
        return queue
