"""Pure decisions about time: what the worker has to do next, and when.

All instants are of this process' monotonic clock; the server's clock never meets them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

Action = Literal["renew", "refresh", "drain"]
NEVER = float("inf")

#: Seconds between two looks at Redis by an idle worker, at most.
REFRESH_SECONDS = 30.0
#: The same where leases are shorter than that: who holds one may die at any time, and nobody tells.
LEAST_REFRESH_SECONDS = 5.0
#: The same where something was said while the last look was under way, and so may be missing in it.
LOOK_AGAIN_SECONDS = 0.05


class Report(Protocol):
    """What a claim or a look at Redis says; see ``store.Claim`` and ``store.Status``."""

    @property
    def waiting(self) -> int:
        """Items that wait."""

    @property
    def oldest_age_seconds(self) -> float | None:
        """How long the oldest of them has waited."""

    @property
    def lease_end_seconds(self) -> float | None:
        """Seconds until the next lease of anybody ends."""

    @property
    def pause_seconds(self) -> float | None:
        """What is left of a pause."""


@dataclass(slots=True)
class Agenda:
    """What the worker knows and wants. Guarded by the worker's condition.

    Attributes:
        flush_interval: seconds that an item may wait.
        max_batch_size: items that make a drain start at once.
        refresh_seconds: seconds between two looks at Redis.
        began_mono: when the worker started; the first look drains at once what was left before that, and resets it.
        waiting: items that wait in Redis, as far as we know.
        oldest_mono: when the oldest of them was enqueued.
        paused_until_mono: nobody claims before.
        refresh_mono: when to look at Redis again; no later than the next end of anybody's lease.
        renew_mono: when our own leases want renewing.
        linger_end_mono: when the linger for those who wait in ``.result()`` is over at the latest.
        demand_mono: when it is over if nobody else comes.
        redis_retry_mono: Redis did not answer: nothing is tried before.
        overtaken: something was said since we last asked Redis; what it answers may be older than that.
        flush: a drain was asked for, or a lease has run out.
        failing: the provider failed last time; what waits is due as soon as the pause is over.
        remaining: items that the drain under way may still claim.
        whole: the drain under way takes all that waits, not only full calls.
        exclusive: what is in flight, or waits for its turn, bears no company: a probe, or an item on its last delivery.
        urgent: redis_keys that somebody waits for, in order.
    """

    flush_interval: float
    max_batch_size: int
    refresh_seconds: float
    began_mono: float = 0.0
    waiting: int = 0
    oldest_mono: float = NEVER
    paused_until_mono: float = 0.0
    refresh_mono: float = 0.0
    renew_mono: float = NEVER
    linger_end_mono: float = NEVER
    demand_mono: float = NEVER
    redis_retry_mono: float = 0.0
    overtaken: bool = False
    flush: bool = False
    failing: bool = False
    remaining: int = 0
    whole: bool = False
    exclusive: bool = False
    urgent: dict[str, None] = field(default_factory=dict)

    def next(self, now: float, calls_in_flight: int, free_calls: int) -> tuple[Action | None, float]:
        """What to do now, or when to ask again.

        Args:
            now: monotonic seconds.
            calls_in_flight: API calls under way in this process.
            free_calls: how many more may start.

        Returns:
            An action and 0, or None and the seconds to wait (infinity: until somebody notifies).
        """
        drain_mono = NEVER
        if free_calls > 0 and not (self.exclusive and calls_in_flight):
            drain_mono = max(self._drain_mono(), self.paused_until_mono)
        wanted: list[tuple[float, Action]] = [
            (self.renew_mono, "renew"),
            (drain_mono, "drain"),
            (self.refresh_mono, "refresh"),
        ]
        due, action = min(wanted, key=lambda pair: pair[0])
        due = max(due, self.redis_retry_mono)
        return (action, 0.0) if due <= now else (None, due - now)

    def _drain_mono(self) -> float:
        if self.flush or self.remaining > 0 or self.waiting >= self.max_batch_size:
            return 0.0
        return min(self.demand_mono, self._time_mono())

    def _time_mono(self) -> float:
        if self.waiting == 0:
            return NEVER
        return 0.0 if self.failing else self.oldest_mono + self.flush_interval

    def claim_limit(self, now: float, call_limit: int, free_calls: int) -> int:
        """How many items the claim that starts now may take.

        Where size alone is the reason: full calls only, but at least what made the drain due.

        Args:
            now: monotonic seconds.
            call_limit: texts of one call.
            free_calls: calls that may start.
        """
        room = call_limit * free_calls
        if self.remaining == 0:
            self.whole = self.flush or self.demand_mono <= now or self._time_mono() <= now
            full_calls = self.waiting - self.waiting % call_limit  # the rest waits for company
            enough = -(-self.max_batch_size // call_limit) * call_limit  # calls that carry what made the drain due
            self.remaining = room if self.whole else max(full_calls, min(self.waiting, enough))
            self.flush = False
        self.demand_mono = self.linger_end_mono = NEVER
        return min(room, self.remaining)

    def claimed(self, taken: int, report: Report, now: float) -> None:
        """Note what a claim brought: a drain goes on until what waited at its start is claimed."""
        if self.whole:
            self.remaining, self.whole = report.waiting, False
        else:
            self.remaining = min(self.remaining - taken, report.waiting)
        if taken == 0:
            self.remaining = 0
        self.seen(report, now)

    def seen(self, report: Report, now: float) -> None:
        """Note how things stand in Redis."""
        self.waiting = report.waiting
        self.oldest_mono = NEVER if report.oldest_age_seconds is None else now - report.oldest_age_seconds
        # An item of the future: a clock was set back, or the asyncio design's was ahead. Nobody knows how old it is.
        self.flush |= self.oldest_mono < self.began_mono or now < self.oldest_mono < NEVER
        self.began_mono = 0.0
        self.paused_until_mono = 0.0 if report.pause_seconds is None else now + report.pause_seconds
        self.refresh_mono = now + (LOOK_AGAIN_SECONDS if self.overtaken else self.refresh_seconds)
        if report.lease_end_seconds is not None:
            if report.lease_end_seconds <= 0:
                self.flush = True
            else:
                self.refresh_mono = min(self.refresh_mono, now + report.lease_end_seconds)

    def enqueued(self, waiting: int, now: float) -> bool:
        """Note an enqueue of this process; returns whether the worker has to think again."""
        self.overtaken = True
        first = self.waiting == 0 and waiting > 0
        self.waiting = waiting
        if first:
            self.oldest_mono = min(self.oldest_mono, now)
        return first or waiting >= self.max_batch_size

    def look(self) -> None:
        """Look at Redis as soon as possible: something has changed there."""
        self.overtaken = True
        self.refresh_mono = 0.0

    def demanded(self, redis_key: str, now: float, linger: float) -> bool:
        """Note that somebody waits for an item; returns whether the worker has to think again.

        The linger is for company: it ends after ``linger`` seconds, or once nobody has come for a quarter of that. So
        who joins only puts it off, and need not wake the worker.
        """
        self.urgent[redis_key] = None
        first = self.linger_end_mono == NEVER
        if first:
            self.linger_end_mono = now + linger
        self.demand_mono = min(self.linger_end_mono, now + linger / 4)
        return first

    def take_urgent(self) -> list[str]:
        """The keys that somebody waits for, once."""
        urgent, self.urgent = list(self.urgent), {}
        return urgent
