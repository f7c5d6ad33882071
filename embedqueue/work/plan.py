"""Pure decisions: what the worker does next, and when. Tested by table, without a thread and without a clock.

Every instant is a time of this process's monotonic clock, in seconds. It is never compared with the server's clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

from embedqueue.store.records import Claim, Status, due_seconds
from embedqueue.values.backoff import backoff_seconds
from embedqueue.values.item import NotOurs, decode_member

from .durations import NEVER

#: "renew": extend our leases. "refresh": read how things stand in Redis. "claim": take items. "ask": tell other
#: processes what somebody here waits for. "check": find out what became of that. "beat": tell that we work.
Action = Literal["renew", "refresh", "claim", "ask", "check", "beat"]

#: Seconds between two refreshes of an idle worker, at most.
REFRESH_SECONDS = 30.0
#: The same where leases are shorter than that. A worker that holds a lease may die at any time, and no notice tells so.
LEAST_REFRESH_SECONDS = 5.0
#: The same if something was noted during the last refresh: its answer may be older than that.
REFRESH_AGAIN_SECONDS = 0.05
#: Seconds after which a claim asks whether a pause without an end still lasts: no notice tells of a DEL by hand.
LOOK_AGAIN_SECONDS = 5.0
#: Seconds by which a claim comes later than the limits say: they are told in microseconds, and waits may end early.
LIMIT_MARGIN_SECONDS = 0.001
#: Seconds between two checks on the items that somebody waits for: at first, and at most. A check is one call of a
#: script. It finds what a lost notice told, and items that wait again because they were released or superseded.
CHECK_SECONDS = (2.0, 5.0)
#: Seconds between two heartbeats of a worker; and seconds after which a late one comes before claims.
BEAT_SECONDS = 20.0
LATE_BEAT_SECONDS = 5.0
#: redis_keys that one claim looks for before it takes anything else: its script looks each of them up.
URGENT_LIMIT = 1000


#: How things stand in Redis: what a claim, or a refresh, tells.
Standing = Claim | Status


@dataclass(slots=True)
class Plan:
    """What the worker knows and wants. Only its own methods change it, and :class:`Agenda` holds the lock around them.

    A drain is a round of claims: it goes on until what waited at its start is claimed. A pause only delays it.

    Attributes:
        flush_interval: seconds that an item may wait before a drain starts.
        max_batch_size: a drain starts at once when so many items wait.
        refresh_seconds: seconds between two refreshes, at most.
        worker: whether this process may claim at all: the option of that name.
        works: whether it does, because the worker was started.
        began_mono: when the worker was started. The first refresh makes items from before that due, and resets it.
        quiet_until_mono: nothing is claimed before only because of the time that it has waited, or because somebody has
            left it: this process may end at any moment. NEVER where it is known to: then no number of items is enough.
        left: items wait that an earlier run, or a worker that died, has left.
        fresh: whether this process has begun to enqueue since then. If not, all that waits was there before.
        waiting: items that wait in Redis, as far as we know; those for batch jobs are none of them.
        meant: how many waited for batch jobs when that was last seen.
        due_mono: when the first of them is due because of the time; NEVER if none waits.
        paused_until_mono: nobody claims before.
        refresh_mono: when to refresh; no later than the next lease of any process ends.
        renew_mono: when our own leases want renewing; NEVER if we hold none.
        linger_end_mono: when the linger for those who wait in ``.result()`` is over at the latest.
        demand_mono: when the linger is over if nobody else comes.
        redis_retry_mono: Redis did not answer, so nothing is tried before.
        barred_until_mono: this process may not claim before, whoever else may: it is at odds with what Redis keeps.
        limited_until_mono: the limits let nothing be claimed before.
        limited_urgent: whether they have held back what somebody waits for; else that may go earlier.
        ahead: whether to claim ahead of the calls that may start. Not where there are limits: what they let go is sent
            at once.
        overtaken: something was noted since we last asked Redis, so its answer may be older than that.
        flush: somebody asked for a drain, or a lease has run out.
        failing: the provider failed last time, so what waits is due as soon as the pause is over.
        remaining: items that the drain under way may still claim.
        whole: whether the drain under way takes everything that waits, or full calls first.
        remainder: whether a drain has left what fills no call: once no call of ours is in flight, that goes too, with
            what has come meanwhile.
        alone: what is in flight, or comes next, must travel alone: a probe, or an item on its last delivery.
        urgent: redis_keys that somebody waits for, in order, until a claim brings them or shows that they do not wait.
        lingered: how many of them, the first, have had their linger: they are due at once.
        asked: redis_keys for which to ask the workers of other processes, or to start ours.
        check_mono: when to check on the items that somebody waits for; NEVER if nobody waits.
        checks: such checks in a row.
        beat_mono: when to tell that we work; NEVER where we claim what somebody here waits for alone.
    """

    flush_interval: float
    max_batch_size: int
    refresh_seconds: float
    worker: bool = True
    works: bool = False
    began_mono: float = 0.0
    quiet_until_mono: float = 0.0
    left: bool = False
    fresh: bool = False
    waiting: int = 0
    meant: int = 0
    due_mono: float = NEVER
    paused_until_mono: float = 0.0
    refresh_mono: float = 0.0
    renew_mono: float = NEVER
    linger_end_mono: float = NEVER
    demand_mono: float = NEVER
    redis_retry_mono: float = 0.0
    barred_until_mono: float = 0.0
    limited_until_mono: float = 0.0
    limited_urgent: bool = False
    ahead: bool = True
    overtaken: bool = False
    flush: bool = False
    failing: bool = False
    remaining: int = 0
    whole: bool = False
    remainder: bool = False
    alone: bool = False
    urgent: dict[str, None] = field(default_factory=dict)
    lingered: int = 0
    asked: dict[str, None] = field(default_factory=dict)
    check_mono: float = NEVER
    checks: int = 0
    beat_mono: float = NEVER

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do: this process does not claim, and nobody waits in it."""
        return not self.works and not self.asked and self.check_mono == NEVER

    def next(self, now: float, unfinished: int, free_calls: int) -> tuple[Action | None, float]:
        """What to do now, or when to ask again.

        Args:
            now: by the monotonic clock, in seconds.
            unfinished: calls of this process that are not back.
            free_calls: how many more calls to claim for; see :meth:`room`.

        Returns:
            An action and 0; or None and the seconds to wait, which are NEVER if only a note can make something due.
        """
        claim_mono = NEVER
        if free_calls > 0 and not (self.alone and unfinished):
            held_mono = max(self.paused_until_mono, self.barred_until_mono, self.limited_until_mono)
            claim_mono = max(self._drain_mono(unfinished), held_mono)
        wanted: list[tuple[float, Action]] = [(0.0 if self.asked else NEVER, "ask"), (self.check_mono, "check")]
        if self.works:
            wanted = [
                (self.renew_mono, "renew"),
                (self.beat_mono + LATE_BEAT_SECONDS, "beat"),
                (claim_mono, "claim"),
                (self.refresh_mono, "refresh"),
                *wanted,
                (self.beat_mono, "beat"),  # when nothing else is to be done
            ]
        due, action = min(wanted, key=lambda pair: max(pair[0], now))  # of those that are due, the first one
        due = max(due, self.redis_retry_mono)
        return (action, 0.0) if due <= now else (None, due - now)

    def _drain_mono(self, unfinished: int) -> float:
        """When a drain is due, or its next claim; 0 for at once."""
        if self.flush or self.remaining > 0 or self.lingered > 0 or self._is_size_reached:
            return 0.0
        rest_mono = self.quiet_until_mono if self.remainder and not unfinished else NEVER
        return min(self.demand_mono, self._time_mono(), rest_mono)

    @property
    def _is_size_reached(self) -> bool:
        return self.waiting >= self.max_batch_size and self.quiet_until_mono != NEVER

    def _time_mono(self) -> float:
        """When a drain is due because of the time that items have waited, or because somebody has left them."""
        if self.left:
            return self.quiet_until_mono
        if self.waiting == 0:
            return NEVER
        return max(0.0 if self.failing else self.due_mono, self.quiet_until_mono)

    def claim_limit(self, now: float, call_limit: int, free_calls: int) -> int:
        """Begin a claim, and a drain if none is under way.

        A drain for size alone takes full calls first, but at least as many items as made it due.

        Args:
            now: by the monotonic clock, in seconds.
            call_limit: texts that one call holds.
            free_calls: how many calls to claim for; at least 1.

        Returns:
            How many items this claim may take.
        """
        room = call_limit * free_calls
        if self.remaining == 0:
            self.whole = (
                self.flush
                or self.lingered > 0
                or min(self.demand_mono, self._time_mono()) <= now
                or not self._is_size_reached  # but a remainder
            )
            full_calls = self.waiting - self.waiting % call_limit  # the rest may find company until these are back
            enough = -(-self.max_batch_size // call_limit) * call_limit  # calls that carry what made the drain due
            self.remaining = room if self.whole else max(full_calls, min(self.waiting, enough))
            self.flush = self.left = False
            self.remainder = not self.whole and self.waiting > self.remaining
        self.demand_mono = self.linger_end_mono = NEVER
        self.lingered = len(self.urgent)
        return min(room, self.remaining)

    def first_urgent(self) -> list[str]:
        """The redis_keys that a claim is to look for first."""
        return list(islice(self.urgent, URGENT_LIMIT))

    def begin(self, now: float, quiet_seconds: float) -> None:
        """The worker is started ``now``. What was enqueued before, here or by an earlier run, is due after the quiet.

        Args:
            now: by the monotonic clock, in seconds.
            quiet_seconds: of ``quiet_until_mono``, from now on.
        """
        self.works, self.fresh = True, False
        self.began_mono = now
        self.left |= self.waiting > 0
        self.quiet_until_mono = now + quiet_seconds if quiet_seconds else 0.0
        self.beat_mono = now + quiet_seconds  # a process that may end at any moment is not to be counted on

    def room(self, size: int, in_flight: int, held: int, call_limit: int) -> int:
        """For how many calls to claim: as many as may start, and one more of a long backlog.

        The items of that one are at hand when a call comes back, so that the provider is not idle during a claim.

        Args:
            size: calls that may be in flight at a time.
            in_flight: calls that have no answer yet.
            held: items in our hands.
            call_limit: texts that one call holds.
        """
        if held >= (2 * size + 1) * call_limit:  # equal texts share a call, so few calls may hold any number of items
            return 0
        free = max(0, size - in_flight)
        long = self.ahead and self.waiting >= (free + size) * call_limit and not self.failing
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
        settled: Iterable[str] = (),
    ) -> None:
        """Note what a claim brought. If it met a pause or a limit, the drain is still to be made.

        Args:
            taken: items that were claimed; 0 ends the drain, even if others wait, for another process is faster.
            standing: how things stand after the claim.
            now: by the monotonic clock, in seconds.
            failing: the provider has not answered well since it failed.
            alone: what was claimed, or has to be claimed next, must travel alone.
            renew_mono: when the leases of what was claimed want renewing; NEVER if nothing was.
            settled: redis_keys that are urgent no longer; see :func:`settled`.
        """
        limited_seconds, self.limited_urgent = None, False
        if isinstance(standing, Claim):
            limited_seconds, self.limited_urgent = standing.limited_seconds, standing.limited_urgent
        if standing.pause_seconds is None:
            left = standing.waiting if self.whole else min(self.remaining - taken, standing.waiting)
            self.remaining, self.whole = left if taken or limited_seconds is not None else 0, False
        self.limited_until_mono = 0.0 if limited_seconds is None else now + limited_seconds + LIMIT_MARGIN_SECONDS
        for redis_key in settled:
            if redis_key in self.urgent:
                del self.urgent[redis_key]
                self.lingered -= 1
        self.seen(standing, now)
        # What comes back from a worker that died is due, and was not among what this drain began with.
        self.flush |= isinstance(standing, Claim) and standing.ran_out > 0
        self.failing, self.alone = failing, alone
        self.renew_mono = min(self.renew_mono, renew_mono)

    def claim_failed(self, urgent: Iterable[str]) -> None:
        """Redis did not answer a claim: what was due still is, and so are the redis_keys that it was to take first."""
        self.flush = True
        known = len(self.urgent)
        self.urgent = dict.fromkeys(urgent) | self.urgent
        self.lingered += len(self.urgent) - known

    def asking(self) -> None:
        """Redis is being asked from now on: its answer may lack what is noted later."""
        self.overtaken = False

    def renewed(self, renew_mono: float) -> None:
        """Our leases were renewed. Do it again at ``renew_mono``, which is NEVER if we hold none."""
        self.renew_mono = renew_mono

    def beaten(self, now: float) -> None:
        """We have told that we work, or Redis does not want to know."""
        self.beat_mono = now + BEAT_SECONDS

    def rest(self, until_mono: float) -> None:
        """Redis did not answer: try nothing before ``until_mono``."""
        self.redis_retry_mono = until_mono

    def seen(self, standing: Standing, now: float, *, failing: bool | None = None) -> None:
        """Note how things stand in Redis.

        Args:
            standing: what Redis has answered.
            now: by the monotonic clock, in seconds.
            failing: whether the provider failed last time; None if that is not known.
        """
        self.failing = self.failing if failing is None else failing
        self.waiting, self.meant = standing.waiting, standing.meant
        age = standing.oldest_age_seconds
        due = due_seconds(standing.score_age_seconds, standing.base_seconds, self.flush_interval)
        self.due_mono = NEVER if due is None else now + due
        left = age is not None and now - age < self.began_mono
        self.left |= left or (self.began_mono > 0.0 and self.waiting > 0 and not self.fresh)
        self.began_mono = 0.0
        seconds = standing.pause_seconds
        self.paused_until_mono = 0.0 if seconds is None else now + (LOOK_AGAIN_SECONDS if seconds == NEVER else seconds)
        self.refresh_mono = now + (REFRESH_AGAIN_SECONDS if self.overtaken else self.refresh_seconds)
        if standing.lease_end_seconds is not None:
            if standing.lease_end_seconds <= 0:
                self.left = True
            else:
                self.refresh_mono = min(self.refresh_mono, now + standing.lease_end_seconds)

    def enqueuing(self) -> bool:
        """Note that this process is about to enqueue. Returns False: nothing is due because of it."""
        self.fresh = True
        return False

    def enqueued(self, waiting: int, now: float, within: float | None = None) -> bool:
        """Note an enqueue of this process.

        Args:
            waiting: items that wait in Redis now, with those for batch jobs, which no size is counted for.
            now: by the monotonic clock, in seconds.
            within: seconds in which one of those that came is to be embedded; None: all may wait as long as any.

        Returns:
            Whether the worker has to think again.
        """
        self.overtaken = True
        first = self.waiting == 0 and waiting > 0
        self.waiting = max(min(waiting, 1), waiting - self.meant)
        due_mono = now + (self.flush_interval if within is None else within)
        sooner = due_mono < self.due_mono and waiting > 0
        if sooner:
            self.due_mono = due_mono
        gone = waiting < self.meant and self.refresh_now()  # a job has taken some: who knows what the others are
        return first or sooner or gone or self.waiting >= self.max_batch_size

    def refresh_now(self) -> bool:
        """Refresh as soon as possible: something has changed in Redis. Returns True: the worker has to think again."""
        self.overtaken = True
        self.refresh_mono = 0.0
        return True

    def flush_now(self) -> bool:
        """Drain as soon as possible. Returns True: the worker has to think again."""
        self.flush = True
        return True

    def paused(self, until_mono: float) -> bool:
        """The provider failed: claim nothing before ``until_mono``, and refresh, for items wait again. Returns True."""
        self.failing = True
        self.paused_until_mono = until_mono
        return self.refresh_now()

    def demanded(self, redis_keys: Iterable[str], now: float, linger: float, *, urgent: bool = True) -> bool:
        """Note that somebody waits.

        The drain for them starts after a linger, so that others can share its calls: it ends after ``linger`` seconds,
        or once nobody has come for a quarter of that. Whoever comes during a linger only puts its end off, and need not
        wake the worker.

        Args:
            redis_keys: of those items that nobody has claimed.
            now: by the monotonic clock, in seconds.
            linger: seconds.
            urgent: whether waiting makes items urgent; if not, they are drained in their time.

        Returns:
            Whether the worker has to think again.
        """
        first_who_waits = self.check_mono == NEVER
        if first_who_waits:
            self.check_mono = now + CHECK_SECONDS[0]
        keys = dict.fromkeys(redis_keys)
        works = self.works and self.barred_until_mono == 0.0
        asks = bool(keys) and not works and (urgent or self.worker)  # our own worker has to be started anyway
        if asks:
            self.asked |= keys
        if not (keys and urgent and self.worker):
            return first_who_waits or asks
        self.urgent |= keys
        if not self.limited_urgent:  # what somebody waits for need not wait for a whole call's worth
            self.limited_until_mono = 0.0
        self.barred_until_mono = 0.0  # whoever waits shall know at once, and perhaps somebody has decided
        linger_begins = self.linger_end_mono == NEVER
        if linger_begins:
            self.linger_end_mono = now + linger
        self.demand_mono = min(self.linger_end_mono, now + linger / 4)
        return first_who_waits or linger_begins or not self.works

    def checked(self, now: float, waits: bool) -> None:
        """We have checked on the items that somebody waits for.

        Args:
            now: by the monotonic clock, in seconds.
            waits: whether somebody still waits.
        """
        self.checks = self.checks + 1 if waits else 0
        self.check_mono = now + backoff_seconds(self.checks + 1, *CHECK_SECONDS) if waits else NEVER

    def take_asked(self) -> list[str]:
        """The redis_keys to ask other processes for, each once."""
        asked, self.asked = list(self.asked), {}
        return asked


def settled(urgent: Sequence[str], claim: Claim) -> Sequence[str]:
    """Tell which urgent redis_keys need no further claim: this one has brought them, or found that they do not wait.

    A claim looks for them in their order, before it takes anything else, until it has as many items as it may.

    Args:
        urgent: what the claim looked for.
        claim: that claim.
    """
    if claim.status not in ("ok", "probe"):
        return ()
    taken = [_redis_key_of(member) for member in claim.members[: len(urgent)]]
    if claim.alone == "taken":  # it looked for nothing else
        return [redis_key for redis_key in urgent if redis_key in taken]
    place: dict[str | None, int] = {redis_key: index for index, redis_key in enumerate(urgent)}
    none_taken = -1 if claim.limited_urgent else len(urgent)
    last = max((place.get(redis_key, len(urgent)) for redis_key in taken), default=none_taken)
    return urgent[: last + 1]


def _redis_key_of(member: bytes) -> str | None:
    try:
        return decode_member(member).redis_key
    except NotOurs:
        return None
