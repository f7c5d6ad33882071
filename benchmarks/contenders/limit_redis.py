"""The limit of enqueuing: bare redis-py and the same member, with nothing around it."""

from __future__ import annotations

import json
import time
from typing import Any

import redis

from benchmarks.contenders.producer import BaseProducer, Pairs
from benchmarks.settings import Settings

LABEL = "bare redis-py (limit)"
PACKAGES = ("redis", "hiredis")
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def work(settings: Settings) -> None:
    """There is nothing to drain with."""
    raise NotImplementedError


class Producer(BaseProducer):
    """ZADD, one a call, with a WAIT behind it where that is asked; variadic, in a pipeline of thousands, for many."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._redis = redis.Redis(port=settings.redis_port, db=settings.db)
        self._replicas: Any = settings.options.get("min_replicas", 0)
        self._key = f"{settings.options.get('namespace', 'limit')}:pending"

    def enqueue(self, redis_key: str, text: str) -> None:
        members = {_encode({"redis_key": redis_key, "text": text}): time.time()}
        if self._replicas:
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.zadd(self._key, members)
            pipeline.wait(self._replicas, 10_000)
            pipeline.execute()
        else:
            self._redis.zadd(self._key, members)

    def fill(self, pairs: Pairs) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        now = time.time()
        for at in range(0, len(pairs), 1000):
            members = {_encode({"redis_key": key, "text": text}): now for key, text in pairs[at : at + 1000]}
            pipeline.zadd(self._key, members)
        pipeline.execute()

    def withdraw(self, prefix: str, count: int, first: int) -> None:
        """Take out again what was put in last."""
        self._redis.zremrangebyrank(self._key, -count, -1)
