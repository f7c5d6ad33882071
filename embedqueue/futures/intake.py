"""Group commit: concurrent enqueues share round trips to Redis.

Whoever finds the line free leads: it writes for all who have arrived, and hands the line to the first of those
who arrived meanwhile. Each caller returns only when its own items are durable. No lock is held across I/O.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable, Sequence

from embedqueue.embedders.protocol import Embedder
from embedqueue.observers.observers import Observers
from embedqueue.store.store import Store
from embedqueue.values.errors import EmbedQueueError, QueueFull
from embedqueue.values.locks import locked
from embedqueue.values.options import Options
from embedqueue.values.vectors import zero_vector

from .demand import Waker
from .future import EmbeddingFuture, finished_future
from .waiters import Waiters, Waiting

#: Pairs that one round trip carries at most; a single caller's own are never cut.
GROUP_LIMIT = 10_000

Pair = tuple[str, bytes]


class _Commit:
    """What one caller wants written, and what became of it."""

    __slots__ = ("entries", "error", "futures", "gate", "group", "pairs", "written")

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = pairs
        self.futures: list[EmbeddingFuture] = []
        self.error: BaseException | None = None
        self.gate: threading.Lock | None = None  # a follower sleeps on it
        self.group: Sequence[_Commit] = ()  # for whom this one writes, itself included
        self.entries: list[Waiting] = []  # that it created for them
        self.written = False  # whether it has written for them

    def wake(self) -> None:
        """Let its caller go on. Twice does no harm; under the intake's lock."""
        if self.gate is not None and self.gate.locked():
            self.gate.release()


class Intake:
    """The way into Redis.

    Args:
        store: where items go.
        waiters: where their futures are kept.
        embedder: knows the length of the vector of a blank text.
        waker: told how many items wait now, after each write.
        observers: told how many were accepted.
        options: of the queue.

    Attributes:
        accepted: items that this process has enqueued.
    """

    def __init__(
        self,
        store: Store,
        waiters: Waiters,
        embedder: Embedder,
        waker: Waker,
        observers: Observers,
        options: Options,
    ) -> None:
        self.accepted = 0  # the leader of a group counts, and there is one at a time
        self._store = store
        self._waiters = waiters
        self._embedder = embedder
        self._waker = waker
        self._observers = observers
        self._max_pending = options.max_pending
        self._tell_at = options.max_batch_size
        self._tell_first = not options.worker
        self._lock = threading.Lock()
        self._followers: list[_Commit] = []  # those who arrived while somebody leads; guarded by the lock
        self._leader: _Commit | None = None  # guarded by the lock

    def submit(self, pairs: Sequence[Pair]) -> list[EmbeddingFuture]:
        """Make pairs durable; returns their futures, in order. An empty member stands for a blank text.

        Raises:
            QueueFull: nothing of these pairs was written.
            redis.RedisError: nothing of them is known to be accepted.
        """
        commit = _Commit(pairs)
        try:
            self._arrive(commit)
            if commit.gate is not None:
                commit.gate.acquire()
            if self._leader is commit:
                self._gather(commit)
                self._write(commit)
                commit.written = True
                self._depart(commit)
        except BaseException as error:  # Ctrl-C included, at whatever instruction: the line must not break
            self._depart(commit, error)
            raise
        if commit.error is not None:
            raise commit.error
        return commit.futures

    def _arrive(self, commit: _Commit) -> None:
        with self._lock:
            if self._leader is None:
                self._leader = commit
            else:
                commit.gate = threading.Lock()
                commit.gate.acquire()
                self._followers.append(commit)

    @locked
    def _gather(self, leader: _Commit) -> None:
        """Let those who have arrived join the leader, as many as one round trip bears."""
        joined, size = 0, len(leader.pairs)
        for other in self._followers:
            size += len(other.pairs)
            if size > GROUP_LIMIT:
                break
            joined += 1
        leader.group, self._followers = (leader, *self._followers[:joined]), self._followers[joined:]

    @locked
    def _depart(self, commit: _Commit, error: BaseException | None = None) -> None:
        """Leave the line, whatever one did in it; a leader hands it to the next. Twice does no harm."""
        if self._leader is not commit:
            self._followers = [other for other in self._followers if other is not commit]
        else:
            if error is not None and not commit.written:
                for other in commit.group:
                    other.error = error if other is commit else _for_follower(error)
                self._waiters.forget(commit.entries)
            self._leader, self._followers = (self._followers[0], self._followers[1:]) if self._followers else (None, [])
        for other in commit.group:
            if other is not commit:
                other.wake()
        if self._leader is not None:
            self._leader.wake()

    def _write(self, leader: _Commit) -> None:
        # What is taken whole or not at all: without a limit the whole group, else each caller's own.
        shares = [leader.group] if self._max_pending is None else [(commit,) for commit in leader.group]
        written, groups = [], []
        for share in shares:
            pairs = share[0].pairs if len(share) == 1 else [pair for commit in share for pair in commit.pairs]
            entries = self._register(leader, share, pairs)
            latest = dict(pairs)  # the last text of each key
            parts: list[bytes] = []
            for redis_key, member in latest.items():
                parts += (redis_key.encode(), member)
            groups.append(parts)
            written.append((share, latest, entries, len(pairs)))
        count = 0
        waiting, taken = self._store.enqueue(
            groups, max_pending=self._max_pending, tell_at=self._tell_at, tell_first=self._tell_first
        )
        for (share, latest, entries, size), fine in zip(written, taken, strict=True):
            if fine:
                self._waiters.commit(entries)
                count += size
                if b"" in latest.values():
                    self._end_blank(redis_key for redis_key, member in latest.items() if not member)
            else:
                assert self._max_pending is not None
                share[0].error = QueueFull(self._max_pending)
                self._waiters.forget(entries)
        self.accepted += count
        self._waker.enqueued(waiting)
        self._observers.tell("accepted", count)

    def _register(self, leader: _Commit, share: Sequence[_Commit], pairs: Sequence[Pair]) -> list[Waiting]:
        """Give futures to the commits of a share; returns the entries of those that are new."""
        found, entries = self._waiters.register(pairs)
        leader.entries += entries
        at = 0
        for commit in share:
            commit.futures = [future or finished_future(self._zero()) for future in found[at : at + len(commit.pairs)]]
            at += len(commit.pairs)
        return entries

    def _end_blank(self, redis_keys: Iterable[str]) -> None:
        """Futures of older texts of keys that are blank now get the zero vector as well."""
        for entries in self._waiters.snapshot(redis_keys).values():
            self._waiters.resolve(entries, self._zero())

    def _zero(self) -> bytes:
        """The vector of a blank text."""
        return zero_vector(self._embedder.dimensions)


def _for_follower(error: BaseException) -> BaseException:
    """The leader's error for another caller: its own object, and never the leader's Ctrl-C."""
    if isinstance(error, Exception):
        return copy.copy(error)
    return EmbedQueueError("interrupted while writing: enqueue again")
