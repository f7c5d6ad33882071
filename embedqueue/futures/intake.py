"""Group commit: concurrent enqueues share round trips to Redis.

One caller at a time leads. It writes its own items and those of all callers who wait behind it, its followers. When it
is done, the first of those who have come meanwhile leads. Each caller returns when its own items are durable. No lock
is held during I/O.

A signal's handler, or a ``__del__``, may enqueue while its own thread is in here. It must not wait in line, for it may
stand in its own way. So it writes aside, over a connection of its own.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

import redis
from redis.exceptions import NoPermissionError

from embedqueue.observers.observers import Observers
from embedqueue.store.records import Filled, Since, Taken, Terms, Unless, Within
from embedqueue.store.store import Store
from embedqueue.values.errors import EmbedQueueError, QueueFull, twin, was_forgotten
from embedqueue.values.item import BLANK, FORGOTTEN, encode_member
from embedqueue.values.locks import locked
from embedqueue.values.log import is_of_a_signal
from embedqueue.values.observer import SavingReport
from embedqueue.values.options import Options
from embedqueue.values.tokens import tokens_of_bytes
from embedqueue.values.vectors import size_bytes

from .demand import Waker
from .future import EmbeddingFuture, finished_future
from .replication import Replication
from .waiters import Waiters, Waiting

#: Pairs that one round trip carries at most. Those of one caller are never cut, so alone they may be more.
GROUP_LIMIT = 10_000
#: Bytes of the same: what Redis takes too long for, or has no room for, must not fail others who only came along.
#: Hosted servers take a command of up to 1 MiB.
GROUP_BYTES = 3 << 18
#: Bytes from which a connection that breaks may have been cut for the size of the group.
CUT_BYTES = 1 << 16
#: Bytes of members that one round trip carries at most, but for the last of them.
PART_BYTES = 8 << 20

#: redis_key and member; or ``values.item.BLANK`` or ``FORGOTTEN`` instead of it.
Pair = tuple[str, bytes]


class _Commit:
    """What one caller wants written, and what became of it."""

    __slots__ = (
        "digests",
        "entries",
        "error",
        "futures",
        "gate",
        "group",
        "left_out",
        "pairs",
        "second_stamp",
        "stamp",
        "within",
        "written",
    )

    def __init__(
        self, pairs: Sequence[Pair], digests: Sequence[str] | None = None, within: float | None = None
    ) -> None:
        self.pairs = pairs
        self.within = within  # seconds, where they have a patience of their own
        self.digests = digests  # of the texts, where pairs are left out whose hashes have their vectors
        self.left_out: dict[str, bytes] = {}  # of those, the vector by redis_key; b"" where it is yet to be read
        self.stamp = 0  # that no item taken in is below
        self.second_stamp = 0  # the same of a second queue that texts go to
        self.futures: list[EmbeddingFuture] = []
        self.error: BaseException | None = None
        self.gate: threading.Lock | None = None  # of a follower, which waits until somebody releases it
        self.group: Sequence[_Commit] = ()  # of a leader: the commits that it writes, its own included
        self.entries: list[Waiting] = []  # of a leader: what it has registered for them
        self.written = False  # of a leader: whether it has written them

    @property
    def size(self) -> int:
        """Bytes of its pairs, about."""
        return sum(len(redis_key) + len(member) for redis_key, member in self.pairs)

    def wake(self) -> None:
        """Let its caller go on. To call it twice does no harm. Under the intake's lock."""
        if self.gate is not None and self.gate.locked():
            self.gate.release()


class Intake:
    """The way into Redis. Thread-safe.

    Args:
        store: Redis.
        spare: makes another way to the same Redis, for one who enqueues while its own thread does so already.
        waiters: keeps the futures.
        zero: the vector of a blank text, as the bytes that would be stored.
        waker: told before each write, and after it how many items wait now.
        observers: told how many items were accepted.
        options: of the queue.
        find_out: finds out what became of the items of these redis_keys.
        entered: tells whether this thread holds a lock that a leader may want.
        terms: returns on which terms this process would write.
        replication: told how many replicas have what was written.

    Attributes:
        accepted: items that this process has enqueued.
        tells: whether workers are told of the first item where this process does not claim.
    """

    def __init__(
        self,
        store: Store,
        spare: Callable[[], Store],
        waiters: Waiters,
        zero: Callable[[], bytes],
        waker: Waker,
        observers: Observers,
        options: Options,
        find_out: Callable[[list[str]], None],
        entered: Callable[[], bool],
        terms: Callable[[], Terms],
        replication: Replication,
    ) -> None:
        self.accepted = 0  # counted in one step
        self.tells = True
        self._store = store
        self._make_spare = spare
        self._find_out = find_out
        self._entered = entered
        self._spares: list[Store] = []  # all that were made
        self._idle: list[Store] = []  # those of them that nobody uses
        self._callers: dict[int, _Commit] = {}  # by thread, each changed by its own only
        self._waiters = waiters
        self._zero = zero
        self._terms = terms
        self._replication = replication
        self._waker = waker
        self._observers = observers
        self._max_pending = options.max_pending
        self._vector_type = options.vector_type
        self._usual = options.usual_within
        self._tell_at = options.max_batch_size
        self._lock = threading.RLock()
        self._followers: list[_Commit] = []  # in the order in which they came; guarded by the lock
        self._leader: _Commit | None = None  # guarded by the lock
        self._parted = 0  # leaders to come that take nobody along; guarded by the lock

    def submit(
        self, pairs: Sequence[Pair], digests: Sequence[str] | None = None, within: float | None = None
    ) -> list[EmbeddingFuture]:
        """Make pairs durable.

        Args:
            pairs: at least one.
            digests: of their texts, as ``values.provenance.digest`` tells them, "" for a blank one. A pair of whose key
                nothing is live, and whose hash has the vector of this very text, is left out then, and its future ends
                with that vector. None: no pair is.
            within: seconds in which they are to be embedded; None: they may wait as long as any.

        Returns:
            Their futures, in order. That of a blank text has ended with the zero vector.

        Raises:
            QueueFull: nothing of these pairs was written.
            NotReplicated: all of them are taken in, and too few replicas had them in time.
            QueueStopped: the queue is stopped; nothing of them was written.
            redis.RedisError: nothing of them is known to be accepted.
            EmbedQueueError: the caller who wrote for this one was interrupted; nothing of them is known to be accepted.
        """
        if not all(member for _, member in pairs):
            self._zero()  # an embedder may ask its provider for the length: not while others stand behind this caller
        commit = _Commit(pairs, digests, within)
        try:
            self._carry_out(commit)
        finally:
            if commit.left_out:
                with contextlib.suppress(redis.RedisError):  # whoever waits finds out
                    self._end_left_out(commit)
        return commit.futures

    def forget(self, redis_key: str) -> tuple[int, int]:
        """Take away what is live of a key, and its dead letter; of a second queue, too, where texts go to one.

        Returns:
            A stamp: what was taken away is below it, and what comes later is not. And that of the second queue, or 0.

        Raises:
            NotReplicated: it is taken away, and too few replicas knew it in time.
            QueueStopped, redis.RedisError, EmbedQueueError: as with :meth:`submit`.
        """
        commit = _Commit([(redis_key, FORGOTTEN)])
        self._carry_out(commit)
        return commit.stamp, commit.second_stamp

    def _carry_out(self, commit: _Commit) -> None:
        caller = threading.get_ident()
        if caller in self._callers or self._entered():
            self._write_aside(commit)
        else:
            self._callers[caller] = commit
            try:
                self._write_in_turn(commit)
            finally:
                del self._callers[caller]
        commit.group = ()  # it is in there itself: its futures would live until the garbage collector comes by
        if commit.error is not None:
            raise commit.error

    def fill_in(self, pairs: Sequence[Pair], newest: Sequence[int] | None, within: float | None = None) -> Filled:
        """Make pairs durable that somebody has found somewhere, but those whose keys have got newer texts since.

        They are written aside, since a newer text that comes meanwhile may be one of this process. Nobody gets a
        future; whoever waits for an older text hears of it as from another process. Where a hash may not be read, only
        what is live counts.

        Args:
            pairs: at least one, and no key twice.
            newest: for each pair, the stamp of the newest item of its key that was known when it was found; None: all
                are taken in.
            within: as with :meth:`submit`.

        Raises:
            QueueFull, NotReplicated, redis.RedisError: as with :meth:`submit`.
        """
        patience = None if within is None else [within] * len(pairs)
        self._waker.enqueuing()
        with self._aside() as store:
            put = partial(
                store.enqueue,
                [[part for redis_key, member in pairs for part in (redis_key.encode(), member)]],
                max_pending=self._max_pending,
                tell_at=self._tell_at,
                tell_first=self.tells and not self._waker.works,
                within=None if patience is None else Within(patience, self._usual),
            )
            try:
                taken = put(since=None if newest is None else Since(newest, self._terms().provenance_field))
            except NoPermissionError:
                if newest is None:
                    raise
                taken = put(since=Since(newest, None))  # it may be for one of the hashes
        if not taken.groups[0]:
            assert self._max_pending is not None
            raise QueueFull(self._max_pending)
        keys = [key for (key, _), out in itertools.zip_longest(pairs, taken.left_out) if out is None]
        self._account(taken, len(keys), patience or ())
        if taken.replicas is not None and (error := self._replication.error(taken.replicas)) is not None:
            raise error
        return Filled(keys, (taken.stamp, taken.stamp + len(keys)))

    def _write_aside(self, commit: _Commit) -> None:
        commit.group = (commit,)
        try:
            with self._aside() as store:
                self._write(commit, store)
            commit.written = True
        finally:
            if not commit.written:
                self._waiters.forget(commit.entries)

    @contextlib.contextmanager
    def _aside(self) -> Iterator[Store]:
        """Another way to Redis, which nobody else uses meanwhile."""
        try:
            store = self._idle.pop()
        except IndexError:
            store = self._make_spare()
            self._spares.append(store)
        try:
            yield store
        finally:
            self._idle.append(store)

    def close(self) -> None:
        """Close the connections of those who wrote aside."""
        for store in self._spares:
            store.close()

    def _write_in_turn(self, commit: _Commit) -> None:
        try:
            self._arrive(commit)
            if commit.gate is not None:
                commit.gate.acquire()
            if self._leader is commit:
                self._gather(commit)
                try:
                    self._write(commit, self._store)
                except (redis.ResponseError, redis.ConnectionError) as error:
                    if not self._part_company(commit, error):
                        raise
                    self._write(commit, self._store)
                commit.written = True
                self._depart(commit)
        except BaseException as error:  # Ctrl-C included, at any instruction: the next caller must be able to lead
            self._depart(commit, error)
            raise

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
        if self._parted > 0:
            self._parted -= 1
            leader.group = (leader,)
            return
        joined, count, size = 0, len(leader.pairs), leader.size if self._followers else 0
        for other in self._followers:
            count += len(other.pairs)
            size += other.size
            if count > GROUP_LIMIT or size > GROUP_BYTES:
                break
            joined += 1
        leader.group, self._followers = (leader, *self._followers[:joined]), self._followers[joined:]

    @locked
    def _part_company(self, leader: _Commit, error: Exception) -> bool:
        """Redis has refused a group, perhaps because of one caller's pairs: each of them writes its own, in turn.

        Returns:
            Whether the leader, too, is to write again.
        """
        others, size = leader.group[1:], sum(one.size for one in leader.group)
        if not others or (isinstance(error, redis.ConnectionError) and size < CUT_BYTES):
            return False
        self._followers = [*others, *self._followers]
        self._waiters.forget(leader.entries)
        leader.group, leader.entries, self._parted = (leader,), [], len(others)
        return True

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

    def _write(self, leader: _Commit, store: Store) -> None:
        # A share is written whole or not at all: with max_pending each caller's own pairs, else the whole group.
        shares = [leader.group] if self._max_pending is None else [(commit,) for commit in leader.group]
        written, groups = [], []
        unless: list[str] | None = [] if any(commit.digests for commit in leader.group) else None
        patient = any(commit.within is not None for commit in leader.group)
        patience: list[float | None] = []
        for share in shares:
            pairs = share[0].pairs if len(share) == 1 else [pair for commit in share for pair in commit.pairs]
            entries = self._register(leader, share, pairs)
            latest = dict(pairs)  # of several texts of a key, the last one
            parts: list[bytes] = []
            for redis_key, member in latest.items():
                parts += (redis_key.encode(), member)
            groups.append(parts)
            written.append((share, latest, entries, len(pairs)))
            if unless is not None:
                unless += _conditions(share, latest)
            if patient:
                patience += _patience(share, latest, self._usual)
        count = 0
        self._waker.enqueuing()
        taken = store.enqueue(
            groups,
            max_pending=self._max_pending,
            tell_at=self._tell_at,
            tell_first=self.tells and not self._waker.works,  # then others do, who may know nothing of it
            unless=None if unless is None else self._unless(store, unless),
            within=Within(patience, self._usual) if patient else None,
        )
        left_out, spared = iter(taken.left_out), list[int]()
        for (share, latest, entries, size), fine in zip(written, taken.groups, strict=True):
            vectors = zip(latest, left_out, strict=False)  # as many as there are pairs, or none
            unchanged = {redis_key: vector for redis_key, vector in vectors if vector is not None}
            if fine:
                for commit in share:
                    if taken.replicas is not None:
                        commit.error = self._replication.error(taken.replicas)
                    commit.stamp, commit.second_stamp = taken.stamp, taken.second_stamp
                    commit.left_out = {key: unchanged[key] for key, _ in commit.pairs if key in unchanged}
                if unchanged:
                    spared += _tokens(latest, unchanged)
                if heard := self._waiters.commit(entries, taken.stamp):
                    # They are taken in, whatever this raises: the next check finds out what became of them.
                    with contextlib.suppress(Exception):
                        self._find_out(heard)
                count += size - len(unchanged)
                if min(map(len, latest.values())) < 2:
                    count -= self._end_without_text(latest)
            else:
                assert self._max_pending is not None
                share[0].error = QueueFull(self._max_pending)
                self._waiters.forget(entries)
        self._account(taken, count, patience)
        if spared:
            self._observers.tell("saved", SavingReport(texts=len(spared), tokens=sum(spared), by="unchanged"))

    def _account(self, taken: Taken, count: int, patience: Sequence[float | None]) -> None:
        """So many items were taken in: tell who wants to know."""
        self.accepted += count
        if taken.replicas is not None:
            self._replication.note(taken.replicas, count)
        if patience or taken.left_out:
            self._waker.enqueued(taken.waiting, self._soonest(patience, taken.left_out))
        else:
            self._waker.enqueued(taken.waiting)
        self._observers.tell("accepted", count)

    def _soonest(self, patience: Sequence[float | None], left_out: Sequence[bytes | None]) -> float:
        """In how many seconds the first of some pairs is due; what was left out never is."""
        each = itertools.zip_longest(patience, left_out)
        return min((self._usual if one is None else one for one, vector in each if vector is None), default=math.inf)

    def _register(self, leader: _Commit, share: Sequence[_Commit], pairs: Sequence[Pair]) -> list[Waiting]:
        """Give their futures to the commits of a share. Returns the entries of futures that are new."""
        found, entries = self._waiters.register(pairs)
        leader.entries += entries
        at = 0
        for commit in share:
            commit.futures = [future or self._blank() for future in found[at : at + len(commit.pairs)]]
            at += len(commit.pairs)
        return entries

    def _end_without_text(self, latest: Mapping[str, bytes]) -> int:
        """End the futures of older texts of keys whose newest is blank, or that have none any more: so many."""
        forgotten = 0
        for redis_key, member in latest.items():
            if member in (BLANK, FORGOTTEN):
                forgotten += member == FORGOTTEN
                outcome = self._zero() if member == BLANK else was_forgotten(redis_key)
                for entries in self._waiters.snapshot([redis_key]).values():
                    self._waiters.resolve(entries, outcome)
        return forgotten

    def _end_left_out(self, commit: _Commit) -> None:
        """End the futures of pairs that were left out with the vectors of their hashes, a newer one if there is."""
        terms, members = self._known_terms(self._store), dict(commit.pairs)
        redis_keys = [redis_key for redis_key, vector in commit.left_out.items() if not vector]
        vectors = self._store.hashes.vectors(redis_keys, terms) if redis_keys else ()
        for redis_key, vector in {**commit.left_out, **dict(zip(redis_keys, vectors, strict=True))}.items():
            if vector and len(vector) == size_bytes(terms.dimensions or 0, self._vector_type):
                self._waiters.written(redis_key, members[redis_key], vector)
            else:
                self._find_out([redis_key])  # it was taken away meanwhile

    def _unless(self, store: Store, digests: Sequence[str]) -> Unless | None:
        """On which condition pairs are left out; None where nobody knows how long vectors are: there are none."""
        terms = self._known_terms(store)
        if terms.dimensions is None:
            return None
        return Unless(terms, size_bytes(terms.dimensions, self._vector_type), digests)

    def _known_terms(self, store: Store) -> Terms:
        """On which terms this process would write. Who only enqueues never learns the length: no provider is asked."""
        return store.learned(self._terms())

    def _blank(self) -> EmbeddingFuture:
        return finished_future(self._zero(), self._vector_type)


def _conditions(share: Sequence[_Commit], latest: Iterable[str]) -> list[str]:
    """Of each key the digest of its text; "" where anybody wants it taken in whatever stands in its hash."""
    digests: dict[str, str] = {}
    for commit in share:
        for (redis_key, _), digest in zip(commit.pairs, commit.digests or itertools.repeat(""), strict=False):
            digests[redis_key] = digest if digests.get(redis_key, digest) else ""
    return [digests[redis_key] for redis_key in latest]


def _tokens(latest: Mapping[str, bytes], redis_keys: Iterable[str]) -> list[int]:
    """About how many tokens the texts of these keys have, by the length of their members."""
    return [tokens_of_bytes(len(latest[redis_key]) - len(encode_member(redis_key, ""))) for redis_key in redis_keys]


def _patience(share: Sequence[_Commit], latest: Iterable[str], usual: float) -> list[float | None]:
    """Of each key in how many seconds its text is to be embedded; None: as any, within the ``usual`` ones.

    As if they had come one after another: of those who want the same text the sooner one counts.
    """
    wishes: dict[str, tuple[bytes, float | None]] = {}
    for commit in share:
        for redis_key, member in commit.pairs:
            before, seconds = wishes.get(redis_key, (None, None))
            if before != member or (usual if commit.within is None else commit.within) < (
                usual if seconds is None else seconds
            ):
                wishes[redis_key] = member, commit.within
    return [wishes[redis_key][1] for redis_key in latest]


def _for_follower(error: BaseException) -> BaseException:
    """The leader's error as another caller gets it: an object of its own, and never the leader's Ctrl-C."""
    if isinstance(error, Exception) and not is_of_a_signal(error):
        return twin(error)
    return EmbedQueueError("interrupted while writing: enqueue again")


def in_parts(pairs: Sequence[Pair]) -> Iterator[list[Pair]]:
    """Cut pairs into what one round trip carries."""
    part: list[Pair] = []
    size = 0
    for pair in pairs:
        part.append(pair)
        size += len(pair[1])
        if len(part) == GROUP_LIMIT or size >= PART_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part
