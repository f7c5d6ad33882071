"""A store, and the moves of a queue, on a real Redis and on a fake one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import redis

from embedqueue.store.store import Store
from tests.proof.moves import Queue


@pytest.fixture
def store(client: redis.Redis, make_store: Callable[..., Store]) -> Store:
    return make_store(client)


@pytest.fixture
def queue(client: redis.Redis) -> Iterator[Queue]:
    """Single scripts, each compared with the model."""
    made = Queue(client, "embed_queue", "embedding")
    yield made
    made.store.close()
