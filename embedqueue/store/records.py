"""What Redis answers, as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim brought.

    Attributes:
        status: "ok", "probe" (these items test a provider that failed) or "paused".
        owner: the name under which the members are held.
        members: what was claimed, in order.
        waiting: items that stay in pending.
        oldest_age_seconds: how long the oldest of those waits, or None.
        lease_end_seconds: seconds until the next lease of anybody ends, or None.
        pause_seconds: what is left of a pause, or None.
        alone: whether an item on its last delivery has to travel alone: "no"; "waits": until nothing is in flight;
            "taken": this is one.
        waited_seconds: how long the oldest of the members has waited, 0 where there are none.
        ran_out: claims whose lease had ended.
        buried: members that became dead letters by this, why, and how often their lease had ended.
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
    buried: Sequence[tuple[bytes, str, int]] = ()
    asked_mono: float = 0.0


@dataclass(frozen=True, slots=True)
class Status:
    """How things stand in Redis; times as in :class:`Claim`, ``now`` and ``newest`` by the server's clock.

    Attributes:
        failing: the provider has not answered well since it failed.
        unfinished: see :meth:`Store.status`, as for ``newest``.
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
    """One entry of the events stream."""

    kind: str
    by: str
    body: str
