"""The thread that does what the agenda says: one condition, one deadline, no polling.

In a process that works, it claims what is due and hands it to the dispatch. In any process, while somebody waits in
``.result()``, it tells the workers of other processes for what, and checks what became of that. It holds no lock while
it speaks to Redis, and it makes no API call.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Protocol

import redis
from redis.exceptions import RedisError

from embedqueue.futures.outcomes import Outcomes
from embedqueue.futures.waiters import Waiters
from embedqueue.observers.observers import Observers
from embedqueue.store.adoption import Rejected
from embedqueue.store.records import Claim, Terms
from embedqueue.store.store import Store
from embedqueue.values.backoff import backoff_seconds
from embedqueue.values.errors import BatchFailed, EmbedQueueError
from embedqueue.values.item import dead_letter
from embedqueue.values.log import Log
from embedqueue.values.options import Options

from .agenda import Agenda
from .dispatch import Dispatch
from .durations import ADOPTIONS, BARRED_SECONDS, OUTAGE_GRACE_SECONDS
from .heartbeat import Heartbeat
from .plan import Action
from .purse import Purse
from .reporter import tell_dead

#: Seconds to rest when Redis does not answer: at first, and at most; doubled in between.
REDIS_RETRY_SECONDS = (0.05, 2.0)
#: Items that one claim takes at most, however many calls may start: while its script runs, Redis serves nobody else.
CLAIM_LIMIT = 500
#: Characters of the keys that one notice asks for: one is told every few seconds, and the stream keeps thousands.
LONGEST_WISH_CHARS = 16_000
#: Seconds that putting the books in order may take before other things have their turn.
ADOPTION_SECONDS = 0.1


class LooksAfterJobs(Protocol):
    """Who looks after the provider's batch jobs."""

    def seen(self, meant: int, outsourced: int) -> None:
        """So many items wait for jobs, and so many are in jobs. Does no I/O."""


class Worker:
    """Claims items when they are due, and looks after those who wait. Thread-safe.

    Its thread is started when there is something to do, and ends when there is nothing.

    Args:
        store: Redis.
        agenda: knows what is due.
        dispatch: sends the items of a claim on their way.
        waiters: the unfinished futures of this process.
        outcomes: finds out what became of items.
        options: of the queue.
        terms: returns on which terms this process writes.
        heartbeat: tells that this process works.
        purse: of the budget, where there is one; else None.
        runner: told what waits for batch jobs and is in them; None where nothing does.
        name: under which this process claims; it ends with a colon.
        start_queue: starts the queue if it was not started; called when somebody waits and nobody here claims.
        log: takes the records.
        observers: told when Redis does not answer, and which members cannot be ours.

    Attributes:
        barred: why this process may not claim, a sentence; "" where it may.
    """

    def __init__(
        self,
        store: Store,
        agenda: Agenda,
        dispatch: Dispatch,
        waiters: Waiters,
        outcomes: Outcomes,
        options: Options,
        terms: Callable[[], Terms],
        heartbeat: Heartbeat,
        *,
        purse: Purse | None = None,
        runner: LooksAfterJobs | None = None,
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
        self._terms = terms
        self._heartbeat = heartbeat
        self._purse = purse
        self._runner = runner
        self._name = name
        self._start_queue = start_queue
        self._log = log
        self._observers = observers
        self._claims = 0  # only the worker's thread touches this and what follows
        self._limit = max(CLAIM_LIMIT, options.api_batch_limit)
        self._most = self._limit  # items that one claim takes now, see _claim
        self._adoptions = 0  # claims in a row that found the books out of order
        self._lost: list[str] = []  # owners of claims that took items, perhaps, which nobody here has in hand
        self._failures = 0  # actions in a row that failed
        self._failed_mono = -OUTAGE_GRACE_SECONDS  # when Redis last did not answer
        self._adopting: Iterator[None] | None = None  # the books are being put in order
        self.barred = ""
        self._asked_budget = False
        self._told_base = False
        self._checking: threading.Thread | None = None  # that finds out what became of items

    # -- life --------------------------------------------------------------------------------------------------

    def be_patient(self) -> None:
        """Redis has just come up: leave leases alone for a moment, which nobody could renew meanwhile."""
        self._failed_mono = time.monotonic()

    def start(self, quiet_seconds: float = 0.0) -> None:
        """Claim from now on, and at once what an earlier run left. Idempotent.

        Args:
            quiet_seconds: as :meth:`Agenda.begin` takes them.

        Raises:
            RuntimeError: there are no more threads.
        """
        self._agenda.begin(quiet_seconds)
        self._agenda.ensure(self._run)

    def demanded(self, redis_keys: Iterable[str]) -> None:
        """Somebody waits. Does no I/O: the caller may hold the lock of a future.

        Args:
            redis_keys: of those items that nobody here has claimed.
        """
        self._agenda.demanded(redis_keys)
        try:
            self._agenda.ensure(self._run)
        except RuntimeError as error:  # no more threads: the next one who waits tries again
            self._log.warning("embedqueue: nobody looks after those who wait: %s", error)

    def stop(self, timeout: float) -> None:
        """Claim nothing more, and wait for the thread to end.

        Args:
            timeout: seconds to wait at most.
        """
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
            "beat": self._beat,
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
                if action not in ("ask", "check"):  # they do not tell whether Redis has answered
                    self._failures = 0
            except EmbedQueueError as error:  # of another layout
                self._bar(str(error))
            except RedisError as error:
                if self._agenda.has_quit:  # stop() closes our connections, even under a command
                    continue
                self._failed_mono = time.monotonic()
                self._rest(f"Redis does not answer, trying again: {error}", exc_info=False)
                self._observers.redis_failed(error)
            except Exception:
                self._rest("the worker failed in a way that it should not, going on", exc_info=True)

    def _rest(self, message: str, *, exc_info: bool) -> None:
        self._failures += 1
        if self._failures == 1 or exc_info:
            self._log.warning("embedqueue: %s", message, exc_info=exc_info)
        self._agenda.rest(backoff_seconds(self._failures, *REDIS_RETRY_SECONDS))

    def _beat(self) -> None:
        self._heartbeat.beat(self._doing())
        self._agenda.beaten()

    def _doing(self) -> str:
        """What this worker does, in a few words."""
        calls = self._dispatch.pool.unfinished
        if calls:
            return f"calling {calls}"
        return "barred" if self.barred else "paused" if self._agenda.pausing else "idle"

    # -- claiming ----------------------------------------------------------------------------------------------

    def _renew(self) -> None:
        self._agenda.renewed(self._dispatch.renew())

    def _refresh(self) -> None:
        self._release_lost()
        self._agenda.asking()
        status = self._store.status()
        if status.pause_seconds is not None and self._purse is not None and not self._asked_budget:
            # Nobody claims now, which would find out that there is room: ours may be more than of who has parked it.
            self._store.budget.reserve(f"{self._name}asks", 0, self._purse.terms())
            self._store.budget.settle(f"{self._name}asks", 0.0)
            self._asked_budget = True
            status = self._store.status()
        if status.outsourced and self._runner is None and self._pull_due():
            status = self._store.status()
        if status.probe.startswith(self._name):  # a call of ours tests the provider, and ends this pause with a notice
            status = replace(status, pause_seconds=None)
        self._agenda.seen(status)
        self._tell_of_base(status.base_seconds)
        if self._runner is not None:
            self._runner.seen(status.meant, status.outsourced)

    def _pull_due(self) -> int:
        """Put what is due into the live lane again: where nobody has ``economy`` any more, no one looks after jobs."""
        if pulled := self._store.jobs.pull(0.0, self._options.usual_within):
            self._log.warning(
                "embedqueue: %d items are due and leave their batch jobs: no process with economy has seen to them",
                pulled,
            )
            self._observers.tell("maybe_paid_twice", pulled)
        return pulled

    def _tell_of_base(self, base: float | None) -> None:
        """Tell once that ``within`` was reckoned from another ``flush_interval`` than that of this process."""
        if base not in (None, self._options.usual_within) and not self._told_base:
            self._told_base = True
            self._log.warning(
                "embedqueue: flush_interval is %g here, and items wait that were enqueued where it was %g, from which "
                "their within= is reckoned: until they are done, what has none waits no longer than the shorter of the "
                "two. If a process still has the other one, give all the same",
                self._options.flush_interval,
                base,
            )

    def _claim(self) -> None:
        self._release_lost()
        self._claims += 1
        owner = f"{self._name}{self._claims}/{self._options.lease_seconds:.3f}:"
        call_limit = self._dispatch.call_limit
        wanted, urgent = self._agenda.begin_claim(self._dispatch.pool, self._dispatch.held, call_limit)
        limit = min(wanted, self._most)
        if self._store.buckets is not None:
            self._store.buckets.fit(*self._dispatch.call_limits)
        try:
            claim = self._store.claim(
                owner,
                limit,
                probe_limit=self._dispatch.probe_limit,
                lease_seconds=self._options.lease_seconds,
                max_deliveries=self._options.max_deliveries,
                # What is on its last delivery must not meet a process that ends.
                alone=None if self._agenda.quiet else self._dispatch.pool.unfinished == 0,
                patient=time.monotonic() - self._failed_mono < OUTAGE_GRACE_SECONDS,
                unordered=self._adoptions >= ADOPTIONS,
                urgent=urgent,
                terms=self._terms(),
                budget=None if self._purse is None else self._purse.terms(),
            )
            if len(claim.members) == self._most:
                self._most = min(self._limit, self._most + self._most // 8 + 1)
            if claim.promoted:
                self._observers.tell("maybe_paid_twice", claim.promoted)
            if self._runner is not None and claim.status != "late":
                self._runner.seen(claim.meant, 0)
            if claim.status not in ("adopt", "late", "differs"):
                self.heed(claim)  # before its items are sent on: their futures may end at once
            self._begin(claim, urgent)
        except BaseException as error:  # Redis may have given items to this owner, and we know nothing of them
            if isinstance(error, redis.TimeoutError):  # a claim as large as this one may never come in time
                self._most = max(1, limit // 2)
            self._lost.append(owner)
            self._agenda.claim_failed(urgent)
            raise
        self._adoptions = self._adoptions + 1 if claim.status == "adopt" else 0
        if claim.status in ("adopt", "late"):  # late by a clock that was set; now we know the time
            self._agenda.claim_failed(urgent)
        elif claim.status == "differs":
            self.heed(claim)
        elif claim.status == "budget":
            if words := self._store.budget.parked():
                self._log.warning("embedqueue: nothing is embedded: %s", words)
            self._start_check()
        if claim.status != "differs" and (claim.strays or claim.unknown):
            self._adopt(claim)

    def _begin(self, claim: Claim, urgent: list[str]) -> None:
        if claim.status == "probe" and self._dispatch.pool.room() == 0:
            # It was claimed ahead, before we knew that the provider fails. All processes wait for the probe, so it must
            # not wait for a place among our calls.
            self._lost.append(claim.owner)
            self._agenda.probe_too_early()
        elif self._agenda.claimed(claim, urgent):
            self._dispatch.begin(claim)
        else:  # a stop may have released already what we held, and knew nothing of this claim
            self._lost.append(claim.owner)

    def _adopt(self, claim: Claim) -> None:
        """Put the books in order, slice by slice: before anything is claimed, or beside it if there are ghosts only."""
        until_mono = time.monotonic() + (ADOPTION_SECONDS if claim.status == "adopt" else 0.0)
        self._tell_rejected(self._store.adoption.adopt(claim.strays, self._terms()))
        if claim.unknown == 0 and self._adopting is None:
            return
        adopting, self._adopting = self._adopting or self.put_in_order(), None
        for _ in adopting:
            if time.monotonic() > until_mono:
                self._adopting = adopting  # go on when the next claim says so
                return

    def put_in_order(self) -> Iterator[None]:
        """Put the books in order, in this thread, a slice a step, and tell what was rejected on the way.

        Raises:
            redis.RedisError: Redis does not answer.
        """
        for rejected in self._store.adoption.rounds(self._terms()):
            self._tell_rejected(rejected)
            yield

    def _tell_rejected(self, rejected: Iterable[Rejected]) -> None:
        letters = [dead_letter(member, time.time(), reason) for member, reason, _ in rejected]
        if letters:
            self._log.error("embedqueue: %d members of the queue cannot be ours and are dead letters now", len(letters))
            self._dispatch.note_rejected(len(letters))
            tell_dead(self._observers, letters)

    def heed(self, claim: Claim) -> None:
        """Note whether this process may claim: it may not where its terms differ from what Redis keeps."""
        if claim.status == "differs":
            self._bar(_differs(claim, self._terms()))
        else:
            self.barred = ""

    def _bar(self, why: str) -> None:
        """This process may not claim: say so, once in the log, and to those who wait."""
        if self.barred != why:
            self._log.error("embedqueue: %s", why)
        self.barred = why
        self._agenda.bar(BARRED_SECONDS)
        self._waiters.fail(self._waiters.snapshot(None), BatchFailed(f"{why}; the item is still queued"))

    def _tell_of_budget(self) -> None:
        """End the futures of this process if the budget is spent."""
        words = self._store.budget.parked()
        if words:  # then nothing is in flight any more; but who was served just before may not have heard of it
            self._outcomes.find_out(None)
            self._waiters.fail(self._waiters.snapshot(None), BatchFailed(f"{words}; the item is still queued"))

    def _release_lost(self) -> None:
        """Release what lost claims may have taken: these items must not wait until their leases end."""
        for owner in list(self._lost):  # a thread that a signal has cut off from its start may be here as well
            self._store.release_all(owner)
            if self._purse is not None:
                self._purse.drop(owner)
            with contextlib.suppress(ValueError):
                self._lost.remove(owner)

    # -- those who wait ----------------------------------------------------------------------------------------

    def _ask(self) -> None:
        """Have items claimed that somebody waits for: by our worker, which was not started, or by other processes."""
        redis_keys = self._agenda.take_asked()
        if self._options.worker and not self.barred:
            self._start_queue()
        else:
            sizes = itertools.accumulate(len(redis_key) + 4 for redis_key in redis_keys)
            count = max(1, sum(size <= LONGEST_WISH_CHARS for size in sizes))
            with contextlib.suppress(RedisError):  # the items are safe, and the next check asks again, and for the rest
                self._store.events.tell("urgent", self._name, json.dumps(redis_keys[:count], ensure_ascii=False))

    def _check_on_waiters(self) -> None:
        """End the futures of which no notice told, and ask again for items that wait again."""
        self._agenda.checked_on_waiters(self._waiters.any_wanted)
        if self._checking is None or not self._checking.is_alive():
            self._checking = self._start_check()

    def _start_check(self) -> threading.Thread:
        # In a thread of its own: futures end there, and a slow callback must keep nobody from renewing our leases.
        name = f"embedqueue-check-{self._options.namespace}"
        thread = threading.Thread(target=self._find_out, name=name, daemon=True)
        with contextlib.suppress(RuntimeError):  # no more threads: the next check tries again
            thread.start()
        return thread

    def _find_out(self) -> None:
        try:
            self._outcomes.find_out(None, wanted=True)
            self._tell_of_budget()
        except RedisError as error:  # the next check asks again
            self._log.debug("embedqueue: Redis does not tell what became of items: %s", error)
        except Exception:
            self._log.exception("embedqueue: could not look after those who wait, going on")


def _differs(claim: Claim, terms: Terms) -> str:
    """What a worker says that is at odds with the settings of its namespace."""
    ours = terms.agreed
    found = ", ".join(f"{name} {kept!r} where this process has {ours[name]!r}" for name, kept in claim.differs)
    there, here = _space(ours | dict(claim.differs)), _space(ours)
    if there != here:
        found += f": vectors are of {there} there, and of {here} here"
    return (
        f"this process claims nothing: the namespace is kept with {found}. Give it the same, or another namespace and"
        " another embedding_field. To change the model of all vectors: embedqueue reembed. Or, if from now on vectors"
        " shall be as this process makes them, beside those that are there: embedqueue space adopt"
    )


def _space(agreed: Mapping[str, str]) -> str:
    return "/".join(agreed.get(name) or "?" for name in ("model", "dimensions", "role"))
