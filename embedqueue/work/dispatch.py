"""One drain: claimed items become calls, calls become vectors, vectors are written and acknowledged.

Futures are resolved after the write, never before it. What a call cannot serve goes back to pending.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from redis.exceptions import RedisError

from embedqueue.calls.batching import cut
from embedqueue.calls.cache import Cache
from embedqueue.calls.caller import Caller
from embedqueue.calls.failures import Stopping, Unserved
from embedqueue.calls.halving import Halving
from embedqueue.calls.pool import Crew
from embedqueue.futures.outcomes import Outcomes
from embedqueue.futures.waiters import Waiters
from embedqueue.observers.observers import Observers
from embedqueue.store.records import Claim
from embedqueue.store.store import Store
from embedqueue.values.backoff import backoff_seconds
from embedqueue.values.item import Item, NotOurs, check_pair, dead_letter, decode_member, is_blank
from embedqueue.values.log import Log, logger
from embedqueue.values.options import Options

from .reporter import Reporter, Times

#: Seconds of the first pause after a failure, doubled each time in a row.
FIRST_PAUSE_SECONDS = 1.0
#: Seconds of the longest pause.
LONGEST_PAUSE_SECONDS = 300.0
#: Seconds between tries of a write that Redis did not answer: the first, and the longest.
REWRITE_SECONDS = (0.05, 2.0)
#: Items that one script writes at most: while it runs, Redis serves nobody else.
WRITE_ITEMS = 500
#: Vectors of the drain under way that are kept for equal texts behind in the queue.
RECENT_VECTORS = 512

T = TypeVar("T")


@dataclass(slots=True)
class Counters:
    """What this process has done since the queue was made. Guarded by the drain's lock."""

    embedded: int = 0
    rejected: int = 0
    released: int = 0
    last_progress: float | None = None


@dataclass(slots=True)
class _Call:
    """Texts on their way to the embedder, and the items that wait for each."""

    owner: str
    probe: bool
    asked_mono: float
    times: Times
    items: dict[str, list[Item]] = field(default_factory=dict)  # by text; guarded by the drain's lock


class Drain:
    """Serves claims. Thread-safe.

    Args:
        store: Redis.
        caller: the embedder, with its failure table.
        options: of the queue.
        waiters: futures of this process.
        stopping: set when the queue stops.
        worker: the name under which this process claims, with its colon at the end.
        task: what else decides a vector beside model, dimensions and text; for the cache.
        outcomes: finds out what became of items that somebody waits for.
        progressed: called after items were finished or given back.
        paused: called with seconds when the provider has failed and what it failed with waits again.
        log: takes the records.
        observers: told of what becomes of items.
    """

    def __init__(
        self,
        store: Store,
        caller: Caller,
        options: Options,
        waiters: Waiters,
        *,
        stopping: threading.Event,
        worker: str,
        task: str,
        outcomes: Outcomes,
        progressed: Callable[[], None],
        paused: Callable[[float], None],
        log: Log = logger,
        observers: Observers | None = None,
    ) -> None:
        self._log = log
        self._report = Reporter(observers or Observers())
        self.counters = Counters()
        self.crew = Crew(lambda: caller.concurrency.limit, f"embedqueue-call-{options.namespace}", progressed, log)
        self._store = store
        self._caller = caller
        self._options = options
        self._waiters = waiters
        self._stopping = stopping
        self._worker = worker
        self._outcomes = outcomes
        self._progressed = progressed
        self._paused = paused
        self._lock = threading.Lock()
        self._held: dict[str, bytes] = {}  # members in our hands by redis_key; guarded by the lock
        self._calls: dict[str, _Call] = {}  # texts on their way; guarded by the lock
        self._recent: OrderedDict[str, bytes] = OrderedDict()  # vectors by text; guarded by the lock
        self._more_behind = False  # whether equal texts may still wait; guarded by the lock
        self._failed_mono = 0.0  # what was asked for before has not seen the last pause of our making
        self._cache = None
        if options.cache_ttl is not None:
            self._cache = Cache(
                store,
                ttl_seconds=options.cache_ttl,
                hold_seconds=options.lease_seconds,
                kind=lambda: f"{options.model}\0{caller.dimensions}\0{task}",
                stopping=stopping,
                persist=self._persist,
            )
        self._told: str | None = None  # the fault that the log has spoken of

    # -- the worker's side -------------------------------------------------------------------------------------

    def begin(self, claim: Claim) -> None:
        """Send the items of a claim on their way; returns at once."""
        times = Times(time.monotonic(), claim.waited_seconds)
        items = self._decode(claim)
        self._report.claimed(claim.ran_out, claim.buried)
        with self._lock:
            for item in items:
                self._held[item.redis_key] = item.member
            calls, ready = self._arrange(claim, items, times)
        self._report.duplicates(items, (text for call in calls for text in call.items))
        for call in calls:
            self.crew.submit(lambda call=call: self._run(call))  # type: ignore[misc]
        if ready:
            self.crew.submit(lambda: self._write_ready(ready, times))
        if claim.status == "probe" and not calls:  # calls under way bring its vectors, and answer for others
            self.crew.submit(lambda: self._guarded(lambda: self._release_probe(claim.owner)))

    @property
    def held(self) -> int:
        """Items in our hands."""
        return len(self._held)

    def holds(self, redis_key: str, member: bytes | None) -> bool:
        """Whether this item is in our hands already."""
        return self._held.get(redis_key, b"") == member

    def renew(self) -> bool:
        """Renew the leases of everything in our hands; returns whether there is anything."""
        with self._lock:
            members = list(self._held.values())
        for at in range(0, len(members), 1000):
            self._store.extend(self._worker, self._options.lease_seconds, members[at : at + 1000])
        if self._cache is not None:
            self._cache.renew()
        return bool(members)

    def _decode(self, claim: Claim) -> list[Item]:
        items, foreign = [], []
        for member in claim.members:
            try:
                item = decode_member(member)
                check_pair(item.redis_key, item.text, self._options.namespace, None)
                if is_blank(item.text):
                    raise NotOurs("the text is blank")
                items.append(item)
            except ValueError as error:
                foreign.append((member, str(error)))
        if foreign:
            self._log.error("embedqueue: %d members of the queue cannot be ours and are dead letters now", len(foreign))
            self._store.reject(self._worker, foreign)
            self._report.dead(dead_letter(member, time.time(), reason) for member, reason in foreign)
        return items

    def _arrange(
        self, claim: Claim, items: Iterable[Item], times: Times
    ) -> tuple[list[_Call], list[tuple[Item, bytes]]]:
        """Equal texts travel once: join calls under way, use vectors just received, cut the rest into calls."""
        fresh: dict[str, list[Item]] = {}
        ready = []
        for item in items:
            under_way, recent = self._calls.get(item.text), self._recent.get(item.text)
            if under_way is not None:
                under_way.items[item.text].append(item)
            elif recent is not None:
                ready.append((item, recent))
            else:
                fresh.setdefault(item.text, []).append(item)
        calls = []
        for texts in cut(fresh, self._caller.limits):
            items_of = {text: fresh[text] for text in texts}
            call = _Call(claim.owner, claim.status == "probe", claim.asked_mono, times, items_of)
            self._calls.update(dict.fromkeys(texts, call))
            calls.append(call)
        self._more_behind = claim.waiting > 0
        if not self._more_behind:
            self._recent.clear()
        return calls, ready

    # -- a call, in a thread of the crew -----------------------------------------------------------------------

    def _run(self, call: _Call) -> None:
        # by a failure: but for the one that tests the provider, no call begins while there is a pause
        overtaken = call.asked_mono < self._failed_mono and not call.probe
        try:
            self._guarded(lambda: self._put_back(call) if overtaken else self._serve(call))
        finally:
            self._let_go(self._take(call, list(call.items)))  # there are some only after something unforeseen

    def _write_ready(self, pairs: Sequence[tuple[Item, bytes]], times: Times) -> None:
        self._guarded(lambda: self._write(self._worker, pairs, times))

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Stopping:
            pass  # stop() gives everything back
        except Exception:
            self._log.exception("embedqueue: a drain failed in a way that it should not; its leases will run out")

    def _serve(self, call: _Call) -> None:
        try:
            if self._cache is None:
                self._embed(call, list(call.items))
            else:
                self._cache.serve(
                    list(call.items),
                    call.owner,
                    deliver=lambda texts, vectors: self._deliver_cached(call, texts, vectors),
                    embed=lambda texts, keep: self._embed(call, texts, keep),
                )
                if call.probe:
                    self._release_probe(call.owner)  # if all came from the cache
        except Unserved as failure:
            self._give_back(call, failure)
        else:
            self._told = None

    def _release_probe(self, owner: str) -> None:
        """It has tested nothing: let the next one do that."""
        self._persist(lambda: self._store.release_probe(owner))

    def _embed(
        self, call: _Call, texts: Sequence[str], keep: Callable[[Sequence[str], Sequence[bytes]], None] | None = None
    ) -> None:
        def deliver(served: Sequence[str], vectors: Sequence[bytes]) -> None:
            if len(served) == len(texts):
                self.crew.answered()  # the usual case: nothing more will be asked for this call
            if keep is not None:
                keep(served, vectors)
            self._deliver(call, call.owner, served, vectors)

        Halving(
            self._caller,
            probe=call.probe,
            deliver=deliver,
            refuse=lambda text, reason: self._reject(call.owner, self._take(call, [text]), reason),
        ).serve(texts)

    def _deliver(self, call: _Call, owner: str, texts: Sequence[str], vectors: Sequence[bytes]) -> None:
        by_text = dict(zip(texts, vectors, strict=True))
        with self._lock:
            if self._more_behind:
                self._recent.update(by_text)
                while len(self._recent) > RECENT_VECTORS:
                    self._recent.popitem(last=False)
        self._write(owner, [(item, by_text[item.text]) for item in self._take(call, texts)], call.times)

    def _deliver_cached(self, call: _Call, texts: Sequence[str], vectors: Sequence[bytes]) -> None:
        self._report.saved(texts, "cache")
        self._deliver(call, self._worker, texts, vectors)

    def _take(self, call: _Call, texts: Sequence[str]) -> list[Item]:
        """The items that wait for these texts; from now on equal texts travel anew."""
        with self._lock:
            taken: list[Item] = []
            for text in texts:
                taken += call.items.pop(text, ())
                self._calls.pop(text, None)
            return taken

    def _let_go(self, items: Iterable[Item]) -> None:
        with self._lock:
            for item in items:
                if self._held.get(item.redis_key) == item.member:
                    del self._held[item.redis_key]
            self.counters.last_progress = time.time()

    @contextlib.contextmanager
    def _letting_go(self, items: Iterable[Item]) -> Iterator[None]:
        """Whatever happens meanwhile: what stays in our hands would have its lease renewed for ever."""
        try:
            yield
        finally:
            self._let_go(items)

    # -- what becomes of items: Redis first, futures after it --------------------------------------------------

    def _write(self, owner: str, pairs: Sequence[tuple[Item, bytes]], times: Times) -> None:
        with self._letting_go([item for item, _ in pairs]):  # those of later parts as well, should one fail
            for at in range(0, len(pairs), WRITE_ITEMS):
                self._write_part(owner, pairs[at : at + WRITE_ITEMS], times)

    def _write_part(self, owner: str, pairs: Sequence[tuple[Item, bytes]], times: Times) -> None:
        lines = [(item.redis_key, item.member, vector) for item, vector in pairs]
        refused, unclear, written = [], [], []
        with self._letting_go([item for item, _ in pairs]):
            words = self._persist(
                lambda: self._store.complete(owner, self._options.embedding_field, self._options.if_missing, lines)
            )
            for (item, vector), word in zip(pairs, words, strict=True):
                if word in ("done", "skipped"):
                    written.append(item)
                    if not self._waiters.written(item.redis_key, item.member, vector):
                        unclear.append(item.redis_key)
                elif word == "stale":  # superseded, or an answer of Redis was lost
                    unclear.append(item.redis_key)
                else:
                    refused.append((item, word))
            with self._lock:
                self.counters.embedded += len(written)
            for item, word in refused:
                self._reject(owner, [item], word.removeprefix("refused "))
        if unclear:
            self._persist(lambda: self._outcomes.look(unclear))
        self._progressed()
        self._report.written(written, times)

    def _reject(self, owner: str, items: Sequence[Item], reason: str) -> None:
        with self._letting_go(items):
            words = self._persist(lambda: self._store.reject(owner, [(item.member, reason) for item in items]))
            for item, word in zip(items, words, strict=True):
                if word == "dead":
                    self._log.error("embedqueue: %s is a dead letter now; dead_letters() tells why", item.redis_key)
                    self._log.debug("embedqueue: %s was refused: %s", item.redis_key, reason)  # it may quote the text
                    with self._lock:
                        self.counters.rejected += 1
        self._persist(lambda: self._outcomes.look([item.redis_key for item in items]))
        self._progressed()
        if self._report.observers:
            self._report_dead([item for item, word in zip(items, words, strict=True) if word == "dead"], reason)

    def _report_dead(self, items: Sequence[Item], reason: str) -> None:
        try:
            letters = self._store.dead_letters_of([item.redis_key for item in items])
        except RedisError:  # what is told need not be worth a wait
            letters = [dead_letter(item.member, time.time(), reason) for item in items]
        self._report.dead(letters)

    def _put_back(self, call: _Call) -> None:
        """Its items wait again; nothing has become of them."""
        items = self._take(call, list(call.items))
        with self._letting_go(items):
            self._release(items)
        self._progressed()

    def _release(self, items: Sequence[Item]) -> None:
        self._persist(lambda: self._store.release(self._worker, [item.member for item in items]))

    def _give_back(self, call: _Call, failure: Unserved) -> None:
        """The provider is at fault: nobody claims for a while, the items wait again, their waiters get to know."""
        items = self._take(call, list(call.items))
        redis_keys = [item.redis_key for item in items]
        with self._letting_go(items):
            self._tell_of(failure, len(items))
            # now, for who comes later has seen nothing fail
            waiting = self._waiters.snapshot(None if call.probe else redis_keys)
            seconds, _ = self._persist(
                lambda: self._store.pause(
                    call.owner,
                    first_seconds=FIRST_PAUSE_SECONDS,
                    most_seconds=LONGEST_PAUSE_SECONDS,
                    least_seconds=failure.retry_after,
                    reason=f"the provider failed: {failure}",
                    redis_keys=redis_keys,
                )
            )
            self._failed_mono = time.monotonic()
            self._release(items)
            with self._lock:
                self.counters.released += len(items)
        self._paused(seconds)
        self._waiters.fail(waiting, failure.for_waiter())
        self._progressed()
        self._report.released(redis_keys, str(failure), seconds)

    def _tell_of(self, failure: Unserved, count: int) -> None:
        if failure.account and self._told != str(failure):
            self._log.error("embedqueue: nothing can be embedded until somebody acts: %s", failure)
        elif not failure.account:
            self._log.warning(
                "embedqueue: a call of %d texts failed and will be made again: %s",
                count,
                failure,
                extra={"batch_size": count},
            )
        self._told = str(failure)

    def _persist(self, write: Callable[[], T]) -> T:
        """A write that waits for Redis to come back. Should a lease end meanwhile, Redis will say so."""
        failures = 0
        while True:
            try:
                return write()
            except RedisError as error:
                failures += 1
                if failures == 1:
                    self._log.warning("embedqueue: Redis did not take a result, trying again: %s", error)
                self._report.observers.redis_failed(error)
                if self._stopping.wait(backoff_seconds(failures, *REWRITE_SECONDS)):
                    raise Stopping from None
