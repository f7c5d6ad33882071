"""Vectors kept by text, with ``cache_ttl``: equal texts are sent once, also by different processes."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from embedqueue.store.store import Store
from embedqueue.values.backoff import backoff_seconds
from embedqueue.values.locks import Condition, Event

#: Seconds until we look again for a text that another worker is embedding: at first, and at most; doubled in between.
LOOK_SECONDS = (0.05, 1.0)
#: Texts that one script looks up: their vectors are in its answer, and while it runs, Redis serves nobody else.
LOOK_TEXTS = 64
#: What a look finds for a text that somebody is embedding, and for one that nobody may send now. No vector reads so.
BUSY = b"busy"
PAUSED = b"paused"

#: Called with texts and their vectors, each as the bytes that are stored.
Deliver = Callable[[Sequence[str], Sequence[bytes]], None]


class Cache:
    """Takes vectors that are known, and says which ones another worker is getting. Thread-safe.

    To send a text, a worker reserves it first, so that no other one sends it meanwhile. Only who has made a reservation
    can renew it or end it.

    Args:
        store: Redis.
        ttl_seconds: how long a vector is kept.
        hold_seconds: how long a reservation holds if nobody renews it.
        kind: returns what decides a vector beside its text: the model, the dimensions, the task, the
            embedder's variant, the vector_type.
        name: of the thread that waits for others.
        stopping: set when the queue stops.
        persist: makes a move in Redis again and again until Redis answers; see ``Settle.persist``.
    """

    def __init__(
        self,
        store: Store,
        *,
        ttl_seconds: float,
        hold_seconds: float,
        kind: Callable[[], str],
        name: str,
        stopping: Event,
        persist: Callable[[Callable[[], Any]], Any],
    ) -> None:
        self._store = store
        self._ttl_seconds = ttl_seconds
        self._hold_seconds = hold_seconds
        self._kind = kind
        self._name = name
        self._stopping = stopping
        self._persist = persist
        self._lock = threading.RLock()
        self._reserved: dict[str, str] = {}  # owners by digest, of texts that we are sending; guarded by the lock
        self._changed = Condition(self._lock)
        self._later: list[tuple[float, Callable[[], None]]] = []  # what to do, and when; guarded by the lock
        self._waits = False  # whether there is a thread that does it; guarded by the lock

    def serve(
        self,
        texts: Sequence[str],
        owner: str,
        *,
        deliver: Deliver,
        release: Callable[[Sequence[str]], None],
        put_off: Callable[[Sequence[str]], None],
        embed: Callable[[Sequence[str], Deliver], None],
    ) -> None:
        """Find out what is to be done for each text, and have it done.

        Args:
            texts: distinct.
            owner: of the claim; it reserves.
            deliver: called with texts whose vectors the cache has.
            release: called with texts that nobody may send now, because the queue is paused.
            put_off: called with texts that others are embedding.
            embed: called with texts that are ours to send. It calls its second argument with their vectors, and only
                then delivers them itself.

        Raises:
            Stopping: the queue stops.
            Unserved: or whatever else ``embed`` raises.
        """
        digests = {text: self._digest(text) for text in texts}
        mine: dict[str, str] = {}  # digests by text, of what we have reserved and not filled

        def keep(texts: Sequence[str], vectors: Sequence[bytes]) -> None:
            pairs = {digests[text]: vector for text, vector in zip(texts, vectors, strict=True)}
            # By this call an embedder may have learned the length of its vectors: who knows it looks elsewhere for it.
            pairs |= {self._digest(text): vector for text, vector in zip(texts, vectors, strict=True)}
            self._persist(lambda: self._store.cache.put(pairs.items(), self._ttl_seconds))
            for text in texts:
                del mine[text]

        try:
            found = self._look(digests, owner, mine)
            by_word = {word: [text for text in found if found[text] == word] for word in (PAUSED, BUSY)}
            known = {text: vector for text, vector in found.items() if vector not in (b"", BUSY, PAUSED)}
            if known:
                deliver(list(known), list(known.values()))
            if by_word[PAUSED]:
                release(by_word[PAUSED])
            if by_word[BUSY]:
                put_off(by_word[BUSY])
            if mine:
                embed(list(mine), keep)
        finally:
            self._end(digests.values(), mine, owner)

    def _look(self, digests: Mapping[str, str], owner: str, mine: dict[str, str]) -> dict[str, bytes]:
        """Look texts up, and note in ``mine`` what is reserved for us now. Returns what was found, by text."""
        found: dict[str, bytes] = {}
        texts = list(digests)
        for at in range(0, len(texts), LOOK_TEXTS):
            part = texts[at : at + LOOK_TEXTS]
            asked = [digests[text] for text in part]
            values = self._persist(lambda: self._store.cache.take(asked, owner, self._hold_seconds))  # noqa: B023 - called at once
            found.update(zip(part, values, strict=True))
            mine.update((text, digests[text]) for text in part if not found[text])
            with self._lock:
                self._reserved.update((digests[text], owner) for text in part if not found[text])
        return found

    def _end(self, digests: Iterable[str], unfilled: Mapping[str, str], owner: str) -> None:
        """Renew no reservation of these any more, and end those that were not filled."""
        with self._lock:
            for digest in digests:
                self._reserved.pop(digest, None)
        if unfilled:
            with contextlib.suppress(Exception):  # the reservations end by themselves
                self._store.cache.release(dict.fromkeys(unfilled.values(), owner))

    def known(self, texts: Iterable[str]) -> set[str]:
        """Those of some texts whose vectors are kept, or on their way; none is reserved.

        Raises:
            redis.RedisError: Redis does not answer.
        """
        asked, found = list(dict.fromkeys(texts)), set[str]()
        for at in range(0, len(asked), LOOK_TEXTS):
            part = asked[at : at + LOOK_TEXTS]
            kept = self._store.cache.get([self._digest(text) for text in part])
            found.update(text for text, value in zip(part, kept, strict=True) if value)
        return found

    def keep(self, vectors: Iterable[tuple[str, bytes]]) -> None:
        """Keep vectors of texts that were embedded otherwise than by :meth:`serve`.

        Raises:
            redis.RedisError: Redis does not answer.
        """
        self._store.cache.put([(self._digest(text), vector) for text, vector in vectors], self._ttl_seconds)

    def renew(self) -> None:
        """Renew our reservations.

        Raises:
            redis.RedisError: Redis does not answer.
        """
        with self._lock:
            reserved = dict(self._reserved)
        if reserved:
            self._store.cache.hold(reserved, self._hold_seconds)

    def forget(self, texts: Iterable[str]) -> None:
        """Renew our reservations of these texts no longer: another worker may send them."""
        with self._lock:
            for text in texts:
                self._reserved.pop(self._digest(text), None)

    def later(self, looks: int, again: Callable[[], None]) -> None:
        """Do something after a while, in a thread of ours; never, if the queue stops before.

        Args:
            looks: how often we have looked by now, at least 1: each time the wait is longer.
            again: handles its own errors.

        Raises:
            RuntimeError: there are no more threads.
        """
        one = (time.monotonic() + backoff_seconds(looks, *LOOK_SECONDS), again)
        with self._changed:
            self._later.append(one)
            self._changed.notify()
            if self._waits:
                return
            self._waits = True
        try:
            threading.Thread(target=self._wait, name=self._name, daemon=True).start()
        except BaseException:
            with self._lock:
                self._waits = False
                self._later.remove(one)
            raise

    def _wait(self) -> None:
        while True:
            with self._changed:
                if not self._later or self._stopping.is_set():
                    self._waits = False
                    return
                one = min(self._later, key=lambda one: one[0])
                rest_seconds = one[0] - time.monotonic()
                if rest_seconds > 0:
                    self._changed.wait(rest_seconds)
                    continue
                self._later.remove(one)
            one[1]()

    def _digest(self, text: str) -> str:
        return digest_of(self._kind(), text)


def digest_of(kind: str, text: str) -> str:
    """Under which digest a vector is kept.

    Args:
        kind: what decides it beside its text.
        text: as it was enqueued, or asked for.
    """
    return hashlib.blake2b(f"{kind}\0{text}".encode(), digest_size=20).hexdigest()
