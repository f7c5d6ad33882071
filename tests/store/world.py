"""The buckets of the limits on fakeredis, whose clock tests move.

A worker here is a store and a name. What it claims counts as sent at once, unless it is given back.
"""

from __future__ import annotations

from types import SimpleNamespace

import fakeredis

from embedqueue import Limits
from embedqueue.store.store import Store
from embedqueue.values.item import encode_member
from embedqueue.values.limits import Cost

CALL_TEXTS, CALL_TOKENS = 10, 1000


class World:
    """A clock, a Redis that goes by it, and a book of all that was sent."""

    def __init__(self, monkeypatch) -> None:
        self.now = 1_800_000_000.0
        monkeypatch.setattr("fakeredis.commands_mixins.server_mixin.time", SimpleNamespace(time=lambda: self.now))
        monkeypatch.setattr("embedqueue.store.store.time", SimpleNamespace(monotonic=lambda: self.now))
        self.client = fakeredis.FakeRedis(server=fakeredis.FakeServer())
        self.sent: list[tuple[float, Cost]] = []
        self.items = 0

    def most(self, column: str, seconds: float = 60.0) -> int:
        """The most that went out in so many seconds, whichever."""
        events = sorted((at, getattr(cost, column)) for at, cost in self.sent)
        return max((sum(n for at, n in events if end - seconds < at <= end) for end, _ in events), default=0)

    def total(self, column: str, since: float = 0.0) -> int:
        return sum(getattr(cost, column) for at, cost in self.sent if at > since)


class Worker:
    """Claims from a namespace, in calls of ten texts."""

    def __init__(self, world: World, limits, name="w", namespace="q") -> None:
        self.world, self.name, self.claims = world, name, 0
        self.store = Store(world.client, namespace, limits=limits)
        self.store.buckets.fit(CALL_TEXTS, CALL_TOKENS)

    def enqueue(self, count: int, text: str = "text") -> list[str]:
        first = self.world.items
        self.world.items += count
        keys = [f"doc:{i}" for i in range(first, self.world.items)]
        group = [part for key in keys for part in (key.encode(), encode_member(key, text))]
        self.store.enqueue([group], max_pending=None, tell_at=10**6, tell_first=False)
        return keys

    def claim(self, limit: int = 1000, urgent=(), alone=False, budget=None):
        self.claims += 1
        claim = self.store.claim(
            f"{self.name}:{self.claims}/1000:",
            limit,
            probe_limit=CALL_TEXTS,
            lease_seconds=1000,
            max_deliveries=3,
            alone=alone,
            urgent=urgent,
            budget=budget,
        )
        if claim.members:
            self.world.sent.append((self.world.now, claim.paid.cost))
        return claim

    def left(self) -> dict[str, int]:
        return {limit.name: limit.left for limit in self.store.status().limits}

    def release(self, claim, paid) -> int:
        return self.store.release([(claim.owner, member) for member in claim.members], paid)


def wait_for(world: World, worker: Worker, **how):
    """Claim, and sleep as long as the answer says, until something comes."""
    for _ in range(100):
        claim = worker.claim(**how)
        if claim.members:
            return claim
        world.now += claim.limited_seconds + 0.001
    raise AssertionError("nothing was ever claimed")


def full(world: World, **limits: int) -> Worker:
    worker = Worker(world, Limits(**limits))
    worker.left()  # the first look makes the bucket
    world.now += 120
    worker.enqueue(20)
    return worker
