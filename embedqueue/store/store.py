"""A queue's state in Redis: one method a move, each one script, each atomic.

With ``exchange``, which carries the scripts over, the only module that speaks to Redis.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import redis
from redis.exceptions import NoPermissionError, RedisError

from embedqueue.values.item import dead_letter
from embedqueue.values.stats import DeadLetter

from .figures import Figures
from .keys import Keys
from .records import Claim, Notice, Status
from .scripts import Exchange

#: More than Redis can hold.
_NO_BOUND_BYTES = 2**52
#: Characters of a reason that are kept, in each of its notices, too: the words of an embedder of one's own may hold all
#: the texts of its call.
REASON_CHARS = 2000


def _seconds_since(then: bytes, now: float) -> float | None:
    return now - float(then) if then else None


def _seconds_until(then: bytes, now: float) -> float | None:
    return float(then) - now if then else None


def _pause_seconds(ms: int) -> float | None:
    if ms == -2:
        return None
    return ms / 1000 if ms >= 0 else 5.0  # a pause that somebody set by hand without an end: look again


class Store:
    """A queue's state in Redis. Thread-safe, but for ``enqueue``, which one thread at a time may call.

    Args:
        client: the user's client; it is only read.
        namespace: of the queue.
    """

    def __init__(self, client: redis.Redis, namespace: str) -> None:
        self.keys = Keys(namespace)
        self._exchange = Exchange(client, self.keys)
        self._call = self._exchange.call
        self._back, self._ears = self._exchange.back, self._exchange.ears
        self.figures = Figures(self._back, self.keys)

    # -- enqueuing ---------------------------------------------------------------------------------------------

    def enqueue(
        self, groups: Sequence[Sequence[bytes]], *, max_pending: int | None, tell_at: int, tell_first: bool
    ) -> tuple[int, list[bool]]:
        """Make groups of pairs durable in one round trip.

        Args:
            groups: of each, redis_key and member alternating; an empty member withdraws the key.
            max_pending: most items that may wait.
            tell_at: tell the workers when so many wait.
            tell_first: tell them when the first one waits, too.

        Returns:
            Items that wait now, and for each group whether it was taken.

        Raises:
            redis.RedisError: nothing is known to have been accepted.
        """
        parts = [b"%d" % len(groups), *(b"%d" % (len(group) // 2) for group in groups)]
        for group in groups:
            parts += group
        reply = self._exchange.enqueue((max_pending or 0, tell_at, int(tell_first)), parts)
        if max_pending is None:
            return reply, [True] * len(groups)
        return reply[0], [word == b"ok" for word in reply[1:]]

    # -- working -----------------------------------------------------------------------------------------------

    def claim(
        self,
        owner: str,
        limit: int,
        *,
        probe_limit: int,
        lease_seconds: float,
        max_deliveries: int,
        alone: bool,
        urgent: Iterable[str] = (),
    ) -> Claim:
        """Take up to ``limit`` items under a lease. See ``lua/claim.lua``."""
        asked_mono = time.monotonic()
        reply = self._call("claim", (), limit, probe_limit, owner, lease_seconds, max_deliveries, int(alone), *urgent)
        status, now_text, waiting, oldest, lease_end, pause_ms, alone_word, least_score, ran_out, buried = reply[:10]
        now = float(now_text)
        return Claim(
            status=status.decode(),
            owner=owner,
            members=reply[10:],
            waiting=waiting,
            oldest_age_seconds=_seconds_since(oldest, now),
            lease_end_seconds=_seconds_until(lease_end, now),
            pause_seconds=_pause_seconds(pause_ms),
            alone=alone_word.decode(),
            waited_seconds=_seconds_since(least_score, now) or 0.0,
            ran_out=ran_out,
            buried=[(buried[i], buried[i + 1].decode(), int(buried[i + 2])) for i in range(0, len(buried), 3)],
            asked_mono=asked_mono,
        )

    def complete(
        self,
        owner: str,
        field: str,
        if_missing: str,
        items: Sequence[tuple[str, bytes, bytes]],
    ) -> list[str]:
        """Write vectors and acknowledge.

        Args:
            owner: of the claim.
            field: of the user's hashes.
            if_missing: "skip" or "create".
            items: redis_key, member, float32 bytes of the vector; neighbours that share the object are sent it once.

        Returns:
            A word an item: see ``lua/complete.lua``.
        """
        args: list[str | bytes] = [owner, field, if_missing]
        before = None
        for _, member, vector in items:
            args += (member, b"" if vector is before else vector)
            before = vector
        try:
            reply = self._call("complete", [redis_key for redis_key, _, _ in items], *args)
        except NoPermissionError as error:  # of one key: the others shall not suffer for it
            if len(items) == 1:
                return [f"refused {error}"]
            half = len(items) // 2
            parts = (items[:half], items[half:])
            return [word for part in parts for word in self.complete(owner, field, if_missing, part)]
        return [word.decode("utf-8", "replace") for word in reply]

    def release(self, owner: str, members: Sequence[bytes] | None = None) -> int:
        """Give items back: ``members``, or with None everything that owners beginning with ``owner`` hold."""
        if members is None:
            return int(self._call("release", (), owner))
        return int(self._call("release", (), owner, *members)) if members else 0

    def release_probe(self, owner: str) -> None:
        """Let the next one probe: this claim could not put the provider to the test."""
        self._call("release_probe", (), owner)

    def extend(self, owner: str, lease_seconds: float, members: Iterable[bytes]) -> int:
        """Renew leases; returns how many were still held."""
        return int(self._call("extend", (), owner, lease_seconds, *members))

    def reject(self, owner: str, items: Sequence[tuple[bytes, str, bool]]) -> list[str]:
        """Make dead letters.

        Args:
            owner: of the claim.
            items: members; of each the reason, and whether it is not our JSON.

        Returns:
            A word an item: "dead" or "stale".
        """
        args: list[str | bytes] = []
        for member, reason, foreign in items:
            args += (member, reason[:REASON_CHARS], "foreign" if foreign else "")
        return [word.decode() for word in self._call("reject", (), owner, *args)]

    def pause(
        self,
        owner: str,
        *,
        first_seconds: float,
        most_seconds: float,
        least_seconds: float,
        reason: str,
        redis_keys: list[str],
    ) -> float:
        """Stop all claiming for a while; returns the seconds."""
        times = (int(seconds * 1000) for seconds in (first_seconds, most_seconds, least_seconds))
        return float(self._call("pause", (), owner, *times, reason[:REASON_CHARS], json.dumps(redis_keys))) / 1000

    def hold(self, seconds: float | None, reason: str) -> None:
        """Somebody wants nothing claimed, for so many seconds or without an end."""
        self._back.set(self.keys.pause, reason, px=None if seconds is None else max(1, int(seconds * 1000)))

    def unhold(self) -> bool:
        """End a pause; a call that tests the provider just now goes on. Returns whether there was one to end."""
        ended = bool(self._back.delete(self.keys.pause))
        if ended:
            self.tell("wake", "")
        return ended

    # -- looking -----------------------------------------------------------------------------------------------

    def status(self, unfinished_until: float | None = None) -> Status:
        """How things stand.

        Args:
            unfinished_until: server time: ``unfinished`` counts what was enqueued until then and is not finished;
                all of that came until ``newest``, which lies in the future where the clock was set back.
        """
        reply = self._call("status", (), "" if unfinished_until is None else f"{unfinished_until:.6f}")
        now = float(reply[0])
        return Status(
            now=now,
            waiting=reply[1],
            in_flight=reply[2],
            dead=reply[3],
            oldest_age_seconds=_seconds_since(reply[4], now),
            lease_end_seconds=_seconds_until(reply[5], now),
            pause_seconds=_pause_seconds(reply[6]),
            pause_reason=reply[7].decode("utf-8", "replace"),
            failing=reply[8] == b"1",
            unfinished=reply[9],
            newest=float(reply[10]),
            probe=reply[11].decode("utf-8", "replace"),
        )

    def look(self, redis_keys: Sequence[str], field: str) -> list[tuple[str, bytes]]:
        """What became of items: a word and a value each, see ``lua/look.lua``."""
        try:
            reply = self._call("look", redis_keys, field, *redis_keys)
        except NoPermissionError:  # to read one of the users' hashes
            if len(redis_keys) > 1:
                half = len(redis_keys) // 2
                return self.look(redis_keys[:half], field) + self.look(redis_keys[half:], field)
            reply = self._call("look", [self.keys.events], field, *redis_keys)  # a key of our own, and no hash
        return [(reply[i].decode(), reply[i + 1]) for i in range(0, len(reply), 2)]

    def pending_count(self) -> int:
        """Items that wait."""
        return int(self._back.zcard(self.keys.pending))

    def info(self) -> dict[str, Any]:
        """Redis' own INFO; empty where it is not allowed or not known."""
        try:
            return dict(self._back.info())
        except (RedisError, NotImplementedError):
            return {}

    # -- dead letters ------------------------------------------------------------------------------------------

    def dead_letters(self, limit: int, offset: int, max_bytes: int | None = None) -> list[DeadLetter]:
        """What was given up, the latest first; of long ones the text is cut, and the member left out.

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

    def dead_letters_of(self, names: Sequence[str | bytes]) -> list[DeadLetter]:
        """Those of these names, where there are any: redis_keys, or members that are not our JSON."""
        infos: Any = self._back.hmget(self.keys.dead_info, list(names)) if names else []
        found = [(name, info) for name, info in zip(names, infos, strict=True) if info]
        members: list[Any] = [_as_bytes(_known(info).get("member") or name) for name, info in found]
        pipeline = self._back.pipeline(transaction=False)  # not ZMSCORE, which users of docs/redis-acl.md may lack
        for member in members:
            pipeline.zscore(self.keys.dead, member)
        times = pipeline.execute()
        return [
            _with_info(dead_letter(member, died_at), info)
            for (_, info), member, died_at in zip(found, members, times, strict=True)
            if died_at is not None
        ]

    def dead_names(self) -> list[bytes]:
        """The names of all dead letters."""
        reply: Any = self._back.hkeys(self.keys.dead_info)
        return list(reply)

    def retry_dead(self, names: Sequence[str | bytes]) -> int:
        """Put dead letters back; returns how many."""
        return sum(int(self._call("retry_dead", (), *names[at : at + 1000])) for at in range(0, len(names), 1000))

    def discard_dead(self, names: Sequence[str | bytes]) -> int:
        """Drop dead letters; returns how many."""
        return sum(int(self._call("discard_dead", (), *names[at : at + 1000])) for at in range(0, len(names), 1000))

    # -- notices -----------------------------------------------------------------------------------------------

    def tell(self, kind: str, by: str, body: str = "") -> None:
        """Add a notice to the stream."""
        self._back.xadd(self.keys.events, {"kind": kind, "by": by, "body": body}, maxlen=10000, approximate=True)

    def notices_since(self, seconds: float) -> tuple[bytes, list[Notice]]:
        """The id of the last notice of all, and those of the last ``seconds``, 1000 at most."""
        end: Any = self._ears.xrevrange(self.keys.events, count=1)
        if not end:
            return b"0-0", []
        now: Any = self._ears.time()
        since_ms = int((now[0] - seconds) * 1000 + now[1] / 1000)
        entries: Any = self._ears.xrevrange(self.keys.events, max=end[0][0], min=since_ms, count=1000)
        return bytes(end[0][0]), _notices(reversed(entries))

    def listen(self, after: bytes, block_seconds: float) -> tuple[bytes, list[Notice]]:
        """Wait for notices after the given id; returns the id of the last one and what came."""
        reply: Any = self._ears.xread({self.keys.events: after}, count=500, block=max(1, int(block_seconds * 1000)))
        entries = reply[0][1] if reply else []
        return (entries[-1][0] if entries else after), _notices(entries)

    # -- cache -------------------------------------------------------------------------------------------------

    def take_cached(self, digests: Sequence[str], owner: str, hold_seconds: float) -> list[bytes]:
        """What the cache holds: a vector; b"" where it is now the caller's to fill; b"busy" where another fills it."""
        keys = [self.keys.cache_prefix + digest for digest in digests]
        return list(self._call("take_cached", keys, owner, int(hold_seconds * 1000)))

    def put_cached(self, vectors: Iterable[tuple[str, bytes]], ttl_seconds: float) -> None:
        """Keep vectors by digest."""
        pipeline = self._back.pipeline(transaction=False)
        for digest, vector in vectors:
            pipeline.set(self.keys.cache_prefix + digest, vector, px=int(ttl_seconds * 1000))
        pipeline.execute()

    def hold_cached(self, digests: Iterable[str], hold_seconds: float) -> None:
        """Keep reservations for as long again; what has its vector by now keeps the time of a vector."""
        self._call("hold_cached", [self.keys.cache_prefix + digest for digest in digests], int(hold_seconds * 1000))

    def release_cached(self, digests: Iterable[str]) -> None:
        """Let go of reservations that will not be filled."""
        self.hold_cached(digests, 0)

    def close(self) -> None:
        """Close our own connections, those on which other threads still read included."""
        self._exchange.close()


def _notices(entries: Iterable[tuple[bytes, dict[bytes, bytes] | None]]) -> list[Notice]:
    notices = []
    for _, fields in entries:
        texts = [(fields or {}).get(name, b"").decode("utf-8", "replace") for name in (b"kind", b"by", b"body")]
        notices.append(Notice(*texts))
    return notices


def _known(info: bytes | None) -> dict[str, Any]:
    """What stands of a dead letter beside it; nothing, where that is not our JSON: the others must still be seen."""
    try:
        known = json.loads(info.decode("utf-8", "surrogateescape")) if info else {}
    except (ValueError, RecursionError):
        known = {}
    return known if isinstance(known, dict) else {}


def _as_bytes(name: str | bytes) -> bytes:
    return name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")


def _read_letter(
    died_at: bytes, size: int, reason: bytes, deliveries: int, member: bytes, key: bytes, text: bytes
) -> DeadLetter:
    """A letter as ``lua/dead_letters.lua`` gives it."""
    why = reason.decode("utf-8", "replace")
    if member:
        return dead_letter(member, float(died_at), why, deliveries)
    name, beginning = key.decode("utf-8", "replace"), text.decode("utf-8", "ignore")  # which ends within a character
    return DeadLetter(name, beginning, why, float(died_at), deliveries, b"", size)


def _with_info(letter: DeadLetter, info: bytes | None) -> DeadLetter:
    known = _known(info)
    return replace(letter, reason=str(known.get("reason", "")), deliveries=int(known.get("deliveries", 0)))
