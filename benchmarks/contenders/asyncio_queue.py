"""The design that embedqueue grew from, written anew from its description (docs/design.md, section 1).

A ZSET of pending items, one asyncio task that drains it, futures of the own process. Items are popped before the
API call, futures are resolved before the write. Here with aiohttp, and with vectors asked for in base64, which the
design did not have: it is to lose by its design alone. ``asyncio_queue_lists`` is the same with lists of floats.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Awaitable, Callable

import aiohttp
import redis.asyncio

from benchmarks import corpus
from benchmarks.contenders.embedding import request_body, unpack
from benchmarks.contenders.producer import BaseProducer, Pairs
from benchmarks.settings import CALL_TEXTS, FIELD, Settings

LABEL = "asyncio queue, base64"
PACKAGES = ("aiohttp", "redis", "orjson", "hiredis")
PENDING = "embed_queue:pending"
Embed = Callable[[list[str]], Awaitable[list[bytes]]]
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class AsyncioQueue:
    """The queue, without what its heir adds."""

    def __init__(
        self, embed: Embed, client: redis.asyncio.Redis, flush_interval: float = 3600.0, max_batch_size: int = 50
    ) -> None:
        self._embed = embed
        self._redis = client
        self._flush_interval = flush_interval
        self._max_batch_size = max_batch_size
        self._futures: dict[str, asyncio.Future[bytes]] = {}
        self._wake = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._wake.set()  # leftovers
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            await self._task

    async def enqueue(self, redis_key: str, text: str) -> asyncio.Future[bytes]:
        return (await self.enqueue_many([(redis_key, text)]))[0]

    async def enqueue_many(self, pairs: Pairs) -> list[asyncio.Future[bytes]]:
        loop, futures, members, now = asyncio.get_running_loop(), [], {}, time.time()
        for redis_key, text in pairs:
            future = self._futures.get(redis_key)
            if future is None:
                future = self._futures[redis_key] = loop.create_future()
                members[_encode({"redis_key": redis_key, "text": text})] = now
            futures.append(future)
        if members:
            await self._redis.zadd(PENDING, members)
        if len(self._futures) >= self._max_batch_size:
            self._wake.set()
        return futures

    def flush_now(self) -> None:
        self._wake.set()

    async def _run(self) -> None:
        while not self._stopping:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._flush_interval)
            self._wake.clear()
            while popped := await self._redis.zpopmin(PENDING, CALL_TEXTS):
                items = [json.loads(member) for member, _ in popped]
                vectors = await self._embed([item["text"] for item in items])
                pipeline = self._redis.pipeline(transaction=False)
                for item, vector in zip(items, vectors, strict=True):
                    future = self._futures.pop(item["redis_key"], None)
                    if future is not None and not future.done():
                        future.set_result(vector)
                    pipeline.hset(item["redis_key"], FIELD, vector)
                await pipeline.execute()


async def call(settings: Settings, session: aiohttp.ClientSession, texts: list[str]) -> list[bytes]:
    """One API call."""
    async with session.post(f"{settings.api_url}/embeddings", json=request_body(settings, texts)) as response:
        response.raise_for_status()
        return unpack(await response.read())


def work(settings: Settings, call: Callable[..., Awaitable[list[bytes]]] = call) -> None:
    """Drain what other processes left: the timer, set short, is the only way in which they can wake it."""

    async def main() -> None:
        client = redis.asyncio.Redis(port=settings.redis_port, db=settings.db, socket_timeout=None)  # it may be frozen
        async with aiohttp.ClientSession() as session:
            AsyncioQueue(lambda texts: call(settings, session, texts), client, flush_interval=0.01).start()
            await asyncio.Event().wait()

    asyncio.run(main())


class Producer(BaseProducer):
    """The same queue in an event loop of its own; concurrent callers are coroutines."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._loop = asyncio.new_event_loop()
        self._client = redis.asyncio.Redis(port=settings.redis_port, db=settings.db)

    def fill(self, pairs: Pairs) -> None:
        async def main() -> None:
            await AsyncioQueue(_nothing, self._client).enqueue_many(pairs)

        self._loop.run_until_complete(main())

    def burst(self, prefix: str, threads: int, seconds: float) -> float:
        async def caller(number: int) -> int:
            count = 0
            while time.perf_counter() < end:
                await queue.enqueue(f"{prefix}{number}-{count}", corpus.text(f"{prefix}{number}-{count}"))
                count += 1
            return count

        async def main() -> int:
            return sum(await asyncio.gather(*(caller(number) for number in range(threads))))

        queue = AsyncioQueue(_nothing, self._client)
        begin = time.perf_counter()
        end = begin + seconds
        return self._loop.run_until_complete(main()) / (time.perf_counter() - begin)

    def wait(self, prefix: str, handlers: int, rounds: int, think_seconds: float) -> list[float]:
        """Seconds from ``enqueue`` to the vector; who waits must ask for the drain, or it comes with the timer."""

        async def handle(queue: AsyncioQueue, number: int) -> list[float]:
            seconds = []
            for turn in range(rounds):
                await asyncio.sleep(random.uniform(0, think_seconds))
                key = f"{prefix}{number}-{turn}"
                begin = time.perf_counter()
                future = await queue.enqueue(key, corpus.text(key))
                queue.flush_now()
                await future
                seconds.append(time.perf_counter() - begin)
            return seconds

        async def main() -> list[float]:
            async with aiohttp.ClientSession() as session:
                queue = AsyncioQueue(lambda texts: call(self.settings, session, texts), self._client)
                queue.start()
                parts = await asyncio.gather(*(handle(queue, number) for number in range(handlers)))
                await queue.stop()
                return [second for part in parts for second in part]

        return self._loop.run_until_complete(main())


async def _nothing(texts: list[str]) -> list[bytes]:
    raise AssertionError("a producer embeds nothing")
