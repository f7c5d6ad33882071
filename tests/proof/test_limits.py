"""The promise of the limits, after every step of histories that hypothesis makes up, on a clock that they move.

Two namespaces share the limits of one name. Redis must be as the models say, the queues and the buckets. A book of its
own says what was sent, and when; it knows nothing of buckets.
"""

from __future__ import annotations

import pytest
import redis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from embedqueue import Limits
from embedqueue.store.records import Claim
from embedqueue.store.store import Store
from embedqueue.values.limits import Cost, Paid
from tests.proof.limits import MOST_WAIT_SECONDS, Account
from tests.proof.model import MAX_DELIVERIES, READ
from tests.proof.moves import Queue
from tests.proof.test_invariants import PHASES
from tests.store.world import World, by_the_clock

CALL_TEXTS, CALL_TOKENS = 3, 30
NAMESPACES = ["one", "two"]
WORKERS = ["w1:", "w2:"]
SHORT, LONG = "a", "x" * 40  # of 1 and of 11 tokens
HUGE = "y" * 4 * 60  # of 61, more than any call
CHOICES = [
    Limits(requests_per_minute=6, name="shared"),
    Limits(texts_per_minute=20, name="shared"),
    Limits(requests_per_minute=30, tokens_per_minute=100, name="shared"),
    Limits(texts_per_minute=2, name="shared"),
    Limits(requests_per_minute=200, texts_per_minute=400, requests_per_day=12, name="shared"),
]
#: Seconds by which each step takes longer, so that no sum of them is the very instant at which something is refilled:
#: what is taken then is a matter of rounding, which differs between Lua and Python.
OFF_TIES = 0.000_371
workers = st.sampled_from(WORKERS)
queues = st.sampled_from([0, 1])


class Sent:
    """What was sent: when, and how much. What was claimed counts as sent at once, unless its holder gives it back."""

    def __init__(self) -> None:
        self.events: dict[object, tuple[float, Cost]] = {}

    def add(self, name: object, at: float, cost: Cost) -> None:
        assert name not in self.events
        self.events[name] = at, cost

    def most(self, column: int, seconds: float) -> int:
        """The most that went out in so many seconds, whichever."""
        events = [(at, cost[column]) for at, cost in self.events.values()]
        return max((sum(n for at, n in events if end - seconds < at <= end) for end, _ in events), default=0)


class LimitedQueue(Queue):
    """A queue under limits, and the model of both."""

    def __init__(self, client, namespace: str, account: Account, sent: Sent) -> None:
        super().__init__(client, namespace, "embedding", Store(client, namespace, limits=account.limits))
        self.now = account.clock
        self.store.buckets.fit(CALL_TEXTS, CALL_TOKENS)
        self.account = self.model.account = account
        self.sent = sent
        self.paid: dict[str, Paid] = {}  # by claim, what its worker knows to have been taken for it

    def name(self, worker: str) -> str:
        """No two workers have one name, in whatever namespaces: the account tells what each has paid by its name."""
        return f"{self.store.keys.namespace}.{super().name(worker)}"

    def _claim(self, worker: str, limit: int, alone: bool, urgent: list[str] | None, model: str) -> tuple[str, Claim]:
        wanted = [member for key in urgent or [] if (member := self.model.member(key.encode())) in self.model.pending]
        owner, claim = super()._claim(worker, limit, alone, urgent, model)
        taking = self.account.claim
        assert claim.paid == taking.cost or claim.paid.cost == taking.cost.cost
        assert (claim.limited_seconds is None) == (taking.wait is None)
        if taking.wait is not None:
            assert claim.limited_seconds == pytest.approx(taking.wait[0], abs=2e-3)
            assert claim.limited_urgent == taking.wait[1]
        first = claim.members[:1]
        assert not first or first[0] in wanted or claim.alone != "no" or not set(wanted) & set(self.model.pending)
        if claim.members:
            self.paid[owner] = claim.paid
            self.sent.add((self.names.pending, owner), self.account.clock(), claim.paid.cost)
        return owner, claim

    def give_back(self, owner: str, members: list[bytes]) -> None:
        """All of a claim is released, for none of it is sent."""
        paid = self.paid.get(owner)
        expected = self.model.release(owner, members)
        assert self.store.release([(owner, member) for member in members], paid) == expected
        if expected:  # else another has it by now
            self.account.give_back(paid)
            self.paid.pop(owner, None)
            self.sent.events.pop((self.names.pending, owner), None)

    def lose(self, worker: str, limit: int) -> None:
        """A claim whose answer is lost: it is closed, and what it holds is released."""
        hands = list(self.hands)
        owner = self.claim(worker, limit)
        self.hands = hands
        paid = self.paid.pop(owner, None)
        self.account.lost(owner, self.model.numbers[self.name(worker).rstrip(":")])
        expected = self.model.release(owner, None)
        assert self.store.release_all(owner) == expected
        if paid is not None:
            del self.sent.events[self.names.pending, owner]

    def stop(self, worker: str) -> None:
        """It gives back what it has claimed and has not sent, all of it for one claim of those that it holds."""
        name = self.name(worker)
        unsent = next((owner for owner in self.paid if owner.startswith(name)), None)
        paid = self.paid.pop(unsent, None)
        expected = self.model.release(name, None)
        assert self.store.release_all(name, paid) == expected
        self.store.release_all(name, paid)  # a second time, it gives nothing back
        self.account.give_back(paid)
        self.account.lost(name, 0)
        if paid is not None:
            del self.sent.events[self.names.pending, unsent]
        self.lives[worker] = self.lives.get(worker, 0) + 1


class LimitedHistory(RuleBasedStateMachine):
    """Producers and workers of two namespaces, tries that no claim has paid for, and time that passes."""

    clock: World  # set by the test, as is the next
    client: redis.Redis

    @initialize(limits=st.sampled_from(CHOICES))
    def begin(self, limits):
        client = self.client
        client.flushall()
        self.clock.now = self.clock.now  # which was flushed as well
        self.limits, self.sent = limits, Sent()
        self.account = Account(limits, CALL_TEXTS, CALL_TOKENS, self.clock.time)
        self.queues = [LimitedQueue(client, namespace, self.account, self.sent) for namespace in NAMESPACES]
        self.huge, self.tries, self.keys, self.told = False, 0, 0, 0.0

    # -- producers and workers ---------------------------------------------------------------------------------

    @rule(queue=queues, texts=st.lists(st.sampled_from([SHORT, SHORT, LONG]), min_size=1, max_size=8))
    def enqueue(self, queue, texts):
        self.pass_time(0.001)  # scores are by the clock, and it never stands still
        self.queues[queue].enqueue([(f"doc:{self.keys + i}", text) for i, text in enumerate(texts)])
        self.keys += len(texts)

    @rule(queue=queues, data=st.data())
    def supersede(self, queue, data):
        """A newer text of a key, wherever the older stands."""
        one = self.queues[queue]
        self.pass_time(0.001)
        if one.newest:
            one.enqueue([(data.draw(st.sampled_from(sorted(one.newest))), data.draw(st.sampled_from([SHORT, LONG])))])

    @precondition(lambda self: not self.huge and self.keys > 4)
    @rule(queue=queues)
    def enqueue_too_large_a_text(self, queue):
        self.pass_time(0.001)
        self.queues[queue].enqueue([(f"doc:{self.keys}", HUGE)])
        self.keys += 1
        self.huge = True

    @rule(queue=queues, worker=workers, limit=st.sampled_from([1, 3, 10]), alone=st.booleans(), data=st.data())
    def claim(self, queue, worker, limit, alone, data):
        one = self.queues[queue]
        live = [key for key in one.newest if one.model.member(key.encode()) in one.model.pending]
        urgent = data.draw(st.lists(st.sampled_from(live), max_size=5, unique=True)) if live else []
        one.claim(worker, limit, alone=alone, urgent=urgent)
        wait = self.account.claim.wait
        self.told = wait[0] if wait is not None else 0.0

    @rule(queue=queues, worker=workers, limit=st.sampled_from([3, 10]))
    def the_answer_is_lost(self, queue, worker, limit):
        self.queues[queue].lose(worker, limit)

    @rule(queue=queues, data=st.data())
    def complete(self, queue, data):
        one = self.queues[queue]
        if one.hands:
            owner, _ = data.draw(st.sampled_from(one.hands))
            members = [member for held_by, member in one.hands if held_by == owner]
            one.complete(owner, members)
            one.paid.pop(owner, None)
            one.hands = [hand for hand in one.hands if hand[0] != owner]

    @rule(queue=queues, data=st.data(), times=st.integers(1, 2))
    def give_back(self, queue, data, times):
        one = self.queues[queue]
        if one.hands:
            owner, _ = data.draw(st.sampled_from(one.hands))
            members = [member for held_by, member in one.hands if held_by == owner]
            for _ in range(times):
                one.give_back(owner, members)
            one.paid.pop(owner, None)
            one.hands = [hand for hand in one.hands if hand[0] != owner]

    @rule(queue=queues, worker=workers)
    def stop(self, queue, worker):
        one = self.queues[queue]
        name = one.name(worker)
        one.stop(worker)
        one.hands = [hand for hand in one.hands if not hand[0].startswith(name)]

    @rule(queue=queues, worker=workers, times=st.integers(1, MAX_DELIVERIES))
    def workers_die(self, queue, worker, times):
        """What they have taken is gone, whatever their items wait for again."""
        one = self.queues[queue]
        for _ in range(times):
            one.claim(worker, 2, alone=True)
            for member in list(one.model.inflight):
                one.lease_ends(member)

    # -- what no claim pays for --------------------------------------------------------------------------------

    @rule(queue=queues, cost=st.sampled_from([Cost(1, 1, 1), Cost(1, 3, 12), Cost(2, 4, 40)]))
    def try_in_place(self, queue, cost):
        """It is sent when it is paid, unless that takes too long."""
        buckets, limits = self.queues[queue].store.buckets, self.limits
        if cost.texts > (limits.texts_per_minute or cost.texts) or cost.tokens > (
            limits.tokens_per_minute or cost.tokens
        ):
            return  # no call is larger than a limit, but for one text
        seconds, at = buckets.settle(cost)
        assert (seconds, at) == pytest.approx(self.account.owe(cost), abs=2e-3)
        self.tries += 1
        if seconds > MOST_WAIT_SECONDS:
            buckets.settle(back=Paid(at, cost))
            self.account.give_back(Paid(at, cost))
            self.account.open()
        else:
            self.sent.add(self.tries, self.clock.time() + seconds, cost)

    @rule(queue=queues)
    def look(self, queue):
        left = {limit.name: limit.left for limit in self.queues[queue].store.status().limits}
        self.account.open()
        for one in self.account.buckets:
            assert left[self.name_of(one)] == one.limit - one.gone(self.clock.time())

    @staticmethod
    def name_of(bucket) -> str:
        return "requests_per_day" if bucket.name == "day" else f"{bucket.name}_per_minute"

    @rule(queue=queues, data=st.data(), more=st.sampled_from([0.0, 0.4]))
    def as_long_as_it_was_told(self, data, queue, more):
        self.pass_time(self.told + more)

    @rule(seconds=st.sampled_from([0.1, 1.0, 7.3, 29.0, 60.0, 61.0, 200.0, 90_000.0]))
    def time_passes(self, seconds):
        self.pass_time(seconds)

    def pass_time(self, seconds: float) -> None:
        """Who works renews its leases meanwhile."""
        for one in self.queues:
            one.check()
        seconds += OFF_TIES
        self.clock.now = round(self.clock.now + seconds, 6)
        for one in self.queues:
            for member, holds in one.model.inflight.items():
                if holds:
                    self.client.zincrby(one.names.inflight, seconds, member)

    # -- what must hold after every step -----------------------------------------------------------------------

    @invariant()
    def all_is_as_the_models_say(self):
        if hasattr(self, "queues"):
            for one in self.queues:
                one.check()
            self.account.check(self.client.hgetall("embedqueue:limits:shared"))

    @invariant()
    def in_no_window_went_out_more_than_the_limit(self):
        """But for a text that is larger than what a bucket holds: that goes when it is full."""
        if hasattr(self, "queues"):
            for name, limit in self.limits.by_name.items():
                column, seconds = {"requests": (0, 60), "texts": (1, 60), "tokens": (2, 60), "day": (0, 86_400)}[name]
                huge = 61 if name == "tokens" and self.huge else 0
                assert self.sent.most(column, seconds) <= limit + huge

    def teardown(self):
        """In the end everything that waits is claimed by whoever sleeps as told, in the time that the limits take."""
        if not hasattr(self, "queues"):
            return
        for one in self.queues:
            for member in list(one.model.inflight):
                one.lease_ends(member)
            for _ in range(500):
                if not one.model.waiting and not [held for held in one.model.inflight.values() if not held]:
                    break
                owner = one.claim("end:", 3, alone=True)
                for member in [member for held_by, member in one.hands if held_by == owner]:
                    one.complete(owner, [member])
                wait = self.account.claim.wait
                self.pass_time(wait[0] + 0.001 if wait is not None else 0.0)
                self.all_is_as_the_models_say()
            assert one.model.waiting == 0
        self.in_no_window_went_out_more_than_the_limit()


def check_histories(client: redis.Redis, monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    world = World(client, monkeypatch)
    monkeypatch.setattr("tests.proof.model.READ", by_the_clock(READ))
    machine = type("LimitedOnAClock", (LimitedHistory,), {"clock": world, "client": client})
    examples = max(1, int(factor * settings().max_examples))
    run_state_machine_as_test(
        machine, settings=settings(max_examples=examples, stateful_step_count=40, deadline=None, phases=PHASES)
    )


@pytest.mark.timeout(600)
def test_the_limits_hold_in_every_history(redis_client, monkeypatch):
    """Debts are paid, what is given back is given back once and by who held it, and who is waited for goes first."""
    check_histories(redis_client, monkeypatch, 0.25)


@pytest.mark.timeout(600)
def test_the_limits_hold_on_fakeredis(fake_redis, monkeypatch):
    check_histories(fake_redis, monkeypatch, 0.05)
