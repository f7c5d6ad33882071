"""Brings claimed items to their end: their vectors are written, or they are rejected or released.

Each move is made in Redis first. Futures end after that, never before it.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import redis
from redis.exceptions import RedisError

from embedqueue.calls.failures import Stopping, Unserved
from embedqueue.futures.outcomes import Outcomes
from embedqueue.futures.progress import Progress
from embedqueue.futures.waiters import Waiters
from embedqueue.observers.observers import Observers
from embedqueue.store.records import Terms
from embedqueue.store.store import Store
from embedqueue.values.backoff import backoff_seconds
from embedqueue.values.item import Item, dead_letter
from embedqueue.values.limits import Paid
from embedqueue.values.locks import Event
from embedqueue.values.log import Log
from embedqueue.values.observer import ReleaseReport
from embedqueue.values.options import Options
from embedqueue.values.provenance import digest
from embedqueue.values.words import said_by

from .agenda import Agenda
from .purse import Purse
from .reporter import Times, tell_dead, tell_written
from .sinking import Sinking

#: Seconds of the pause after the first failure of the provider; doubled after each further one in a row.
FIRST_PAUSE_SECONDS = 1.0
#: Seconds of the longest pause.
LONGEST_PAUSE_SECONDS = 300.0
#: Seconds of the longest pause while a text is looked for that takes its server down, which is started again each time.
CRASH_PAUSE_SECONDS = 30.0
#: Seconds between tries of a write that Redis did not answer: at first, and at most; doubled in between.
REWRITE_SECONDS = (0.05, 2.0)
#: Items, and bytes of what is sent or copied for them, that one script takes: while it runs, Redis serves nobody else.
#: Hosted servers take a command of up to 1 MiB.
WRITE_ITEMS = 500
WRITE_BYTES = 3 << 18
#: What a command may end with that is too large, or takes too long.
TOO_MUCH = (redis.TimeoutError, redis.ResponseError)
#: Leases that one script renews at most.
RENEW_ITEMS = 500
#: Tries of a move that raises what no Redis that is away would make it raise.
UNFORESEEN_TRIES = 3

#: Long words with a digit, such as the number that a provider gives to each request.
_NUMBERED = re.compile(r"(?=\S*\d)\S{6,}")

T = TypeVar("T")
Answer = TypeVar("Answer")


@dataclass(slots=True)
class Counters:
    """What this process has done since the queue was started last. Guarded by the lock of :class:`Settle`.

    Attributes:
        embedded: items whose vector was written.
        truncated: those of them of which only a beginning was embedded.
        rejected: items that became dead letters.
        released: items that wait again because the provider failed.
        last_progress: Unix time at which an item last ended or was released; None if none has.
    """

    embedded: int = 0
    truncated: int = 0
    rejected: int = 0
    released: int = 0
    last_progress: float | None = None


class Settle:
    """Brings claimed items to their end, and knows which ones are in our hands until then. Thread-safe.

    Moves of items wait for a Redis that does not answer, as :meth:`persist` says, and raise ``Stopping`` if the queue
    stops meanwhile. Whoever stops it releases the items. Whatever else is raised, items that have not ended are still
    in our hands: whoever called releases them.

    Args:
        store: Redis.
        waiters: the unfinished futures of this process.
        outcomes: finds out what became of items, where Redis knows more than we do.
        agenda: told when there may be room for the next call, and when the provider has failed.
        progress: counts what ended or was released.
        options: of the queue.
        terms: returns on which terms this process writes.
        worker: the name under which this process claims; it ends with a colon.
        stopping: set when the queue stops.
        purse: told which items are in our hands no longer, where there is a budget; else None.
        observers: told how items end, and when Redis does not answer.
        log: takes the records.

    Attributes:
        counters: what was done.
        sinking: hands vectors to the sink first, where there is one; set once, before the first claim.
        paused_mono: when a pause of our making began, by the monotonic clock; what was claimed before is not sent.
    """

    def __init__(
        self,
        store: Store,
        waiters: Waiters,
        outcomes: Outcomes,
        agenda: Agenda,
        progress: Progress,
        options: Options,
        terms: Callable[[], Terms],
        *,
        worker: str,
        stopping: Event,
        purse: Purse | None = None,
        observers: Observers,
        log: Log,
    ) -> None:
        self.counters = Counters()
        self.sinking: Sinking | None = None
        self._purse = purse
        self._store = store
        self._waiters = waiters
        self._outcomes = outcomes
        self._agenda = agenda
        self._progress = progress
        self._options = options
        self._terms = terms
        self._worker = worker
        self._stopping = stopping
        self._observers = observers
        self._log = log
        self._lock = threading.Lock()
        self._held: dict[str, Item] = {}  # in our hands, by redis_key; guarded by the lock
        self._logged: str | None = None  # the fault that the log has spoken of last
        self.paused_mono = 0.0
        self._renew_items = RENEW_ITEMS  # that one script renews now

    # -- what is in our hands ----------------------------------------------------------------------------------

    def hold(self, items: Iterable[Item]) -> None:
        """These items are in our hands from now on: ``renew`` renews their leases."""
        with self._lock:
            self._held.update((item.redis_key, item) for item in items)

    @property
    def held(self) -> int:
        """How many items are in our hands."""
        return len(self._held)

    def in_hand(self) -> dict[str, bytes]:
        """The member of each key that is in our hands."""
        with self._lock:
            return {redis_key: item.member for redis_key, item in self._held.items()}

    def holds(self, redis_key: str, member: bytes | None) -> bool:
        """Whether this member of a key is in our hands. False for None, which says that no member is known."""
        held = self._held.get(redis_key)
        return (b"" if held is None else held.member) == member

    def works_at(self, redis_key: str) -> bool:
        """Whether an item of a key is in our hands."""
        return redis_key in self._held

    def renew(self) -> bool:
        """Renew the leases of all items in our hands.

        Returns:
            Whether there are any.

        Raises:
            redis.RedisError: Redis does not answer.
        """
        with self._lock:
            members = [item.member for item in self._held.values()]
        most = self._renew_items
        try:
            for at in range(0, len(members), most):
                self._store.extend(self._worker, self._options.lease_seconds, members[at : at + most])
        except TOO_MUCH:
            self._renew_items = max(1, min(most, len(members)) // 2)
            raise
        self._renew_items = min(RENEW_ITEMS, most + most // 8 + 1)
        return bool(members)

    def let_go(self, items: Iterable[Item]) -> None:
        """These items are in our hands no longer: their leases are not renewed any more."""
        gone = list(items)
        with self._lock:
            for item in gone:
                held = self._held.get(item.redis_key)
                if held is not None and (held.member, held.owner) == (item.member, item.owner):  # of this claim
                    del self._held[item.redis_key]
            self.counters.last_progress = time.time()
        if self._purse is not None:
            self._purse.ended(gone)

    # -- how they end ------------------------------------------------------------------------------------------

    def write(self, owner: str, pairs: Sequence[tuple[Item, bytes]], times: Times) -> None:
        """Write vectors and acknowledge their items; then resolve their futures.

        Where there is a sink, it takes them first, however long that takes.
        An item whose key refuses the write (it holds no hash, or we may not write to it) becomes a dead letter.

        Args:
            owner: of the claim.
            pairs: items and their vectors, each (dimensions,) as the bytes that are stored.
            times: of the claim.

        Raises:
            Stopping: the queue stops before Redis has taken all of them.
        """
        for part in _parts(pairs, lambda pair: len(pair[0].member) + len(pair[1])):
            refused, outdated = self.offer(owner, part, patient=True)
            self.let_go(item for item, _ in part if item.redis_key in refused)  # a text of two claims may stand twice
            if taken := [pair for pair in part if pair[0].redis_key not in refused | outdated]:
                self._write_part(owner, taken, times)
            if outdated:  # and not acknowledged: it may be claimed anew since, and the sink has no vector of it
                self._release([item for item, _ in part if item.redis_key in outdated])
                with contextlib.suppress(RedisError):  # whoever waits elsewhere must now ask for the newer text
                    self._store.events.tell("stale", self._worker, json.dumps(sorted(outdated)))
                self.persist(lambda keys=outdated: self._outcomes.find_out(keys))  # type: ignore[misc]
                self._progressed()
            if not taken:
                self.persist(lambda: self._store.complete(owner, self._terms(), []))  # the provider has answered
                self.release_probe(owner)

    def offer(self, owner: str, pairs: Sequence[tuple[Item, bytes]], *, patient: bool) -> tuple[set[str], set[str]]:
        """Have the sink, where there is one, take vectors; what it will never take becomes a dead letter.

        Args:
            owner: as with :meth:`write`.
            pairs: as with :meth:`write`.
            patient: whether to wait for a sink that takes nothing now.

        Returns:
            The redis_keys of what it will never take; and of what may not be written any more, and was not offered.

        Raises:
            Stopping: the queue stops.
            SinkFailed: it takes nothing now.
        """
        if self.sinking is None:
            return set(), set()
        refused, outdated = self.sinking.write(owner, pairs, patient=patient)
        for item, reason in refused:
            self.reject(owner, [item], reason)
        return {item.redis_key for item, _ in refused}, outdated

    def _write_part(self, owner: str, pairs: Sequence[tuple[Item, bytes]], times: Times) -> None:
        writes = [(item.redis_key, item.member, vector, digest(item.text)) for item, vector in pairs]
        terms = self._terms().sized(len(pairs[0][1]))
        words = self._persist_parts(lambda part: self._store.complete(owner, terms, part), writes)
        refused, unclear, written, barred = [], [], [], []
        for (item, vector), word in zip(pairs, words, strict=True):
            if word in ("done", "skipped"):
                written.append((item, vector))
            elif word == "stale":  # superseded; or written already, by a try whose answer was lost
                unclear.append(item.redis_key)
            elif word == "differs":
                barred.append(item)
            else:
                refused.append((item, word))
        truncated = [item.redis_key for item, _ in written if item.truncated]
        with self._lock:  # before anybody is told: who has a vector finds it counted
            self.counters.embedded += len(written)
            self.counters.truncated += len(truncated)
        for item, vector in written:
            if not self._waiters.written(item.redis_key, item.member, vector):
                unclear.append(item.redis_key)
        self.let_go(item for (item, _), word in zip(pairs, words, strict=True) if word in ("done", "skipped", "stale"))
        if truncated:
            with contextlib.suppress(RedisError):  # `explain` lacks it then, which is not worth a wait
                self._store.events.tell("truncated", self._worker, json.dumps(truncated))
        if barred:  # the next claim tells what differs; if ours was the probe, it has told nothing of the provider
            self._release(barred)
            self.release_probe(owner)
        for item, word in refused:
            self.reject(owner, [item], word.removeprefix("refused "))
        if unclear:
            self.persist(lambda: self._outcomes.find_out(unclear))
        self._progressed()
        tell_written(self._observers, [item for item, _ in written], times)

    def reject(self, owner: str, items: Sequence[Item], reason: str) -> None:
        """Make dead letters of items that will never work, and end their futures.

        Args:
            owner: of the claim.
            items: to give up. Of those that are no longer ours, nothing becomes.
            reason: why, for people; it may quote the text.

        Raises:
            Stopping: the queue stops before Redis has taken them.
        """
        dead = []
        for part in _parts(items, lambda item: len(item.member) + len(reason)):
            letters = [(item.owner, item.member, reason, False) for item in part]
            words = self._persist_parts(lambda some: self._store.reject(owner, some), letters)
            dead += [item for item, word in zip(part, words, strict=True) if word == "dead"]
        for item in dead:
            self._log.error("embedqueue: %s is a dead letter now; dead_letters() tells why", item.redis_key)
            self._log.debug("embedqueue: %s was refused: %s", item.redis_key, reason)  # it may quote the text
        self.count_rejected(len(dead))
        self.let_go(items)
        self.persist(lambda: self._outcomes.find_out([item.redis_key for item in items]))
        self._progressed()
        self._tell_of_dead(dead, reason)

    def _tell_of_dead(self, items: Sequence[Item], reason: str) -> None:
        try:
            letters = self._store.dead.find([item.redis_key for item in items])
        except RedisError:  # what we tell then lacks the deliveries; it is not worth a wait
            letters = [dead_letter(item.member, time.time(), reason) for item in items]
        tell_dead(self._observers, letters)

    def count_rejected(self, items: int) -> None:
        """So many items became dead letters, here or by a claim of ours."""
        with self._lock:
            self.counters.rejected += items

    def reject_unfit(self, members: Sequence[tuple[str, bytes, str, bool]]) -> None:
        """Make dead letters of members that no enqueue of ours can have written.

        Args:
            members: each with the owner of its claim before it, the reason behind it, and whether it is not our JSON at
                all.

        Raises:
            redis.RedisError: nothing is known to have been rejected.
        """
        self._log.error("embedqueue: %d members of the queue cannot be ours and are dead letters now", len(members))
        words = self._store.reject(self._worker, members)
        self.count_rejected(words.count("dead"))
        tell_dead(self._observers, (dead_letter(member, time.time(), reason) for _, member, reason, _ in members))

    def release(self, items: Sequence[Item], paid: Paid | None = None) -> None:
        """Let items wait again, as if they had not been claimed.

        Args:
            items: to release.
            paid: what was taken from the limits for them, which is given back, for they were not sent.

        Raises:
            Stopping: the queue stops before Redis has taken them.
        """
        self._release(items, paid)
        self._agenda.flush()  # they were due when they were claimed
        self._progressed()

    def _release(self, items: Sequence[Item], paid: Paid | None = None) -> None:
        """Whatever is raised, it is tried again: there is nothing else to do with these items."""

        def move(some: list[tuple[str, bytes]]) -> list[int]:
            nonlocal paid
            released = self._store.release(some, paid)
            paid = None  # given back with the first of them, however many moves it takes
            return [released]

        for part in _parts(items, lambda item: len(item.member)):
            self._persist_parts(move, _held(part), tries=math.inf)
        self.let_go(items)

    def release_probe(self, owner: str) -> None:
        """Let the next claim test the provider: the one of ``owner`` was to do it, and has not."""
        self.persist(lambda: self._store.release_probe(owner))

    def release_failed(
        self, owner: str, items: Sequence[Item], failure: Unserved, *, probe: bool, searching: bool = False
    ) -> None:
        """The provider failed: begin a pause for all processes, let the items wait again, and fail their futures.

        Args:
            owner: of the claim.
            items: those of the call that were not served.
            failure: what happened.
            probe: whether the call tested the provider. If so, the futures of all items of this process fail.
            searching: whether a text is looked for that takes its server down: the pause is no longer than it needs.

        Raises:
            Stopping: the queue stops before Redis has taken them.
        """
        redis_keys = [item.redis_key for item in items]
        try:
            self._log_failure(failure, len(items))
            # Taken before the pause begins: the future of whoever enqueues later must not fail.
            waiting = self._waiters.snapshot(None if probe else redis_keys)
            seconds = self._fail(owner, items, failure, searching)
            self.paused_mono = time.monotonic()
        finally:
            self._release(items)
        with self._lock:
            self.counters.released += len(items)
        self._agenda.paused(seconds)
        self._waiters.fail(waiting, failure.for_waiter())
        self._progressed()
        report = ReleaseReport(redis_keys=tuple(redis_keys), reason=str(failure), pause_seconds=seconds)
        self._observers.tell("released", report)

    def _fail(self, owner: str, items: Sequence[Item], failure: Unserved, searching: bool) -> float:
        """Begin a pause and release items, in plain words if those of the failure cannot be sent; its seconds."""
        first = next(_parts(items, lambda item: len(item.member)), [])  # the others are released after it
        most = len(first)
        most_seconds = LONGEST_PAUSE_SECONDS
        if searching:
            most_seconds = min(most_seconds, max(CRASH_PAUSE_SECONDS, failure.retry_after))

        def begin(reason: str, least_seconds: float) -> float:
            nonlocal most
            try:
                return self._store.fail(
                    owner,
                    _held(first[:most]),
                    first_seconds=FIRST_PAUSE_SECONDS,
                    most_seconds=most_seconds,
                    least_seconds=least_seconds,
                    reason=reason,
                )
            except TOO_MUCH:
                most = max(1, most // 2)
                raise

        try:
            return self.persist(lambda: begin(failure.reason, failure.retry_after))
        except Stopping:
            raise
        except Exception:
            self._log.exception("embedqueue: the reason of a pause cannot be told")
            return self.persist(lambda: begin("a call failed", 0.0))

    def _log_failure(self, failure: Unserved, count: int) -> None:
        fault = _NUMBERED.sub("", str(failure))  # the number of a request is no news
        if failure.account and self._logged != fault:
            self._log.error("embedqueue: nothing can be embedded until somebody acts: %s", failure)
        elif not failure.account:
            self._log.warning(
                "embedqueue: a call of %d texts failed and will be made again: %s",
                count,
                failure,
                extra={"batch_size": count},
            )
        self._logged = fault

    def served(self) -> None:
        """A call was served: the next fault is news again, even if it is the same."""
        self._logged = None

    def outsourced_written(self, count: int) -> None:
        """So many items have their vectors from a batch job."""
        with self._lock:
            self.counters.embedded += count
            self.counters.last_progress = time.time()
        self._progressed()

    def _progressed(self) -> None:
        self._agenda.progressed()
        self._progress.count()

    def _persist_parts(
        self, move: Callable[[list[T]], list[Answer]], items: Sequence[T], *, tries: float = UNFORESEEN_TRIES
    ) -> list[Answer]:
        """As ``persist``, for a move of many items: of fewer at a time where so many may be too much for Redis."""
        answers: list[Answer] = []
        rest, most = list(items), len(items)

        def go_on() -> None:
            nonlocal rest, most
            while rest:
                try:
                    answers.extend(move(rest[:most]))
                except TOO_MUCH:
                    most = max(1, min(most, len(rest)) // 2)
                    raise
                rest = rest[most:]

        self.persist(go_on, tries=tries)
        return answers

    def persist(self, write: Callable[[], T], *, tries: float = UNFORESEEN_TRIES) -> T:
        """Make a move in Redis, again and again until Redis answers. If a lease ends meanwhile, the answer says so.

        Args:
            write: makes the move, and raises RedisError if Redis does not answer.
            tries: how often to try where ``write`` raises anything else.

        Returns:
            What ``write`` returns.

        Raises:
            Stopping: the queue stops while Redis does not answer.
            Exception: what the last of the tries has raised.
        """
        failures = 0
        while True:
            try:
                return write()
            except Exception as error:
                failures += 1
                if isinstance(error, RedisError):
                    self._observers.redis_failed(error)
                elif failures >= tries:
                    raise
                if failures == 1:
                    self._log.warning("embedqueue: Redis did not take a result, trying again: %s", said_by(error))
                if self._stopping.wait(backoff_seconds(failures, *REWRITE_SECONDS)):
                    raise Stopping from None


def _held(items: Iterable[Item]) -> list[tuple[str, bytes]]:
    """Items as a release takes them: the owner of its claim, and the member, of each."""
    return [(item.owner, item.member) for item in items]


def _parts(moves: Sequence[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """Cut moves, of whose bytes ``size`` tells, into what one script takes."""
    part: list[T] = []
    part_bytes = 0
    for move in moves:
        move_bytes = size(move)
        if part and (len(part) >= WRITE_ITEMS or part_bytes + move_bytes > WRITE_BYTES):
            yield part
            part, part_bytes = [], 0
        part.append(move)
        part_bytes += move_bytes
    if part:
        yield part
