"""Futures by redis_key: who waits, what they get, and that waiting makes an item urgent.

A future is held weakly until somebody adds a callback to it: whoever drops the future is not waiting, and a
million items enqueued in passing cost this process nothing.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from embedqueue.values.errors import QueueStopped
from embedqueue.values.locks import locked

from .future import EmbeddingFuture, end_future


class Waiting(weakref.ref[EmbeddingFuture]):
    """One future that waits for one member of a key, held weakly. All fields are guarded by the waiters' lock."""

    __slots__ = ("committed", "member", "older", "pinned", "redis_key", "wanted")
    redis_key: str
    member: bytes
    older: Waiting | None  # the one of the same key that was enqueued before
    pinned: EmbeddingFuture | None  # the future, where it must not be dropped
    committed: bool  # whether its enqueue is known to have reached Redis
    wanted: bool  # whether somebody waits in ``.result()``


class Waiters:
    """The unfinished futures of this process. Thread-safe; no callback of a user runs under the lock.

    Args:
        want: gives what a future calls with its key when somebody waits for it, or None. The future keeps that alive,
            and so its queue, which knows nothing of who still waits.
    """

    def __init__(self, want: Callable[[], Callable[[str], None] | None]) -> None:
        self._want = want
        self._lock = threading.Lock()
        self._newest: dict[str, Waiting] = {}  # of each key; it knows those before it
        self._closed = False
        self._dropped: deque[Waiting] = deque()  # appended by the garbage collector

    # -- coming in: only the intake's leader calls these, in the order in which Redis sees the items -----------

    @locked
    def register(self, pairs: Iterable[tuple[str, bytes]]) -> tuple[list[EmbeddingFuture | None], list[Waiting]]:
        """A future for each pair; the one that exists where the same text of the key is unfinished.

        Args:
            pairs: redis_key and member; an empty member gets None instead of a future.

        Returns:
            Futures, in order, and the entries of those that are new.

        Raises:
            QueueStopped: nobody would end them.
        """
        futures: list[EmbeddingFuture | None] = []
        entries: list[Waiting] = []
        if self._closed:
            raise QueueStopped("the queue is stopped")
        if self._dropped:
            self._forget_dropped()
        want, pin, drop = self._want(), self._pin, self._dropped.append  # once, for each method is an object
        for redis_key, member in pairs:
            if not member:
                futures.append(None)
                continue
            newest = self._newest.get(redis_key)
            if newest is not None and newest.member == member:
                future = newest()
                if future is not None and future._unfinished:
                    futures.append(future)
                    continue
            future = EmbeddingFuture(redis_key, want, pin)
            entry = Waiting(future, drop)
            entry.redis_key, entry.member, entry.older, entry.pinned = redis_key, member, newest, None
            entry.committed = entry.wanted = False
            self._newest[redis_key] = entry
            futures.append(future)
            entries.append(entry)
        return futures, entries

    def commit(self, entries: Iterable[Waiting]) -> None:
        """Their items are in Redis."""
        with self._lock:
            for entry in entries:
                entry.committed = True

    def forget(self, entries: Iterable[Waiting]) -> None:
        """Their items never reached Redis; the caller gets an error instead of the futures."""
        with self._lock:
            for entry in entries:
                self._remove(entry)

    @locked
    def _pin(self, future: EmbeddingFuture) -> None:
        for entry in self._of(future._redis_key):
            if entry() is future:
                entry.pinned = future

    def _forget_dropped(self) -> None:
        while self._dropped:
            self._remove(self._dropped.popleft())

    def _of(self, redis_key: str) -> Iterator[Waiting]:
        """The entries of a key, the newest first."""
        return _chain(self._newest.get(redis_key))

    def _all(self) -> Iterator[Waiting]:
        for newest in self._newest.values():
            yield from _chain(newest)

    def _remove(self, entry: Waiting) -> bool:
        newer, at = None, self._newest.get(entry.redis_key)
        while at is not entry:
            if at is None:
                return False
            newer, at = at, at.older
        self._cut(newer, entry, entry.older)
        return True

    def _cut(self, newer: Waiting | None, entry: Waiting, left: Waiting | None) -> None:
        """Let what follows on ``newer``, or is the newest, be ``left`` instead of ``entry``."""
        if newer is not None:
            newer.older = left
        elif left is not None:
            self._newest[entry.redis_key] = left
        else:
            del self._newest[entry.redis_key]

    # -- looking -----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Keys with unfinished futures."""
        with self._lock:
            self._forget_dropped()
            return len(self._newest)

    @locked
    def futures(self) -> list[EmbeddingFuture]:
        """The futures that are unfinished now and that somebody still holds."""
        found = (entry() for entry in self._all() if entry.committed)
        return [future for future in found if future is not None]

    def any_wanted(self) -> bool:
        """Whether somebody waits in ``.result()`` for anything."""
        with self._lock:
            self._forget_dropped()
            return any(entry.wanted for entry in self._all())

    def mark_wanted(self, redis_key: str) -> bytes | None:
        """Somebody waits for this key now; returns its newest member that we know of."""
        with self._lock:
            for entry in self._of(redis_key):
                entry.wanted = True
            newest = self._newest.get(redis_key)
            return None if newest is None else newest.member

    @locked
    def snapshot(self, redis_keys: Iterable[str] | None = None, *, wanted: bool = False) -> dict[str, list[Waiting]]:
        """The committed entries of some keys, or of all: what a look at Redis that starts now may speak of.

        Args:
            redis_keys: which; None for all.
            wanted: only those that somebody waits for.
        """
        self._forget_dropped()
        found = {}
        for redis_key in list(self._newest) if redis_keys is None else redis_keys:
            entries = [entry for entry in self._of(redis_key) if entry.committed and (entry.wanted or not wanted)]
            if entries:
                found[redis_key] = entries[::-1]
        return found

    # -- ending: outside the lock, for a future's callbacks are the user's code --------------------------------

    def written(self, redis_key: str, member: bytes, vector: bytes) -> bool:
        """The vector of this member is in the hash: resolve its futures and those of older texts.

        Returns:
            False where somebody waits for other texts of the key only: which came first, Redis knows.
        """
        known, ended = self._take_written(redis_key, member)
        _end_all(ended, vector)
        return known

    @locked
    def _take_written(self, redis_key: str, member: bytes) -> tuple[bool, list[EmbeddingFuture]]:
        if redis_key not in self._newest:
            return True, []
        newer = None
        for entry in self._of(redis_key):
            if entry.member == member:
                ended = _futures(_chain(entry))
                self._cut(newer, entry, None)
                return True, ended
            newer = entry
        return False, []

    def resolve(self, entries: Sequence[Waiting], outcome: bytes | BaseException) -> None:
        """End these entries, if they have not ended yet, with a vector or an error."""
        with self._lock:
            ended = _futures(entry for entry in reversed(entries) if self._remove(entry))  # the newest stands first
        _end_all(ended, outcome)

    def fail(self, waiting: Mapping[str, Sequence[Waiting]], error: BaseException) -> None:
        """End the entries of a snapshot with an error, where they have not ended since."""
        for entries in waiting.values():
            self.resolve(entries, error)

    def cancel_all(self) -> None:
        """Cancel every future, and take no more: the queue stops."""
        with self._lock:
            self._closed = True
            ended = _futures(self._all())
            self._newest.clear()
        _end_all(ended, None)


def _chain(entry: Waiting | None) -> Iterator[Waiting]:
    while entry is not None:
        yield entry
        entry = entry.older


def _futures(entries: Iterable[Waiting]) -> list[EmbeddingFuture]:
    """Those that somebody still holds. Held from here on: who adds a callback now may drop the future after it."""
    return [future for entry in entries if (future := entry()) is not None]


def _end_all(futures: Sequence[EmbeddingFuture], outcome: bytes | BaseException | None) -> None:
    """Give an end to each of them, the last one first, whatever a callback raises."""
    with contextlib.ExitStack() as ends:
        for future in futures:
            ends.callback(end_future, future, outcome)
