"""The public API as a user writes it. Type checkers read this; nothing runs it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import as_completed, wait
from typing import assert_type

import numpy as np
import redis
import tenacity
from numpy.typing import NDArray

from embedqueue import (
    BatchFailed,
    BatchReport,
    CallReport,
    DeadLetter,
    Embedder,
    EmbeddingBatchQueue,
    EmbeddingFuture,
    GeminiEmbedder,
    ItemRejected,
    Limits,
    LocalEmbedder,
    Observer,
    OpenAIEmbedder,
    OpenRouterEmbedder,
    QueueFull,
    QueueStats,
    RedisReport,
    SearchHit,
    TransientError,
)
from embedqueue.testing import FakeEmbedder, eager_queue


class ListEmbedder:
    """Plain lists; ``dimensions`` is an attribute."""

    dimensions = 3

    def embed_batch(self, texts: Sequence[str], model: str) -> list[list[float]]:
        if not texts:
            raise TransientError("busy", retry_after=2.0, status=429)
        return [[1.0, 0.0, 0.0] for _ in texts]


class ArrayEmbedder:
    """An array; ``dimensions`` is a property, and what a call may hold stands beside it."""

    max_texts = 100

    @property
    def dimensions(self) -> int:
        return 3

    def embed_batch(self, texts: Sequence[str], model: str) -> NDArray[np.float32]:
        return np.ones((len(texts), self.dimensions), dtype=np.float32)


class Counting(Observer):
    """Overrides what it needs."""

    count = 0

    def written(self, report: BatchReport) -> None:
        self.count += report.items


def told(report: CallReport | RedisReport) -> None:
    print(report.error)


def buried(letter: DeadLetter) -> None:
    print(letter.redis_key, letter.reason)


embedders: list[Embedder] = [
    ListEmbedder(),
    ArrayEmbedder(),
    FakeEmbedder(),
    GeminiEmbedder(),
    LocalEmbedder(),
    OpenAIEmbedder("key", "http://localhost:8080/v1", dimensions=256),
    OpenRouterEmbedder("key"),
]
client = redis.Redis(host="localhost")
queue = EmbeddingBatchQueue(embedders[0], client, model="google/gemini-embedding-001", flush_interval=5)
every_option = EmbeddingBatchQueue(
    ArrayEmbedder(),
    client,
    embedding_field="vector",
    namespace="images",
    max_concurrency="auto",
    limits=Limits(requests_per_minute=600, tokens_per_minute=1_000_000, name="openai"),
    lease_seconds=30,
    max_pending=None,
    retry=tenacity.Retrying(stop=tenacity.stop_after_attempt(3)),
    cache_ttl=3600.0,
    if_missing="skip",
    observers=[Counting()],
    on_batch=lambda report: print(report.items),
    on_error=told,
    on_dead=buried,
)

with queue as started:
    assert_type(started, EmbeddingBatchQueue)
    future = started.enqueue("doc:1", "Hello")
    assert_type(future, EmbeddingFuture)
    assert_type(future.result(timeout=30), list[float])
    assert_type(future.exception(), BaseException | None)
    futures = started.enqueue_many((f"doc:{i}", f"text {i}") for i in range(3))
    assert_type(futures, list[EmbeddingFuture])
    for done in as_completed(futures, timeout=30):
        assert_type(done.result(), list[float])
    assert_type(wait(futures).done.pop().result(), list[float])
    try:
        started.flush(timeout=60)
    except (BatchFailed, ItemRejected, QueueFull, TimeoutError) as error:
        print(error)
    assert_type(started.stats(), QueueStats)
    assert_type(started.stats().oldest_age, float | None)
    assert_type(started.pending_count(), int)
    assert_type(started.dead_letters(limit=10), list[DeadLetter])
    assert_type(started.retry_dead([letter.redis_key for letter in started.dead_letters()]), int)
    assert_type(started.discard_dead(b"not ours"), int)
    assert_type(started.history(minutes=5).days[-1].embedded, int)
    started.create_index("docs", ("doc:", "note:"), distance="L2", fields={"lang": "TAG", "price": ["NUMERIC"]})
    assert_type(started.embed_query("where?", timeout=5), list[float])
    for hit in started.search("where?", k=3, index="docs", filter="@lang:{en}", return_fields=["text"]):
        assert_type(hit, SearchHit)
        assert_type((hit.redis_key, hit.score, hit.fields["text"]), tuple[str, float, str | bytes])
started.start().stop(timeout=1.0, drain=True)


async def in_asyncio() -> list[float]:
    return await asyncio.wrap_future(queue.enqueue("doc:1", "Hello"))


def test_of_the_users_own() -> None:
    fake = FakeEmbedder(dimensions=4, rule=lambda texts: ValueError("no") if "bad" in texts else None)
    eager = eager_queue(fake, history=False)
    assert eager.enqueue("doc:1", "Hello").result(0)
    assert_type(fake.bytes_of("Hello"), bytes)
    assert_type(fake.calls, list[list[str]])
