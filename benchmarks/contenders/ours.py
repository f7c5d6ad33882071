"""embedqueue, with as many calls in flight as everybody; all else as it comes."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import redis

from benchmarks import corpus
from benchmarks.contenders.producer import BaseProducer, Pairs
from benchmarks.settings import MODEL, Settings
from embedqueue import EmbeddingBatchQueue, OpenAIEmbedder

LABEL = "embedqueue"
PACKAGES = ("redis", "requests", "numpy", "tenacity", "orjson", "hiredis")


def make_queue(settings: Settings, **options: Any) -> EmbeddingBatchQueue:
    """The queue as its README shows it."""
    embedder = OpenAIEmbedder(api_key="", base_url=settings.api_url, dimensions=settings.dimensions)
    client = redis.Redis(port=settings.redis_port, db=settings.db)
    more: dict[str, Any] = {"max_concurrency": settings.calls} | settings.options | options
    return EmbeddingBatchQueue(embedder, client, MODEL, **more)


def work(settings: Settings) -> None:
    """A process that only drains."""
    with make_queue(settings, **({"lease_seconds": 5.0} if settings.impatient else {})):
        threading.Event().wait()


class Producer(BaseProducer):
    """A process that only enqueues, or, to measure waiting, one that drains as well."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._queue = make_queue(settings, worker=False)
        self._web: EmbeddingBatchQueue | None = None  # one that drains as well

    def enqueue(self, redis_key: str, text: str) -> object:
        return self._queue.enqueue(redis_key, text)

    def fill(self, pairs: Pairs) -> None:
        self._queue.enqueue_many(pairs)

    def withdraw(self, prefix: str, count: int, first: int) -> None:
        """Take items back, by the documented way of enqueuing a blank text."""
        self._queue.enqueue_many([(f"{prefix}{i}", "") for i in range(first, first + count)])

    def flush(self) -> None:
        """Wake the workers."""
        self._queue.flush_now()

    def wait(self, prefix: str, handlers: int, rounds: int, think_seconds: float) -> list[float]:
        """Seconds from ``enqueue`` to ``result`` in concurrent handlers of one web process."""
        if self._web is None:
            self._web = make_queue(self.settings).start()
        queue = self._web

        def handle(number: int) -> list[float]:
            seconds = []
            for turn in range(rounds):
                time.sleep(random.uniform(0, think_seconds))
                key = f"{prefix}{number}-{turn}"
                begin = time.perf_counter()
                queue.enqueue(key, corpus.text(key)).result(60)
                seconds.append(time.perf_counter() - begin)
            return seconds

        with ThreadPoolExecutor(handlers) as pool:
            return [second for part in pool.map(handle, range(handlers)) for second in part]
