"""Pure decisions: what the worker does next, and when. Tested by table, without a thread and without a clock.

All instants are of this process' monotonic clock; the server's clock never meets them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from embedqueue.values.backoff import backoff_seconds

#: Renew our leases; look at how things stand in Redis; claim; ask the workers of other processes for what somebody here
#: waits for; look what became of it.
Action = Literal["renew", "refresh", "claim", "ask", "check"]
NEVER = float("inf")

#: Seconds between two looks at Redis by an idle worker, at most.
REFRESH_SECONDS = 30.0
#: The same where leases are shorter than that: who holds one may die at any time, and nobody tells.
LEAST_REFRESH_SECONDS = 5.0
#: The same where something was said while the last look was under way, and so may be missing in it.
REFRESH_AGAIN_SECONDS = 0.05
#: Seconds between looks at what became of the items that somebody waits for: the first, and the longest; one script
#: call each. They find what a lost notice told, and whatever waits again after it was released or superseded.
CHECK_SECONDS = (2.0, 5.0)


class Standing(Protocol):
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
class Plan:
    """What the worker knows and wants. Only its own methods change it; see ``agenda`` for the lock around it.

    Attributes:
        flush_interval: seconds that an item may wait.
        max_batch_size: items that make a drain start at once.
        refresh_seconds: seconds between two looks at Redis.
        worker: whether this process may claim at all.
        works: whether it does: the worker was started.
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
        alone: what is in flight, or comes next, must travel alone: a probe, or an item on its last delivery.
        urgent: redis_keys that somebody waits for, in order.
        asked: those of them that the workers of other processes have to be asked for; or ours, which has to be started.
        check_mono: when to look what became of what somebody waits for; NEVER where nobody does.
        looks: such looks in a row.
    """

    flush_interval: float
    max_batch_size: int
    refresh_seconds: float
    worker: bool = True
    works: bool = False
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
    alone: bool = False
    urgent: dict[str, None] = field(default_factory=dict)
    asked: dict[str, None] = field(default_factory=dict)
    check_mono: float = NEVER
    checks: int = 0

    @property
    def idle(self) -> bool:
        """Whether a process that does not work has nothing to do: nobody waits in it."""
        return not self.works and not self.asked and self.check_mono == NEVER

    def next(self, now: float, unfinished: int, free_calls: int) -> tuple[Action | None, float]:
        """What to do now, or when to ask again.

        Args:
            now: monotonic seconds.
            unfinished: calls of this process that are not back.
            free_calls: how many more may start.

        Returns:
            An action and 0, or None and the seconds to wait (infinity: until somebody notifies).
        """
        drain_mono = NEVER
        if free_calls > 0 and not (self.alone and unfinished):
            drain_mono = max(self._drain_mono(), self.paused_until_mono)
        wanted: list[tuple[float, Action]] = [(0.0 if self.asked else NEVER, "ask"), (self.check_mono, "check")]
        if self.works:
            wanted = [
                (self.renew_mono, "renew"),
                (drain_mono, "claim"),
                (self.refresh_mono, "refresh"),
                *wanted,
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

    def begin(self, now: float) -> None:
        """The worker is started: what an earlier run left, or was enqueued here before, is drained at once."""
        self.works = True
        self.began_mono = now
        self.flush |= self.waiting > 0

    def room(self, size: int, in_flight: int, held: int, call_limit: int) -> int:
        """For how many calls to claim: as many as may start; of a long backlog one more, so that none idles meanwhile.

        Args:
            size: calls that may be in flight at a time.
            in_flight: calls that have no answer yet.
            held: items in our hands.
            call_limit: texts of one call.
        """
        if held >= (2 * size + 1) * call_limit:  # many items may share few calls: those of equal texts join one
            return 0
        free = max(0, size - in_flight)
        long = self.waiting >= (free + size) * call_limit and not self.failing
        return min(size, max(0, size + int(long) - in_flight))

    def claimed(
        self,
        taken: int,
        standing: Standing,
        now: float,
        *,
        failing: bool = False,
        alone: bool = False,
        renew_mono: float = NEVER,
    ) -> None:
        """Note what a claim brought: a drain goes on until what waited at its start is claimed.

        Args:
            taken: items that were claimed.
            standing: how things stand after it.
            now: monotonic seconds.
            failing: the provider has not answered well since it failed.
            alone: what was claimed, or has to be claimed next, must travel alone.
            renew_mono: when the leases of what was claimed want renewing.
        """
        if self.whole:
            self.remaining, self.whole = standing.waiting, False
        else:
            self.remaining = min(self.remaining - taken, standing.waiting)
        if taken == 0:
            self.remaining = 0
        self.seen(standing, now)
        self.failing, self.alone = failing, alone
        self.renew_mono = min(self.renew_mono, renew_mono)

    def claim_failed(self, urgent: Iterable[str]) -> None:
        """Nothing is known to have been claimed: what was due still is, and so are these keys."""
        self.flush = True
        self.urgent.update(dict.fromkeys(urgent))

    def asking(self) -> None:
        """Redis is asked now: its answer may lack what is noted from here on."""
        self.overtaken = False

    def renewed(self, renew_mono: float) -> None:
        """Our leases were renewed; when to do it again, NEVER where we hold none."""
        self.renew_mono = renew_mono

    def rest(self, until_mono: float) -> None:
        """Redis did not answer: try nothing before."""
        self.redis_retry_mono = until_mono

    def seen(self, standing: Standing, now: float, *, failing: bool | None = None) -> None:
        """Note how things stand in Redis, and whether the provider fails where that is known."""
        self.failing = self.failing if failing is None else failing
        self.waiting = standing.waiting
        self.oldest_mono = NEVER if standing.oldest_age_seconds is None else now - standing.oldest_age_seconds
        # An item of the future: a clock was set back, or the asyncio design's was ahead. Nobody knows how old it is.
        self.flush |= self.oldest_mono < self.began_mono or now < self.oldest_mono < NEVER
        self.began_mono = 0.0
        self.paused_until_mono = 0.0 if standing.pause_seconds is None else now + standing.pause_seconds
        self.refresh_mono = now + (REFRESH_AGAIN_SECONDS if self.overtaken else self.refresh_seconds)
        if standing.lease_end_seconds is not None:
            if standing.lease_end_seconds <= 0:
                self.flush = True
            else:
                self.refresh_mono = min(self.refresh_mono, now + standing.lease_end_seconds)

    def enqueued(self, waiting: int, now: float) -> bool:
        """Note an enqueue of this process; returns whether the worker has to think again."""
        self.overtaken = True
        first = self.waiting == 0 and waiting > 0
        self.waiting = waiting
        if first:
            self.oldest_mono = min(self.oldest_mono, now)
        return first or waiting >= self.max_batch_size

    def refresh_now(self) -> bool:
        """Look at Redis as soon as possible: something has changed there. The worker has to think again."""
        self.overtaken = True
        self.refresh_mono = 0.0
        return True

    def flush_now(self) -> bool:
        """Drain as soon as possible. The worker has to think again."""
        self.flush = True
        return True

    def paused(self, until_mono: float) -> bool:
        """The provider failed: claim nothing before, and look what waits by now. The worker has to think again."""
        self.failing = True
        self.paused_until_mono = until_mono
        return self.refresh_now()

    def demanded(self, redis_keys: Iterable[str], now: float, linger: float) -> bool:
        """Note that somebody waits, and for which items that nobody has claimed; whether the worker has to think again.

        The linger is for company: it ends after ``linger`` seconds, or once nobody has come for a quarter of that. So
        who joins only puts it off, and need not wake the worker.
        """
        waits = self.check_mono == NEVER
        if waits:
            self.check_mono = now + CHECK_SECONDS[0]
        keys = dict.fromkeys(redis_keys)
        if keys and not self.works:
            self.asked |= keys
        if not keys or not self.worker:
            return waits or bool(keys)
        self.urgent |= keys
        first = self.linger_end_mono == NEVER
        if first:
            self.linger_end_mono = now + linger
        self.demand_mono = min(self.linger_end_mono, now + linger / 4)
        return waits or first or not self.works

    def checked(self, now: float, waits: bool) -> None:
        """Note that we have looked what became of what somebody waits for, and whether somebody still does."""
        self.checks = self.checks + 1 if waits else 0
        self.check_mono = now + backoff_seconds(self.checks + 1, *CHECK_SECONDS) if waits else NEVER

    def take_asked(self) -> list[str]:
        """The keys to ask others for, once."""
        asked, self.asked = list(self.asked), {}
        return asked

    def take_urgent(self) -> list[str]:
        """The keys that somebody waits for, once."""
        urgent, self.urgent = list(self.urgent), {}
        return urgent
