"""The server's clock is set back by an hour: nobody waits an hour for what was to last seconds.

What Redis then holds is what it would hold with the right clock and times of an hour later: so it is made here.
The torture rig steps a real server's clock.
"""

from __future__ import annotations

import contextlib
import time

import pytest

from embedqueue.store.store import Store
from tests.parts import PATIENCE_SECONDS, eventually, expected, stored

HOUR_SECONDS = 3600.0


def _claim(client, *, lease_seconds, owner="dead:1"):
    """A worker's claim, before that worker dies."""
    how = {"probe_limit": 10, "lease_seconds": lease_seconds, "max_deliveries": 5, "alone": True}
    with contextlib.closing(Store(client, "embed_queue")) as store:
        return store.claim(f"{owner}/{lease_seconds:.3f}:", 10, **how)


def _set_back(client):
    for member, end in client.zrange("embed_queue:inflight", 0, -1, withscores=True):
        client.zadd("embed_queue:inflight", {member: end + HOUR_SECONDS}, xx=True)
    for key in (*client.keys("embed_queue:pause*"), *client.keys("embed_queue:cache:*")):
        client.pexpire(key, client.pttl(key) + int(HOUR_SECONDS * 1000))


def _enqueue_for_others(make_queue, client):
    queue = make_queue(client, worker=False, flush_on_wait=False)
    return queue.enqueue("doc:1", "text")


def test_items_of_a_dead_worker_wait_for_its_lease_and_no_longer(redis_client, make_queue):
    """An idle worker finds them by itself, too: nobody enqueues or asks for anything."""
    _enqueue_for_others(make_queue, redis_client)
    assert len(_claim(redis_client, lease_seconds=0.2).members) == 1
    _set_back(redis_client)
    make_queue(redis_client, lease_seconds=0.2)
    eventually(lambda: redis_client.hget("doc:1", "embedding") == stored("text"), "the vector")


def test_the_lease_of_a_live_worker_with_a_longer_one_is_left_alone(redis_client, make_queue):
    """A claim of somebody whose leases are shorter does not take for too late what is in order."""
    _enqueue_for_others(make_queue, redis_client)
    _claim(redis_client, lease_seconds=100.0)
    [(_, before)] = redis_client.zrange("embed_queue:inflight", 0, -1, withscores=True)
    assert _claim(redis_client, lease_seconds=0.2, owner="other:1").members == []
    assert redis_client.zrange("embed_queue:inflight", 0, -1, withscores=True)[0][1] == before


def test_leases_that_were_put_right_hold_as_long_as_they_were_taken_for(redis_client, make_queue):
    queue = make_queue(redis_client, worker=False, flush_on_wait=False)
    queue.enqueue_many([(f"doc:{place}", "text") for place in range(4)])
    _claim(redis_client, lease_seconds=100.0)
    _set_back(redis_client)
    _claim(redis_client, lease_seconds=0.2, owner="other:1")
    ends = [end for _, end in redis_client.zrange("embed_queue:inflight", 0, -1, withscores=True)]
    assert len(ends) == 4
    assert all(90 < end - time.time() <= 100 for end in ends)


def test_a_probe_whose_worker_died_stands_in_the_way_for_its_lease_only(redis_client, make_queue, embedder):
    future = _enqueue_for_others(make_queue, redis_client)
    redis_client.set("embed_queue:pause:level", 1)
    assert _claim(redis_client, lease_seconds=0.2).status == "probe"
    _set_back(redis_client)
    make_queue(redis_client, lease_seconds=0.2)
    assert future.result(PATIENCE_SECONDS) == expected("text")


@pytest.mark.parametrize(("by_people", "most_seconds"), [(False, 20), (True, HOUR_SECONDS + 20)])
def test_a_pause_lasts_no_longer_than_it_was_made_to_last_unless_people_set_it(
    redis_client, make_queue, make_store, by_people, most_seconds
):
    store = make_store(redis_client)
    if by_people:
        store.hold(20, "the provider failed over")
    else:
        _enqueue_for_others(make_queue, redis_client)
        [member] = _claim(redis_client, lease_seconds=10.0).members
        times = {"first_seconds": 20, "most_seconds": 300, "least_seconds": 0}
        owner = "dead:1/10.000:"
        assert store.fail(owner, [(owner, member)], **times, reason="the provider failed: 503") == 20
    _set_back(redis_client)
    claim = _claim(redis_client, lease_seconds=10.0, owner="other:1")
    assert claim.status == "paused"
    assert most_seconds - 5 < claim.pause_seconds <= most_seconds


def test_what_a_dead_worker_was_to_put_into_the_cache_is_embedded_by_another(redis_client, make_store):
    store = make_store(redis_client)
    assert store.cache.take(["digest"], "dead:1/10.000:", 10.0) == [b""]
    assert store.cache.take(["digest"], "other:1/10.000:", 10.0) == [b"busy"]
    _set_back(redis_client)
    assert store.cache.take(["digest"], "other:1/10.000:", 10.0) == [b""]
    assert store.cache.take(["digest"], "third:1/10.000:", 10.0) == [b"busy"]


@pytest.mark.parametrize("held", [False, True], ids=["waiting", "in flight"])
def test_a_flush_waits_for_items_from_before_the_step_as_well(redis_client, make_queue, embedder, held):
    queue = make_queue(redis_client, flush_on_wait=False)
    embedder.hold()
    queue.enqueue("doc:1", "text")
    if held:
        queue.flush_now()
        embedder.wait_for_calls(1)
        score, rest = redis_client.hget("embed_queue:claims", "doc:1").decode().split(" ", 1)
        redis_client.hset("embed_queue:claims", "doc:1", f"{float(score) + HOUR_SECONDS:.6f} {rest}")
    else:
        redis_client.zincrby("embed_queue:pending", HOUR_SECONDS, *redis_client.zrange("embed_queue:pending", 0, 0))
    with pytest.raises(TimeoutError):
        queue.flush(0.2)
    embedder.release()
    queue.flush(PATIENCE_SECONDS)
    assert redis_client.hget("doc:1", "embedding") == stored("text")
