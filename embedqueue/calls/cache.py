"""Vectors kept by text, with ``cache_ttl``: equal texts are sent once, also by different processes."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from redis.exceptions import RedisError

from embedqueue.store.store import Store

from .failures import Stopping

#: Seconds after which we ask again for a text that another worker is embedding.
POLL_SECONDS = 0.02
#: What stands in the cache for a text that somebody is embedding; every vector is longer.
BUSY = b"busy"

#: Called with texts and their vectors, each (dimensions,) float32 as bytes.
Deliver = Callable[[Sequence[str], Sequence[bytes]], None]


class Cache:
    """Takes vectors that are known, and waits for those that another worker is getting. Thread-safe.

    To send a text, a worker reserves it first, so that no other one sends it meanwhile.

    Args:
        store: Redis.
        ttl_seconds: how long a vector is kept.
        hold_seconds: how long a reservation holds if nobody renews it.
        kind: returns what decides a vector beside its text: the model, the dimensions, the task.
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
        stopping: threading.Event,
        persist: Callable[[Callable[[], Any]], Any],
    ) -> None:
        self._store = store
        self._ttl_seconds = ttl_seconds
        self._hold_seconds = hold_seconds
        self._kind = kind
        self._stopping = stopping
        self._persist = persist
        self._lock = threading.Lock()
        self._reserved: set[str] = set()  # digests of texts that we are sending; guarded by the lock

    def serve(
        self, texts: Sequence[str], owner: str, *, deliver: Deliver, embed: Callable[[Sequence[str], Deliver], None]
    ) -> None:
        """Find a vector for each text.

        Args:
            texts: distinct.
            owner: of the claim; it reserves.
            deliver: called with texts whose vectors the cache has.
            embed: called with texts that are ours to send. It calls its second argument with their vectors, and only
                then delivers them itself.

        Raises:
            Stopping: the queue stops.
            Unserved: or whatever else ``embed`` raises.
        """
        digests = {text: self._digest(text) for text in texts}
        waiting = list(digests)
        while waiting:
            asked = [digests[text] for text in waiting]
            found: list[bytes] = self._persist(lambda: self._store.cache.take(asked, owner, self._hold_seconds))  # noqa: B023 - called at once
            known = {text: vector for text, vector in zip(waiting, found, strict=True) if len(vector) > len(BUSY)}
            mine = [text for text, vector in zip(waiting, found, strict=True) if not vector]
            if known:
                deliver(list(known), list(known.values()))
            if mine:
                self._fill({text: digests[text] for text in mine}, embed)
            waiting = [text for text, vector in zip(waiting, found, strict=True) if vector == BUSY]
            if waiting and self._stopping.wait(POLL_SECONDS):
                raise Stopping

    def renew(self) -> None:
        """Renew our reservations.

        Raises:
            redis.RedisError: Redis does not answer.
        """
        with self._lock:
            reserved = list(self._reserved)
        if reserved:
            self._store.cache.hold(reserved, self._hold_seconds)

    def forget(self, texts: Iterable[str]) -> None:
        """Renew our reservations of these texts no longer: another worker may send them."""
        with self._lock:
            self._reserved.difference_update(map(self._digest, texts))

    def _digest(self, text: str) -> str:
        return hashlib.blake2b(f"{self._kind()}\0{text}".encode(), digest_size=20).hexdigest()

    def _fill(self, digests: Mapping[str, str], embed: Callable[[Sequence[str], Deliver], None]) -> None:
        open_ = dict(digests)
        with self._lock:
            self._reserved.update(open_.values())

        def keep(texts: Sequence[str], vectors: Sequence[bytes]) -> None:
            pairs = [(open_.pop(text), vector) for text, vector in zip(texts, vectors, strict=True)]
            self._persist(lambda: self._store.cache.put(pairs, self._ttl_seconds))

        try:
            embed(list(digests), keep)
        finally:
            with self._lock:
                self._reserved.difference_update(digests.values())
            if open_:
                with contextlib.suppress(RedisError):  # the reservations end by themselves
                    self._store.cache.release(open_.values())
