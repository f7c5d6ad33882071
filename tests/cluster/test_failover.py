"""Masters that are killed, replaced and away, with a replica each."""

from __future__ import annotations

import os
import signal
import time

import pytest
import redis

from embedqueue import NotReplicated
from tests.cluster.conftest import running
from tests.cluster.load import Load, Workers
from tests.inside import inside
from tests.parts import PATIENCE_SECONDS, eventually, expected, in_thread, join, stand_still, stored

HOME = "{embed_queue}"


@pytest.mark.timeout(240)
def test_masters_are_killed_under_load_and_nothing_is_lost(replicated):
    """The queue's, and those of hashes: with min_replicas neither an item nor a vector goes with them."""
    load = Load(replicated, min_replicas=1, replica_patience=1.0, redis_patience=20.0)
    workers = Workers(replicated, min_replicas=1, replica_patience=1.0, redis_patience=20.0)
    try:
        load.queue.start()
        with load.running():
            eventually(lambda: load.count > 50, "load")
            for key in (HOME, "doc:1"):
                master = replicated.master_of(key)
                master.kill()
                workers.kill_one()
                eventually(lambda: replicated.master_of(key) is not master, "another is the master", 60.0)  # noqa: B023
                before = load.count
                master.start()  # without a replica nothing is taken in: it becomes one
                eventually(lambda before=before: load.count > before + 50, "it goes on", 60.0)
                replicated.await_well()
        load.settled()
    finally:
        workers.close()
        load.close()


def test_replicas_take_over_in_good_order(replicated):
    # A master takes no writes until its replica has all: on a busy machine, that may be long.
    load = Load(replicated, min_replicas=1, redis_patience=PATIENCE_SECONDS)
    try:
        load.queue.start()
        with load.running():
            eventually(lambda: load.count > 50, "load")
            for key in (HOME, "doc:1", HOME):
                (replica,) = replicated.replicas_of(replicated.master_of(key))
                replicated.fail_over(replica)
                before = load.count
                eventually(lambda before=before: load.count > before + 50, "it goes on")
                replicated.await_well()
        load.settled()
        assert not [error for error in load.errors if not isinstance(error, NotReplicated)]
    finally:
        load.close()


def test_a_master_that_hangs_is_passed_over(replicated, make_queue):
    """It comes back as a replica, and what it is asked then is done by the new master."""
    with replicated.client() as client:
        queue = make_queue(client, redis_patience=24.0, lease_seconds=5.0)
        queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS)
        master = replicated.master_of(HOME)
        stand_still(master.pid)
        try:
            futures = []
            counts = []
            counting = in_thread(lambda: counts.append(queue.pending_count()))
            waiting = in_thread(lambda: futures.append(queue.enqueue("doc:2", "two")))
            join(counting, waiting)  # by the replica that took over; what lies in the old one's socket is of the past
            assert replicated.master_of(HOME) is not master
            assert futures[0].result(PATIENCE_SECONDS) == expected("two")
            assert len(counts) == 1
        finally:
            os.kill(master.pid, signal.SIGCONT)
        assert client.hget("doc:2", "embedding") == stored("two")


def test_a_vector_waits_for_its_replicas_and_is_acknowledged_all_the_same(replicated, make_queue, caplog):
    """Counted, and warned of once."""
    with replicated.client() as client:
        home = replicated.master_of(HOME)
        key = next(f"doc:{number}" for number in range(99) if replicated.master_of(f"doc:{number}") is not home)
        (replica,) = replicated.replicas_of(replicated.master_of(key))
        replica.kill()
        queue = make_queue(client, min_replicas=1, replica_patience=3.0)
        began_mono = time.monotonic()
        assert queue.enqueue(key, "one").result(PATIENCE_SECONDS) == expected("one")
        assert time.monotonic() - began_mono >= 3.0
        assert queue.enqueue(key, "two").result(PATIENCE_SECONDS) == expected("two")
        assert queue.stats().vectors_not_replicated == 2
        assert ["replicas have a vector" in record.message for record in caplog.records].count(True) == 1
        replica.start()


def test_a_shard_that_is_down_is_waited_for_and_then_told(make_queue):
    """Its error is redis-py's own; stop() does not hang, and nothing that was taken in is lost."""
    with running() as own, own.client() as client:
        queue, patient = make_queue(client, redis_patience=0.5), make_queue(client)
        patient.enqueue("doc:1", "one").result(PATIENCE_SECONDS)
        home = own.master_of(HOME)
        stand_still(home.pid)
        try:
            began_mono = time.monotonic()
            with pytest.raises(redis.RedisError):
                queue.enqueue("doc:2", "two")
            assert time.monotonic() - began_mono < PATIENCE_SECONDS / 2
        finally:
            os.kill(home.pid, signal.SIGCONT)
        eventually(own.is_well, "the cluster is well")
        assert patient.enqueue("doc:3", "three").result(PATIENCE_SECONDS) == expected("three")
        assert inside(queue).store.status().in_flight == 0
        queue.stop()
        patient.stop()


def test_a_search_goes_to_another_node_when_one_is_down(make_queue):
    """What any node answers stands here for a search by a module that knows the others."""
    with running(args=("--cluster-require-full-coverage", "no")) as own, own.client() as client:
        searching = inside(make_queue(client, worker=False)).store.searching
        assert searching.execute_command("ECHO", "index") == b"index"
        [(_, port)] = searching._clients
        own.at_port(port).kill()
        assert [searching.execute_command("ECHO", "index") for _ in range(3)] == [b"index"] * 3
        for node in own.nodes:
            node.kill()
        searching._nodes.patience_seconds = 0.1
        with pytest.raises(redis.RedisError):
            searching.execute_command("ECHO", "index")


def test_a_shard_that_is_down_holds_up_no_vector_of_another(make_queue):
    """Not even one of the same call; and what it lacks is written when it is back."""
    with running(args=("--cluster-require-full-coverage", "no")) as own, own.client() as client:
        queue = make_queue(client, lease_seconds=5.0)
        queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS)
        keys = [f"doc:{number}" for number in range(30)]
        home = own.master_of(HOME)
        away = next(node for node in own.nodes if node is not home)
        lost = {key for key in keys if own.master_of(key) is away}
        away.kill()
        futures = dict(zip(keys, queue.enqueue_many([(key, key) for key in keys]), strict=True))
        for key in sorted(set(keys) - lost):
            assert futures[key].result(PATIENCE_SECONDS) == expected(key)
        assert not any(futures[key].done() for key in lost)
        away.start()
        for key in lost:
            assert futures[key].result(PATIENCE_SECONDS) == expected(key)
            assert client.hget(key, "embedding") == stored(key)
        queue.stop()
