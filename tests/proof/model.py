"""What a queue must be in Redis after each move: the scripts again, on dictionaries, in the plainest words.

A test makes every move on both, and compares the answers and all that stands in Redis. Scores are the one thing that
the model takes over from Redis: when a member is first seen, and from then on they may not change.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis

from embedqueue.store.store import Keys

MAX_DELIVERIES = 3
#: Of a lease; no test lasts a tenth of it.
LEASE_SECONDS = 1000
#: The score that ``Queue.lease_ends`` gives, long past.
ENDED = 1.0


def key_of(member: bytes) -> bytes | None:
    """The redis_key of a member, for Lua's parser, which takes bytes that are no UTF-8 for text."""
    try:
        pair = json.loads(member.decode("utf-8", "surrogateescape"))
        if isinstance(pair["redis_key"], str) and isinstance(pair["text"], str) and pair["redis_key"]:
            return pair["redis_key"].encode("utf-8", "surrogateescape")
    except (ValueError, TypeError, LookupError):
        pass
    return None


@dataclass
class Held:
    """What ``claims`` says of a key: the score of the enqueue, deliveries, and who holds it ("" while it waits)."""

    score: float
    deliveries: int = 0
    owner: str = ""


@dataclass
class Model:
    """One queue."""

    namespace: str
    pending: dict[bytes, float | None] = field(default_factory=dict)  # None: just enqueued, Redis knows when
    inflight: dict[bytes, bool] = field(default_factory=dict)  # whether the lease holds
    latest: dict[bytes, bytes] = field(default_factory=dict)
    claims: dict[bytes, Held] = field(default_factory=dict)
    dead: dict[bytes, tuple[bytes, bool]] = field(default_factory=dict)  # by name: the member, and whether it is ours
    hashes: dict[bytes, bytes] = field(default_factory=dict)  # the vectors that were written
    cache: dict[str, bytes] = field(default_factory=dict)
    pause: str = ""
    probe: str = ""  # the owner of the claim that tests the provider
    level: int = 0

    def in_order(self) -> list[bytes]:
        return [member for member, _ in sorted(self.pending.items(), key=lambda pair: (pair[1], pair[0]))]

    def leftovers(self) -> bool:
        """Whether members written by another program wait that no claim has seen."""
        return len(self.pending) + len(self.inflight) > len(self.latest)

    def _drop(self, member: bytes, key: bytes) -> None:
        self.pending.pop(member, None)
        self.inflight.pop(member, None)
        self.claims.pop(key, None)

    def _exhume(self, key: bytes) -> None:
        if key in self.dead and self.dead[key][1]:
            del self.dead[key]

    def _bury(self, member: bytes, key: bytes | None) -> None:
        self.pending.pop(member, None)
        self.inflight.pop(member, None)
        if key or not self.dead.get(member, (b"", False))[1]:
            self.dead[key or member] = (member, key is not None)
        if key and self.latest.get(key) == member:
            del self.latest[key]
            self.claims.pop(key, None)

    # -- moves: each answers as the script does ----------------------------------------------------------------

    def enqueue(self, groups: Sequence[Sequence[tuple[bytes, bytes]]], limit: int | None) -> tuple[int, list[bool]]:
        taken = []
        for group in groups:
            more = 0
            for key, member in group:
                live = self.latest.get(key, b"")
                if live != member:
                    more += bool(member) - (live in self.pending)
            taken.append(limit is None or more <= 0 or len(self.pending) + more <= limit)
            if taken[-1]:
                for key, member in group:
                    self._admit(key, member)
        return len(self.pending), taken

    def _admit(self, key: bytes, member: bytes) -> None:
        self._exhume(key)
        live = self.latest.get(key)
        if live == member:
            return
        if live:
            self._drop(live, key)
            del self.latest[key]
        if member:
            self.pending.setdefault(member, None)
            self.latest[key] = member

    def claim(
        self, owner: str, limit: int, probe_limit: int, alone: bool, urgent: Iterable[bytes]
    ) -> tuple[str, list[bytes], str]:
        self._reclaim()
        status, alone_word = "ok", "no"
        if self.pause or self.probe:
            status, limit = "paused", 0
        elif self.level:
            status, limit = "probe", min(limit, probe_limit)
        taken: list[bytes] = []
        last = [member for member in self.in_order() if self._must_travel_alone(member)]
        if limit and alone and last:
            taken, alone_word = last[:1], "taken"
        else:
            wanted = [] if self.leftovers() else [self.latest.get(key) for key in urgent]
            first = [member for member in wanted if member in self.pending]
            for member in dict.fromkeys([*first, *self.in_order()]):
                if len(taken) < limit and member in self.pending and self._take(member, taken):
                    alone_word = "waits"
        for member in taken:
            key = key_of(member)
            score = self.pending.pop(member)
            self.claims[key] = Held(score, self.claims[key].deliveries if key in self.claims else 0, owner)
            self.inflight[member] = True
        if status == "probe":
            if taken:
                self.probe = owner
            else:
                status = "ok"
        return status, taken, alone_word

    def _reclaim(self) -> None:
        for member in sorted(member for member, holds in self.inflight.items() if not holds):
            key = key_of(member)
            held = self.claims[key]
            if held.deliveries + 1 >= MAX_DELIVERIES:
                self._bury(member, key)
            else:
                del self.inflight[member]
                self.pending[member] = held.score
                self.claims[key] = Held(held.score, held.deliveries + 1)

    def _must_travel_alone(self, member: bytes) -> bool:
        key = key_of(member)
        deliveries = self.claims[key].deliveries if key in self.claims else 0
        return self.latest.get(key) == member and deliveries >= MAX_DELIVERIES - 1

    def _take(self, member: bytes, taken: list[bytes]) -> bool:
        """Take one; answers whether it stays behind as it may be what killed its workers."""
        key = key_of(member)
        if key is None:
            self._bury(member, None)
        elif self.latest.get(key) == member:
            if self._must_travel_alone(member):
                return True
            taken.append(member)
        else:
            self._adopt(member, key, taken)
        return False

    def _adopt(self, member: bytes, key: bytes, taken: list[bytes]) -> None:
        live = self.latest.get(key)
        place = len(taken)
        if live is not None:
            live_score = self.pending[live] if live in self.pending else self.claims[key].score
            if live_score >= self.pending[member]:
                del self.pending[member]
                return
            self._drop(live, key)
            if live in taken:
                place = taken.index(live)
        self._exhume(key)
        self.latest[key] = member
        taken[place : place + 1] = [member]

    def complete(self, owner: str, items: Sequence[tuple[bytes, bytes, bytes]], missing: set[bytes], bad: set[bytes]):
        """``missing``: hashes that are gone and shall be left alone; ``bad``: keys that hold something else."""
        words = []
        for key, member, vector in items:
            if member not in self.inflight:
                words.append("stale")
            elif key not in missing and key in bad:
                words.append("refused")
            else:
                words.append("skipped" if key in missing else "done")
                if key not in missing:
                    self.hashes[key] = vector
                self._drop(member, key)
                del self.latest[key]
        self._end_probe(owner)
        return words

    def release(self, owner: str, members: Iterable[bytes] | None) -> int:
        back = 0
        for member in list(self.inflight if members is None else members):
            key = key_of(member)
            if member in self.inflight and self.claims[key].owner.startswith(owner):
                held = self.claims.pop(key)
                del self.inflight[member]
                self.pending[member] = held.score
                if held.deliveries:
                    self.claims[key] = Held(held.score, held.deliveries)
                back += 1
        if members is None and self.probe.startswith(owner):
            self.probe = ""
        return back

    def _holds(self, owner: str, member: bytes) -> bool:
        if member not in self.inflight:
            return False
        return self.claims[key_of(member)].owner.partition(":")[0] == owner.partition(":")[0]

    def extend(self, owner: str, members: Iterable[bytes]) -> int:
        held = [member for member in members if self._holds(owner, member)]
        self.inflight.update(dict.fromkeys(held, True))
        return len(held)

    def reject(self, owner: str, items: Iterable[tuple[bytes, str, bool]]) -> list[str]:
        words = []
        for member, _, foreign in items:
            words.append("dead" if self._holds(owner, member) else "stale")
            if words[-1] == "dead":
                key = key_of(member)
                self._bury(member, None if foreign else key)
                if self.latest.get(key) == member:
                    del self.latest[key], self.claims[key]
        self._end_probe(owner)
        return words

    def fail(self, owner: str, reason: str, first: float, most: float, least: float, left: float) -> float:
        """A pause; ``left`` are the seconds of the one, or of the probe, that may be under way."""
        probe = self.probe == owner
        if probe:
            self.probe = ""
        if probe or not (self.pause or self.probe):
            self.level += 1
            if not self.pause:
                self.pause = reason
                return min(most, max(least, first * 2 ** (self.level - 1)))
        elif self.pause and left < least:
            return min(most, least)
        return left

    def _end_probe(self, owner: str) -> None:
        if self.probe == owner:
            self.probe, self.level = "", 0

    def retry_dead(self, names: Iterable[bytes]) -> int:
        back = 0
        for name in names:
            if name in self.dead:
                member, ours = self.dead.pop(name)
                if not ours or name not in self.latest:
                    if ours:
                        self.latest[name] = member
                    self.pending[member] = None
                    back += 1
        return back

    def discard_dead(self, names: Iterable[bytes]) -> int:
        return sum(self.dead.pop(name, None) is not None for name in names)

    def look(self, key: bytes, vector: bytes | None) -> tuple[str, bytes | None]:
        """A word and its value, None where the value is a reason."""
        if key in self.latest:
            return "live", b"pending" if self.latest[key] in self.pending else b"in flight"
        if key in self.dead and self.dead[key][1]:
            return "dead", None
        return ("done", vector) if vector is not None else ("gone", b"")

    def take_cached(self, digests: Iterable[str], owner: str) -> list[bytes]:
        found = []
        for digest in digests:
            value = self.cache.get(digest, b"")
            found.append(b"busy" if value.startswith(b"busy ") else value)
            if not value:
                self.cache[digest] = f"busy {owner}".encode()
        return found

    # -- comparing ---------------------------------------------------------------------------------------------

    def check(self, found: dict[str, Any]) -> None:
        """Compare with what stands in Redis, as :func:`read` has it."""
        pending = dict(found["pending"])
        for member, score in self.pending.items():
            if score is None:
                self.pending[member] = pending.get(member)
        assert pending == self.pending
        now = found["now"][0]
        assert {member: score > now + LEASE_SECONDS - 100 for member, score in found["inflight"]} == self.inflight
        assert found["latest"] == self.latest
        claims = {}
        for key, claim in found["claims"].items():
            score, deliveries, owner = re.fullmatch(rb"(\S+) (\d+) ?(\S*)", claim).groups()
            claims[key] = Held(float(score), int(deliveries), owner.decode())
        assert claims == self.claims
        infos = {name: json.loads(info.decode("utf-8", "surrogateescape")) for name, info in found["info"].items()}
        letters = {
            name: (info["member"].encode("utf-8", "surrogateescape") if "member" in info else name, "member" in info)
            for name, info in infos.items()
        }
        assert letters == self.dead
        assert set(found["dead"]) == {member for member, _ in self.dead.values()}
        assert (found["pause"] or b"").decode() == self.pause
        assert (found["probe"] or b"").decode() == self.probe
        assert int(found["level"] or 0) == self.level


def read(client: redis.Redis, keys: Keys) -> dict[str, Any]:
    """All that stands in Redis of a queue, in one round trip."""
    pipeline = client.pipeline(transaction=True)
    pipeline.zrange(keys.pending, 0, -1, withscores=True)
    pipeline.zrange(keys.inflight, 0, -1, withscores=True)
    pipeline.hgetall(keys.latest)
    pipeline.hgetall(keys.claims)
    pipeline.zrange(keys.dead, 0, -1)
    pipeline.hgetall(keys.dead_info)
    pipeline.get(keys.pause)
    pipeline.get(keys.pause_level)
    pipeline.get(keys.pause_probe)
    pipeline.time()
    names = ("pending", "inflight", "latest", "claims", "dead", "info", "pause", "level", "probe", "now")
    return dict(zip(names, pipeline.execute(), strict=True))
