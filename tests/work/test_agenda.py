"""What the worker does next, and when: told in numbers, without a clock."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from embedqueue.store.records import Claim
from embedqueue.values.backoff import backoff_seconds
from embedqueue.values.item import encode_member
from embedqueue.work.plan import NEVER, URGENT_LIMIT, Plan, settled

NOW = 1000.0


@dataclass
class Seen:
    """What a look at Redis says."""

    waiting: int = 0
    oldest_age_seconds: float | None = None
    meant: int = 0
    lease_end_seconds: float | None = None
    pause_seconds: float | None = None
    base_seconds: float | None = None
    more_patient: float = 0.0

    @property
    def score_age_seconds(self) -> float | None:
        return None if self.oldest_age_seconds is None else self.oldest_age_seconds - self.more_patient


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
    plan.fresh = True
    assert plan.next(NOW, 0, 4) == ("refresh", 0.0)
    plan.seen(Seen(waiting=1, oldest_age_seconds=age), NOW)
    assert plan.next(NOW, 0, 4)[0] == action
    plan.left = False
    plan.seen(Seen(waiting=1, oldest_age_seconds=age + 10), NOW + 10)  # only the first look asks that
    assert plan.next(NOW + 10, 0, 4)[0] is None


def test_what_waits_for_batch_jobs_fills_no_call():
    """Beside many of those, an item waits for company like any other; where a job has taken some, one looks again."""
    plan = agenda(refresh_mono=NOW + 30)
    plan.seen(Seen(waiting=1, oldest_age_seconds=0.0, meant=60), NOW)
    plan.enqueued(62, NOW)
    assert plan.next(NOW, 0, 4)[0] is None
    assert plan.enqueued(110, NOW)
    assert plan.next(NOW, 0, 4)[0] == "claim"
    plan.enqueued(59, NOW)
    assert plan.next(NOW, 0, 4)[0] == "refresh"


def test_what_this_process_is_writing_was_not_left_by_others():
    """The first look may find it before the writer has its answer: it waits for company all the same."""
    plan = Plan(flush_interval=3600.0, max_batch_size=50, refresh_seconds=30.0, works=True, began_mono=NOW - 5)
    assert not plan.enqueuing()
    plan.seen(Seen(waiting=1, oldest_age_seconds=4.9), NOW)
    assert plan.next(NOW, 0, 4)[0] is None


def test_what_waits_when_the_first_answer_comes_was_left_by_others():
    """Unless this process has enqueued since: the answer may come so late that the times do not tell."""
    plan = Plan(flush_interval=3600.0, max_batch_size=50, refresh_seconds=30.0, works=True, began_mono=NOW - 5)
    plan.seen(Seen(waiting=1, oldest_age_seconds=4.9), NOW)
    assert plan.next(NOW, 0, 4)[0] == "claim"


def test_what_a_dead_worker_held_is_due_although_a_drain_is_under_way():
    """It was not among what the drain began with, which ends before it: it must not wait for company."""
    plan = Plan(flush_interval=3600.0, max_batch_size=50, refresh_seconds=30.0, works=True, refresh_mono=NOW + 30)
    plan.flush_now()
    plan.waiting = 20
    limit = plan.claim_limit(NOW, 10, 1)
    plan.claimed(limit, Claim("ok", "w:1/60:", [], 10, 0.0, None, None, "no"), NOW)
    plan.claim_limit(NOW, 10, 1)
    plan.claimed(10, Claim("ok", "w:2/60:", [], 5, 0.0, None, None, "no", ran_out=5), NOW)
    assert plan.next(NOW, 0, 4)[0] == "claim"


@pytest.mark.parametrize(
    ("base", "more_patient", "due_in"),
    [
        (None, 0.0, 3590.0),
        (3600.0, 0.0, 3590.0),
        (3600.0, 82_800.0, 86_390.0),  # within a day
        (3600.0, -3590.0, 0.0),  # within ten seconds
        (600.0, 0.0, 590.0),  # the namespace counts by a shorter interval than ours
        (600.0, 300.0, 890.0),
        (7200.0, 1800.0, 5390.0),  # ours is shorter: then no later than that after the score
    ],
)
def test_patience(base, more_patient, due_in):
    """What may wait for longer is due later, and what may not, sooner."""
    plan = agenda(refresh_seconds=1e6)
    plan.seen(Seen(1, 10.0, base_seconds=base, more_patient=more_patient), NOW)
    assert plan.next(NOW, 0, 4) == ((None, pytest.approx(due_in)) if due_in else ("claim", 0.0))


def test_who_is_due_sooner_than_what_waits_wakes_the_worker():
    plan = agenda()
    assert plan.enqueued(1, NOW, 86_400.0)
    assert not plan.enqueued(2, NOW, 90_000.0)
    assert plan.enqueued(3, NOW, 5.0)
    assert plan.next(NOW, 0, 4) == (None, 5.0)
    assert not plan.enqueued(4, NOW, 10.0)


@pytest.mark.parametrize(
    ("state", "action", "wait"),
    [
        ({}, None, 30.0),
        ({"refresh_mono": NOW}, "refresh", 0.0),
        ({"waiting": 1, "due_mono": NOW + 3600}, None, 30.0),
        ({"waiting": 1, "due_mono": NOW - 3590 + 3600}, None, 10.0),
        ({"waiting": 1, "due_mono": NOW - 3600 + 3600}, "claim", 0.0),
        ({"waiting": 1, "due_mono": NOW - 90_000 + 3600}, "claim", 0.0),
        ({"waiting": 49, "due_mono": NOW + 3600}, None, 30.0),
        ({"waiting": 50, "due_mono": NOW + 3600}, "claim", 0.0),
        ({"waiting": 5000, "due_mono": NOW + 3600}, "claim", 0.0),
        ({"flush": True}, "claim", 0.0),
        ({"flush": True, "paused_until_mono": NOW + 7}, None, 7.0),
        ({"waiting": 50, "paused_until_mono": NOW + 7}, None, 7.0),
        ({"waiting": 1, "due_mono": NOW - 4000 + 3600, "paused_until_mono": NOW + 7}, None, 7.0),
        ({"demand_mono": NOW + 0.005}, None, pytest.approx(0.005)),
        ({"demand_mono": NOW}, "claim", 0.0),
        ({"demand_mono": NOW, "paused_until_mono": NOW + 7}, None, 7.0),
        ({"waiting": 1, "due_mono": NOW + 3600, "failing": True}, "claim", 0.0),
        ({"waiting": 1, "due_mono": NOW + 3600, "failing": True, "paused_until_mono": NOW + 2}, None, 2.0),
        ({"waiting": 0, "failing": True}, None, 30.0),
        ({"remaining": 1}, "claim", 0.0),
        ({"renew_mono": NOW + 3}, None, 3.0),
        ({"renew_mono": NOW}, "renew", 0.0),
        ({"renew_mono": NOW, "flush": True, "refresh_mono": 0.0}, "renew", 0.0),
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


def held(seconds: float = 7.0, *, members=(), urgent: bool = False) -> Claim:
    """What a claim tells that the limits held up."""
    return Claim(
        "ok", "w:1/60:", list(members), 40, 0.0, None, None, "no", limited_seconds=seconds, limited_urgent=urgent
    )


@pytest.mark.parametrize("members", [(), (encode_member("k", "text"),)], ids=["nothing", "some"])
def test_a_limit_puts_a_drain_off(members):
    """It goes on when the limits let it, and not when a call is back."""
    plan = agenda(waiting=41)
    plan.flush_now()
    plan.claim_limit(NOW, 10, 4)
    plan.claimed(len(members), held(members=members), NOW)
    action, wait = plan.next(NOW, 0, 4)
    assert (action, wait) == (None, pytest.approx(7.001))
    assert plan.next(NOW + wait, 0, 4)[0] == "claim"


@pytest.mark.parametrize(("urgent", "action"), [(False, "claim"), (True, None)])
def test_who_begins_to_wait_is_asked_for_unless_somebody_else_was_put_off(urgent, action):
    """A backlog waits for more than one text needs; but a second one who waits need not ask again."""
    plan = agenda(waiting=41)
    plan.flush_now()
    plan.claim_limit(NOW, 10, 4)
    plan.claimed(0, held(urgent=urgent), NOW)
    plan.demanded(["k"], NOW, 0.0)
    assert plan.next(NOW, 0, 4)[0] == action


@pytest.mark.parametrize(
    ("members", "urgent", "needless"),
    [
        ([], False, ["a", "b"]),  # none of them waits
        ([], True, []),
        (["a"], True, ["a"]),
        (["a", "x"], False, ["a", "b"]),
    ],
)
def test_who_is_held_back_stays_urgent(members, urgent, needless):
    claim = held(members=[encode_member(key, "text") for key in members], urgent=urgent)
    assert list(settled(["a", "b"], claim)) == needless


def test_nothing_is_claimed_ahead_of_a_limit():
    assert agenda(waiting=1000).room(4, 0, 0, 50) == 4
    assert agenda(waiting=1000).room(4, 4, 0, 50) == 1
    assert agenda(waiting=1000, ahead=False).room(4, 4, 0, 50) == 0


def test_waits_for_ever_for_nothing():
    """A worker without room and without a lease of its own still looks at Redis."""
    assert agenda(flush=True).next(NOW, 4, 0) == (None, 30.0)
    assert agenda(flush=True, refresh_mono=NEVER).next(NOW, 4, 0) == (None, NEVER)


@pytest.mark.parametrize(
    ("waiting", "call_limit", "free", "taken"),
    [
        (50, 50, 4, [50]),
        (57, 50, 4, [50]),  # full calls first: seven wait for company until these are back
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
    """A drain for size takes full calls, and at least what made it due; in rounds, if there are fewer free calls.

    What is left goes once these are back, with what has come meanwhile; of that, nothing starts a drain by itself.
    """
    plan = agenda(waiting=waiting, due_mono=NOW + 3600)
    for count in taken:
        assert plan.next(NOW, 1, free)[0] == "claim"
        assert plan.claim_limit(NOW, call_limit, free) == count
        waiting -= count
        plan.claimed(count, Seen(waiting, 1.0), NOW)
    assert plan.next(NOW, 1, free)[0] is None
    if waiting:
        plan.enqueued(waiting + 2, NOW)
        assert plan.next(NOW, 0, free)[0] == "claim"
        assert plan.claim_limit(NOW, call_limit, free) >= waiting + 2
        plan.claimed(waiting + 2, Seen(0), NOW)
    plan.enqueued(1, NOW)
    assert plan.next(NOW, 0, free)[0] is None


def test_what_a_drain_for_size_leaves_waits_for_the_end_of_the_quiet():
    """A process that may end at any moment takes what is enough for a drain, and no more."""
    plan = agenda(waiting=57, due_mono=NOW + 3600, quiet_until_mono=NOW + 2)
    assert plan.claim_limit(NOW, 50, 4) == 50
    plan.claimed(50, Seen(7, 1.0), NOW)
    assert plan.next(NOW, 0, 4) == (None, 2.0)
    assert plan.next(NOW + 2, 0, 4) == ("claim", 0.0)


@pytest.mark.parametrize(
    "state",
    [
        {"flush": True, "waiting": 57},
        {"demand_mono": NOW, "waiting": 57},
        {"waiting": 57, "due_mono": NOW - 4000 + 3600},
        {"waiting": 57, "failing": True},
    ],
    ids=str,
)
def test_claims_for_all_else(state):
    """A drain for any other reason takes what waits, and goes on until what waited at its start is taken."""
    plan = agenda(**({"due_mono": NOW + 3600} | state))
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
    plan.claim_limit(NOW + 0.009, 50, 4)
    assert (plan.demand_mono, plan.linger_end_mono) == (NEVER, NEVER)


def claim_of(*redis_keys: str, status: str = "ok", alone: str = "no") -> Claim:
    members = [encode_member(redis_key, "text") for redis_key in redis_keys]
    return Claim(status, "w:1/60:", members, 9, None, None, None, alone)


@pytest.mark.parametrize(
    ("claim", "needless"),
    [
        (claim_of("a", "b"), "ab"),  # the claim was full: it did not come to the others
        (claim_of("b"), "ab"),  # a does not wait, or it would have come first
        (claim_of("a", "other"), "abc"),  # it went on to what nobody waits for
        (claim_of("other"), "abc"),
        (claim_of("a", "b", "c", "other"), "abc"),
        (claim_of(), "abc"),  # nothing was left for it
        (claim_of(status="paused"), ""),  # it looked for nothing
        (claim_of("b", alone="taken"), "b"),  # the same
        (claim_of("other", alone="taken"), ""),
        (claim_of("a", status="probe"), "a"),
        (Claim("ok", "w:1/60:", [b"no JSON"], 9, None, None, None, "no"), "abc"),
    ],
)
def test_what_a_claim_tells_of_urgent_items(claim, needless):
    """What it did not come to stays urgent. What waits no more does not: else it would be asked for for ever."""
    assert "".join(settled(["a", "b", "c"], claim)) == needless


def test_urgent_until_claimed():
    """However many wait and however little a claim takes, they are claimed before all else, without another linger."""
    plan = agenda(waiting=100)
    plan.demanded("abcde", NOW, 0.0)
    plan.remaining = 2  # of a drain under way, which ends before it has come to all of them
    assert plan.claim_limit(NOW, 2, 1) == 2
    plan.demanded("f", NOW, 0.008)  # who comes now still lingers
    plan.claimed(2, Seen(98, 0.0), NOW, settled="ab")
    plan.waiting = 3  # too few to be due by themselves
    for first, left in [("cdef", 2), ("ef", 0)]:
        assert plan.next(NOW, 0, 1)[0] == "claim"
        plan.claim_limit(NOW, 2, 1)
        assert "".join(plan.first_urgent()) == first
        plan.claimed(2, Seen(left, 0.0), NOW, settled=first[:2])
    assert plan.next(NOW, 0, 1)[0] is None


def test_urgent_after_a_claim_that_failed():
    """What a claim was to take first comes first again, however far it went, and is due."""
    plan = agenda()
    plan.demanded("ab", NOW, 0.0)
    plan.claim_limit(NOW, 2, 1)
    plan.claimed(2, Seen(0), NOW, settled="ab")
    plan.claim_failed(["a", "b"])
    plan.demanded("c", NOW, 5.0)
    plan.claim_limit(NOW, 2, 1)
    assert plan.first_urgent() == ["a", "b", "c"]
    plan.claimed(2, Seen(1, 0.0), NOW, settled="ab")
    assert plan.next(NOW, 0, 1)[0] == "claim"


def test_a_claim_looks_for_so_many_urgent_items():
    """As many as its script may look up; the others are for the next claims."""
    plan = agenda(waiting=5000)
    keys = [f"doc:{place}" for place in range(URGENT_LIMIT + 1)]
    plan.demanded(keys, NOW, 0.0)
    plan.claim_limit(NOW, 5000, 1)
    assert plan.first_urgent() == keys[:-1]
    plan.claimed(URGENT_LIMIT, Seen(0), NOW, settled=keys[:-1])
    assert plan.next(NOW, 0, 1)[0] == "claim"
    assert plan.first_urgent() == keys[-1:]


@pytest.mark.parametrize(
    "state",
    [{"flush": True}, {"demand_mono": NOW}, {"remaining": 7}, {"waiting": 1, "due_mono": NOW - 4000 + 3600}],
    ids=str,
)
def test_a_drain_that_meets_a_pause(state):
    """It is made when the pause is over, whatever made it due: a claim that was not let in has taken nothing."""
    plan = agenda(**state)
    for seconds in (0, 5):  # a pause without an end is looked at again and again
        assert plan.next(NOW + seconds, 0, 4)[0] == "claim"
        limit = plan.claim_limit(NOW + seconds, 50, 4)
        plan.claimed(0, Seen(20, 0.0, pause_seconds=5.0), NOW + seconds)
        assert plan.next(NOW + seconds, 0, 4) == (None, 5.0)
    plan.seen(Seen(20, 6.0), NOW + 6)  # somebody has ended it
    assert plan.next(NOW + 6, 0, 4)[0] == "claim"
    assert plan.claim_limit(NOW + 6, 50, 4) == limit
    plan.claimed(min(limit, 20), Seen(0), NOW + 6)
    assert plan.next(NOW + 6, 0, 4)[0] is None


def test_no_linger():
    """With no linger, demand is due at once."""
    plan = agenda()
    plan.demanded(["a"], NOW, 0.0)
    assert plan.next(NOW, 0, 4)[0] == "claim"


def test_enqueued():
    """The worker thinks again for the first item and when there are enough, not for each in between."""
    plan = agenda()
    assert plan.enqueued(1, NOW)
    assert plan.due_mono == NOW + 3600
    assert not plan.enqueued(2, NOW + 1)
    assert plan.due_mono == NOW + 3600
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


# -- processes that may end at any moment ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "note",
    [
        lambda plan: plan.seen(Seen(waiting=1, oldest_age_seconds=100.0), NOW),
        lambda plan: plan.seen(Seen(lease_end_seconds=-1.0), NOW),
        lambda plan: plan.seen(Seen(waiting=1, oldest_age_seconds=100.0), NOW, failing=True),
    ],
    ids=["left by others", "left by a dead worker", "after a failure"],
)
def test_what_is_not_claimed_in_the_first_seconds(note):
    plan = Plan(flush_interval=1.0, max_batch_size=50, refresh_seconds=30.0)
    plan.begin(NOW - 1, 2.0)
    note(plan)
    assert plan.next(NOW, 0, 4) == (None, 1.0)
    assert plan.next(NOW + 1, 0, 4)[0] == "claim"


@pytest.mark.parametrize(
    "note",
    [
        lambda plan: plan.flush_now(),
        lambda plan: plan.demanded(["doc:1"], NOW - 1, 0.01),
        lambda plan: plan.enqueued(50, NOW),
    ],
    ids=["asked for", "waited for", "enough"],
)
def test_what_is_claimed_from_the_first_moment(note):
    plan = Plan(flush_interval=1.0, max_batch_size=50, refresh_seconds=30.0)
    plan.begin(NOW - 1, 2.0)
    plan.seen(Seen(waiting=1, oldest_age_seconds=0.5), NOW)
    note(plan)
    assert plan.next(NOW, 0, 4)[0] == "claim"


def test_a_process_that_is_known_to_end_claims_only_what_it_waits_or_asks_for():
    plan = Plan(flush_interval=1.0, max_batch_size=50, refresh_seconds=30.0)
    plan.begin(NOW - 100, NEVER)
    plan.seen(Seen(waiting=100, oldest_age_seconds=100.0), NOW)
    assert plan.next(NOW, 0, 4)[0] is None
    plan.demanded(["doc:1"], NOW - 1, 0.01)
    assert plan.next(NOW, 0, 4)[0] == "claim"


def test_what_a_claim_has_brought_and_nobody_waits_for_any_more_leaves_the_others_as_they_are():
    plan = agenda()
    plan.demanded("a", NOW, 5.0)
    plan.claimed(1, Seen(2, 0.0), NOW, settled="z")
    assert plan.first_urgent() == ["a"]
