"""Puts the books of a queue in order after another program has left members in it, or has taken some away."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from redis.exceptions import NoPermissionError

from embedqueue.values.item import NotOurs, check_pair, decode_member, is_blank

from .keys import Keys
from .records import Terms, as_json, named_member
from .scripts import Scripts

#: Members that are looked at in one round trip.
SLICE = 100

#: A member that was rejected, why, and how often its lease had run out.
Rejected = tuple[bytes, str, int]


class Adoption:
    """Finds strays, which stand in the queue without a name in ``latest``, and ghosts, which ``latest`` names in vain.

    It looks from the newest member on, slice by slice, and stops as soon as the counts agree: what another program has
    left just now is found at once, whatever else waits.

    Every method raises ``redis.RedisError`` where Redis does not answer or refuses.

    Args:
        scripts: of the queue.
        keys: of the queue.
    """

    def __init__(self, scripts: Scripts, keys: Keys) -> None:
        self._call = scripts.call
        self._background: Any = scripts.background
        self._keys = keys

    def rounds(self, terms: Terms) -> Iterator[list[Rejected]]:
        """Put everything in order; each step is one slice. It ends when the counts agree, or all has been looked at.

        Args:
            terms: of the caller, who says where it stands how old a vector is. One that is at odds with the namespace
                adopts nothing.

        Yields:
            What was rejected, for it cannot be ours.
        """
        seconds, micros = self._background.time()
        latest_time = seconds + micros / 1e6  # one for all slices: of two texts of the future the later one is newer
        steps: list[Callable[[], Iterator[list[Rejected]]]] = [
            lambda: self._in(self._keys.pending, terms, latest_time),
            lambda: self._in(self._keys.inflight, terms, latest_time),
            lambda: self._in(self._keys.alone, terms, latest_time),
            self._ghosts,
        ]
        if self._unknown() < 0:
            steps = [steps.pop(), *steps]
        for step in steps:
            for rejected in step():
                yield rejected
                if self._unknown() == 0:
                    return

    def run(self, terms: Terms) -> list[Rejected]:
        """Put everything in order at once; see :meth:`rounds`. Returns what was rejected."""
        return [one for rejected in self.rounds(terms) for one in rejected]

    def adopt(self, members: Sequence[bytes], terms: Terms, latest_time: float | None = None) -> list[Rejected]:
        """Adopt those members that are strays: the newest text of each key stays, and what cannot be ours is rejected.

        Args:
            members: any.
            terms: as with :meth:`rounds`.
            latest_time: Unix time; what is said to be of the future counts as enqueued then. None for now.

        Returns:
            What was rejected.
        """
        hashes: list[str] = []
        lines: list[str | bytes] = []
        for member in members:
            redis_key, fault = self._read(member)
            hashes.append(self._hash_of(redis_key))
            lines += [member, redis_key, fault]
        if not members:
            return []
        until = as_json(terms.agreed), "" if latest_time is None else latest_time
        try:
            _, *rejected = self._call("adopt", hashes, terms.provenance_field or "", *until, *lines)
        except NoPermissionError:  # to read one of the users' hashes
            if len(members) > 1:
                half = len(members) // 2
                parts = (members[:half], members[half:])
                return [one for part in parts for one in self.adopt(part, terms, latest_time)]
            _, *rejected = self._call("adopt", [self._keys.events], "", *until, *lines)  # a key of our own, and no hash
        return [(rejected[i], rejected[i + 1].decode("utf-8", "replace"), 0) for i in range(0, len(rejected), 2)]

    def _hash_of(self, redis_key: str) -> str:
        """The hash that a script is to read for a redis_key: a key of our own where there is none."""
        return redis_key or self._keys.events

    def _read(self, member: bytes) -> tuple[str, str]:
        """The redis_key of a member, or "" where it is not our JSON; and why no enqueue of ours can have written it."""
        try:
            item = decode_member(member)
        except NotOurs as error:
            return "", str(error)
        try:
            check_pair(item.redis_key, item.text, self._keys.namespace.strip("{}"), None)
        except ValueError as error:
            return item.redis_key, str(error)
        return item.redis_key, "the text is blank" if is_blank(item.text) else ""

    def _in(self, place: str, terms: Terms, latest_time: float) -> Iterator[list[Rejected]]:
        at = 0
        while members := self._background.zrange(place, at, at + SLICE - 1, desc=True):
            found = [member for member, right in zip(members, self._right(members, place), strict=True) if not right]
            rejected = self.adopt(found, terms, latest_time)
            at += len(members) - len(found)
            yield rejected
            if found and self._right(found[:1], place) == [False]:
                at += len(found)  # they stay, whatever they are: look at the next

    def _right(self, members: Sequence[bytes], place: str) -> list[bool]:
        """Whether ``latest`` names each, and it does not wait while it is also in flight."""
        names = [self._read(member)[0] for member in members]
        latest = self._background.hmget(self._keys.latest, names)
        right = [
            value is not None and named_member(value) == member for member, value in zip(members, latest, strict=True)
        ]
        if place == self._keys.pending:
            return right
        pipeline = self._background.pipeline(transaction=False)
        for member in members:
            pipeline.zscore(self._keys.pending, member)
        return [fine and twice is None for fine, twice in zip(right, pipeline.execute(), strict=True)]

    def _ghosts(self) -> Iterator[list[Rejected]]:
        cursor = 0
        while True:
            cursor, found = self._background.hscan(self._keys.latest, cursor, count=SLICE)
            for names in _slices(found):
                self._call("forget_ghosts", (), *names)
            yield []
            if cursor == 0:
                return

    def _unknown(self) -> int:
        """How many more members stand somewhere than ``latest`` names."""
        pipeline = self._background.pipeline(transaction=False)
        for place in (self._keys.pending, self._keys.inflight, self._keys.alone):
            pipeline.zcard(place)
        pipeline.hlen(self._keys.latest)
        *standing, named = pipeline.execute()
        return int(sum(standing) - named)


def _slices(names: Iterable[bytes]) -> Iterator[list[bytes]]:
    rest = list(names)
    while rest:
        yield rest[:SLICE]
        rest = rest[SLICE:]
