"""The vectors of search queries: asked for by whoever searches, sent at once, and shared by all who come together.

The first one to come hires a sender, a thread that lingers, takes along all who have come meanwhile, and makes the
call. There are so many senders at most as there may be calls in flight. Nobody holds the lock during I/O.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext

from redis.exceptions import RedisError

from embedqueue.observers.observers import Observers
from embedqueue.store.change import FINISHING
from embedqueue.store.store import Store
from embedqueue.values.errors import BatchFailed, InputRejected, QueueStopped, twin
from embedqueue.values.locks import Event, held_here, locked
from embedqueue.values.log import Log
from embedqueue.values.observer import SavingReport
from embedqueue.values.threads import start
from embedqueue.values.tokens import estimated_tokens

from .batching import cut
from .cache import digest_of
from .caller import LONGEST_TRY_SECONDS, Caller
from .failures import Stopping, Unserved
from .fund import Fund
from .halving import Halving

#: Seconds after which a query is given up that has no answer; its sender counts no longer.
LONGEST_SECONDS = LONGEST_TRY_SECONDS
#: Seconds that a thread which was hired may take to start, and is counted.
STARTS_SECONDS = 1.0


class _Query:
    """A text that somebody asks about, and what became of it."""

    __slots__ = ("done", "error", "text", "vector")

    def __init__(self, text: str) -> None:
        self.text = text
        self.done = Event()
        self.vector = b""
        self.error: Exception | None = None

    def end(self, vector: bytes = b"", error: Exception | None = None) -> None:
        """Tell those who wait; the first end counts."""
        if not self.done.is_set():
            self.vector, self.error = vector, error
            self.done.set()


class Queries:
    """Embeds queries. Thread-safe; a signal's handler may use it, but where it has interrupted it.

    Args:
        caller: makes the calls, in the role of queries.
        store: Redis: there may be a pause, and a cache.
        cache_kind: returns what decides a query's vector beside its text; None if nothing is cached.
        cache_seconds: how long a vector is kept then.
        linger_seconds: that a sender waits for others; it goes once nobody has come for a quarter of that.
        name: of the threads.
        log: takes the records.
        observers: told which texts need not be sent.
        fund: pays for calls out of the budget; None where there is none.

    Attributes:
        caller: as given.
        inline: whether calls are made in the thread of whoever asks, without linger; for tests of applications.
    """

    def __init__(
        self,
        caller: Caller,
        store: Store,
        *,
        cache_kind: Callable[[], str] | None,
        cache_seconds: float,
        linger_seconds: float,
        name: str,
        log: Log,
        observers: Observers,
        fund: Fund | None = None,
    ) -> None:
        self.inline = False
        self.caller = caller
        self._store = store
        self._cache_kind = cache_kind
        self._cache_seconds = cache_seconds
        self._linger_seconds = linger_seconds
        self._name = name
        self._log = log
        self._observers = observers
        self._fund = fund
        self._lock = threading.RLock()
        self._queries: dict[str, _Query] = {}  # by text, all that are not done; guarded by the lock, as is all below
        self._waiting: list[_Query] = []  # those of them that no sender has taken
        self._senders: dict[threading.Thread, float] = {}  # and when each was hired, or has taken what it has
        self._next: threading.Thread | None = None  # the sender that takes them; it may have died of an interruption
        self._closed = False

    def ask(self, text: str, timeout: float | None) -> bytes:
        """The vector of a query.

        Args:
            text: not blank.
            timeout: seconds to wait at most; None waits until the provider has answered or failed.

        Returns:
            (dimensions,) float32 as bytes.

        Raises:
            TimeoutError: there is no vector in time.
            BatchFailed: the queue is paused, or the provider failed; its cause is what the embedder raised.
            InputRejected: the provider refuses this text.
            QueueStopped: the queue is stopped.
            redis.RedisError: Redis cannot be asked whether there is a pause.
            RuntimeError: a signal's handler has interrupted what it waits for.
        """
        if held_here(self._lock):
            raise RuntimeError("this signal handler, or __del__, has interrupted a query, and would wait for ever here")
        query = self._join(text)
        self._hire()
        longest = LONGEST_SECONDS if timeout is None else min(timeout, LONGEST_SECONDS)
        if not query.done.wait(longest):
            if longest == timeout:
                raise TimeoutError(f"there is no vector of the query within {timeout:g} s")
            self._drop(query)
            raise BatchFailed(f"the query had no answer within {longest:g} s")
        if query.error is not None:
            raise twin(query.error) from query.error.__cause__
        return query.vector

    def stop(self) -> None:
        """End all queries. Calls under way are left behind; their threads end with them."""
        self._closed = True
        for query in self._taken():
            query.end(error=QueueStopped("the queue was stopped during a query"))

    # -- the side of who asks; the lock is held for a few operations, and loops stand in methods of their own --------

    @locked
    def _join(self, text: str) -> _Query:
        query = self._queries.get(text)
        if query is None or query.done.is_set():
            query = _Query(text)
            self._queries[text] = query
            self._waiting.append(query)
        if self._closed:  # stop() may have come before it could see this one
            query.end(error=QueueStopped("the queue is stopped"))
        return query

    @locked
    def _drop(self, query: _Query) -> None:
        """Nobody joins this one any more."""
        if self._queries.get(query.text) is query:
            del self._queries[query.text]

    @locked
    def _taken(self) -> list[_Query]:
        queries, self._queries, self._waiting = list(self._queries.values()), {}, []
        return queries

    def _hire(self) -> None:
        """Have a sender for what waits, unless there is one, or there are as many as may be."""
        if self.inline:
            self._work()
            return
        sender = self._new_sender()
        if sender is None:
            return
        try:
            start(sender)
        except RuntimeError as error:  # no more threads
            self._log.warning("embedqueue: a query is sent without a thread of its own: %s", error)
            self._work()

    @locked
    def _new_sender(self) -> threading.Thread | None:
        now = time.monotonic()
        # One that hangs counts no longer: those who wait for it go, and others need its place.
        self._senders = {
            one: began_mono
            for one, began_mono in self._senders.items()
            if now - began_mono < (LONGEST_SECONDS if one.is_alive() else STARTS_SECONDS)
        }
        stands = self._next is not None and self._next.is_alive()
        if not self._waiting or stands or len(self._senders) >= self.caller.concurrency.limit:
            return None
        sender = threading.Thread(target=self._work, name=self._name, daemon=True)
        self._senders[sender] = now
        self._next = sender
        return sender

    # -- a sender ----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Send what waits, until nothing does."""
        try:
            while True:
                if not self.inline:
                    self._linger()
                queries = self._take()
                if not queries:
                    return
                self._serve(queries)
        finally:
            with self._lock:
                self._senders.pop(threading.current_thread(), None)

    def _linger(self) -> None:
        """Wait for company: so long, or until nobody has come for a quarter of that."""
        end_mono, seen = time.monotonic() + self._linger_seconds, 0
        while seen < len(self._waiting) and time.monotonic() < end_mono:
            seen = len(self._waiting)
            time.sleep(self._linger_seconds / 4)

    @locked
    def _take(self) -> list[_Query]:
        sender, most = threading.current_thread(), self.caller.limits.texts
        waiting = [query for query in self._waiting if not query.done.is_set()]
        queries, self._waiting = waiting[:most], waiting[most:]
        if self._next is sender:
            self._next = None
        if not queries:
            self._senders.pop(sender, None)  # in the same step, so that whoever comes now hires another
        elif sender in self._senders:
            self._senders[sender] = time.monotonic()
        return queries

    def _serve(self, queries: Sequence[_Query]) -> None:
        """Bring queries to their end, whatever happens."""
        by_text = {query.text: query for query in queries}
        try:
            missing = self._look(by_text)
            for texts in cut(missing, self.caller.limits):
                with nullcontext() if self._fund is None else self._fund.pays(texts):
                    self._send(texts, by_text)
        except Unserved as failure:
            _end(queries, BatchFailed(f"the query could not be embedded: {failure}"), failure.cause)
        except Stopping:
            _end(queries, QueueStopped("the queue was stopped during a query"))
        except (BatchFailed, RedisError) as error:
            _end(queries, error)
        except BaseException as error:
            if isinstance(error, Exception):
                self._log.exception("embedqueue: a query failed in a way that it should not")
            _end(queries, BatchFailed("a query failed in a way that it should not"), error)
            if not isinstance(error, Exception):
                raise
        finally:
            for query in queries:
                self._drop(query)

    def _look(self, by_text: dict[str, _Query]) -> list[str]:
        """End queries whose vectors are kept. Returns the texts that have to be sent.

        Raises:
            BatchFailed: the queue is paused, so none may be sent.
            redis.RedisError: Redis does not answer.
        """
        texts = list(by_text)
        kept = self._cached(texts)
        for text, vector in kept.items():
            by_text[text].end(vector)
        missing = [text for text in texts if text not in kept]
        # A budget asks for pauses when it reserves.
        reason = self._store.pause_reason() if missing and self._fund is None else None
        if reason not in (None, FINISHING):
            raise BatchFailed(f"the queue is paused: {reason}")
        return missing

    def _cached(self, texts: Sequence[str]) -> dict[str, bytes]:
        """The vectors that are kept, by text."""
        if self._cache_kind is None:
            return {}
        kind = self._cache_kind()
        found = self._store.cache.get([digest_of(kind, text) for text in texts])
        kept = {text: vector for text, vector in zip(texts, found, strict=True) if vector is not None}
        if kept and self._observers:
            tokens = sum(map(estimated_tokens, kept))
            self._observers.tell("saved", SavingReport(texts=len(kept), tokens=tokens, by="cache"))
        return kept

    def _send(self, texts: Sequence[str], by_text: dict[str, _Query]) -> None:
        def deliver(served: Sequence[str], vectors: Sequence[bytes]) -> None:
            for text, vector in zip(served, vectors, strict=True):
                by_text[text].end(vector)
            self._keep(served, vectors)

        def refuse(text: str, reason: str) -> None:
            by_text[text].end(error=InputRejected(f"the query was refused: {reason}"))

        Halving(self.caller, probe=False, deliver=deliver, refuse=refuse).serve(texts)

    def _keep(self, texts: Sequence[str], vectors: Sequence[bytes]) -> None:
        if self._cache_kind is None:
            return
        kind = self._cache_kind()
        pairs = [(digest_of(kind, text), vector) for text, vector in zip(texts, vectors, strict=True)]
        try:
            self._store.cache.put(pairs, self._cache_seconds)
        except Exception as error:  # those who asked have their vectors
            self._log.info("embedqueue: the vectors of queries were not kept: %s", error)


def _end(queries: Sequence[_Query], error: Exception, cause: BaseException | None = None) -> None:
    """End those queries with an error that have not ended."""
    error.__cause__ = cause or error.__cause__
    for query in queries:
        query.end(error=error)
