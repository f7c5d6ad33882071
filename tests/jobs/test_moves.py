"""Moves of items into jobs and out of them; what a flush counts that leaves jobs alone."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from embedqueue.store.jobs import Job
from embedqueue.store.records import Asked, Claim, Within
from embedqueue.store.store import Store
from embedqueue.values.item import encode_member
from embedqueue.values.provenance import digest
from tests.proof.moves import BASE, JOBS_FOR, member_vector, terms

PATIENT = 5000.0
TERMS = terms("embedding", model="m")


@pytest.fixture
def store(client, make_store):
    return make_store(client, jobs_for=JOBS_FOR)


def enqueue(store: Store, keys: str, within: float | None = None) -> None:
    parts = [part for key in keys for part in (key.encode(), encode_member(key, "a text"))]
    patience = None if within is None else Within([within] * len(keys), BASE)
    store.enqueue([parts], max_pending=None, tell_at=50, tell_first=True, within=patience)


def outsource(store: Store) -> None:
    assert store.jobs.lead("boss", 60).ours
    job = Job("j1", state="planned")
    store.jobs.outsource("boss", job, TERMS, least=1, most=10, most_bytes=10_000, max_deliveries=3)


def answer(store: Store, number: int, *urgent: str, most: int = 1, deliveries: int = 3) -> Claim:
    how = {"probe_limit": 1, "lease_seconds": 60, "max_deliveries": deliveries, "alone": True, "terms": TERMS}
    return store.claim(f"w:{number}/60:", most, urgent=urgent, **how)


def claim(store: Store, number: int, *urgent: str, most: int = 1, deliveries: int = 3) -> list[bytes]:
    return answer(store, number, *urgent, most=most, deliveries=deliveries).members


def complete(store: Store, number: int, members: list[bytes], key: str) -> None:
    [member] = members
    line = (key, member, member_vector(member), digest("a text"))
    assert store.complete(f"w:{number}/60:", replace(TERMS, dimensions=None), [line]) == ["done"]


def bounded(store: Store, more_seconds: float = 0.0) -> str:
    """The name of a flush that leaves jobs alone; as if it had begun later by so many seconds."""
    bound = store.status().bound
    assert bound is not None
    return f"w:1/{bound + more_seconds:.6f}"


def test_an_item_enqueued_again_with_less_patience_is_waited_for(store):
    """It stood above what the flush has counted; were it only taken off, the flush would end before the other item."""
    enqueue(store, "ab", within=PATIENT)
    enqueue(store, "c")
    flush = bounded(store)
    assert store.status(flush).unfinished == 1
    enqueue(store, "a")
    assert store.status(flush).unfinished == 2
    complete(store, 1, claim(store, 1, "a"), "a")
    assert store.status(flush).unfinished == 1, "c is not finished"
    complete(store, 2, claim(store, 2, "c"), "c")
    assert store.status(flush).unfinished == 0, "what waits for a job does not count"


def test_an_item_that_somebody_waits_for_leaves_its_job_and_is_waited_for(store):
    """Also where the time has come so near that the flush would have counted it, had it not been in a job."""
    enqueue(store, "ab", within=PATIENT)
    outsource(store)
    enqueue(store, "c")
    flush = bounded(store, 10 * PATIENT)
    assert store.status(flush).unfinished == 1
    members = claim(store, 1, "a")
    assert store.status(flush).unfinished == 2
    complete(store, 1, members, "a")
    assert store.status(flush).unfinished == 1, "c is not finished"
    assert store.jobs.give_back("j1", ["a", "b"]) == 1
    assert store.status(flush).unfinished == 2, "b has come into the live lane"


def test_an_item_in_a_job_that_shall_be_sooner_leaves_it_when_its_time_comes(store):
    """Whoever looks after the job finds it by that time, and what is due later stays."""
    enqueue(store, "ab", within=PATIENT)
    outsource(store)
    enqueue(store, "a", within=BASE)
    assert store.jobs.pull(2 * BASE) == 1
    assert claim(store, 1) == [encode_member("a", "a text")]


def test_an_item_that_came_after_the_flush_is_not_waited_for(store):
    """Nor is it where it shall be sooner by now than what the flush leaves alone."""
    enqueue(store, "c")
    flush = bounded(store)
    assert store.status(flush).unfinished == 1
    enqueue(store, "a", within=PATIENT)
    enqueue(store, "a")
    assert store.status(flush).unfinished == 1


def test_an_item_that_left_its_job_and_was_released_stays_in_the_live_lane(store):
    """Somebody waits for it, so it goes into no other job; nor does it overtake what had less patience."""
    enqueue(store, "ab", within=PATIENT)
    outsource(store)
    assert store.look([Asked("a", 0, "")], TERMS) == [("live", b"in a job")]
    found = answer(store, 1, "a")
    assert found.promoted == 1
    assert store.release([(found.owner, found.members[0])]) == 1
    enqueue(store, "c")
    assert (store.status().waiting, store.status().meant) == (2, 0)
    assert [claim(store, number) for number in (2, 3)] == [[encode_member(key, "a text")] for key in "ca"]


def test_a_claim_leaves_what_waits_for_a_job(store):
    """However much it has room for; nor does it make anything due."""
    enqueue(store, "ab", within=PATIENT)
    assert store.status().score_age_seconds is None
    enqueue(store, "cd")
    assert claim(store, 1, most=10) == [encode_member(key, "a text") for key in "cd"]


def test_where_nothing_goes_into_jobs_for_a_while_all_is_in_the_live_lane(store):
    """However patient it is; from then on it may wait for a job again."""
    enqueue(store, "ab", within=PATIENT)
    store.jobs.switch_off(time.time() + 1000)
    assert (store.status().waiting, store.status().meant) == (2, 0)
    store.jobs.switch_off(time.time() - 1000)
    assert (store.status().waiting, store.status().meant) == (0, 2)


def test_an_item_of_a_job_that_came_after_the_flush_is_not_waited_for(store):
    """Nor is it where it leaves its job."""
    enqueue(store, "c")
    flush = bounded(store, 10 * PATIENT)
    assert store.status(flush).unfinished == 1
    enqueue(store, "ab", within=PATIENT)
    outsource(store)
    assert claim(store, 1, "a") == [encode_member("a", "a text")]
    assert store.jobs.give_back("j1", ["b"]) == 1
    assert store.status(flush).unfinished == 1


def test_an_item_on_its_last_delivery_leaves_its_job_whole(store):
    """Whoever put it into a job had larger ``max_deliveries``. It stands in one place, and travels alone."""
    enqueue(store, "ab", within=PATIENT)
    enqueue(store, "x")
    claim(store, 1, "a")
    store.client.zadd(store.keys.inflight, {encode_member("a", "a text"): 1})
    complete(store, 2, claim(store, 2, "x"), "x")
    outsource(store)
    assert store.status().outsourced == 2
    found = answer(store, 3, "a", deliveries=2)
    assert (found.members, found.promoted) == ([], 1)
    assert store.status().strays == 0
    assert claim(store, 4, "a", deliveries=2) == [encode_member("a", "a text")]
    assert (store.status().outsourced, store.status().in_flight) == (1, 1)


def test_no_more_is_read_than_goes_into_the_job(redis_client, make_store):
    """Texts may be long: to read 500 of 100 kB would take Redis half a second, of which a job takes the first ten."""
    store = make_store(redis_client, jobs_for=JOBS_FOR)
    keys = [f"k{number:02}" for number in range(40)]
    parts = [part for key in keys for part in (key.encode(), encode_member(key, "x" * 10_000))]
    patience = Within([PATIENT] * len(keys), BASE)
    store.enqueue([parts], max_pending=None, tell_at=50, tell_first=True, within=patience)
    assert store.jobs.lead("boss", 60).ours
    how = {"least": 1, "most": 40, "most_bytes": 45_000, "max_deliveries": 3}
    found = store.jobs.outsource("boss", Job("j1", state="planned"), TERMS, **how)
    assert found.members == parts[1:8:2]
    redis_client.config_resetstat()
    found = store.jobs.outsource("boss", Job("j1", state="planned"), TERMS, **how)
    assert found.members == parts[9:16:2]
    assert redis_client.info("commandstats")["cmdstat_zrangebyscore"]["calls"] > 1, "all was read at once"


def test_no_more_leaves_at_once_than_redis_can_bear(redis_client, make_store, monkeypatch):
    """What is pulled out of jobs, and what waits for one: texts may be long."""
    monkeypatch.setattr("embedqueue.store.jobs.MOVE_BYTES", 45_000)
    store = make_store(redis_client, jobs_for=JOBS_FOR)
    keys = [f"k{number:02}" for number in range(20)]
    parts = [part for key in keys for part in (key.encode(), encode_member(key, "x" * 10_000))]
    store.enqueue([parts], max_pending=None, tell_at=50, tell_first=True, within=Within([PATIENT] * len(keys), BASE))
    outsource(store)
    assert (store.status().outsourced, store.status().meant) == (1, 19), "its room was 10 kB"
    how = {"least": 1, "most": 9, "most_bytes": 100_000, "max_deliveries": 3}
    while store.status().outsourced < 9:
        store.jobs.outsource("boss", Job("j1", state="planned"), TERMS, **how)
    real, moved = store.jobs._call, []

    def call(*args):
        moved.append(real(*args))
        return moved[-1]

    monkeypatch.setattr(store.jobs, "_call", call)
    assert store.jobs.pull() == 20
    assert max(moved) <= 5
    assert (store.status().outsourced, store.status().meant) == (0, 0)


def test_by_a_clock_that_was_set_back_nobody_seems_patient(store):
    """Ten hours: what was to be embedded soon does not wait for a job; what may wait for a day still does."""
    enqueue(store, "ab")
    seconds, client = 36_000.0, store.client
    for member, score in client.zrange(store.keys.pending, 0, -1, withscores=True):
        client.zadd(store.keys.pending, {member: score + seconds})
    for key, entry in client.hgetall(store.keys.latest).items():
        stamp, _, member = entry.partition(b" ")
        client.hset(store.keys.latest, key, f"{int(stamp) + int(seconds * 1e6)} ".encode() + member)
    client.hincrby(store.keys.settings, "stamp", int(seconds * 1e6))
    assert (store.status().waiting, store.status().meant) == (2, 0)
    enqueue(store, "c", within=86_400.0)
    assert (store.status().waiting, store.status().meant) == (2, 1)
    outsource(store)
    assert store.status().outsourced == 1
    assert len(claim(store, 1, most=5)) == 2


def test_jobs_that_have_not_ended_are_known_when_their_queue_is_cleared(store, client):
    """Somebody may still have to cancel them at the provider."""
    enqueue(store, "a", within=PATIENT)
    outsource(store)
    store.clear()
    assert [job.name for job in store.jobs.look().jobs] == ["j1"]
