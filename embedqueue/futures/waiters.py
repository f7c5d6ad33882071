"""The unfinished futures of this process, by redis_key.

A future is held weakly until somebody adds a callback to it. So whoever drops a future waits no longer, and a million
items that are enqueued in passing cost this process nothing.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from embedqueue.values.errors import QueueStopped
from embedqueue.values.locks import held_here, locked

from .future import EmbeddingFuture, end_future


class Waiting(weakref.ref[EmbeddingFuture]):
    """The entry of one future, which it holds weakly. All fields are guarded by the lock of :class:`Waiters`."""

    __slots__ = ("committed", "member", "older", "pinned", "redis_key", "wanted")
    redis_key: str
    member: bytes
    older: Waiting | None  # the entry of the same key that was enqueued before
    pinned: EmbeddingFuture | None  # the future, where it must not be dropped
    committed: bool  # whether its enqueue is known to have reached Redis
    wanted: bool  # whether somebody waits in ``.result()``


class Waiters:
    """The unfinished futures of this process. Thread-safe; no callback of a user runs under the lock.

    A signal's handler, or a ``__del__``, may enqueue or stop while its own thread is in here. It leaves the chains
    alone: what arrives and what is dropped is noted, and the next one who comes catches up.

    Args:
        want: returns what a future calls with its redis_key when somebody waits for it, or None. The future keeps that
            alive, and with it the queue, which may have been dropped by everybody else.
    """

    def __init__(self, want: Callable[[], Callable[[str], None] | None]) -> None:
        self._want = want
        self._lock = threading.RLock()
        self._newest: dict[str, Waiting] = {}  # of each redis_key, the newest entry, which knows the older ones
        self._closed = False
        self._arrived: deque[Waiting] = deque()  # to be put into the chains
        self._dropped: deque[Waiting] = deque()  # to be taken out of them; appended by the garbage collector, too

    @property
    def entered(self) -> bool:
        """Whether this thread is in here: then we are a handler, and must not wait for others, who may want to come."""
        return held_here(self._lock)

    def _catch_up(self) -> None:
        if (self._arrived or self._dropped) and not self.entered:
            self._take_over()

    @locked
    def _take_over(self) -> None:
        newest = self._newest
        while self._arrived:  # each in one step, without a call: no handler may come in between
            entry = self._arrived[0]
            entry.older = newest[entry.redis_key] if entry.redis_key in newest else None  # noqa: SIM401
            newest[entry.redis_key] = entry
            del self._arrived[0]
        while self._dropped:
            self._remove(self._dropped.popleft())

    # -- coming in: the intake calls these, in the order in which Redis takes the items -------------------------

    def register(self, pairs: Iterable[tuple[str, bytes]]) -> tuple[list[EmbeddingFuture | None], list[Waiting]]:
        """Make a future for each pair; or find the one that exists, if the same text of the key is unfinished.

        One that an earlier call has made counts once it is committed: until then it may be forgotten.

        Args:
            pairs: redis_key and member; for an empty member there is None instead of a future.

        Returns:
            Futures, in order, and the entries of those that are new.

        Raises:
            QueueStopped: the queue is stopped, so nobody would end them.
        """
        futures: list[EmbeddingFuture | None] = []
        entries: list[Waiting] = []
        made: dict[str, Waiting] = {}
        self._catch_up()
        want, pin, drop = self._want(), self._pin, self._dropped.append  # once: each time would make an object
        for redis_key, member in pairs:
            if not member:
                futures.append(None)
                continue
            newest = made.get(redis_key) or self._newest.get(redis_key)
            if newest is not None and newest.member == member and (newest.committed or redis_key in made):
                future = newest()
                if future is not None and future._unfinished:
                    futures.append(future)
                    continue
            future = EmbeddingFuture(redis_key, want, pin)
            entry = Waiting(future, drop)
            entry.redis_key, entry.member, entry.older, entry.pinned = redis_key, member, None, None
            entry.committed = entry.wanted = False
            made[redis_key] = entry
            futures.append(future)
            entries.append(entry)
        self._arrived.extend(entries)
        self._catch_up()
        if self._closed:  # either whoever closes finds them, or we see that it is closed
            self.forget(entries)
            raise QueueStopped("the queue is stopped")
        return futures, entries

    def commit(self, entries: Iterable[Waiting]) -> None:
        """The items of these entries are in Redis."""
        for entry in entries:
            entry.committed = True

    def forget(self, entries: Iterable[Waiting]) -> None:
        """The items of these entries did not reach Redis: their caller gets an error instead of the futures."""
        self._dropped.extend(entries)
        self._catch_up()

    @locked
    def _pin(self, future: EmbeddingFuture) -> None:
        for entry in (*self._arrived, *self._of(future._redis_key)):
            if entry() is future:
                entry.pinned = future

    def _of(self, redis_key: str) -> Iterator[Waiting]:
        """The entries of a key, the newest first."""
        return _chain(self._newest.get(redis_key))

    def _all(self) -> Iterator[Waiting]:
        for newest in list(self._newest.values()):
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
        """Take an entry out of its key's chain, with all that are older but ``left`` and those behind it.

        Args:
            newer: the entry before this one; None if this is the newest.
            entry: to take out.
            left: what follows on ``newer`` then, or is the newest; None if nothing is left.
        """
        if newer is not None:
            newer.older = left
        elif left is not None:
            self._newest[entry.redis_key] = left
        else:
            del self._newest[entry.redis_key]

    # -- asking -----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """How many redis_keys have unfinished futures."""
        self._catch_up()
        return len(self._newest)

    def futures(self) -> list[EmbeddingFuture]:
        """The futures that are unfinished now, whose items are in Redis, and that somebody still holds."""
        self._catch_up()
        return self._committed()

    @locked
    def _committed(self) -> list[EmbeddingFuture]:
        found = (entry() for entry in self._all() if entry.committed)
        return [future for future in found if future is not None]

    def any_wanted(self) -> bool:
        """Whether somebody waits in ``.result()`` for anything. Asked under a lock, so it takes none."""
        return any(entry.wanted and entry() is not None for entry in (*self._arrived, *self._all()))

    @property
    def empty(self) -> bool:
        """Whether nobody is known to hold an unfinished future. Asked under a lock, so it takes none."""
        return not (self._arrived or self._newest)

    def mark_wanted(self, redis_key: str) -> bytes | None:
        """Somebody waits for this redis_key. Returns its newest member that we know; None if we know none."""
        self._catch_up()
        with self._lock:
            for entry in self._of(redis_key):
                entry.wanted = True
            newest = self._newest.get(redis_key)
            return None if newest is None else newest.member

    def snapshot(self, redis_keys: Iterable[str] | None = None, *, wanted: bool = False) -> dict[str, list[Waiting]]:
        """The entries whose items are in Redis now. What Redis is asked from now on, its answers speak of these.

        Args:
            redis_keys: of the entries; None for all.
            wanted: only those that somebody waits for in ``.result()``.

        Returns:
            By redis_key, the entries in the order in which they were enqueued; no key without entries.
        """
        self._catch_up()
        return self._snapshot(redis_keys, wanted)

    @locked
    def _snapshot(self, redis_keys: Iterable[str] | None, wanted: bool) -> dict[str, list[Waiting]]:
        found = {}
        for redis_key in list(self._newest) if redis_keys is None else redis_keys:
            entries = [entry for entry in self._of(redis_key) if entry.committed and (entry.wanted or not wanted)]
            if entries:
                found[redis_key] = entries[::-1]
        return found

    # -- ending: outside the lock, for a future's callbacks are the user's code --------------------------------

    def written(self, redis_key: str, member: bytes, vector: bytes) -> bool:
        """A vector was written to its hash: resolve the futures of its member, and those of older texts of the key.

        Args:
            redis_key: of the item.
            member: whose vector it is.
            vector: (dimensions,) float32 as bytes.

        Returns:
            False if there are futures of other texts of the key only: nobody here knows which text is newer, so ask
            Redis what became of the key.
        """
        self._catch_up()
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
        """End the futures of these entries, if they have not ended yet.

        Args:
            entries: of one redis_key, in the order of a snapshot.
            outcome: a vector, (dimensions,) float32 as bytes, or the error to raise.
        """
        if self.entered:  # whoever looks after those who wait will find out
            return
        with self._lock:
            ended = _futures(entry for entry in reversed(entries) if self._remove(entry))  # the newest stands first
        _end_all(ended, outcome)

    def fail(self, waiting: Mapping[str, Sequence[Waiting]], error: BaseException) -> None:
        """End the futures of a snapshot with an error, if they have not ended since."""
        for entries in waiting.values():
            self.resolve(entries, error)

    def cancel_all(self) -> None:
        """The queue stops: cancel every future, and make no more."""
        self._closed = True
        self._catch_up()
        entered = self.entered
        with self._lock:
            ended = _futures((*self._arrived, *self._all()))
            if not entered:
                self._newest.clear()
        _end_all(ended, None)


def _chain(entry: Waiting | None) -> Iterator[Waiting]:
    while entry is not None:
        yield entry
        entry = entry.older


def _futures(entries: Iterable[Waiting]) -> list[EmbeddingFuture]:
    """The futures that somebody still holds. The list keeps them until they have ended, as a callback wants it."""
    return [future for entry in entries if (future := entry()) is not None]


def _end_all(futures: Sequence[EmbeddingFuture], outcome: bytes | BaseException | None) -> None:
    """End all of them, the last one first, even if a callback raises."""
    with contextlib.ExitStack() as ends:
        for future in futures:
            ends.callback(end_future, future, outcome)
