"""The way from clients to one node is cut, while the nodes reach each other: nobody takes over, and nothing is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from embedqueue.store.cluster.patience import Waiting
from tests.cluster.conftest import running
from tests.gates import HOWS, Gate
from tests.localcluster import LocalCluster
from tests.parts import PATIENCE_SECONDS, eventually, expected, in_thread, join, stored

HOME = "{embed_queue}"
#: Of the queues here; a node that is cut off is given up for this time after a third of it.
REDIS_PATIENCE_SECONDS = 15.0


@pytest.fixture(scope="module")
def gated() -> Iterator[LocalCluster]:
    """Three masters, each behind a gate."""
    with running(gated=True) as made:
        yield made


@pytest.fixture
def cluster(gated):
    gated.flush()
    yield gated
    for gate in gated.gates.values():
        gate.open()


@pytest.fixture
def waits(monkeypatch) -> threading.Event:
    """Set when somebody waits for the cluster."""
    waits, again = threading.Event(), Waiting.again

    def told(waiting):
        waits.set()
        return again(waiting)

    monkeypatch.setattr(Waiting, "again", told)
    return waits


def meets(gate: Gate, waits: threading.Event) -> None:
    eventually(lambda: gate.held.is_set() or waits.is_set(), "the gate is met")


@pytest.mark.parametrize("how", HOWS)
def test_an_enqueue_that_meets_a_node_that_is_cut_off_goes_on(cluster, make_queue, waits, how):
    with cluster.client() as client:
        queue = make_queue(client, redis_patience=REDIS_PATIENCE_SECONDS)
        queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS)
        gate = cluster.gates[cluster.master_of(HOME).port]
        futures = []
        waits.clear()
        gate.shut(how)
        enqueuing = in_thread(lambda: futures.append(queue.enqueue("doc:2", "two")))
        meets(gate, waits)
        assert not futures
        gate.open()
        join(enqueuing)
        assert futures[0].result(PATIENCE_SECONDS) == expected("two")
        assert client.hget("doc:2", "embedding") == stored("two")
        assert client.zcard(f"{HOME}:pending") == 0


@pytest.mark.parametrize("how", HOWS)
def test_a_vector_that_meets_a_node_that_is_cut_off_goes_on(cluster, make_queue, embedder, waits, how):
    """And holds up no vector of another node for longer than a write may take, in the same call or in a later one."""
    with cluster.client() as client:
        queue = make_queue(client, redis_patience=REDIS_PATIENCE_SECONDS, flush_interval=0.05)
        queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS)
        home = cluster.master_of(HOME)
        away = next(node for node in cluster.nodes if node is not home)
        gate = cluster.gates[away.port]
        keys = [f"doc:{number}" for number in range(30)]
        lost = [key for key in keys if cluster.master_of(key) is away]
        embedder.hold()
        futures = dict(zip(keys, queue.enqueue_many([(key, key) for key in keys]), strict=True))
        embedder.wait_for_calls(2)
        waits.clear()
        gate.shut(how)
        began_mono = time.monotonic()
        embedder.release()
        meets(gate, waits)
        later = queue.enqueue(next(key for key in map(str, range(99)) if cluster.master_of(key) is home), "later")
        assert later.result(PATIENCE_SECONDS) == expected("later")
        for key in keys:
            if key not in lost:
                futures[key].result(PATIENCE_SECONDS)
        took_seconds = time.monotonic() - began_mono
        assert took_seconds < REDIS_PATIENCE_SECONDS
        assert not any(futures[key].done() for key in lost)
        gate.open()
        for key in lost:
            assert futures[key].result(PATIENCE_SECONDS) == expected(key)
            assert client.hget(key, "embedding") == stored(key)


def test_no_text_waits_for_a_cache_that_is_cut_off(cluster, make_queue):
    with cluster.client() as client:
        queue = make_queue(client, redis_patience=REDIS_PATIENCE_SECONDS, cache_ttl=60.0)
        queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS)
        home = cluster.master_of(HOME)
        away = next(node for node in cluster.nodes if node is not home)
        texts = [key for key in (f"doc:{number}" for number in range(99)) if cluster.master_of(key) is home][:24]
        cluster.gates[away.port].shut("drop")
        for text, future in zip(texts, queue.enqueue_many([(text, text) for text in texts]), strict=True):
            assert future.result(PATIENCE_SECONDS) == expected(text)
        assert cluster.gates[away.port].held.is_set()
