"""The thread that decides when: one condition, one deadline, no polling.

Whoever wants something (an enqueue, a flush, somebody in ``.result()``) notes it on the agenda and notifies; only
this thread acts. It never holds the lock while it speaks to Redis, and API calls run elsewhere.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from redis.exceptions import RedisError

from embedqueue.observers.observers import Observers
from embedqueue.store.records import Claim
from embedqueue.store.store import Store
from embedqueue.values.backoff import backoff_seconds
from embedqueue.values.locks import Condition
from embedqueue.values.log import Log, logger
from embedqueue.values.options import Options

from .agenda import LEAST_REFRESH_SECONDS, NEVER, REFRESH_SECONDS, Agenda
from .dispatch import Drain

#: Seconds to rest when Redis does not answer: the first time, and at most.
REDIS_RETRY_SECONDS = (0.05, 2.0)
#: Our leases are renewed when this part of them is over.
RENEW_AFTER = 1 / 3
#: Items that one claim takes at most, however many calls are free.
CLAIM_LIMIT = 4000


class Worker:
    """Claims items when they are due and hands them to the drain.

    Args:
        store: Redis.
        drain: serves what is claimed.
        options: of the queue.
        name: under which this process claims, with its colon at the end.
        call_limit: tells how many texts one call holds at the moment.
        log: takes the records.
        observers: told when Redis does not answer.
    """

    def __init__(
        self,
        store: Store,
        drain: Drain,
        options: Options,
        *,
        name: str,
        call_limit: Callable[[], int],
        log: Log = logger,
        observers: Observers | None = None,
    ) -> None:
        self._log = log
        self._observers = observers or Observers()
        self._store = store
        self._drain = drain
        self._options = options
        self._name = name
        self._call_limit = call_limit
        self._condition = Condition(threading.Lock())
        self._agenda = Agenda(  # guarded by the condition
            options.flush_interval,
            options.max_batch_size,
            min(REFRESH_SECONDS, max(LEAST_REFRESH_SECONDS, options.lease_seconds)),
        )
        self._thread: threading.Thread | None = None  # guarded by the condition
        self._quit = False  # guarded by the condition
        self._claims = 0  # of the worker's thread alone, as is what follows
        self._lost: list[str] = []  # owners of claims whose answer never came
        self._failures = 0

    def start(self) -> None:
        """Start the thread, and drain what an earlier run left. Idempotent."""
        with self._condition:
            if self._thread is not None or self._quit:
                return
            self._agenda.began_mono = time.monotonic()
            self._agenda.flush |= self._agenda.waiting > 0  # enqueued here before the start
            thread = threading.Thread(
                target=self._run, name=f"embedqueue-worker-{self._options.namespace}", daemon=True
            )
            thread.start()
            self._thread = thread

    def stop(self, timeout: float) -> None:
        """Claim nothing more; wait for the thread up to ``timeout`` seconds."""
        with self._condition:
            self._quit = True
            thread = self._thread
            self._condition.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    @property
    def running(self) -> bool:
        """Whether the thread was started."""
        return self._thread is not None

    # -- what others note on the agenda ------------------------------------------------------------------------

    def enqueued(self, waiting: int) -> None:
        """So many items wait now."""
        self._note(self._agenda.enqueued, waiting, time.monotonic())

    def demanded(self, redis_key: str) -> None:
        """Somebody waits for this key: it is drained after the linger, with what comes until then."""
        self._note(self._agenda.demanded, redis_key, time.monotonic(), self._options.wait_linger)

    def _note(self, note: Callable[..., bool], *what: object) -> None:
        """Note something on the agenda, and have the worker think again where ``note`` says so."""
        try:
            with self._condition:
                if note(*what):
                    self._condition.notify_all()
        except BaseException:  # of a signal's handler: it must not keep the worker asleep over what was noted
            self.progressed()
            raise

    def flush(self) -> None:
        """Drain now."""
        with self._condition:
            self._agenda.flush = True
            self._condition.notify_all()

    def refresh(self) -> None:
        """Look at Redis: something has changed there."""
        with self._condition:
            self._agenda.look()
            self._condition.notify_all()

    def paused(self, seconds: float) -> None:
        """The provider failed: claim nothing before, and look what waits by now."""
        with self._condition:
            self._agenda.failing = True
            self._agenda.look()
            self._agenda.paused_until_mono = time.monotonic() + seconds
            self._condition.notify_all()

    def progressed(self) -> None:
        """A call is back: there may be room for the next."""
        with self._condition:
            self._condition.notify_all()

    # -- the thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            action = self._next_action()
            if action is None:
                with contextlib.suppress(RedisError):
                    self._give_back_lost()
                return
            try:
                action()
                self._failures = 0
            except RedisError as error:
                self._rest(f"Redis does not answer, trying again: {error}", exc_info=False)
                self._observers.redis_failed(error)
            except Exception:
                self._rest("the worker failed in a way that it should not, going on", exc_info=True)

    def _next_action(self) -> Callable[[], None] | None:
        with self._condition:
            while not self._quit:
                calls = self._drain.crew.unfinished
                action, wait_seconds = self._agenda.next(time.monotonic(), calls, self._room())
                if action is not None:
                    actions = {"renew": self._renew, "refresh": self._refresh, "drain": self._claim}
                    return actions[action]
                self._condition.wait(None if wait_seconds == NEVER else wait_seconds)
        return None

    def _room(self) -> int:
        """Calls to claim for: as many as may start, and of a long backlog one more, so that none idles meanwhile."""
        crew, texts = self._drain.crew, self._call_limit()
        if self._drain.held >= (2 * crew.size + 1) * texts:  # equal texts join a call under way, and are no call
            return 0
        long = self._agenda.waiting >= (crew.room() + crew.size) * texts and not self._agenda.failing
        return min(crew.size, crew.room(ahead=int(long)))

    def _rest(self, message: str, *, exc_info: bool) -> None:
        self._failures += 1
        if self._failures == 1 or exc_info:
            self._log.warning("embedqueue: %s", message, exc_info=exc_info)
        with self._condition:
            seconds = backoff_seconds(self._failures, *REDIS_RETRY_SECONDS)
            self._agenda.redis_retry_mono = time.monotonic() + seconds

    def _renew(self) -> None:
        held = self._drain.renew()
        with self._condition:
            self._agenda.renew_mono = self._renewal() if held else NEVER

    def _renewal(self) -> float:
        return time.monotonic() + self._options.lease_seconds * RENEW_AFTER

    def _refresh(self) -> None:
        self._give_back_lost()
        with self._condition:
            self._agenda.overtaken = False
        status = self._store.status()
        if status.pause_reason.startswith(f"probe {self._name}"):  # our own call ends that, and nobody tells us when
            status = replace(status, pause_seconds=None)
        with self._condition:
            self._agenda.failing = status.failing
            self._agenda.seen(status, time.monotonic())

    def _give_back_lost(self) -> None:
        """A claim whose answer was lost may have taken items: they must not wait for their lease to end."""
        while self._lost:
            self._store.release(self._lost[-1])
            self._lost.pop()

    def _claim(self) -> None:
        self._give_back_lost()
        self._claims += 1
        owner = f"{self._name}{self._claims}/{self._options.lease_seconds:.3f}:"
        call_limit = self._call_limit()
        with self._condition:
            calls = self._drain.crew.unfinished
            limit = self._agenda.claim_limit(time.monotonic(), call_limit, max(1, self._room()))
            urgent = self._agenda.take_urgent()
            self._agenda.overtaken = False
        try:
            claim = self._store.claim(
                owner,
                min(limit, CLAIM_LIMIT),
                probe_limit=call_limit,
                lease_seconds=self._options.lease_seconds,
                max_deliveries=self._options.max_deliveries,
                alone=calls == 0,
                urgent=urgent,
            )
            self._begin(claim)
        except BaseException:  # nothing of it was sent on its way
            self._lost.append(owner)
            with self._condition:
                self._agenda.flush = True
                self._agenda.urgent.update(dict.fromkeys(urgent))
            raise

    def _begin(self, claim: Claim) -> None:
        with self._condition:
            if self._quit:  # stop() may have given back already what we held, and does not know of this
                self._lost.append(claim.owner)
                return
            if claim.status == "probe" and self._drain.crew.room() == 0:
                # Claimed ahead, before we knew that the provider fails: everybody would wait until a place is free.
                self._lost.append(claim.owner)
                self._agenda.failing = True
                self._agenda.look()
                return
            now = time.monotonic()
            self._agenda.claimed(len(claim.members), claim, now)
            self._agenda.failing = claim.status != "ok"
            self._agenda.exclusive = claim.status == "probe" or claim.company != "any"
            self._agenda.flush |= claim.company != "any"  # what must travel alone is due as soon as it can
            if claim.members:
                self._agenda.renew_mono = min(self._agenda.renew_mono, self._renewal())
        self._drain.begin(claim)
