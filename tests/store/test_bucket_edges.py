"""What the buckets of the limits keep, and for how long; what exactly a claim costs; clocks that are set back."""

from __future__ import annotations

import pytest

from embedqueue import Limits
from embedqueue.store.limits import Said
from embedqueue.values.item import encode_member
from embedqueue.values.limits import Cost, Paid

from .world import CALL_TEXTS, Worker, full, wait_for

DAY_MS = 86_400_000
TRY = Cost(1, 1, 1)


# -- what is kept ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [Limits(requests_per_day=100), Limits(requests_per_minute=60), "auto"], ids=str)
def test_what_was_sent_is_known_for_as_long_as_it_counts(world, limits):
    """It goes two days after its last use, not after its first: a day's limit would begin anew in the middle."""
    worker = Worker(world, limits)
    for _ in range(2):
        if limits == "auto":
            worker.store.buckets.settle(said=Said(closed_seconds=1.0))
        else:
            worker.left()
        assert world.client.pttl("q:limits") > DAY_MS
        world.now += 1.1 * 86400
        world.client.pexpire("q:limits", 1000)


def test_what_counts_no_longer_is_forgotten(world):
    """The hash does not grow, however long a queue works."""
    worker = full(world, requests_per_minute=60)
    for _ in range(40):
        worker.store.buckets.settle(TRY)
        world.now += 5
    assert world.client.hlen("q:limits") < 20


# -- what a claim costs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chars", "count", "cost"),
    [
        (4, 10, Cost(1, 10, 20)),
        (3, 11, Cost(2, 11, 11)),
        (4 * 499, 2, Cost(1, 2, 1000)),
        (4 * 500, 2, Cost(2, 2, 1002)),
    ],
    ids=["a call", "one more", "a call of tokens", "one more token"],
)
def test_a_claim_costs_as_many_calls_texts_and_tokens_as_it_takes(world, chars, count, cost):
    """To the last of each, as calls are cut."""
    worker = Worker(world, Limits(requests_per_minute=6000))
    worker.left()
    world.now += 60
    worker.enqueue(count, "x" * chars)
    assert worker.claim().paid.cost == cost


def test_a_call_of_one_long_text_goes_when_it_fits(world):
    """It is a whole call, and does not wait for the next one."""
    worker = Worker(world, Limits(tokens_per_minute=6000))
    worker.left()
    world.now += 700 * 61 / 6000
    worker.enqueue(2, "x" * 4 * 600)
    assert len(worker.claim().members) == 1


def test_what_there_is_room_for_need_not_wait(world):
    worker = full(world, requests_per_minute=600, requests_per_day=100)
    assert worker.store.buckets.settle(TRY)[0] == 0
    assert [limit.seconds for limit in worker.store.status().limits] == [0, 0]


def test_who_waits_for_one_text_waits_for_one_and_bars_others_for_no_longer(world):
    """Not for a whole call, nor until the bucket is full; whoever waited may have died."""
    worker = Worker(world, Limits(texts_per_minute=60))
    keys = worker.enqueue(5)
    claim = worker.claim(urgent=keys[4:])
    assert (claim.members, claim.limited_urgent) == ([], True)
    assert claim.limited_seconds == pytest.approx(61 / 60, abs=0.01)
    world.now += 5.2  # there is room for all of them
    assert len(worker.claim().members) == 5


# -- an item on its last delivery ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "urgent", [pytest.param(True, id="somebody waits for it"), pytest.param(False, id="nobody does")]
)
@pytest.mark.parametrize("held_by", ["provider", "who waits"])
def test_an_item_on_its_last_delivery_goes_before_nobody(world, held_by, urgent):
    """It waits while the provider wants nothing, and, unless somebody waits for it, while somebody else does."""
    worker = Worker(world, "auto" if held_by == "provider" else Limits(requests_per_minute=60))
    [key] = worker.enqueue(1)
    member = encode_member(key, "text")
    world.client.zrem("q:pending", member)
    world.client.zadd("q:alone", {member: 1.0})
    if held_by == "provider":
        worker.store.buckets.settle(said=Said(closed_seconds=30.0))
    else:
        assert worker.claim(limit=1, urgent=worker.enqueue(1)).limited_urgent
        world.now += 1.1  # a call may go, and who waits for it has not come yet
    claim = worker.claim(urgent=[key] * urgent, alone=True)
    assert claim.members == ([member] if urgent and held_by == "who waits" else [])


# -- clocks that are set back ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("held_by", ["provider", "who waits"])
def test_nobody_waits_for_longer_than_was_meant(world, held_by):
    """Not until the clock has caught up."""
    worker = Worker(world, "auto" if held_by == "provider" else Limits(requests_per_minute=60))
    keys = worker.enqueue(20)
    if held_by == "provider":
        worker.store.buckets.settle(said=Said(closed_seconds=30.0))
    else:
        assert worker.claim(limit=1, urgent=keys[:1]).limited_urgent
    world.now -= 3600
    began = world.now
    assert wait_for(world, worker).members
    assert world.now - began < 3


def test_a_provider_may_want_nothing_for_more_than_a_day(world):
    """That is no sign of a clock that was set back."""
    worker = Worker(world, "auto")
    worker.enqueue(1)
    worker.store.buckets.settle(said=Said(closed_seconds=1.5 * 86400))
    world.now += 86400
    assert worker.claim().limited_seconds == pytest.approx(43_200)


@pytest.mark.parametrize("seconds", [100, 3600])
def test_what_was_forgotten_with_the_clock_is_not_given_back(world, seconds):
    """Else more than the limit might go out until the clock has caught up."""
    worker = full(world, requests_per_day=10)
    claim = worker.claim(limit=10)
    world.now -= seconds
    assert worker.left() == {"requests_per_day": 10}
    assert worker.release(claim, claim.paid) == 10
    assert worker.left() == {"requests_per_day": 10}
    worker.store.buckets.settle(TRY)
    world.now += seconds
    assert worker.left() == {"requests_per_day": 9}


@pytest.mark.parametrize("later", [0, 30, 86_400])
def test_what_was_forgotten_with_the_clock_does_not_come_back_with_it(world, later):
    """The first look at a clock that was set back is for good."""
    worker = Worker(world, Limits(requests_per_day=1))
    worker.enqueue(20)
    assert len(worker.claim().members) == CALL_TEXTS
    world.now -= 20
    assert worker.left() == {"requests_per_day": 1}
    world.now += later
    assert worker.left() == {"requests_per_day": 1}


def test_what_is_given_back_of_one_kind_alone_needs_none_of_the_others(redis_client, make_store):
    """On a real Redis, which takes only whole numbers to add."""
    buckets = make_store(redis_client, limits=Limits(requests_per_day=10, tokens_per_minute=600)).buckets
    _, at = buckets.settle(Cost(0, 0, 5))
    buckets.settle(back=Paid(at, Cost(0, 0, 5)))
    assert int(redis_client.hget(buckets.key, "tokens").split()[2]) == 0


def test_a_debt_that_is_given_back_is_owed_no_longer(world):
    """Though it was to be sent later."""
    worker = full(world, requests_per_minute=60)
    before = worker.left()
    worker.store.buckets.settle(Cost(60))
    _, at = worker.store.buckets.settle(Cost(2))
    worker.store.buckets.settle(back=Paid(at, Cost(2)))
    assert worker.left() == {"requests_per_minute": before["requests_per_minute"] - 60}


# -- what the provider says ------------------------------------------------------------------------------------------


def test_a_limit_that_is_told_does_not_open_what_the_provider_has_closed(world):
    """Another worker's call has come back meanwhile."""
    worker = Worker(world, "auto")
    worker.enqueue(1)
    worker.store.buckets.settle(said=Said(closed_seconds=30.0))
    worker.store.buckets.settle(said=Said({"requests": 600}))
    assert worker.claim().limited_seconds == pytest.approx(30)


def test_what_no_limit_has_counted_is_not_given_back(world):
    """It was claimed before the provider spoke of one; what others have sent since counts."""
    worker = Worker(world, "auto")
    worker.enqueue(10)
    claim = worker.claim()
    worker.store.buckets.settle(Cost(3), said=Said({"day": 60}))
    assert worker.release(claim, claim.paid) == 10
    assert worker.left() == {"requests_per_day": 57}


def test_debts_in_a_row_are_no_more_in_a_minute_than_the_limit(world):
    """Though at the pace they would be paid sooner: what the bucket held at first is gone."""
    worker = full(world, texts_per_minute=20)
    first, _ = worker.store.buckets.settle(Cost(1, 13, 13))
    second, _ = worker.store.buckets.settle(Cost(1, 13, 13))
    assert second - first > 60
