"""What anybody wants of the worker: the plan, behind one lock. Noting something costs no I/O and wakes the worker.

Users' threads, calls that are back and the listener note; the worker's thread waits in ``next`` and acts.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from embedqueue.calls.pool import Pool
from embedqueue.store.records import Claim, Status
from embedqueue.values.locks import Condition
from embedqueue.values.options import Options

from .plan import LEAST_REFRESH_SECONDS, NEVER, REFRESH_SECONDS, Action, Plan

#: Our leases are renewed when this part of them is over.
RENEW_AFTER = 1 / 3


class Agenda:
    """The plan of one process. Thread-safe.

    Args:
        options: of the queue.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._condition = Condition(threading.Lock())
        self._plan = Plan(  # guarded by the condition, as is what follows
            options.flush_interval,
            options.max_batch_size,
            min(REFRESH_SECONDS, max(LEAST_REFRESH_SECONDS, options.lease_seconds)),
            worker=options.worker,
        )
        self._quit = False
        self._thread: threading.Thread | None = None  # that waits in next(), or acts

    @property
    def works(self) -> bool:
        """Whether this process claims."""
        return self._plan.works

    # -- what any thread notes ---------------------------------------------------------------------------------

    def enqueued(self, waiting: int) -> None:
        """So many items wait now."""
        self._note(self._plan.enqueued, waiting, time.monotonic())

    def demanded(self, redis_keys: Iterable[str]) -> None:
        """Somebody waits.

        Args:
            redis_keys: of items that nobody has claimed: they are drained after the linger, with what comes until then.
        """
        urgent = redis_keys if self._options.flush_on_wait else ()
        self._note(self._plan.demanded, urgent, time.monotonic(), self._options.wait_linger)

    def flush(self) -> None:
        """Drain now."""
        self._note(self._plan.flush_now)

    def refresh(self) -> None:
        """Look at Redis: something has changed there."""
        self._note(self._plan.refresh_now)

    def paused(self, seconds: float) -> None:
        """The provider failed: claim nothing before, and look what waits by now."""
        self._note(self._plan.paused, time.monotonic() + seconds)

    def progressed(self) -> None:
        """A call is back: there may be room for the next."""
        with self._condition:
            self._condition.notify_all()

    def _note(self, note: Callable[..., bool], *what: object) -> None:
        """Note something in the plan, and have the worker think again where ``note`` says so."""
        try:
            with self._condition:
                if note(*what):
                    self._condition.notify_all()
        except BaseException:  # of a signal's handler: it must not keep the worker asleep over what was noted
            self.progressed()
            raise

    # -- the worker's life -------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Claim from now on. Idempotent."""
        with self._condition:
            if not self._plan.works and not self._quit:
                self._plan.begin(time.monotonic())
                self._condition.notify_all()

    def quit(self) -> threading.Thread | None:
        """Nothing more is to be done; returns the thread that acts until now, if there is one."""
        with self._condition:
            self._quit = True
            self._condition.notify_all()
            return self._thread

    def ensure(self, act: Callable[[], None]) -> None:
        """Have a thread that runs ``act``, unless there is one or nothing to do.

        Raises:
            RuntimeError: there are no more threads.
        """
        with self._condition:
            if self._quit or self._plan.idle or (self._thread is not None and self._thread.is_alive()):
                return
            name = f"embedqueue-worker-{self._options.namespace}"
            self._thread = threading.Thread(target=act, name=name, daemon=True)
            self._thread.start()

    # -- what the worker's thread asks and notes ---------------------------------------------------------------

    def next(self, pool: Pool, held: Callable[[], int], call_limit: Callable[[], int]) -> Action | None:
        """Wait until something is due.

        Args:
            pool: of call threads.
            held: tells how many items are in our hands.
            call_limit: tells how many texts one call holds.

        Returns:
            What to do; None: end the thread.
        """
        with self._condition:
            while not self._quit and not self._plan.idle:
                room = self._plan.room(pool.size, pool.in_flight, held(), call_limit())
                action, wait_seconds = self._plan.next(time.monotonic(), pool.unfinished, room)
                if action is not None:
                    return action
                self._condition.wait(None if wait_seconds == NEVER else wait_seconds)
            self._thread = None
            return None

    def asking(self) -> None:
        """Redis is asked now: what is noted from here on, its answer may lack."""
        with self._condition:
            self._plan.asking()

    def seen(self, status: Status) -> None:
        """How things stand in Redis."""
        with self._condition:
            self._plan.seen(status, time.monotonic(), failing=status.failing)

    def begin_claim(self, pool: Pool, held: int, call_limit: int) -> tuple[int, list[str]]:
        """How many items to claim, and the redis_keys that come first."""
        with self._condition:
            room = max(1, self._plan.room(pool.size, pool.in_flight, held, call_limit))
            limit = self._plan.claim_limit(time.monotonic(), call_limit, room)
            self._plan.asking()
            return limit, self._plan.take_urgent()

    def claim_failed(self, urgent: Iterable[str]) -> None:
        """Nothing is known to have been claimed: what was due still is."""
        with self._condition:
            self._plan.claim_failed(urgent)

    def claimed(self, claim: Claim) -> bool:
        """What a claim brought; returns False where stop() came meanwhile: it does not know of this claim."""
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
            )
            if claim.alone != "no":
                self._plan.flush_now()
            return True

    def probe_too_early(self) -> None:
        """A claim has become the probe, for which there is no place: look again who may be the next."""
        with self._condition:
            self._plan.paused(0.0)

    def renewed(self, held: bool) -> None:
        """Our leases were renewed; whether we hold any."""
        with self._condition:
            self._plan.renewed(self._renewal() if held else NEVER)

    def rest(self, seconds: float) -> None:
        """Redis did not answer: try nothing before."""
        with self._condition:
            self._plan.rest(time.monotonic() + seconds)

    def take_asked(self) -> list[str]:
        """The redis_keys to ask the workers of other processes for."""
        with self._condition:
            return self._plan.take_asked()

    def checked_on_waiters(self, waits: Callable[[], bool]) -> None:
        """We have looked what became of what somebody waits for; ``waits`` tells whether somebody still does."""
        with self._condition:  # around the question as well: who begins to wait now must not be overlooked
            self._plan.checked(time.monotonic(), waits())

    def _renewal(self) -> float:
        return time.monotonic() + self._options.lease_seconds * RENEW_AFTER
