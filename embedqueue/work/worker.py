"""The thread that acts on the agenda: one condition, one deadline, no polling.

In a process that works it claims what is due and hands it to the dispatch. In any process, while somebody waits in
``.result()``, it asks the workers of other processes for what is waited for, and looks what became of it. It never
holds a lock while it speaks to Redis, and API calls run elsewhere.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace

from redis.exceptions import RedisError

from embedqueue.futures.outcomes import Outcomes
from embedqueue.futures.waiters import Waiters
from embedqueue.observers.observers import Observers
from embedqueue.store.records import Claim
from embedqueue.store.store import Store
from embedqueue.values.backoff import backoff_seconds
from embedqueue.values.log import Log
from embedqueue.values.options import Options

from .agenda import Agenda
from .dispatch import Dispatch
from .plan import Action

#: Seconds to rest when Redis does not answer: the first time, and at most.
REDIS_RETRY_SECONDS = (0.05, 2.0)
#: Items that one claim takes at most, however many calls are free.
CLAIM_LIMIT = 4000


class Worker:
    """Claims items when they are due, and looks after those who wait. Its thread runs while there is something to do.

    Args:
        store: Redis.
        agenda: what is due.
        dispatch: serves what is claimed.
        waiters: futures of this process.
        outcomes: finds out what became of items.
        options: of the queue.
        name: under which this process claims, with its colon at the end.
        start_queue: starts the queue that was not started, once somebody waits.
        log: takes the records.
        observers: told when Redis does not answer.
    """

    def __init__(
        self,
        store: Store,
        agenda: Agenda,
        dispatch: Dispatch,
        waiters: Waiters,
        outcomes: Outcomes,
        options: Options,
        *,
        name: str,
        start_queue: Callable[[], None],
        log: Log,
        observers: Observers,
    ) -> None:
        self._store = store
        self._agenda = agenda
        self._dispatch = dispatch
        self._waiters = waiters
        self._outcomes = outcomes
        self._options = options
        self._name = name
        self._start_queue = start_queue
        self._log = log
        self._observers = observers
        self._claims = 0  # of the worker's thread alone, as is what follows
        self._lost: list[str] = []  # owners of claims whose answer never came
        self._failures = 0

    # -- life --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Claim from now on, and drain what an earlier run left. Idempotent.

        Raises:
            RuntimeError: there are no more threads.
        """
        self._agenda.begin()
        self._agenda.ensure(self._run)

    def demanded(self, redis_keys: Iterable[str]) -> None:
        """Somebody waits. Does no I/O, for who says so may hold the lock of a future.

        Args:
            redis_keys: of what nobody here has claimed.
        """
        self._agenda.demanded(redis_keys)
        try:
            self._agenda.ensure(self._run)
        except RuntimeError as error:  # no more threads: the next who waits tries again
            self._log.warning("embedqueue: nobody looks after those who wait: %s", error)

    def stop(self, timeout: float) -> None:
        """Claim nothing more; wait for the thread up to ``timeout`` seconds."""
        thread = self._agenda.quit()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def _run(self) -> None:
        actions: dict[Action, Callable[[], None]] = {
            "renew": self._renew,
            "refresh": self._refresh,
            "claim": self._claim,
            "ask": self._ask,
            "check": self._check_on_waiters,
        }
        dispatch = self._dispatch
        while True:
            action = self._agenda.next(dispatch.pool, lambda: dispatch.held, lambda: dispatch.call_limit)
            if action is None:
                with contextlib.suppress(RedisError):
                    self._release_lost()
                return
            try:
                actions[action]()
                self._failures = 0
            except RedisError as error:
                self._rest(f"Redis does not answer, trying again: {error}", exc_info=False)
                self._observers.redis_failed(error)
            except Exception:
                self._rest("the worker failed in a way that it should not, going on", exc_info=True)

    def _rest(self, message: str, *, exc_info: bool) -> None:
        self._failures += 1
        if self._failures == 1 or exc_info:
            self._log.warning("embedqueue: %s", message, exc_info=exc_info)
        self._agenda.rest(backoff_seconds(self._failures, *REDIS_RETRY_SECONDS))

    # -- claiming ----------------------------------------------------------------------------------------------

    def _renew(self) -> None:
        self._agenda.renewed(self._dispatch.renew())

    def _refresh(self) -> None:
        self._release_lost()
        self._agenda.asking()
        status = self._store.status()
        if status.probe.startswith(self._name):  # our own call ends that, and nobody tells us when
            status = replace(status, pause_seconds=None)
        self._agenda.seen(status)

    def _claim(self) -> None:
        self._release_lost()
        self._claims += 1
        owner = f"{self._name}{self._claims}/{self._options.lease_seconds:.3f}:"
        call_limit = self._dispatch.call_limit
        limit, urgent = self._agenda.begin_claim(self._dispatch.pool, self._dispatch.held, call_limit)
        try:
            claim = self._store.claim(
                owner,
                min(limit, CLAIM_LIMIT),
                probe_limit=call_limit,
                lease_seconds=self._options.lease_seconds,
                max_deliveries=self._options.max_deliveries,
                alone=self._dispatch.pool.unfinished == 0,
                urgent=urgent,
            )
            self._begin(claim)
        except BaseException:  # nothing of it was sent on its way
            self._lost.append(owner)
            self._agenda.claim_failed(urgent)
            raise

    def _begin(self, claim: Claim) -> None:
        if claim.status == "probe" and self._dispatch.pool.room() == 0:
            # Claimed ahead, before we knew that the provider fails: everybody would wait until a place is free.
            self._lost.append(claim.owner)
            self._agenda.probe_too_early()
        elif self._agenda.claimed(claim):
            self._dispatch.begin(claim)
        else:  # stop() may have released already what we held, and does not know of this
            self._lost.append(claim.owner)

    def _release_lost(self) -> None:
        """A claim whose answer was lost may have taken items: they must not wait for their lease to end."""
        while self._lost:
            self._store.release(self._lost[-1])
            self._lost.pop()

    # -- those who wait ----------------------------------------------------------------------------------------

    def _ask(self) -> None:
        """Have somebody claim what is waited for: a worker elsewhere, or ours, which was not started."""
        redis_keys = self._agenda.take_asked()
        if self._options.worker:
            self._start_queue()
        else:
            with contextlib.suppress(RedisError):  # the items are safe, and the next look asks again
                self._store.events.tell("urgent", self._name, json.dumps(redis_keys))

    def _check_on_waiters(self) -> None:
        """Find what no notice told of items that somebody waits for, and ask again for those that wait again."""
        try:
            with contextlib.suppress(RedisError):
                self._outcomes.find_out(None, wanted=True)
        finally:
            self._agenda.checked_on_waiters(self._waiters.any_wanted)
