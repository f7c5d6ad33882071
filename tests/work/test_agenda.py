"""What the worker does next, and when: told in numbers, without a clock."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from embedqueue.values.backoff import backoff_seconds
from embedqueue.work.plan import NEVER, Plan

NOW = 1000.0


@dataclass
class Seen:
    """What a look at Redis says."""

    waiting: int = 0
    oldest_age_seconds: float | None = None
    lease_end_seconds: float | None = None
    pause_seconds: float | None = None


def agenda(**state) -> Plan:
    """An agenda that has just looked at Redis and found nothing, but for ``state``."""
    made = Plan(flush_interval=3600.0, max_batch_size=50, refresh_seconds=30.0, works=True)
    made.seen(Seen(), NOW)
    for name, value in state.items():
        assert hasattr(made, name), name
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(("age", "action"), [(4.9, None), (5.1, "claim")])
def test_leftovers(age, action):
    """What was enqueued before the worker began is drained at once; what came since waits for company."""
    plan = Plan(flush_interval=3600.0, max_batch_size=50, refresh_seconds=30.0, works=True, began_mono=NOW - 5)
    assert plan.next(NOW, 0, 4) == ("refresh", 0.0)
    plan.seen(Seen(waiting=1, oldest_age_seconds=age), NOW)
    assert plan.next(NOW, 0, 4)[0] == action
    plan.flush = False
    plan.seen(Seen(waiting=1, oldest_age_seconds=age + 10), NOW + 10)  # only the first look asks that
    assert plan.next(NOW + 10, 0, 4)[0] is None


def test_items_of_the_future():
    """Where a clock was set back, an item may be of the future: it is drained now rather than an hour after that."""
    plan = agenda()
    plan.seen(Seen(waiting=1, oldest_age_seconds=-86_400.0), NOW)
    assert plan.next(NOW, 0, 4)[0] == "claim"


@pytest.mark.parametrize(
    ("state", "action", "wait"),
    [
        ({}, None, 30.0),
        ({"refresh_mono": NOW}, "refresh", 0.0),
        ({"waiting": 1, "oldest_mono": NOW}, None, 30.0),
        ({"waiting": 1, "oldest_mono": NOW - 3590}, None, 10.0),
        ({"waiting": 1, "oldest_mono": NOW - 3600}, "claim", 0.0),
        ({"waiting": 1, "oldest_mono": NOW - 90_000}, "claim", 0.0),
        ({"waiting": 49, "oldest_mono": NOW}, None, 30.0),
        ({"waiting": 50, "oldest_mono": NOW}, "claim", 0.0),
        ({"waiting": 5000, "oldest_mono": NOW}, "claim", 0.0),
        ({"flush": True}, "claim", 0.0),
        ({"flush": True, "paused_until_mono": NOW + 7}, None, 7.0),
        ({"waiting": 50, "paused_until_mono": NOW + 7}, None, 7.0),
        ({"waiting": 1, "oldest_mono": NOW - 4000, "paused_until_mono": NOW + 7}, None, 7.0),
        ({"demand_mono": NOW + 0.005}, None, pytest.approx(0.005)),
        ({"demand_mono": NOW}, "claim", 0.0),
        ({"demand_mono": NOW, "paused_until_mono": NOW + 7}, None, 7.0),
        ({"waiting": 1, "oldest_mono": NOW, "failing": True}, "claim", 0.0),
        ({"waiting": 1, "oldest_mono": NOW, "failing": True, "paused_until_mono": NOW + 2}, None, 2.0),
        ({"waiting": 0, "failing": True}, None, 30.0),
        ({"remaining": 1}, "claim", 0.0),
        ({"renew_mono": NOW + 3}, None, 3.0),
        ({"renew_mono": NOW}, "renew", 0.0),
        ({"renew_mono": NOW, "flush": True, "refresh_mono": 0.0}, "claim", 0.0),
        ({"flush": True, "redis_retry_mono": NOW + 1}, None, 1.0),
        ({"renew_mono": NOW, "redis_retry_mono": NOW + 1}, None, 1.0),
    ],
    ids=str,
)
def test_next(state, action, wait):
    """Size, time, flush, demand, a failure's end and leftovers make a drain due; a pause and a dead Redis delay it."""
    assert agenda(**state).next(NOW, unfinished=0, free_calls=4) == (action, wait)


@pytest.mark.parametrize(
    ("state", "in_flight", "free", "action"),
    [
        ({"flush": True}, 4, 0, None),
        ({"flush": True}, 3, 1, "claim"),
        ({"flush": True, "alone": True}, 1, 3, None),
        ({"flush": True, "alone": True}, 0, 4, "claim"),
        ({"flush": True, "renew_mono": NOW}, 4, 0, "renew"),
    ],
    ids=str,
)
def test_room(state, in_flight, free, action):
    """Nothing is claimed for which there is no free call, and nothing beside a probe."""
    assert agenda(**state).next(NOW, in_flight, free)[0] == action


def test_waits_for_ever_for_nothing():
    """A worker without room and without a lease of its own still looks at Redis."""
    assert agenda(flush=True).next(NOW, 4, 0) == (None, 30.0)
    assert agenda(flush=True, refresh_mono=NEVER).next(NOW, 4, 0) == (None, NEVER)


@pytest.mark.parametrize(
    ("waiting", "call_limit", "free", "taken"),
    [
        (50, 50, 4, [50]),
        (57, 50, 4, [50]),  # full calls only: seven wait for company
        (100, 50, 4, [100]),
        (230, 50, 4, [200]),
        (430, 50, 4, [200, 200]),  # what waited at the start, less the last part of a call
        (60, 100, 4, [60]),  # less than a call, but enough for a drain
        (50, 20, 4, [50]),  # what made the drain due is served, though the last call is not full
        (55, 20, 4, [55]),  # and that call takes who is there
        (65, 20, 4, [60]),
        (50, 20, 1, [20, 20, 10]),
    ],
)
def test_claims_for_size(waiting, call_limit, free, taken):
    """A drain for size takes full calls, and at least what made it due; in rounds, if there are fewer free calls."""
    plan = agenda(waiting=waiting, oldest_mono=NOW)
    for count in taken:
        assert plan.next(NOW, 0, free)[0] == "claim"
        assert plan.claim_limit(NOW, call_limit, free) == count
        waiting -= count
        plan.claimed(count, Seen(waiting, 1.0), NOW)
    assert plan.next(NOW, 0, free)[0] is None


@pytest.mark.parametrize(
    "state",
    [
        {"flush": True, "waiting": 57},
        {"demand_mono": NOW, "waiting": 57},
        {"waiting": 57, "oldest_mono": NOW - 4000},
        {"waiting": 57, "failing": True},
    ],
    ids=str,
)
def test_claims_for_all_else(state):
    """A drain for any other reason takes what waits, and goes on until what waited at its start is taken."""
    plan = agenda(**({"oldest_mono": NOW} | state))
    assert plan.claim_limit(NOW, 20, 2) == 40
    plan.claimed(40, Seen(17, 1.0), NOW)
    plan.failing = False
    assert plan.next(NOW, 0, 2)[0] == "claim"
    assert plan.claim_limit(NOW, 20, 2) == 17
    plan.claimed(17, Seen(5, 0.1), NOW)  # five came meanwhile: they wait for a reason of their own
    assert plan.next(NOW, 0, 2)[0] is None


def test_empty_claim_ends_a_drain():
    """A claim that brings nothing (another process was faster) does not make the worker spin."""
    plan = agenda(waiting=100)
    assert plan.claim_limit(NOW, 50, 4) == 100
    plan.claimed(0, Seen(0), NOW)
    assert plan.next(NOW, 0, 4) == (None, 30.0)


@pytest.mark.parametrize("said", [lambda plan: plan.enqueued(50, NOW), lambda plan: plan.refresh_now()])
def test_an_answer_that_was_overtaken(said):
    """What is said while Redis is being asked may be missing in the answer: it is asked again, not in half a minute."""
    plan = agenda(overtaken=False)
    said(plan)
    plan.seen(Seen(waiting=0), NOW)
    action, wait = plan.next(NOW, 0, 4)
    assert action is None
    assert wait == pytest.approx(0.05)
    plan.overtaken = False
    plan.seen(Seen(waiting=50, oldest_age_seconds=0.0), NOW + 0.05)
    assert plan.next(NOW + 0.05, 0, 4)[0] == "claim"


def test_linger():
    """Who waits waits for company: until nobody has come for a quarter of the linger, and never beyond the whole."""
    plan = agenda()
    plan.demanded(["a"], NOW, 0.008)
    assert plan.demand_mono == pytest.approx(NOW + 0.002)
    plan.demanded(["b"], NOW + 0.003, 0.008)
    assert plan.demand_mono == pytest.approx(NOW + 0.005)
    plan.demanded(["c"], NOW + 0.007, 0.008)
    assert plan.demand_mono == pytest.approx(NOW + 0.008)
    assert plan.next(NOW + 0.007, 0, 4)[0] is None
    assert plan.next(NOW + 0.009, 0, 4)[0] == "claim"
    assert plan.take_urgent() == ["a", "b", "c"]
    assert plan.take_urgent() == []
    plan.claim_limit(NOW + 0.009, 50, 4)
    assert (plan.demand_mono, plan.linger_end_mono) == (NEVER, NEVER)


def test_no_linger():
    """With no linger, demand is due at once."""
    plan = agenda()
    plan.demanded(["a"], NOW, 0.0)
    assert plan.next(NOW, 0, 4)[0] == "claim"


def test_enqueued():
    """The worker thinks again for the first item and when there are enough, not for each in between."""
    plan = agenda()
    assert plan.enqueued(1, NOW)
    assert plan.oldest_mono == NOW
    assert not plan.enqueued(2, NOW + 1)
    assert plan.oldest_mono == NOW
    assert not plan.enqueued(49, NOW + 2)
    assert plan.enqueued(50, NOW + 3)


def test_seen_lease():
    """The next end of anybody's lease is when to look again; one that has ended makes a drain due."""
    plan = agenda()
    plan.seen(Seen(lease_end_seconds=5.0), NOW)
    assert plan.next(NOW, 0, 4) == (None, 5.0)
    plan.seen(Seen(lease_end_seconds=-0.1), NOW)
    assert plan.next(NOW, 0, 4) == ("claim", 0.0)


def test_seen_pause():
    """Someone else's pause is obeyed, and forgotten when it is gone."""
    plan = agenda(flush=True)
    plan.seen(Seen(pause_seconds=4.0), NOW)
    assert plan.next(NOW, 0, 4) == (None, 4.0)
    plan.seen(Seen(), NOW)
    assert plan.next(NOW, 0, 4) == ("claim", 0.0)


@pytest.mark.parametrize(
    ("failures", "seconds"), [(1, 1.0), (2, 2.0), (3, 4.0), (9, 256.0), (10, 300.0), (10_000, 300.0)]
)
def test_backoff(failures, seconds):
    """Doubled each time, up to the most, without overflow."""
    assert backoff_seconds(failures, 1.0, 300.0) == seconds
