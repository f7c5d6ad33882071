"""The dead letters of a queue: items that were given up for good, each with its reason."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from embedqueue.values.item import dead_letter
from embedqueue.values.stats import DeadLetter

from .keys import Keys
from .scripts import Scripts

#: More than Redis can hold.
_NO_BOUND_BYTES = 2**52
#: Names that one script gets: it runs for a few milliseconds.
_NAMES_A_SCRIPT = 250


class DeadLetters:
    """Looks at dead letters, puts them back, drops them. Thread-safe.

    The name of a letter is its redis_key, or its member where that is not our JSON. Every method raises
    ``redis.RedisError`` where Redis does not answer or refuses.

    Args:
        scripts: of the queue.
        keys: of the queue.
    """

    def __init__(self, scripts: Scripts, keys: Keys) -> None:
        self._call = scripts.call
        self._background = scripts.background
        self._keys = keys

    def page(self, limit: int, offset: int = 0, max_bytes: int | None = None) -> list[DeadLetter]:
        """Read letters, the latest first; of long ones the text is cut, and the member left out.

        Args:
            limit: how many at most.
            offset: how many of the latest to leave out.
            max_bytes: into which long members have to fit, together, to be given whole; None: all are. What is not our
                JSON is given whole, and ends the list where it does not fit.
        """
        letters: list[DeadLetter] = []
        left = _NO_BOUND_BYTES if max_bytes is None else max_bytes
        while len(letters) < limit and left >= 0:
            reply = self._call("dead_letters", (), offset + len(letters), limit - len(letters), left)
            left = reply[0]
            if len(reply) == 1:
                break
            letters += [_read_letter(*reply[at : at + 7]) for at in range(1, len(reply), 7)]
        return letters

    def find(self, names: Sequence[str | bytes]) -> list[DeadLetter]:
        """Read the letters of these names, whole, where there are any."""
        infos: Any = self._background.hmget(self._keys.dead_info, list(names)) if names else []
        found = [(name, info) for name, info in zip(names, infos, strict=True) if info]
        members: list[Any] = [_as_bytes(_known(info).get("member") or name) for name, info in found]
        # Not ZMSCORE, which users of docs/redis-acl.md may lack.
        pipeline = self._background.pipeline(transaction=False)
        for member in members:
            pipeline.zscore(self._keys.dead, member)
        times = pipeline.execute()
        return [
            _with_info(_letter(member, "member" in _known(info), died_at), info)
            for (_, info), member, died_at in zip(found, members, times, strict=True)
            if died_at is not None
        ]

    def newer(self, died_at: float, name: str | bytes = b"") -> int:
        """Tell how many letters a list begins behind that goes on behind one of them.

        Args:
            died_at: when that died.
            name: of it. If there is no such letter any more, the list begins with all that died at that time.
        """
        infos: Any = self._background.hmget(self._keys.dead_info, [name])
        info = infos[0]
        if info:
            rank: Any = self._background.zrevrank(self._keys.dead, _as_bytes(_known(info).get("member") or name))
            if rank is not None:
                return int(rank) + 1
        return int(self._background.zcount(self._keys.dead, f"({died_at!r}", "+inf"))

    def names(self) -> list[bytes]:
        """Read the names of all letters, in slices."""
        return list(
            dict.fromkeys(name for name, _ in self._background.hscan_iter(self._keys.dead_info, count=_NAMES_A_SCRIPT))
        )

    def retry(self, names: Sequence[str | bytes]) -> int:
        """Put letters back to the end of the queue; returns how many: a key that has a newer text keeps that."""
        return self._by_name("retry_dead", names)

    def discard(self, names: Sequence[str | bytes]) -> int:
        """Drop letters for good; returns how many."""
        return self._by_name("discard_dead", names)

    def _by_name(self, script: str, names: Sequence[str | bytes]) -> int:
        parts = (names[at : at + _NAMES_A_SCRIPT] for at in range(0, len(names), _NAMES_A_SCRIPT))
        return sum(int(self._call(script, (), *part)) for part in parts)


def _known(info: bytes | None) -> dict[str, Any]:
    """What stands of a dead letter beside it; nothing, where that is not our JSON: the others must still be seen."""
    try:
        known = json.loads(info.decode("utf-8", "surrogateescape")) if info else {}
    except (ValueError, RecursionError):
        known = {}
    return known if isinstance(known, dict) else {}


def _as_bytes(name: str | bytes) -> bytes:
    return name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")


def _letter(member: bytes, ours: bool, died_at: float, reason: str = "", deliveries: int = 0) -> DeadLetter:
    """A letter, whole. One that is not ours has no redis_key, whatever it reads like: its member is its name."""
    letter = dead_letter(member, died_at, reason, deliveries)
    return letter if ours else replace(letter, redis_key="", text=member.decode("utf-8", "replace"))


def _read_letter(
    died_at: bytes, size: int, reason: bytes, deliveries: int, member: bytes, key: bytes, text: bytes
) -> DeadLetter:
    """A letter as ``lua/dead_letters.lua`` gives it."""
    why = reason.decode("utf-8", "replace")
    if member:
        return _letter(member, bool(key), float(died_at), why, deliveries)
    name, beginning = key.decode("utf-8", "replace"), text.decode("utf-8", "ignore")  # which ends within a character
    return DeadLetter(name, beginning, why, float(died_at), deliveries, b"", size)


def _with_info(letter: DeadLetter, info: bytes | None) -> DeadLetter:
    known = _known(info)
    return replace(letter, reason=str(known.get("reason", "")), deliveries=int(known.get("deliveries", 0)))
