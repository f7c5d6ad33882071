"""What the limits of a queue must be in Redis after each move: buckets.lua again, on a list of all that was counted.

The scripts keep sums and slots; the model keeps every booking, and adds up. The level of a bucket, and when it was so,
it takes over from Redis once it has seen that both agree: else the last decimals would part them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from embedqueue.values.limits import Cost, Limits, Paid
from embedqueue.values.tokens import estimated_tokens

SLOTS = 60  # a window is counted in so many
WINDOWS = {"requests": 60, "texts": 60, "tokens": 60, "day": 86_400}
#: By how much whoever was refused first may come late, in seconds.
GRACE_SECONDS = 0.25
MOST_GATHERING_SECONDS = 0.5
#: Before it may go, what somebody waits for bars the others for so long at most.
MOST_FIRST_SECONDS = 122.0
#: Who owes for longer sends nothing.
MOST_WAIT_SECONDS = 62.0
NEAR = 1e-6


@dataclass
class Bucket:
    """One limit."""

    name: str
    limit: int
    capacity: float
    level: float = 0.0  # what may go out at once; of a day there is no pace
    at: float | None = None  # when it was that; None: nobody has looked yet
    first: int = 0  # slots before this one count no longer
    booked: list[tuple[int, int]] = field(default_factory=list)  # the slot, and how much

    @property
    def window(self) -> int:
        return WINDOWS[self.name]

    @property
    def pace(self) -> float:
        return 0.0 if self.name == "day" else self.limit / self.window * SLOTS / (SLOTS + 1)

    def amount(self, cost: Cost) -> int:
        return cost.requests if self.name == "day" else getattr(cost, self.name)

    def slot(self, now: float) -> int:
        return int(now // (self.window / SLOTS))

    def settle(self, now: float) -> None:
        """It is refilled until now."""
        if self.at is None:
            self.level, self.first = 0.0, self.slot(now)  # nobody knows what was sent before
        elif self.pace:
            self.level = min(self.capacity, self.level + (now - self.at) * self.pace)
        self.at, self.first = now, max(self.first, self.slot(now) - SLOTS)

    def gone(self, now: float) -> int:
        """What has gone out in the window, and what will, for it is owed."""
        return sum(amount for slot, amount in self.booked if slot >= self.slot(now) - SLOTS)

    def available(self, now: float) -> float:
        left = self.limit - self.gone(now)
        return min(self.level, left) if self.pace else left

    def seconds_until(self, amount: float, now: float, owed: int = 0) -> float:
        """Until so much may go out, or as much as it holds; ``owed`` is taken from the level already."""
        amount = min(amount, self.capacity)
        seconds = max(0.0, (amount - self.level) / self.pace) if self.pace else 0.0
        over = self.gone(now) + owed + amount - self.limit
        for slot in range(self.slot(now) - SLOTS, self.slot(now + MOST_WAIT_SECONDS) + 1):
            if over <= NEAR:
                break
            over -= sum(amount for at, amount in self.booked if at == slot)
            if over <= NEAR:
                seconds = max(seconds, (slot + SLOTS + 1) * self.window / SLOTS - now)
        return 0.0 if seconds <= NEAR else seconds


@dataclass
class Taking:
    """What one claim has met, in order: the sums of the first of them, and after how many a call ends."""

    sums: list[Cost] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    of_call: Cost = Cost()
    urgent: int = 0
    urgent_known: bool = False
    cost: Paid | None = None  # what was taken in the end
    wait: tuple[float, bool] | None = None  # until more may go, and whether somebody waits for it


@dataclass
class Account:
    """All buckets of some limits, which namespaces may share.

    Args:
        limits: the option.
        call_texts: that one call holds.
        call_tokens: that one call holds.
        clock: the server's.
    """

    limits: Limits
    call_texts: int
    call_tokens: int
    clock: Callable[[], float]
    first: float = 0.0  # until when only what somebody waits for may go out
    barred_until: float = 0.0  # the same, as it counts now
    paid: dict[str, tuple[int, Paid]] = field(default_factory=dict)  # by worker, what its last claim has taken

    def __post_init__(self) -> None:
        call = Cost(1, self.call_texts, self.call_tokens)
        self.buckets = [Bucket(name, limit, float(limit)) for name, limit in self.limits.by_name.items()]
        for one in self.buckets:
            if one.pace:
                one.capacity = min(one.limit, max(one.amount(call), one.limit / SLOTS))
        self.claim = Taking()

    # -- a claim -----------------------------------------------------------------------------------------------

    def open(self) -> None:
        self.claim = Taking()
        self.barred_until = self.first if self.first <= self.clock() + MOST_FIRST_SECONDS + GRACE_SECONDS else 0.0
        for one in self.buckets:
            one.settle(self.clock())

    def _fits(self, cost: Cost) -> bool:
        return all(one.amount(cost) <= one.available(self.clock()) + NEAR for one in self.buckets)

    def _fitting(self) -> int:
        """How many of them, the first, may go."""
        return next((n for n, cost in enumerate(self.claim.sums) if not self._fits(cost)), len(self.claim.sums))

    def add(self, member: bytes) -> None:
        claim, tokens = self.claim, estimated_tokens(json.loads(member)["text"])
        starts = not claim.sums or claim.of_call.texts >= self.call_texts
        if starts or claim.of_call.tokens + tokens > self.call_tokens:
            if claim.sums:
                claim.ends.append(len(claim.sums))
            claim.of_call = Cost(1)
        before, of_call = claim.sums[-1] if claim.sums else Cost(), claim.of_call
        claim.sums.append(before.plus(Cost(of_call.requests, 1, tokens)))
        claim.of_call = Cost(0, of_call.texts + 1, of_call.tokens + tokens)

    def full(self) -> bool:
        """Whether the script looks at no more: not all fits, and a call is known, or as much as a bucket holds."""
        claim = self.claim
        if not claim.sums:
            return claim.urgent_known and self.barred_until > self.clock()
        if self._fitting() == len(claim.sums):
            return False
        holds = any(one.amount(claim.sums[-1]) >= one.capacity for one in self.buckets)
        return bool(claim.ends) or len(claim.sums) >= self.call_texts or holds

    def waited_for(self, count: int) -> None:
        self.claim.urgent, self.claim.urgent_known = count, True

    def _lack(self, count: int, part: float = 0.0) -> float:
        cost, now = self.claim.sums[count - 1], self.clock()
        return max(one.seconds_until(max(one.amount(cost), part * one.capacity), now) for one in self.buckets)

    def take(self, owner: str) -> int:
        """How many go, the first: whole calls, what is waited for when it fits; too large a one from a full bucket."""
        claim, now = self.claim, self.clock()
        count = kept = len(claim.sums)
        if not claim.urgent and self.barred_until > now:
            claim.wait = self.barred_until - now, False
            return 0
        if not count:
            return 0
        fitting = self._fitting()
        head = 1 if claim.urgent else (claim.ends or [count])[0]
        if fitting < count:
            kept = max([min(fitting, claim.urgent), *(end for end in claim.ends if end <= fitting)])
            if not kept and not self._lack(head):
                kept = max(1, fitting)
            elif not kept and claim.urgent:
                self.first = now + self._lack(head) + GRACE_SECONDS
        if kept:
            claim.cost = Paid(now, claim.sums[kept - 1])
            self._book(claim.cost.cost, now)
            worker, _, number = owner.rstrip(":").partition(":")
            self.paid[worker] = int(number), claim.cost
        if kept < count:
            held = max(0, claim.urgent - kept)
            following = 1 if kept else head
            gathering = 0.0 if held else min(self._lack(following, 0.5), MOST_GATHERING_SECONDS)
            claim.wait = max(self._lack(following), gathering), bool(held)
        return kept

    # -- what no claim knows -----------------------------------------------------------------------------------

    def _book(self, cost: Cost, at: float) -> None:
        for one in self.buckets:
            one.level -= one.amount(cost)
            one.booked.append((one.slot(at), one.amount(cost)))

    def owe(self, cost: Cost) -> tuple[float, float]:
        """The seconds until it is paid, and when it counts."""
        now = self.clock()
        self.open()
        for one in self.buckets:
            one.level -= one.amount(cost)
        seconds = max(one.seconds_until(0, now, one.amount(cost)) for one in self.buckets)
        at = now + min(seconds, MOST_WAIT_SECONDS)
        for one in self.buckets:
            one.booked.append((one.slot(at), one.amount(cost)))
        return seconds, at

    def give_back(self, paid: Paid | None) -> None:
        for one in self.buckets if paid is not None else ():
            if one.slot(paid.at) >= one.first:
                one.level += one.amount(paid.cost)
                one.booked.append((one.slot(paid.at), -one.amount(paid.cost)))

    def lost(self, owner: str, last: int) -> None:
        """A claim was released whose answer nobody knows, or all claims of a worker were; ``last``: its last number."""
        worker, _, number = owner.rstrip(":").partition(":")
        kept, paid = self.paid.pop(worker, (0, None))
        if number and int(number) == last == kept:
            self.give_back(paid)

    # -- comparing ---------------------------------------------------------------------------------------------

    def check(self, found: Mapping[bytes, bytes]) -> None:
        """Compare with the hash in Redis."""
        now = self.clock()
        for one in self.buckets:
            line = found.get(one.name.encode())
            if one.at is None:
                assert line is None
                continue
            level, at, gone, first = map(float, line.split())
            assert one.first == first
            kept = {slot: 0 for slot, _ in one.booked if slot >= first}
            for slot, amount in one.booked:
                if slot in kept:
                    kept[slot] += amount
            slots = {
                int(name.rpartition(b":")[2]): int(value)
                for name, value in found.items()
                if name.startswith(one.name.encode() + b":")
            }
            assert {slot: amount for slot, amount in slots.items() if amount} == {s: a for s, a in kept.items() if a}
            assert gone == sum(kept.values())
            theirs = min(one.capacity, level + (now - at) * one.pace) if one.pace else 0.0
            ours = min(one.capacity, one.level + (now - one.at) * one.pace) if one.pace else 0.0
            assert abs(theirs - ours) < 1e-3
            one.level, one.at = level, at
            one.booked = [(slot, amount) for slot, amount in kept.items() if amount]
