"""The unfinished futures of this process, by redis_key.

A future is held weakly until somebody adds a callback to it. So whoever drops a future waits no longer, and a million
items that are enqueued in passing cost this process nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from embedqueue.values.errors import QueueStopped
from embedqueue.values.locks import held_here, locked
from embedqueue.values.vectors import VectorType

from .callbacks import Callbacks
from .future import EmbeddingFuture, end_future

#: Keys, or entries, that are looked at while the lock is held once; Redis is asked of so many keys at a time.
AT_ONCE = 200


class Waiting(weakref.ref[EmbeddingFuture]):
    """The entry of one future, which it holds weakly. All fields are guarded by the lock of :class:`Waiters`."""

    __slots__ = ("committed", "heard", "joined", "member", "older", "pinned", "redis_key", "stamp", "wanted")
    redis_key: str
    member: bytes
    older: dict[Waiting, None] | None  # of the newest entry of a key: those enqueued before it, in order, if any
    pinned: EmbeddingFuture | None  # the future, where it must not be dropped
    committed: bool  # whether its enqueue is known to have reached Redis
    heard: bool  # whether somebody was to look after it before it was committed: a notice may be quicker than an answer
    joined: bool  # whether it was committed, and its text is being enqueued again
    stamp: int  # that its item is not below, if this enqueue has made it; 0 before it is committed
    wanted: bool  # whether somebody waits in ``.result()``

    __hash__ = object.__hash__  # an entry is itself, also when its future is gone
    __eq__ = object.__eq__


class Waiters:
    """The unfinished futures of this process. Thread-safe; no callback of a user runs under the lock.

    However many futures are held, nothing holds the lock for longer than an enqueue can wait; but ``cancel_all`` does.
    A signal's handler, or a ``__del__``, may enqueue or stop while its own thread is in here. It leaves the entries of
    keys alone: what arrives and what is dropped is noted, and the next one who comes catches up.

    Args:
        want: returns what a future calls with its redis_key when somebody waits for it, or None. The future keeps that
            alive, and with it the queue, which may have been dropped by everybody else.
        callbacks: runs callbacks. None: they run in the thread that ends their future.
        late: tells somebody who has waited in vain why; see :class:`EmbeddingFuture`.
        vector_type: of the vectors with which futures end.

    Attributes:
        callbacks: as given; it may be replaced before the first future is made.
    """

    def __init__(
        self,
        want: Callable[[], Callable[[str], None] | None],
        callbacks: Callbacks | None = None,
        late: Callable[[str, float], str] | None = None,
        vector_type: VectorType = "float32",
    ) -> None:
        self.callbacks = callbacks
        self._late = late
        self._vector_type = vector_type
        self._want = want
        self._lock = threading.RLock()
        self._newest: dict[str, Waiting] = {}  # of each redis_key, the newest entry, which knows the older ones
        self._wanted: set[Waiting] = set()  # those entries that somebody waits for
        self._closed = False
        self._arrived: deque[Waiting] = deque()  # to be put in
        self._dropped: deque[Waiting] = deque()  # to be taken out; appended by the garbage collector, too

    @property
    def entered(self) -> bool:
        """Whether this thread is in here: then we are a handler, and must not wait for others, who may want to come."""
        return held_here(self._lock)

    def _catch_up(self) -> None:
        while (self._arrived or self._dropped) and not self.entered:
            self._take_over()

    @locked
    def _take_over(self) -> None:
        newest = self._newest
        while self._arrived:
            entry = self._arrived[0]
            # In this order, for a signal's handler may raise after each line: who comes next does what was begun.
            before = newest.get(entry.redis_key)
            if before is not None and before is not entry:
                older = before.older or {} if entry.older is None else entry.older
                older[before] = None
                entry.older = older
                before.older = None
            newest[entry.redis_key] = entry
            del self._arrived[0]
        if self._dropped:
            self._take([self._dropped.popleft() for _ in range(min(AT_ONCE, len(self._dropped)))])

    # -- coming in: the intake calls these, in the order in which Redis takes the items -------------------------

    def register(self, pairs: Iterable[tuple[str, bytes]]) -> tuple[list[EmbeddingFuture | None], list[Waiting]]:
        """Make a future for each pair; or find the one that exists, if the same text of the key is unfinished.

        One that an earlier call has made counts once it is committed: until then it may be forgotten.

        Args:
            pairs: redis_key and member; for an empty member there is None instead of a future.

        Returns:
            Futures, in order; and the entries of those that are new, and of those that were found. These count as not
            committed for now: nobody ends them with what Redis has answered before.

        Raises:
            QueueStopped: the queue is stopped, so nobody would end them.
        """
        futures: list[EmbeddingFuture | None] = []
        entries: list[Waiting] = []
        made: dict[str, Waiting] = {}
        joined = False
        if self._arrived:
            self._catch_up()
        want, pin, drop = self._want(), self._pin, self._dropped.append  # once: each time would make an object
        later, late = None if self.callbacks is None else self.callbacks.later, self._late
        for redis_key, member in pairs:
            if not member:
                futures.append(None)
                continue
            newest = made.get(redis_key) or self._newest.get(redis_key)
            if newest is not None and newest.member == member and (newest.committed or redis_key in made):
                future = newest()
                if future is not None and future.share():
                    futures.append(future)
                    if redis_key not in made:
                        newest.joined, newest.committed = True, False
                        joined = True
                        entries.append(newest)
                        made[redis_key] = newest
                    continue
            future = EmbeddingFuture(redis_key, want, pin, later, late, self._vector_type)
            entry = future.entry = Waiting(future, drop)
            entry.redis_key, entry.member, entry.older, entry.pinned = redis_key, member, None, None
            entry.committed = entry.heard = entry.joined = entry.wanted = False
            entry.stamp = 0
            made[redis_key] = entry
            futures.append(future)
            entries.append(entry)
        self._arrived.extend([entry for entry in entries if not entry.joined] if joined else entries)
        self._catch_up()
        if self._closed:  # either whoever closes finds them, or we see that it is closed
            self.forget(entries)
            raise QueueStopped("the queue is stopped")
        return futures, entries

    def commit(self, entries: Iterable[Waiting], stamp: int = 0) -> list[str]:
        """The items of these entries are in Redis; none that their enqueue has made is below ``stamp``.

        Returns:
            The redis_keys of those that somebody was to look after meanwhile, and has left out.
        """
        heard = []
        for entry in entries:
            entry.stamp = stamp
            entry.joined, entry.committed = False, True
            if entry.heard:  # asked after it is committed: whoever comes later finds it
                entry.heard = False
                heard.append(entry.redis_key)
        return heard

    def forget(self, entries: Iterable[Waiting]) -> None:
        """The items of these entries did not reach Redis: their caller gets an error instead of the futures."""
        for entry in entries:
            if entry.joined:  # of an enqueue before, which has reached it
                entry.joined, entry.committed = False, True
            else:
                self._dropped.append(entry)
        self._catch_up()

    @locked
    def _pin(self, future: EmbeddingFuture) -> None:
        if self._knows(future.entry) or future.entry in self._arrived:
            future.entry.pinned = future

    # -- the entries of a key ------------------------------------------------------------------------------------

    def _of(self, redis_key: str) -> list[Waiting]:
        """The entries of a key, the oldest first."""
        newest = self._newest.get(redis_key)
        return [] if newest is None else [*(newest.older or ()), newest]

    def _knows(self, entry: Waiting) -> bool:
        newest = self._newest.get(entry.redis_key)
        return newest is not None and (newest is entry or entry in (newest.older or ()))

    def _take(self, entries: Iterable[Waiting]) -> list[EmbeddingFuture]:
        """Take entries out. Returns the futures of those that were in, as far as somebody still holds them.

        The list keeps them until they have ended, for the sake of callbacks that are added meanwhile.
        """
        taken = []
        for entry in entries:
            if self._knows(entry):
                future = entry()
                self._remove(entry)
                if future is not None:
                    taken.append(future)
        return taken

    def _remove(self, entry: Waiting) -> None:
        # In this order, for a signal's handler may raise after each line: no other entry gets lost by that.
        newest = self._newest[entry.redis_key]
        older = newest.older or {}
        older.pop(entry, None)
        if entry is newest:
            if older:
                heir = next(reversed(older))
                heir.older = older
                self._newest[entry.redis_key] = heir
                older.popitem()  # the heir; to delete it by name would leave a gap at the end for each of many
            else:
                del self._newest[entry.redis_key]
        entry.older = entry.pinned = None
        entry.member = b""  # whoever keeps the future need not keep its text
        self._wanted.discard(entry)

    # -- asking -----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """How many redis_keys have unfinished futures."""
        self._catch_up()
        return len(self._newest)

    @property
    def empty(self) -> bool:
        """Whether nobody is known to hold an unfinished future. Asked under a lock, so it takes none."""
        return not (self._arrived or self._newest)

    def futures(self) -> list[EmbeddingFuture]:
        """The futures that are unfinished now, whose items are in Redis, and that somebody still holds."""
        found = (entry() for entries in self.snapshot().values() for entry in entries)
        return [future for future in found if future is not None]

    def any_wanted(self) -> bool:
        """Whether somebody waits in ``.result()`` for anything. Asked under a lock, so it takes none."""
        return any(entry() is not None for entry in tuple(self._wanted))

    def mark_wanted(self, redis_key: str) -> bytes | None:
        """Somebody waits for this redis_key. Returns its newest member that we know; None if we know none."""
        self._catch_up()
        return self._mark_wanted(redis_key)

    @locked
    def _mark_wanted(self, redis_key: str) -> bytes | None:
        newest = self._newest.get(redis_key)
        if newest is None:
            return None
        for entry in itertools.chain([newest], reversed(newest.older or {})):
            if entry.wanted:  # and so are all that are older
                break
            self._wanted.add(entry)
            entry.wanted = True
        return newest.member

    def slices(
        self, redis_keys: Iterable[str] | None = None, *, wanted: bool = False
    ) -> Iterator[dict[str, list[Waiting]]]:
        """The entries whose items are in Redis, in parts of which each is as things are when it is asked for.

        What Redis is asked from then on, its answers speak of these.

        Args:
            redis_keys: of the entries; None for all.
            wanted: only those that somebody waits for in ``.result()``.

        Returns:
            For up to ``AT_ONCE`` keys at a time, by redis_key, the entries in the order in which they were enqueued; no
            key without entries, and nothing empty.
        """
        self._catch_up()
        if redis_keys is None and wanted:
            with self._lock:
                entries = list(self._wanted)
            redis_keys = dict.fromkeys(entry.redis_key for entry in entries)
        elif redis_keys is None:
            with self._lock:
                redis_keys = list(self._newest)
        rest = iter(redis_keys)
        while keys := list(itertools.islice(rest, AT_ONCE)):
            if found := self._slice(keys, wanted):
                yield found

    @locked
    def _slice(self, redis_keys: Sequence[str], wanted: bool) -> dict[str, list[Waiting]]:
        found = {}
        for redis_key in redis_keys:
            known = self._of(redis_key)
            for entry in known:
                entry.heard = True
            entries = [entry for entry in known if entry.committed and (entry.wanted or not wanted)]
            if entries:
                found[redis_key] = entries
        return found

    def snapshot(self, redis_keys: Iterable[str] | None = None) -> dict[str, list[Waiting]]:
        """All slices in one: what Redis is asked from now on, its answers speak of these entries.

        Args:
            redis_keys: of the entries; None for all.
        """
        found: dict[str, list[Waiting]] = {}
        for part in self.slices(redis_keys):
            found |= part
        return found

    # -- ending: outside the lock ------------------------------------------------------------------------------

    def written(self, redis_key: str, member: bytes, vector: bytes) -> bool:
        """A vector was written to its hash: resolve the futures of its member, and those of older texts of the key.

        Args:
            redis_key: of the item.
            member: whose vector it is.
            vector: as the bytes that are stored.

        Returns:
            False if there are futures of texts of the key that were enqueued here later, or of other texts only.
            Another process may have enqueued this very text after those: nobody here knows which one is newer, so ask
            Redis what became of the key.
        """
        self._catch_up()
        known, ended = self._take_written(redis_key, member)
        _end_all(ended, vector)
        return known

    @locked
    def _take_written(self, redis_key: str, member: bytes) -> tuple[bool, list[EmbeddingFuture]]:
        entries = self._of(redis_key)
        count = len(entries)
        while entries and entries[-1].member != member:
            entries.pop()
        return len(entries) == count, self._take(entries)

    def resolve(self, entries: Sequence[Waiting], outcome: bytes | BaseException) -> None:
        """End the futures of these entries, if they have not ended yet.

        Args:
            entries: of one redis_key, in the order of a snapshot.
            outcome: a vector, as the bytes that are stored, or the error to raise.
        """
        if self.entered:  # whoever looks after those who wait will find out
            return
        with self._lock:
            ended = self._take(entries)
        _end_all(ended, outcome)

    def fail(self, waiting: Mapping[str, Sequence[Waiting]], error: BaseException) -> None:
        """End the futures of a snapshot with an error, if they have not ended since."""
        for entries in waiting.values():
            self.resolve(entries, error)

    def cancel_all(self) -> None:
        """The queue stops: cancel every future, make no more, and see the callbacks off."""
        self._closed = True
        self._catch_up()
        _end_all(self._close(self.entered), None)
        if self.callbacks is not None:
            self.callbacks.stop()

    @locked
    def _close(self, entered: bool) -> list[EmbeddingFuture]:
        entries = [entry for redis_key in self._newest for entry in self._of(redis_key)]
        if not entered:
            return self._take(entries)
        return [future for entry in (*self._arrived, *entries) if (future := entry()) is not None]


def _end_all(futures: Sequence[EmbeddingFuture], outcome: bytes | BaseException | None) -> None:
    """End all of them, the first one first, even if a callback raises."""
    with contextlib.ExitStack() as ends:
        for future in reversed(futures):
            ends.callback(end_future, future, outcome)
