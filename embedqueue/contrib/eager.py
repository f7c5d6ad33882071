"""Queues for an application's own tests: offline, and finished when ``enqueue`` returns."""

from __future__ import annotations

import contextlib
import re
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import CancelledError

import numpy as np
from numpy.typing import NDArray
from redis import Redis

from embedqueue.embedders import Embedder
from embedqueue.futures.future import EmbeddingFuture
from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.settings.settings import Settings
from embedqueue.values.errors import EmbedQueueError

#: Seconds that an enqueue waits at most: a test that hangs helps nobody.
PATIENCE_SECONDS = 30.0


class WordsEmbedder:
    """Vectors from nothing but the words of a text: texts that share words are near each other.

    Enough to test an application's search without a network and without a model. Deterministic on every machine.

    Args:
        dimensions: length of the vectors.

    Attributes:
        texts: every text that was embedded, in order.
    """

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self.texts: list[str] = []

    def embed_batch(self, texts: Sequence[str], model: str) -> NDArray[np.float32]:
        """Embed texts; see :class:`embedqueue.Embedder`."""
        self.texts.extend(texts)
        rows = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in re.findall(r"\w+", text.lower()) or [text]:
                row[zlib.crc32(word.encode("utf-8", "replace")) % self.dimensions] += 1.0
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows


class EagerQueue(EmbeddingBatchQueue):
    """A queue whose items are finished when ``enqueue`` returns: embedded, or given up."""

    def enqueue(self, redis_key: str, text: str) -> EmbeddingFuture:
        """As ever, but the future is done."""
        future = super().enqueue(redis_key, text)
        _finish([future])
        return future

    def enqueue_many(self, items: Iterable[tuple[str, str]]) -> list[EmbeddingFuture]:
        """As ever, but the futures are done."""
        futures = super().enqueue_many(items)
        _finish(futures)
        return futures


def _finish(futures: Iterable[EmbeddingFuture]) -> None:
    for future in futures:
        with contextlib.suppress(EmbedQueueError, CancelledError):  # whoever looks at the future will see it
            future.exception(PATIENCE_SECONDS)


class Eager:
    """What a test may look at.

    Attributes:
        redis: the client that all queues use.
        embedder: the embedder that all queues use, or None for one each (see ``embedders``).
        embedders: embedders by namespace.
    """

    def __init__(self, embedder: Embedder | None, client: Redis | None) -> None:
        self.redis = _fake_redis() if client is None else client
        self.embedder = embedder
        self.embedders: dict[str, Embedder] = {}

    def queue(self, settings: Settings) -> EagerQueue:
        """A queue as the settings say, but for Redis, the provider and time."""
        options = {"model": settings.model, "wait_linger": 0.0, "history": False, **settings.options, "worker": True}
        embedder = WordsEmbedder(settings.dimensions) if self.embedder is None else self.embedder
        queue = EagerQueue(embedder, self.redis, **options)
        self.embedders[str(settings.options.get("namespace", "embed_queue"))] = embedder
        return queue


def _fake_redis() -> Redis:
    try:
        import fakeredis
        import lupa  # type: ignore[import-not-found,import-untyped,unused-ignore]  # noqa: F401  # it runs scripts
    except ImportError:
        raise ImportError(
            'embedqueue: eager tests need a fake Redis: pip install "fakeredis[lua]", or give a client of a real one'
        ) from None
    client: Redis = fakeredis.FakeRedis(server=fakeredis.FakeServer())
    return client
