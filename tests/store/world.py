"""The buckets of the limits on a Redis whose clock tests move: its scripts read the time from a key.

A worker here is a store and a name. What it claims counts as sent at once, unless it is given back.
"""

from __future__ import annotations

import contextlib
from functools import cache
from types import SimpleNamespace

import redis

from embedqueue import Limits
from embedqueue.store.budget import state_of
from embedqueue.store.scripts import script_text
from embedqueue.store.store import Store
from embedqueue.values.item import encode_member
from embedqueue.values.limits import Cost

CALL_TEXTS, CALL_TOKENS = 10, 1000
#: What scripts find instead of ``TIME``.
CLOCK = '{string.match(redis.call("GET", "clock"), "(%d+) (%d+)")}'


def by_the_clock(script: str) -> str:
    """The script as it is, but that it reads the time there."""
    before, time, after = script.partition('redis.call("TIME")')
    assert time
    assert "TIME" not in after
    return before + CLOCK + after


@cache
def script_by_the_clock(name: str, limited: bool = False) -> str:
    return by_the_clock(script_text(name, limited))


class World:
    """A clock, a Redis that goes by it, and a book of all that was sent."""

    def __init__(self, client: redis.Redis, monkeypatch) -> None:
        monkeypatch.setattr("embedqueue.store.scripts.script_text", script_by_the_clock)
        monkeypatch.setattr("embedqueue.store.store.time", SimpleNamespace(monotonic=self.time))
        monkeypatch.setattr("embedqueue.store.budget.state_of", lambda now, *kept: state_of(int(self.now), *kept))
        self.client = client
        self.now = 1_800_000_000.0
        self.sent: list[tuple[float, Cost]] = []
        self.items = 0
        self.opened = contextlib.ExitStack()

    @property
    def now(self) -> float:
        return self._now

    @now.setter
    def now(self, seconds: float) -> None:
        self._now = seconds
        whole, micros = divmod(round(seconds * 1e6), 1_000_000)
        self.client.set("clock", f"{whole} {micros}")

    def time(self) -> float:
        return self.now

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
        world.opened.callback(self.store.close)
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
