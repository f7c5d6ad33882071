"""The limit of draining: a thread pool of bare ``requests`` and pipelined HSET, with no queue at all.

A backlog is a line that names its items; they are made here, so that nothing but the work itself takes time.
A worker that is killed loses all of it.
"""

from __future__ import annotations

import json
import random
import time
from concurrent.futures import ThreadPoolExecutor

import redis

from benchmarks import corpus
from benchmarks.contenders.embedding import embed, embed_and_write, write
from benchmarks.contenders.producer import BaseProducer, by_call
from benchmarks.settings import Settings

LABEL = "thread pool of bare requests (limit)"
PACKAGES = ("requests", "redis", "orjson", "hiredis")


def work(settings: Settings, threads: int | None = None) -> None:
    """Do what comes, with so many calls in flight."""
    client = redis.Redis(port=settings.redis_port, db=settings.db, socket_timeout=None)  # it may be frozen for minutes
    with ThreadPoolExecutor(threads or settings.calls) as pool:
        while True:
            _, order = client.blpop("limit:orders")
            tasks = by_call(corpus.pairs(*json.loads(order)))
            list(pool.map(lambda task: embed_and_write(settings, *task), tasks))


class Producer(BaseProducer):
    """Names the backlog; and, to measure waiting, a view that calls the API itself."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._redis = redis.Redis(port=settings.redis_port, db=settings.db)

    def fill_many(self, prefix: str, count: int, first: int = 0, chars: int = corpus.TEXT_CHARS) -> float:
        begin = time.perf_counter()
        self._redis.rpush("limit:orders", json.dumps([prefix, count, first, chars]))
        return time.perf_counter() - begin

    def wait(self, prefix: str, handlers: int, rounds: int, think_seconds: float) -> list[float]:
        """Seconds of one call and one write, in concurrent handlers."""

        def handle(number: int) -> list[float]:
            seconds = []
            for turn in range(rounds):
                time.sleep(random.uniform(0, think_seconds))
                key = f"{prefix}{number}-{turn}"
                begin = time.perf_counter()
                write(self.settings, [key], embed(self.settings, [corpus.text(key)]))
                seconds.append(time.perf_counter() - begin)
            return seconds

        with ThreadPoolExecutor(handlers) as pool:
            return [second for part in pool.map(handle, range(handlers)) for second in part]
