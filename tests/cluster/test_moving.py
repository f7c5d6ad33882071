"""Slots that move under a queue: key by key, as redis-cli does it, and atomically, as Valkey 9 can."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest
import redis
from redis.crc import key_slot

from tests.cluster.load import Load, Workers
from tests.inside import inside
from tests.localcluster import LocalCluster
from tests.parts import PATIENCE_SECONDS, eventually, expected, in_thread, join, stored

HOME = "{embed_queue}"
SLOT = key_slot(HOME.encode())


def another(cluster: LocalCluster, key: str = HOME) -> object:
    home = cluster.master_of(key)
    return next(node for node in cluster.nodes if node is not home)


@contextlib.contextmanager
def loaded(cluster: LocalCluster, **options) -> Iterator[tuple[Load, Workers]]:
    patience = {"redis_patience": PATIENCE_SECONDS}  # a move takes as long as the machine lets it
    load, workers = Load(cluster, **patience, **options), Workers(cluster, **patience)
    try:
        load.queue.start()
        with load.running():
            yield load, workers
        load.settled()
    finally:
        workers.close()
        load.close()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("server", ["nodes", "valkey_nodes"])
def test_the_queues_slot_moves_key_by_key_back_and_forth_under_load_with_kills(server, request):
    """A script that ran in the middle of that would be aborted half-way, its writes kept: an item would be lost."""
    cluster: LocalCluster = request.getfixturevalue(server)
    cluster.flush()
    with loaded(cluster) as (load, workers):
        eventually(lambda: load.count > 50, "load")
        for number in range(8):
            home, other = cluster.master_of(HOME), another(cluster)
            before = load.count
            cluster.begin_move(SLOT, home, other)
            while cluster.move_keys(SLOT, home, other, most=1):
                time.sleep(0.01)  # others get their turn, in every state of the move
            cluster.end_move(SLOT, home, other)
            if number % 2:
                workers.kill_one()
            eventually(lambda before=before: load.count > before + 20, "it goes on")
    assert not load.errors
    assert workers.killed == 4


@pytest.mark.timeout(240)
def test_slots_of_hashes_move_under_load(cluster):
    with loaded(cluster) as (load, workers):
        eventually(lambda: load.count > 50, "load")
        for number in range(12):
            cluster.move(f"doc:{number}", another(cluster, f"doc:{number}"))
        workers.kill_one()
    assert not load.errors


@pytest.mark.timeout(240)
def test_slots_move_atomically_under_load(valkey_nodes):
    valkey_nodes.flush()
    with loaded(valkey_nodes) as (load, workers):
        eventually(lambda: load.count > 50, "load")
        for number in range(6):
            valkey_nodes.move_atomically(HOME, another(valkey_nodes))
            valkey_nodes.move_atomically(f"doc:{number}", another(valkey_nodes, f"doc:{number}"))
            if number == 3:
                workers.kill_one()
    assert not load.errors


def test_an_enqueue_waits_for_a_slot_that_moves(make_queue, cluster, client):
    """And a future, and stats: for as long as there is patience."""
    queue = make_queue(client, redis_patience=PATIENCE_SECONDS)
    queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS)
    home, other = cluster.master_of(HOME), another(cluster)
    cluster.begin_move(SLOT, home, other)
    cluster.move_keys(SLOT, home, other, most=2)
    futures = []
    waiting = in_thread(lambda: futures.append(queue.enqueue("doc:2", "two")))
    waiting.join(0.3)
    assert waiting.is_alive()
    cluster.move_keys(SLOT, home, other)
    cluster.end_move(SLOT, home, other)
    join(waiting)
    assert futures[0].result(PATIENCE_SECONDS) == expected("two")
    assert queue.stats().waiting == 0


def test_patience_ends_with_redis_pys_own_error_and_nothing_is_lost(make_queue, cluster, client):
    queue, patient = make_queue(client, redis_patience=3.0), make_queue(client)
    patient.enqueue("doc:1", "one").result(PATIENCE_SECONDS)
    home, other = cluster.master_of(HOME), another(cluster)
    cluster.begin_move(SLOT, home, other)
    cluster.move_keys(SLOT, home, other, most=2)
    with pytest.raises((redis.exceptions.TryAgainError, redis.exceptions.AskError)):
        queue.enqueue("doc:2", "two")
    cluster.move_keys(SLOT, home, other)
    cluster.end_move(SLOT, home, other)
    assert patient.enqueue("doc:3", "three").result(PATIENCE_SECONDS) == expected("three")
    assert not client.exists("doc:2")


def test_a_vector_follows_the_slot_of_its_hash(make_queue, cluster, client):
    """While it moves, a hash is at either node, and one that is not there yet is at the target."""
    queue = make_queue(client)
    queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS)
    slot, home, other = key_slot(b"doc:1"), cluster.master_of("doc:1"), another(cluster, "doc:1")
    cluster.begin_move(slot, home, other)
    assert queue.enqueue("doc:1", "two").result(PATIENCE_SECONDS) == expected("two")
    cluster.move_keys(slot, home, other)
    assert queue.enqueue("doc:1", "three").result(PATIENCE_SECONDS) == expected("three")
    cluster.end_move(slot, home, other)
    assert client.hget("doc:1", "embedding") == stored("three")
    assert queue.enqueue("doc:1", "four").result(PATIENCE_SECONDS) == expected("four")


def test_a_listener_hears_what_comes_after_a_move(make_queue, cluster, client):
    producer = make_queue(client, worker=False)
    future = producer.enqueue("doc:1", "one")
    heard = in_thread(lambda: future.result(PATIENCE_SECONDS))
    cluster.move(HOME, another(cluster))
    make_queue(client)
    join(heard)
    assert future.result(0) == expected("one")
    assert inside(producer).store.status().waiting == 0


def test_no_script_runs_while_the_queues_slot_moves_key_by_key(make_queue, cluster, client):
    """It could where all its keys are there, and would be aborted once it has emptied one: what it did would stay."""
    queue = make_queue(client, worker=False, redis_patience=3.0)
    make_queue(client, worker=False).enqueue("doc:1", "one")
    (member,) = client.zrange(f"{HOME}:pending", 0, -1)
    for name in ("inflight", "alone", "dead"):
        client.zadd(f"{HOME}:{name}", {"another's": 1.0})
    for name in ("claims", "dead:info", "flushes", "air"):
        client.hset(f"{HOME}:{name}", "another's", "1 1 1")
    client.xadd(f"{HOME}:events", {"kind": "wake", "by": "", "body": ""})
    home, other = cluster.master_of(HOME), another(cluster)
    cluster.begin_move(SLOT, home, other)
    try:
        with pytest.raises(redis.exceptions.TryAgainError):
            queue.enqueue("doc:1", "two")
        assert home.client().zrange(f"{HOME}:pending", 0, -1) == [member]
    finally:
        cluster.move_keys(SLOT, home, other)
        cluster.end_move(SLOT, home, other)
    assert client.zrange(f"{HOME}:pending", 0, -1) == [member]


def test_a_node_that_is_gone_is_waited_for_once(make_queue, cluster, client, monkeypatch):
    """Although the connection had stood: for as long as anybody has patience, and not for twice as long."""
    queue = make_queue(client, worker=False)
    queue.enqueue("doc:1", "one")
    inside(queue).store._nodes.patience_seconds = 0.3
    tries, scripts = [], inside(queue).store._scripts
    in_time = scripts._in_time
    monkeypatch.setattr(scripts, "_in_time", lambda *args: tries.append(args[5]) or in_time(*args))

    def away(*args, **kwargs):
        raise redis.ConnectionError("away")

    monkeypatch.setattr(scripts, "_run", away)
    with pytest.raises(redis.ConnectionError):
        queue.enqueue("doc:2", "two")
    assert len(tries) == 1
