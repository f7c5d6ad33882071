"""arq: one asyncio worker, with aiohttp and asynchronous redis-py as an asyncio application would have them."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp
from arq import Worker
from arq.connections import ArqRedis

from benchmarks import corpus
from benchmarks.contenders.asyncio_queue import call
from benchmarks.contenders.producer import BaseProducer, Pairs, by_call
from benchmarks.settings import FIELD, Settings, from_environment

LABEL = "arq"
PACKAGES = ("arq", "aiohttp", "redis")


async def embed_batch(context: dict[str, Any], keys: list[str], texts: list[str]) -> None:
    """The job: one API call's worth."""
    vectors = await call(from_environment(), context["session"], texts)
    pipeline = context["redis"].pipeline(transaction=False)
    for key, vector in zip(keys, vectors, strict=True):
        pipeline.hset(key, FIELD, vector)
    await pipeline.execute()


async def _start(context: dict[str, Any]) -> None:
    context["session"] = aiohttp.ClientSession()


def _connect(settings: Settings) -> ArqRedis:
    return ArqRedis(port=settings.redis_port, db=settings.db, socket_timeout=None)  # it may be frozen for minutes


def work(settings: Settings) -> None:
    """The worker; polls more often than by default, which makes it quicker."""
    asyncio.set_event_loop(asyncio.new_event_loop())
    Worker(
        functions=[embed_batch],
        on_startup=_start,
        redis_pool=_connect(settings),
        max_jobs=settings.calls,
        poll_delay=0.01,
        keep_result=0,
        job_timeout=2 if settings.impatient else 300,
        log_results=False,
    ).run()


class Producer(BaseProducer):
    """``enqueue_job``, from coroutines."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        self._redis = _connect(settings)

    def fill(self, pairs: Pairs) -> None:
        async def main() -> None:
            tasks = by_call(pairs)
            for at in range(0, len(tasks), 32):  # side by side, in bounds
                await asyncio.gather(*(self._redis.enqueue_job("embed_batch", *task) for task in tasks[at : at + 32]))

        self._loop.run_until_complete(main())

    def burst(self, prefix: str, threads: int, seconds: float) -> float:
        async def caller(number: int) -> int:
            count = 0
            while time.perf_counter() < end:
                key = f"{prefix}{number}-{count}"
                await self._redis.enqueue_job("embed_batch", [key], [corpus.text(key)])
                count += 1
            return count

        async def main() -> int:
            return sum(await asyncio.gather(*(caller(number) for number in range(threads))))

        begin = time.perf_counter()
        end = begin + seconds
        return self._loop.run_until_complete(main()) / (time.perf_counter() - begin)
