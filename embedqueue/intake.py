"""Group commit: concurrent enqueues share round trips to Redis.

Whoever finds the line free leads: it writes for all who have arrived, and hands the line to the first of those
who arrived meanwhile. Each caller returns only when its own items are durable. No lock is held across I/O.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence

from .errors import EmbedQueueError, QueueFull
from .store import Store
from .waiters import EmbeddingFuture, Waiters, Waiting

#: Pairs that one round trip carries at most; a single caller's own are never cut.
GROUP_LIMIT = 10_000

Pair = tuple[str, bytes]


class _Commit:
    """What one caller wants written, and what became of it."""

    __slots__ = ("entries", "error", "futures", "gate", "leads", "pairs")

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = pairs
        self.futures: list[EmbeddingFuture] = []
        self.entries: list[Waiting] = []  # those that this commit created
        self.error: BaseException | None = None
        self.gate: threading.Lock | None = None  # a follower sleeps on it
        self.leads = False


class Intake:
    """The way into Redis.

    Args:
        store: where items go.
        waiters: where their futures are kept.
        max_pending: most items that may wait, or None.
        tell_at: items that wait when workers are told.
        tell_first: tell them of the first item as well.
        zero: the vector of a blank text, as bytes.
        enqueued: told how many items wait now, after each write.
    """

    def __init__(
        self,
        store: Store,
        waiters: Waiters,
        *,
        max_pending: int | None,
        tell_at: int,
        tell_first: bool,
        zero: Callable[[], bytes],
        enqueued: Callable[[int], None],
    ) -> None:
        self._store = store
        self._waiters = waiters
        self._max_pending = max_pending
        self._tell_at = tell_at
        self._tell_first = tell_first
        self._zero = zero
        self._enqueued = enqueued
        self._lock = threading.Lock()
        self._line: list[_Commit] = []  # those who arrived while somebody leads; guarded by the lock
        self._led = False  # guarded by the lock

    def submit(self, pairs: Sequence[Pair]) -> list[EmbeddingFuture]:
        """Make pairs durable; returns their futures, in order. An empty member stands for a blank text.

        Raises:
            QueueFull: nothing of these pairs was written.
            redis.RedisError: nothing of them is known to be accepted.
        """
        commit = _Commit(pairs)
        with self._lock:
            if self._led:
                commit.gate = threading.Lock()
                commit.gate.acquire()
                self._line.append(commit)
            else:
                self._led = commit.leads = True
        if commit.gate is not None:
            self._follow(commit)
        if commit.leads:
            self._lead(commit)
        if commit.error is not None:
            raise commit.error
        return commit.futures

    def _follow(self, commit: _Commit) -> None:
        assert commit.gate is not None
        try:
            commit.gate.acquire()
        except BaseException:  # KeyboardInterrupt: leave the line without breaking it
            with self._lock:
                if commit in self._line and not commit.leads:
                    self._line.remove(commit)
                elif commit.leads:
                    self._line.remove(commit)
                    self._hand_over()
            raise

    def _lead(self, commit: _Commit) -> None:
        group = [commit]
        with self._lock:
            if self._line:
                self._line = self._join(group, [other for other in self._line if other is not commit])
        try:
            self._write(group)
        except BaseException as error:
            for other in group:
                other.error = error if other is commit else _for_follower(error)
                self._waiters.forget(other.entries)
        finally:
            with self._lock:
                self._hand_over()
            for other in group:
                if other.gate is not None and other is not commit:
                    other.gate.release()

    def _join(self, group: list[_Commit], arrived: list[_Commit]) -> list[_Commit]:
        """Let those who have arrived join, as many as one round trip bears; answers who stays in line."""
        size = len(group[0].pairs)
        for joined, other in enumerate(arrived):
            size += len(other.pairs)
            if size > GROUP_LIMIT:
                return arrived[joined:]
            group.append(other)
        return []

    def _hand_over(self) -> None:
        """Under the lock: the next in line leads, or nobody."""
        if self._line:
            successor = self._line[0]
            successor.leads = True
            assert successor.gate is not None
            successor.gate.release()
        else:
            self._led = False

    def _write(self, group: list[_Commit]) -> None:
        for commit in group:
            self._register(commit)
        if self._max_pending is None:
            shares = [dict(pair for commit in group for pair in commit.pairs)]  # the last text of each key
        else:
            shares = [dict(commit.pairs) for commit in group]  # each caller's are taken whole or not at all
        waiting, taken = self._store.enqueue(
            [[part for key, member in share.items() for part in (key.encode(), member)] for share in shares],
            max_pending=self._max_pending,
            tell_at=self._tell_at,
            tell_first=self._tell_first,
        )
        for i, commit in enumerate(group):
            if taken[i if self._max_pending is not None else 0]:
                self._waiters.commit(commit.entries)
                self._end_blank(commit)
            else:
                assert self._max_pending is not None
                commit.error = QueueFull(self._max_pending)
                self._waiters.forget(commit.entries)
        self._enqueued(waiting)

    def _register(self, commit: _Commit) -> None:
        futures, commit.entries = self._waiters.register(commit.pairs)
        commit.futures = [future or self._blank_future() for future in futures]

    def _end_blank(self, commit: _Commit) -> None:
        """Futures of older texts of a key that is blank now get the zero vector as well."""
        blank = [redis_key for redis_key, member in commit.pairs if not member]
        if blank:
            blank = [redis_key for redis_key, member in dict(commit.pairs).items() if not member]
            for redis_key, entries in self._waiters.snapshot(blank).items():
                self._waiters.resolve(redis_key, entries, self._zero())

    def _blank_future(self) -> EmbeddingFuture:
        future = EmbeddingFuture()
        future.set_result(self._zero())  # type: ignore[arg-type]  # result() makes floats of it
        return future


def _for_follower(error: BaseException) -> BaseException:
    """The leader's error for another caller: its own object, and never the leader's Ctrl-C."""
    if isinstance(error, Exception):
        return copy.copy(error)
    return EmbedQueueError("interrupted while writing: enqueue again")
