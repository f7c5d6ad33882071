"""A Redis that refuses commands for their size: what fits is taken, and nobody pays for another's size."""

from __future__ import annotations

import threading

import pytest
import redis

from embedqueue import ItemRejected
from embedqueue.testing import FakeEmbedder
from tests.parts import PATIENCE_SECONDS, eventually, in_flight, join
from tests.store.limited import LimitedRedis

#: Numbers of a vector: 12,288 bytes.
DIMENSIONS = 3072


@pytest.fixture
def limited(redis_server, redis_client):
    with LimitedRedis(redis_server.socket_path, 100_000) as limited:
        yield limited


@pytest.fixture
def make(limited, make_queue):
    """Makes queues of one call each on the limited Redis."""
    return lambda **options: make_queue(
        redis.Redis(port=limited.port), embedder=FakeEmbedder(DIMENSIONS), api_batch_limit=100, **options
    )


def refuse_after_call(queue, limited):
    """From when its call is back, Redis takes nothing."""
    embed = queue._embedder.embed_batch

    def embed_last(texts, model):
        vectors = embed(texts, model)
        limited.limit = 0
        return vectors

    queue._embedder.embed_batch = embed_last


def test_vectors_that_are_too_many_for_one_command(make, limited, redis_client):
    """They are written in smaller parts, and paid for once."""
    queue = make()
    futures = queue.enqueue_many((f"doc:{place}", f"text {place}") for place in range(100))
    assert all(len(future.result(PATIENCE_SECONDS)) == DIMENSIONS for future in futures)
    assert limited.refused, "the parts were small enough already"
    assert (queue.stats().texts_sent, queue.stats().dead, in_flight(redis_client)) == (100, 0, 0)


def test_a_vector_that_is_too_large_alone(make, limited):
    """It becomes a dead letter with the reason; others of its call are written."""
    queue = make(worker=False)
    large = queue.enqueue("doc:large", "x" * 95_000)  # this fits, and with the vector it does not
    small = queue.enqueue_many((f"doc:{place}", "text") for place in range(10))
    make()
    with pytest.raises(ItemRejected, match="max request size"):
        large.result(PATIENCE_SECONDS)
    assert all(len(future.result(PATIENCE_SECONDS)) == DIMENSIONS for future in small)
    assert [letter.redis_key for letter in queue.dead_letters()] == ["doc:large"]


def test_a_redis_that_refuses_everything_for_a_while(make, limited, redis_client):
    """No item is at fault: all wait, and are written in the end, without being paid for again."""
    queue = make()
    queue.enqueue("doc:0", "text").result(PATIENCE_SECONDS)
    refuse_after_call(queue, limited)
    futures = queue.enqueue_many((f"doc:{place}", "another") for place in (1, 2))
    queue.flush_now()
    eventually(lambda: len(limited.refused) > 5, "it is tried again")
    limited.limit = 100_000
    assert all(len(future.result(PATIENCE_SECONDS)) == DIMENSIONS for future in futures)
    assert (queue.stats().dead, queue.stats().texts_sent) == (0, 2)


def test_a_redis_that_refuses_a_write_and_then_takes_others(make, limited):
    """That may have been its own fault, and have passed since: the write is tried once more before it is a fault."""
    queue = make()
    queue.enqueue("doc:0", "text").result(PATIENCE_SECONDS)
    alone = []

    def pass_by(size):
        if size > 4 * DIMENSIONS:
            alone.append(size)
            limited.limit = 0 if len(alone) < 2 else 100_000  # the two together; one of them

    limited.told = pass_by
    refuse_after_call(queue, limited)
    futures = queue.enqueue_many((f"doc:{place}", "another") for place in (1, 2))
    queue.flush_now()
    assert all(len(future.result(PATIENCE_SECONDS)) == DIMENSIONS for future in futures)
    assert len(alone) == 2


def test_many_pairs_that_are_too_many_for_one_command(make, redis_client):
    queue = make(worker=False)
    assert len(queue.enqueue_many((f"doc:{place}", "x" * 1000) for place in range(1000))) == 1000
    assert redis_client.zcard("embed_queue:pending") == 1000


def test_nobody_is_refused_for_who_came_along(make, redis_client):
    """Callers share round trips; one whose text Redis refuses is the only one to hear of it."""
    queue, gate, refused, taken = make(worker=False), threading.Barrier(8), [], []

    def call(caller):
        gate.wait(PATIENCE_SECONDS)
        for place in range(20):
            try:
                queue.enqueue(f"doc:{caller}:{place}", "x" * (200_000 if caller == 0 else 100))
                taken.append(caller)
            except redis.ResponseError:
                refused.append(caller)

    threads = [threading.Thread(target=call, args=(caller,)) for caller in range(8)]
    for thread in threads:
        thread.start()
    join(*threads)
    assert (set(refused), len(refused), len(taken)) == ({0}, 20, 140)
    assert redis_client.zcard("embed_queue:pending") == 140
