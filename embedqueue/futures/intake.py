"""Group commit: concurrent enqueues share round trips to Redis.

One caller at a time leads. It writes its own items and those of all callers who wait behind it, its followers. When it
is done, the first of those who have come meanwhile leads. Each caller returns when its own items are durable. No lock
is held during I/O.
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

#: Pairs that one round trip carries at most. Those of one caller are never cut, so alone they may be more.
GROUP_LIMIT = 10_000

#: redis_key and member; an empty member stands for a blank text.
Pair = tuple[str, bytes]


class _Commit:
    """What one caller wants written, and what became of it."""

    __slots__ = ("entries", "error", "futures", "gate", "group", "pairs", "written")

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = pairs
        self.futures: list[EmbeddingFuture] = []
        self.error: BaseException | None = None
        self.gate: threading.Lock | None = None  # of a follower, which waits until somebody releases it
        self.group: Sequence[_Commit] = ()  # of a leader: the commits that it writes, its own included
        self.entries: list[Waiting] = []  # of a leader: what it has registered for them
        self.written = False  # of a leader: whether it has written them

    def wake(self) -> None:
        """Let its caller go on. To call it twice does no harm. Under the intake's lock."""
        if self.gate is not None and self.gate.locked():
            self.gate.release()


class Intake:
    """The way into Redis. Thread-safe.

    Args:
        store: Redis.
        waiters: keeps the futures.
        embedder: its ``dimensions`` are the length of a blank text's vector.
        waker: told after each write how many items wait now.
        observers: told how many items were accepted.
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
        self.accepted = 0  # only the leader counts, and there is one at a time
        self._store = store
        self._waiters = waiters
        self._embedder = embedder
        self._waker = waker
        self._observers = observers
        self._max_pending = options.max_pending
        self._tell_at = options.max_batch_size
        self._tell_first = not options.worker
        self._lock = threading.Lock()
        self._followers: list[_Commit] = []  # in the order in which they came; guarded by the lock
        self._leader: _Commit | None = None  # guarded by the lock

    def submit(self, pairs: Sequence[Pair]) -> list[EmbeddingFuture]:
        """Make pairs durable.

        Args:
            pairs: at least one.

        Returns:
            Their futures, in order. That of a blank text has ended with the zero vector.

        Raises:
            QueueFull: nothing of these pairs was written.
            QueueStopped: the queue is stopped; nothing of them was written.
            redis.RedisError: nothing of them is known to be accepted.
            EmbedQueueError: the caller who wrote for this one was interrupted; nothing of them is known to be accepted.
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
        except BaseException as error:  # Ctrl-C included, at any instruction: the next caller must be able to lead
            self._depart(commit, error)
            raise
        commit.group = ()  # it is in there itself: its futures would live until the garbage collector comes by
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
        """Let the first followers join the leader's group: as many as fit into one round trip."""
        joined, size = 0, len(leader.pairs)
        for other in self._followers:
            size += len(other.pairs)
            if size > GROUP_LIMIT:
                break
            joined += 1
        leader.group, self._followers = (leader, *self._followers[:joined]), self._followers[joined:]

    @locked
    def _depart(self, commit: _Commit, error: BaseException | None = None) -> None:
        """Leave, as a leader or a follower. After a leader, the next one leads. To call it twice does no harm."""
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
        # A share is written whole or not at all: with max_pending each caller's own pairs, else the whole group.
        shares = [leader.group] if self._max_pending is None else [(commit,) for commit in leader.group]
        written, groups = [], []
        for share in shares:
            pairs = share[0].pairs if len(share) == 1 else [pair for commit in share for pair in commit.pairs]
            entries = self._register(leader, share, pairs)
            latest = dict(pairs)  # of several texts of a key, the last one
            parts: list[bytes] = []
            for redis_key, member in latest.items():
                parts += (redis_key.encode(), member)
            groups.append(parts)
            written.append((share, latest, entries, len(pairs)))
        count = 0
        waiting, taken, stamp = self._store.enqueue(
            groups, max_pending=self._max_pending, tell_at=self._tell_at, tell_first=self._tell_first
        )
        for (share, latest, entries, size), fine in zip(written, taken, strict=True):
            if fine:
                self._waiters.commit(entries, stamp)
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
        """Give their futures to the commits of a share. Returns the entries of futures that are new."""
        found, entries = self._waiters.register(pairs)
        leader.entries += entries
        at = 0
        for commit in share:
            commit.futures = [future or finished_future(self._zero()) for future in found[at : at + len(commit.pairs)]]
            at += len(commit.pairs)
        return entries

    def _end_blank(self, redis_keys: Iterable[str]) -> None:
        """End the futures of older texts of these keys, whose newest text is blank, with the zero vector."""
        for entries in self._waiters.snapshot(redis_keys).values():
            self._waiters.resolve(entries, self._zero())

    def _zero(self) -> bytes:
        """The vector of a blank text, (dimensions,) float32 as bytes."""
        return zero_vector(self._embedder.dimensions)


def _for_follower(error: BaseException) -> BaseException:
    """The leader's error as another caller gets it: an object of its own, and never the leader's Ctrl-C."""
    if isinstance(error, Exception):
        return copy.copy(error)
    return EmbedQueueError("interrupted while writing: enqueue again")
