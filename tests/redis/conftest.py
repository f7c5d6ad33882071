"""Queues on a real Redis, stopped at the end of each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from embedqueue import EmbeddingBatchQueue
from tests.redis.parts import GatedEmbedder

pytest.register_assert_rewrite("tests.redis.model", "tests.redis.moves")

MakeQueue = Callable[..., EmbeddingBatchQueue]


@pytest.fixture
def embedder() -> Iterator[GatedEmbedder]:
    gated = GatedEmbedder()
    yield gated
    gated.release()


@pytest.fixture
def make_queue(embedder: GatedEmbedder, request: pytest.FixtureRequest) -> Iterator[MakeQueue]:
    """Makes queues that are stopped in the end; on the session's Redis unless told otherwise."""
    made: list[EmbeddingBatchQueue] = []

    def make(client: redis.Redis | None = None, *, start: bool = True, **options: Any) -> EmbeddingBatchQueue:
        if client is None:
            client = request.getfixturevalue("redis_client")
        queue = EmbeddingBatchQueue(options.pop("embedder", embedder), client, **options)
        made.append(queue)
        return queue.start() if start else queue

    yield make
    embedder.release()
    for queue in made:
        queue.stop(timeout=0.2)
