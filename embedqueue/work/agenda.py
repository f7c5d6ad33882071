"""What the worker is to do: the plan, behind one lock. To note something does no I/O, and wakes the worker if need be.

Users' threads, the threads of calls and the listener note what they want. The worker's thread waits in ``next()``, and
does what that returns.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence

from embedqueue.calls.pool import Pool
from embedqueue.store.records import Claim, Status
from embedqueue.values.locks import Condition, held_here
from embedqueue.values.options import Options
from embedqueue.values.threads import start

from .durations import NEVER
from .plan import LEAST_REFRESH_SECONDS, REFRESH_SECONDS, Action, Plan, settled

#: Our leases are renewed when this part of their time is over.
RENEW_AFTER = 1 / 3


class Agenda:
    """The plan of one process, and the thread that acts on it. Thread-safe.

    It is what ``futures.demand.Waker`` describes. How things are decided stands in :class:`Plan`.

    Args:
        options: of the queue.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._condition = Condition()
        self._plan = Plan(  # guarded by the condition, as is what follows
            options.flush_interval,
            options.max_batch_size,
            min(REFRESH_SECONDS, max(LEAST_REFRESH_SECONDS, min(options.lease_seconds, options.flush_interval))),
            worker=options.worker,
            ahead=options.limits is None,
        )
        self._quit = False
        self._starting = threading.RLock()
        self._starts = False  # whether the thread is being started; guarded by that lock
        self._thread: threading.Thread | None = None  # the worker's: it waits in next(), or acts

    @property
    def works(self) -> bool:
        """Whether this process claims."""
        return self._plan.works

    @property
    def entered(self) -> bool:
        """Whether this thread is in here: then we are a handler, and must not wait for others, who may want to come."""
        return held_here(self._condition)

    # -- what any thread notes ---------------------------------------------------------------------------------

    def enqueuing(self) -> None:
        """This process is about to enqueue: a look may find that before it is told of it."""
        self._note(self._plan.enqueuing)

    def enqueued(self, waiting: int, within: float | None = None) -> None:
        """This process has enqueued; ``waiting`` items wait in Redis now, and one is due ``within`` so many seconds."""
        self._note(self._plan.enqueued, waiting, time.monotonic(), within)

    def demanded(self, redis_keys: Iterable[str]) -> None:
        """Somebody waits in ``.result()``.

        Args:
            redis_keys: of those items that nobody has claimed. They are claimed first, after the linger.
        """
        now, options = time.monotonic(), self._options
        self._note(
            lambda: self._plan.demanded(redis_keys, now, options.wait_linger, urgent=options.flush_on_wait),
        )

    def flush(self) -> None:
        """Somebody asks for a drain."""
        self._note(self._plan.flush_now)

    def refresh(self) -> None:
        """Something has changed in Redis: read how things stand."""
        self._note(self._plan.refresh_now)

    def paused(self, seconds: float) -> None:
        """The provider failed: claim nothing for so many seconds. Then its items are due."""
        self._note(self._plan.paused, time.monotonic() + seconds)

    def progressed(self) -> None:
        """A call has its answer or is back: there may be room for the next."""
        with self._condition:
            self._condition.notify_all()

    def _note(self, note: Callable[..., bool], *what: object) -> None:
        """Note something in the plan, and wake the worker if ``note`` returns that it has to think again."""
        try:
            with self._condition:
                if note(*what):
                    self._condition.notify_all()
        except BaseException:  # a signal's handler raised: what was noted before must still wake the worker
            self.progressed()
            raise

    # -- the worker's life -------------------------------------------------------------------------------------

    def begin(self, quiet_seconds: float = 0.0) -> None:
        """The worker is started: claim from now on. Does nothing after ``quit()``.

        Args:
            quiet_seconds: in which only what somebody waits or asks for is claimed, or what is enough for a drain; with
                NEVER, not even that. A later start without it ends it.
        """
        with self._condition:
            if not self._quit and (not self._plan.works or (self._plan.quiet_until_mono and not quiet_seconds)):
                self._plan.begin(time.monotonic(), quiet_seconds)
                self._condition.notify_all()

    @property
    def quiet(self) -> bool:
        """Whether this process may end at any moment, and claims no more than it has to."""
        return time.monotonic() < self._plan.quiet_until_mono

    def quit(self) -> threading.Thread | None:
        """Do nothing more.

        Returns:
            The worker's thread, which ends when it has done what it is at; None if there is none.
        """
        with self._condition:
            self._quit = True
            self._condition.notify_all()
            return self._thread if self.acts else None

    @property
    def has_quit(self) -> bool:
        """Whether ``quit()`` was called."""
        return self._quit

    @property
    def acts(self) -> bool:
        """Whether the worker's thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def ensure(self, act: Callable[[], None]) -> None:
        """Start the worker's thread, unless there is one or nothing to do.

        Args:
            act: what the thread runs. It asks ``next()`` what to do, and returns when that returns None.

        Raises:
            RuntimeError: there are no more threads.
        """
        # Not under the condition: a signal's handler that comes meanwhile may stop the queue, which needs that.
        with self._starting:
            if self._starts:  # we are such a handler, and go on where a start was interrupted, which goes on after us
                return
            try:
                self._starts = True
                with self._condition:
                    if self._quit or self._plan.idle or self.acts:
                        return
                    name = f"embedqueue-worker-{self._options.namespace}"
                    thread = self._thread = threading.Thread(target=act, name=name, daemon=True)
                start(thread)
            finally:
                self._starts = False

    # -- what the worker's thread asks and notes ---------------------------------------------------------------

    def next(self, pool: Pool, held: Callable[[], int], call_limit: Callable[[], int]) -> Action | None:
        """Wait until something is due.

        Args:
            pool: of call threads.
            held: returns how many items are in our hands.
            call_limit: returns how many texts one call holds.

        Returns:
            What to do; None to end the thread.
        """
        with self._condition:
            while not self._quit and not self._plan.idle and self._is_ours():
                room = self._plan.room(pool.size, pool.in_flight, held(), call_limit())
                action, wait_seconds = self._plan.next(time.monotonic(), pool.unfinished, room)
                if action is not None:
                    return action
                self._condition.wait(None if wait_seconds == NEVER else wait_seconds)
            if self._is_ours():
                self._thread = None
            return None

    def _is_ours(self) -> bool:
        """Whether this thread is the worker's: where a signal came during a start, there may be one of before."""
        return self._thread is None or self._thread is threading.current_thread()

    def asking(self) -> None:
        """Redis is being asked from now on: its answer may lack what is noted later."""
        with self._condition:
            self._plan.asking()

    def seen(self, status: Status) -> None:
        """A refresh is done; ``status`` is what Redis has answered."""
        with self._condition:
            self._plan.seen(status, time.monotonic(), failing=status.failing)

    def begin_claim(self, pool: Pool, held: int, call_limit: int) -> tuple[int, list[str]]:
        """A claim starts.

        Args:
            pool: of call threads.
            held: items in our hands.
            call_limit: texts that one call holds.

        Returns:
            How many items to claim, and the redis_keys to claim first.
        """
        with self._condition:
            room = max(1, self._plan.room(pool.size, pool.in_flight, held, call_limit))
            limit = self._plan.claim_limit(time.monotonic(), call_limit, room)
            self._plan.asking()
            return limit, self._plan.first_urgent()

    def claim_failed(self, urgent: Iterable[str]) -> None:
        """Redis did not answer the claim: what was due still is.

        Args:
            urgent: the redis_keys that the claim was to take first.
        """
        with self._condition:
            self._plan.claim_failed(urgent)

    def claimed(self, claim: Claim, urgent: Sequence[str] = ()) -> bool:
        """Note what a claim brought.

        Args:
            claim: what it brought.
            urgent: the redis_keys that it was to take first.

        Returns:
            Whether to go on with it; False after ``quit()``, for a stop may have released already what we held, and
            knew nothing of this claim.
        """
        needless = settled(urgent, claim)  # not under the condition: it reads JSON
        with self._condition:
            if self._quit:
                return False
            self._plan.claimed(
                len(claim.members),
                claim,
                time.monotonic(),
                failing=claim.status != "ok",
                alone=claim.status == "probe" or claim.alone != "no",
                renew_mono=self._renewal() if claim.members else NEVER,
                settled=needless,
            )
            if claim.alone != "no":
                self._plan.flush_now()
            return True

    def probe_too_early(self) -> None:
        """A claim has become the probe, and no call may start to make it: refresh, and let the next claim probe."""
        with self._condition:
            self._plan.paused(0.0)

    def renewed(self, held: bool) -> None:
        """Our leases were renewed; ``held`` tells whether we hold any."""
        with self._condition:
            self._plan.renewed(self._renewal() if held else NEVER)

    def beaten(self) -> None:
        """We have told that we work."""
        with self._condition:
            self._plan.beaten(time.monotonic())

    @property
    def pausing(self) -> bool:
        """Whether nothing is claimed for now, as far as we know."""
        return time.monotonic() < self._plan.paused_until_mono

    def bar(self, seconds: float) -> None:
        """This process may not claim for so many seconds; what was due still is then."""
        with self._condition:
            self._plan.claim_failed(())
            self._plan.barred_until_mono = time.monotonic() + seconds

    def rest(self, seconds: float) -> None:
        """Redis did not answer: try nothing for so many seconds."""
        with self._condition:
            self._plan.rest(time.monotonic() + seconds)

    def take_asked(self) -> list[str]:
        """The redis_keys to ask the workers of other processes for, each once."""
        with self._condition:
            return self._plan.take_asked()

    def checked_on_waiters(self, waits: Callable[[], bool]) -> None:
        """We have checked on the items that somebody waits for; ``waits()`` tells whether somebody still does."""
        with self._condition:  # waits() is asked under it as well: else somebody who begins to wait now is overlooked
            self._plan.checked(time.monotonic(), waits())

    def _renewal(self) -> float:
        return time.monotonic() + self._options.lease_seconds * RENEW_AFTER
