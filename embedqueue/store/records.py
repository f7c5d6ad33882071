"""What Redis answers, as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim brought.

    Attributes:
        status: "ok"; "probe": these items test a provider that failed; "paused": nobody claims.
        owner: the name under which the members are held, ``WORKER:NUMBER/SECONDS:``.
        members: what was claimed, in order.
        waiting: how many items stay in pending.
        oldest_age_seconds: how long the oldest of those has waited; None where none waits.
        lease_end_seconds: how long until the next lease of anybody ends; None where nothing is in flight.
        pause_seconds: how long the pause still lasts; None where there is none.
        alone: whether an item on its last delivery has to travel alone. "no": there is none. "waits": it stays in
            pending until the caller has nothing in flight. "taken": it is the one member.
        waited_seconds: how long the oldest of the members has waited; 0 where there are none.
        ran_out: how many claims had a lease that ran out; their items wait again, or are rejected.
        rejected: members that became dead letters by this claim, the reason, and how often their lease had run out.
        asked_mono: when Redis was asked, by our monotonic clock.
    """

    status: str
    owner: str
    members: list[bytes]
    waiting: int
    oldest_age_seconds: float | None
    lease_end_seconds: float | None
    pause_seconds: float | None
    alone: str
    waited_seconds: float = 0.0
    ran_out: int = 0
    rejected: Sequence[tuple[bytes, str, int]] = ()
    asked_mono: float = 0.0


@dataclass(frozen=True, slots=True)
class Status:
    """How a queue stands in Redis.

    Attributes:
        now: Unix time, by the server's clock.
        waiting: how many items wait.
        in_flight: how many items are claimed and not finished.
        dead: how many dead letters there are.
        oldest_age_seconds: how long the oldest waiting item has waited; None where none waits.
        lease_end_seconds: how long until the next lease ends; None where nothing is in flight.
        pause_seconds: how long the pause still lasts; None where there is none.
        pause_reason: why there is a pause, in words for people; "" where there is none.
        failing: the provider has not answered well since it failed.
        unfinished: how many items were enqueued until the time that was asked for, and are not finished.
        newest: a time, by the server's clock, until which all of those were enqueued: ``now``, or later where the clock
            was set back.
        probe: the owner of the claim that tests the provider, or "".
    """

    now: float
    waiting: int
    in_flight: int
    dead: int
    oldest_age_seconds: float | None
    lease_end_seconds: float | None
    pause_seconds: float | None
    pause_reason: str
    failing: bool
    unfinished: int
    newest: float
    probe: str

    @property
    def probing(self) -> bool:
        """Whether nobody claims because a call tests the provider just now."""
        return bool(self.probe) and not self.pause_reason


@dataclass(frozen=True, slots=True)
class Notice:
    """One entry of the events stream.

    Attributes:
        kind: "wake", "flush", "urgent", "done", "stale", "blank", "failed", "unserved" or "paused"; see docs/design.md.
        by: the worker that tells, or "".
        body: a JSON list of redis_keys, a JSON object, or "".
    """

    kind: str
    by: str
    body: str
