"""A store, and the moves of a queue, on a real Redis and on a fake one; and one whose clock tests move."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import redis

from embedqueue.store.store import Store
from tests.proof.moves import Queue

from .world import World


@pytest.fixture
def store(client: redis.Redis, make_store: Callable[..., Store]) -> Store:
    return make_store(client)


@pytest.fixture
def queue(client: redis.Redis) -> Iterator[Queue]:
    """Single scripts, each compared with the model."""
    made = Queue(client, "embed_queue", "embedding")
    yield made
    made.store.close()


@pytest.fixture
def world(redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A clock that the test moves, and a Redis that goes by it."""
    made = World(redis_client, monkeypatch)
    with made.opened:
        yield made
