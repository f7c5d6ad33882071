"""The buckets of the limits, in the scripts that take from them: on a Redis whose clock these tests move."""

from __future__ import annotations

import random

import pytest

from embedqueue import Budget, Limits
from embedqueue.store.budget import BudgetTerms
from embedqueue.store.limits import Said
from embedqueue.values.item import encode_member
from embedqueue.values.limits import Cost, Paid

from .world import CALL_TEXTS, CALL_TOKENS, Worker, full, wait_for

NONE = Cost()


# -- the promise -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "limits",
    [
        Limits(requests_per_minute=60),
        Limits(requests_per_minute=3, tokens_per_minute=300),
        Limits(texts_per_minute=33),
        Limits(requests_per_minute=600, texts_per_minute=1500),
    ],
    ids=lambda limits: "+".join(limits.by_name),
)
@pytest.mark.parametrize("seed", range(3))
def test_in_no_minute_goes_out_more_than_the_limit(world, limits, seed):
    """Whatever three workers do: work, rest, try in place, give back, and ask whether they were told to or not."""
    chance = random.Random(seed)
    workers = [Worker(world, limits, name) for name in "abc"]
    workers[0].enqueue(2000)
    held = []
    for _ in range(150):
        worker = chance.choice(workers)
        urgent = [f"doc:{chance.randrange(2000)}"] if chance.random() < 0.2 else []
        claim = worker.claim(limit=chance.choice([1, 10, 40, 1000]), urgent=urgent)
        if claim.members:
            held.append((worker, claim, len(world.sent) - 1))
        if held and chance.random() < 0.3:
            worker, claim, at = held.pop(chance.randrange(len(held)))
            if worker.release(claim, claim.paid):  # else its lease has run out, and nothing is given back
                world.sent[at] = (world.sent[at][0], NONE)
        if chance.random() < 0.1:  # a try in place, which is made when it is paid
            seconds, at = worker.store.buckets.settle(Cost(1, 2, 4))
            if seconds > 60:
                worker.store.buckets.settle(back=Paid(at, Cost(1, 2, 4)))
            else:
                world.sent.append((world.now + seconds, Cost(1, 2, 4)))
        wait = 0.5 if claim.limited_seconds is None else claim.limited_seconds + 0.001
        world.now += chance.choice([0.0, wait / 3, wait, wait, chance.choice([1.0, 30.0, 70.0])])
    for name, limit in limits.by_name.items():
        assert 0 < world.most(name) <= limit


@pytest.mark.parametrize("per_minute", [30, 120])
def test_nearly_all_that_is_allowed_goes_out(world, per_minute):
    """Three workers that sleep as they are told send at least 0.95 of the limit."""
    workers = [Worker(world, Limits(requests_per_minute=per_minute), name) for name in "abc"]
    workers[0].enqueue(20 * per_minute)
    due = dict.fromkeys(range(3), world.now)
    begin, claims = world.now, 0
    while world.now < begin + 90:
        index = min(due, key=lambda index: due[index])
        world.now = max(world.now, due[index])
        claim = workers[index].claim(limit=4 * CALL_TEXTS)
        claims += 1
        due[index] = world.now + (0.05 if claim.limited_seconds is None else claim.limited_seconds + 0.003)
    assert world.total("requests", begin + 30) >= 0.95 * per_minute
    assert world.most("requests") <= per_minute
    assert claims < 3 * 3 * 90  # a few looks a second, however much is allowed


def test_it_is_empty_at_the_start(world):
    """Nobody knows what was sent before; the first call waits until it is refilled."""
    worker = Worker(world, Limits(requests_per_minute=6))
    worker.enqueue(10)
    claim = worker.claim()
    assert claim.members == []
    assert claim.limited_seconds == pytest.approx(61 / 6, abs=0.01)
    world.now += claim.limited_seconds
    assert len(worker.claim().members) == 10


def test_a_day_is_of_any_24_hours(world):
    worker = Worker(world, Limits(requests_per_day=5))
    worker.enqueue(100)
    assert len(worker.claim().members) == 50
    claim = worker.claim()
    assert claim.members == []
    assert 86_000 < claim.limited_seconds <= 86_400 + 1440
    world.now += claim.limited_seconds + 0.001
    assert len(worker.claim().members) == 50


# -- who goes first --------------------------------------------------------------------------------------------------


def test_what_somebody_waits_for_waits_for_one_calls_refill_at_most(world):
    """Beside a backlog of another process, which asks at every moment and always before it."""
    backlog, waiter = (Worker(world, Limits(requests_per_minute=60), name) for name in "ab")
    backlog.enqueue(1000)
    wait_for(world, backlog)
    for _ in range(5):
        key = waiter.enqueue(1)
        asked = world.now
        claim = waiter.claim(limit=1, urgent=key)
        while not claim.members:
            assert claim.limited_urgent
            until = world.now + claim.limited_seconds + 0.001
            while world.now < until:
                backlog.claim()
                world.now += 0.05
            backlog.claim()
            claim = waiter.claim(limit=1, urgent=key)
        assert claim.members == [encode_member(*key, "text")]
        assert world.now - asked <= 61 / 60 + 0.11
        wait_for(world, backlog)  # and the backlog goes on


def test_a_text_that_needs_the_whole_minute_is_not_overtaken_if_somebody_waits_for_it(world):
    """It goes when nothing has gone out for a minute, and a backlog that asks all the time would never let that be."""
    backlog, waiter = (Worker(world, Limits(tokens_per_minute=120), name) for name in "ab")
    backlog.enqueue(200)
    backlog.left()
    world.now += 200
    assert backlog.claim(limit=10).members
    key = waiter.enqueue(1, "x" * 4 * 119)
    asked = world.now
    claim = waiter.claim(limit=1, urgent=key)
    assert claim.limited_seconds > 60.5
    until = asked + claim.limited_seconds + 0.001
    while world.now < until:
        assert backlog.claim(limit=10).members == []
        world.now += 0.5
    assert waiter.claim(limit=1, urgent=key).members


def test_one_who_waited_and_died_holds_the_others_up_for_a_moment_only(world):
    backlog, waiter = (Worker(world, Limits(requests_per_minute=60), name) for name in "ab")
    [*keys] = backlog.enqueue(100)
    refused = waiter.claim(limit=1, urgent=keys[-1:])
    held = world.now
    assert refused.limited_urgent
    assert wait_for(world, backlog).members
    assert world.now - held < refused.limited_seconds + 0.3


def test_a_backlog_goes_by_whole_calls_and_what_somebody_waits_for_at_once(world):
    """A text a call would be ten times as many calls."""
    worker = Worker(world, Limits(texts_per_minute=60))
    keys = worker.enqueue(100)
    assert len(wait_for(world, worker).members) == CALL_TEXTS
    claim = worker.claim()
    world.now += claim.limited_seconds / 2
    assert worker.claim().members == []
    assert worker.claim(urgent=keys[-1:]).members == [encode_member(keys[-1], "text")]
    assert len(wait_for(world, worker).members) == CALL_TEXTS


def test_of_what_may_go_whole_calls_go(world):
    """The half of a call that would fit as well waits for its other half."""
    worker = Worker(world, Limits(texts_per_minute=1800))
    worker.enqueue(100)
    worker.claim()
    world.now += 15.1 * 61 / 1800
    claim = worker.claim()
    assert len(claim.members) == CALL_TEXTS
    assert claim.limited_seconds == pytest.approx(9.9 * 61 / 1800, abs=0.01), "until the half of what a bucket holds"


@pytest.mark.parametrize(
    ("limits", "seconds"),
    [
        (Limits(texts_per_minute=60), 61 / 60),
        (Limits(tokens_per_minute=600), 0.5),
        (Limits(requests_per_minute=6), 61 / 6),
    ],
    ids=lambda it: "+".join(it.by_name) if isinstance(it, Limits) else "",
)
def test_what_fills_no_call_does_not_wait_until_it_would(world, limits, seconds):
    """There is nothing to gather for, but for half a second at most."""
    worker, began = Worker(world, limits), world.now
    worker.enqueue(1)
    assert wait_for(world, worker).members
    assert world.now - began == pytest.approx(seconds, abs=0.05)


def test_what_is_left_behind_whole_calls_does_not_wait_until_it_fills_one(world):
    worker = Worker(world, Limits(texts_per_minute=60))
    worker.enqueue(CALL_TEXTS + 1)
    assert len(wait_for(world, worker).members) == CALL_TEXTS
    began = world.now
    assert wait_for(world, worker).members
    assert world.now - began == pytest.approx(61 / 60, abs=0.05)


def test_an_item_above_the_capacity_goes_when_the_bucket_is_full(world):
    """It is owed then, and what comes next waits until that is paid."""
    worker = Worker(world, Limits(tokens_per_minute=120))
    [large] = worker.enqueue(1, "x" * 4 * 300)
    worker.enqueue(1)
    began = world.now
    assert wait_for(world, worker).members == [encode_member(large, "x" * 4 * 300)]
    assert world.now - began == pytest.approx(61, abs=1.5)
    assert worker.left()["tokens_per_minute"] < 0
    assert wait_for(world, worker).members
    assert world.now - began > 120


# -- giving back -----------------------------------------------------------------------------------------------------


def test_a_release_gives_back_once(world):
    worker = full(world, texts_per_minute=600)
    before = worker.left()
    claim = worker.claim(limit=10)
    assert worker.left()["texts_per_minute"] == before["texts_per_minute"] - 10
    assert worker.release(claim, claim.paid) == 10
    assert worker.left() == before
    assert worker.release(claim, claim.paid) == 0  # a copy that comes late
    assert worker.left() == before


def test_a_lease_that_ran_out_gives_nothing_back(world):
    worker = full(world, requests_per_day=100)
    claim = worker.claim(limit=10)
    world.now += 2000
    assert len(worker.claim(limit=10).members) == 10
    assert worker.release(claim, claim.paid) == 0
    assert worker.left() == {"requests_per_day": 98}


@pytest.mark.parametrize("later", [0, 1])
def test_a_claim_whose_answer_was_lost_gives_back_once(world, later):
    """Nobody knows what it took but the books. After a later claim of the same worker, they know no longer."""
    worker = full(world, requests_per_day=100)
    lost = worker.claim(limit=10).owner
    for _ in range(later):
        worker.claim(limit=10)
    assert worker.store.release_all(lost) == 10
    assert worker.left() == {"requests_per_day": 100 - 2 * later}
    worker.store.release_all(lost)
    assert worker.left() == {"requests_per_day": 100 - 2 * later}


def test_a_worker_that_stops_gives_back_once_what_it_has_not_sent(world):
    worker = full(world, requests_per_day=100)
    paid = worker.claim(limit=20).paid
    half = Paid(paid.at, Cost(1, 10, 20))
    assert worker.store.release_all("w:", half) == 20
    worker.store.release_all("w:", half)
    assert worker.left() == {"requests_per_day": 99}


def test_what_was_taken_is_given_back_to_the_time_when_it_was_taken(world):
    """Else, when that time is a minute ago, what was not sent later would be missing from the count of what was."""
    worker = full(world, requests_per_minute=600)
    early = worker.claim(limit=10)
    world.now += 59
    late = worker.claim(limit=10)
    world.now += 1
    worker.release(early, early.paid)
    world.now += 2
    [limit] = worker.store.status().limits
    worker.store.buckets.settle(Cost(599))
    assert worker.store.status().limits[0].left <= 0 < limit.left
    assert late.members


# -- debts -----------------------------------------------------------------------------------------------------------


def test_a_debt_is_paid_before_more_is_claimed(world):
    worker = full(world, requests_per_minute=60)
    wait, _ = worker.store.buckets.settle(Cost(6))
    assert wait == pytest.approx(5 * 61 / 60, abs=0.01)  # there was one
    claim = worker.claim()
    assert claim.members == []
    assert claim.limited_seconds == pytest.approx(6 * 61 / 60, abs=0.01)


def test_debts_count_for_the_minute(world):
    """In a minute in which all was spent on tries in place nothing is claimed, however the pace is."""
    worker = full(world, requests_per_minute=60)
    worker.store.buckets.settle(Cost(60))
    world.now += 59
    assert worker.claim().members == []
    wait_for(world, worker)


def test_a_debt_counts_from_when_it_is_paid_and_sent(world):
    """Many tries that wait go out together, and the backlog after them: a minute later they count still."""
    worker = full(world, requests_per_minute=60)
    worker.enqueue(2000)
    wait, _ = worker.store.buckets.settle(Cost(30))
    world.sent.append((world.now + wait, Cost(30)))
    end = world.now + 100
    while world.now < end:
        claim = worker.claim(limit=10)
        world.now += claim.limited_seconds + 0.001 if claim.limited_seconds else 0.2
    assert 30 < world.most("requests") <= 60


# -- one clock, several namespaces -----------------------------------------------------------------------------------


def test_a_clock_that_is_set_back_holds_nobody_up(world):
    worker = full(world, requests_per_minute=60)
    wait_for(world, worker, limit=10)
    worker.store.buckets.settle(Cost(58))
    world.now -= 3600
    began = world.now
    wait_for(world, worker, limit=10)
    assert world.now - began < 3


def test_limits_of_one_name_are_shared_by_namespaces(world):
    limits = Limits(requests_per_day=3, name="openai")
    first, second, other = (Worker(world, limits, "w", namespace) for namespace in ("q", "r", "s"))
    other.store.buckets.key = "s:limits"
    for worker in (first, second):
        worker.enqueue(20)
    assert len(first.claim().members) == 20
    assert len(second.claim().members) == 10
    assert second.claim().members == []
    assert world.client.exists("embedqueue:limits:openai")
    assert not world.client.exists("q:limits", "r:limits")


# -- what the provider says ------------------------------------------------------------------------------------------


def test_auto_limits_nothing_until_the_provider_has_spoken(world):
    worker, other = (Worker(world, "auto", name) for name in "ab")
    worker.enqueue(200)
    assert len(worker.claim(limit=50).members) == 50
    worker.store.buckets.settle(said=Said(limits={"requests": 60}))
    assert other.claim(limit=50).members == []
    assert len(wait_for(world, other).members) == 10
    assert other.left() == {"requests_per_minute": 59}


@pytest.mark.parametrize(("name", "seconds"), [("requests", 6 * 3600 + 60), ("day", 30 * 3600)])
def test_auto_forgets_a_limit_of_which_nothing_is_heard_any_more(world, name, seconds):
    """Google tells of one only where it refuses: an account that was given more would keep the old one for good.

    But no limit is forgotten because it is itself the reason why nothing is sent, and heard.
    """
    worker = Worker(world, "auto")
    worker.enqueue(200)
    worker.store.buckets.settle(said=Said(limits={name: 60}))
    world.now += seconds - 1
    worker.store.buckets.settle(said=Said(limits={name: 60}))
    world.now += seconds - 1
    assert list(worker.left().values()) == [60]
    world.now += 2
    assert worker.left() == {}
    assert len(worker.claim(limit=50).members) == 50


def test_auto_waits_as_long_as_the_provider_asks(world):
    """Where no limit is told; and what somebody waits for waits as well."""
    worker = Worker(world, "auto")
    keys = worker.enqueue(20)
    worker.store.buckets.settle(said=Said(closed_seconds=30.0))
    claim = worker.claim(urgent=keys[:1])
    assert (claim.members, claim.limited_seconds) == ([], pytest.approx(30.0))
    world.now += 30.001
    assert len(worker.claim().members) == 20


def test_auto_believes_how_much_is_left(world):
    """Somebody else uses the same account."""
    worker = Worker(world, "auto")
    worker.store.buckets.settle(said=Said(limits={"requests": 600}))
    worker.enqueue(100)
    world.now += 60
    worker.store.buckets.settle(said=Said(limits={"requests": 600}, left={"requests": 2}))
    assert len(worker.claim().members) == 20


# -- with a budget as well -------------------------------------------------------------------------------------------


def dollars_a_day(usd: float) -> BudgetTerms:
    """At a million dollars for a million tokens a token costs one, and a text of these tests two."""
    return BudgetTerms(Budget(usd_per_day=usd, usd_per_million_tokens=1e6), 1e6, CALL_TEXTS, CALL_TOKENS)


def test_a_budget_reserves_only_what_the_limits_let_go(world):
    worker = Worker(world, Limits(texts_per_minute=600))
    worker.claim()
    world.now += 61
    worker.enqueue(30)
    claim = worker.claim(budget=dollars_a_day(1000))
    assert len(claim.members) == CALL_TEXTS
    assert worker.store.budget.state().day == worker.store.budget.state().held == 2 * CALL_TEXTS


def test_limits_are_charged_only_with_what_the_budget_lets_go(world):
    worker = Worker(world, Limits(texts_per_minute=600))
    worker.claim()
    world.now += 61
    worker.enqueue(30)
    claim = worker.claim(budget=dollars_a_day(24))  # for three texts of at most four times as many tokens
    assert (len(claim.members), claim.paid.cost.texts) == (3, 3)
    assert worker.left() == {"texts_per_minute": 597}


def test_what_waits_for_the_limits_only_parks_no_budget(world):
    """There was room for some, which the limits hold back; that for others there is none says nothing yet."""
    worker = Worker(world, Limits(texts_per_minute=600))
    worker.enqueue(30)
    claim = worker.claim(budget=dollars_a_day(24))
    assert (claim.status, claim.members, claim.pause_seconds) == ("ok", [], None)
    assert claim.limited_seconds > 0
    assert worker.store.budget.state().day == 0
    world.now += 61
    assert len(worker.claim(budget=dollars_a_day(24)).members) == 3


def test_a_budget_that_is_spent_parks_beside_limits_as_well(world):
    """Though these let something go."""
    worker = Worker(world, Limits(texts_per_minute=600))
    worker.claim()
    world.now += 61
    worker.enqueue(1)
    assert worker.claim(budget=dollars_a_day(1)).status == "budget"
