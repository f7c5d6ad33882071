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
from embedqueue.values.provenance import digest
from tests.proof.limits import Account

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

    score: float | Unseen
    deliveries: int = 0
    owner: str = ""


#: A score that was just given; Redis knows which.
NOW: Any = object()


@dataclass
class Unseen:
    """A score that was just given: so many seconds after the time that it is now."""

    offset: float = 0.0


@dataclass(eq=False)
class Named:
    """What ``latest`` says of a key: a member, its stamp, and the score under which it was adopted, if it was."""

    member: bytes
    adopted: float | None = None
    stamp: int | None = None  # None: just given, Redis knows which

    @property
    def age(self) -> float:
        """The time that counts as that of the enqueue."""
        return self.adopted if self.adopted is not None else self.stamp / 1e6


@dataclass
class Model:
    """One queue."""

    namespace: str
    pending: dict[bytes, float | Unseen] = field(default_factory=dict)
    alone: dict[bytes, float | Unseen] = field(default_factory=dict)
    inflight: dict[bytes, bool] = field(default_factory=dict)  # whether the lease holds
    latest: dict[bytes, Named] = field(default_factory=dict)
    claims: dict[bytes, Held] = field(default_factory=dict)
    dead: dict[bytes, tuple[bytes, bool]] = field(default_factory=dict)  # by name: the member, and whether it is ours
    #: Vectors, of which texts they are, and by which model.
    hashes: dict[bytes, tuple[bytes, Named, str]] = field(default_factory=dict)
    cache: dict[str, bytes] = field(default_factory=dict)
    flushes: dict[str, set[Named]] = field(default_factory=dict)  # what each still waits for
    numbers: dict[str, float] = field(default_factory=dict)  # of each worker, that of its last claim
    stamp: int = 0  # the last one
    pause: str = ""
    kept: str | None = None  # the model of which the namespace's vectors are, once something was claimed
    probe: str = ""  # the owner of the claim that tests the provider
    level: int = 0
    account: Account | None = None  # of the limits

    @property
    def waiting(self) -> int:
        return len(self.pending) + len(self.alone)

    def member(self, key: bytes | None) -> bytes | None:
        return self.latest[key].member if key in self.latest else None

    def stands(self, member: bytes | None) -> bool:
        return member in self.pending or member in self.alone or member in self.inflight

    def strays(self) -> list[bytes]:
        """Those that wait and are not named, the newest first."""
        found = [member for member in self.pending if self.member(key_of(member)) != member]
        return sorted(found, key=lambda member: (self.pending[member], member), reverse=True)

    def ghosts(self) -> list[bytes]:
        return [key for key, named in self.latest.items() if not self.stands(named.member)]

    def unknown(self) -> int:
        return self.waiting + len(self.inflight) - len(self.latest)

    def in_order(self) -> list[bytes]:
        return [member for member, _ in sorted(self.pending.items(), key=lambda pair: (pair[1], pair[0]))]

    def _forget(self, key: bytes) -> None:
        """Its item leaves, wherever it stands."""
        member = self.latest.pop(key).member
        for place in (self.pending, self.alone, self.inflight, self.claims):
            place.pop(key if place is self.claims else member, None)

    def holds(self, key: bytes, of: str, vector_bytes: int, model: str) -> bool:
        """Whether the key's hash has the vector of the text of this digest, and nothing newer is known to come."""
        if self.unknown() or self.at_odds(model) or key not in self.hashes or self.stands(self.member(key)):
            return False
        vector, named, written_by = self.hashes[key]
        return written_by == model and len(vector) == vector_bytes and digest(json.loads(named.member)["text"]) == of

    def exhume(self, key: bytes) -> None:
        if key in self.dead and self.dead[key][1]:
            del self.dead[key]

    def _bury(self, member: bytes, key: bytes | None) -> None:
        if key or not self.dead.get(member, (b"", False))[1]:
            self.dead[key or member] = (member, key is not None)
        if self.member(key) == member:
            self._forget(key)
        for place in (self.pending, self.alone, self.inflight):
            place.pop(member, None)

    def forget_ghosts(self, keys: Iterable[bytes] | None = None) -> None:
        for key in self.ghosts():
            if keys is None or key in keys:
                self._forget(key)

    # -- moves: each answers as the script does ----------------------------------------------------------------

    def enqueue(
        self,
        groups: Sequence[Sequence[tuple[bytes, bytes]]],
        limit: int | None,
        now: float = 0.0,
        offset: float = 0.0,
    ) -> tuple[int, list[bool]]:
        """``offset``: by how much longer than others these may wait, in seconds."""
        taken = []
        for group in groups:
            more = 0
            for key, member in group:
                live = self.member(key)
                if (live or b"") != member or not self.stands(live):
                    more += bool(member) - (live in self.pending)
            taken.append(limit is None or more <= 0 or len(self.pending) + more <= limit)
            if taken[-1]:
                for key, member in group:
                    self._admit(key, member, now, offset)
        return len(self.pending), taken

    def _admit(self, key: bytes, member: bytes, now: float, offset: float) -> None:
        self.exhume(key)
        if self.member(key) == member and self.stands(member):
            self.latest[key].adopted = NOW
            self._hasten(key, member, now, offset)
            return
        if key in self.latest:
            self._forget(key)
        if member:
            # Another program may have left the very member: the sooner time holds.
            left = self.pending.get(member)
            if left is None or (not isinstance(left, Unseen) and left > now + offset + 1):
                self.pending[member] = Unseen(offset)
            self.latest[key] = Named(member)

    def _hasten(self, key: bytes, member: bytes, now: float, offset: float) -> None:
        """It stands no later in line than if it were enqueued now. A second is less than any two offsets differ by."""
        for place in (self.pending, self.alone):
            if member in place:
                if not isinstance(place[member], Unseen) and place[member] > now + offset + 1:
                    place[member] = Unseen(offset)
                return
        score = self.claims[key].score
        if (score.offset if isinstance(score, Unseen) else score - now) > offset + 1:
            self.claims[key].score = Unseen(offset)

    def claim(
        self,
        owner: str,
        limit: int,
        probe_limit: int,
        alone: bool,
        urgent: Iterable[bytes],
        model: str,
        now: float = 0.0,
    ) -> tuple[str, list[bytes], str, list[bytes]]:
        """Status, members, alone, and the strays that were met."""
        worker, _, number = owner.rstrip(":").partition(":")
        if int(number) <= self.numbers.get(worker, 0):
            return "late", [], "no", []
        self.numbers[worker] = int(number)
        self._reclaim()
        status, alone_word = "ok", "no"
        if limit and self.at_odds(model):
            status, limit = "differs", 0
        elif self.pause or self.probe:
            status, limit = "paused", 0
        elif self.unknown() > 0:
            status, limit = "adopt", 0
        elif self.level:
            status, limit = "probe", min(limit, probe_limit)
        taken: list[bytes] = []
        met: list[bytes] = []
        if limit and self.account is not None:
            self.account.open()
        if limit and alone and self.alone:
            wanted = [self.member(key) for key in urgent]
            first = min(self.alone, key=lambda member: (self.alone[member], member))
            member = next((member for member in wanted if member in self.alone), first)
            taken, alone_word = [member], "taken"
            if self.account is not None and member in wanted:
                self.account.waited_for(1)
        elif limit:
            members = [self.member(key) for key in urgent]
            held = self.inflight
            wanted = [one for one in members if one in self.pending or (one in held and self.held_by_job(one))]
            self._take_all(wanted, limit, taken, met)
            if self.account is not None:
                self.account.waited_for(len(taken))
            self._take_all([m for m in self.in_order() if m not in taken], limit, taken, met)
            if self.alone:
                alone_word = "waits"
        if limit and self.account is not None:
            for member in taken if alone_word == "taken" else ():
                self.account.add(member)
            del taken[self.account.take(owner) :]
            if alone_word == "taken" and not taken:
                alone_word = "waits"
        for member in taken:
            key = key_of(member)
            if member in self.inflight:  # out of a job, for somebody waits
                score = self.claims[key].score
                score = Unseen() if score > now else score
            else:
                score = self.alone.pop(member) if member in self.alone else self.pending.pop(member)
            self.claims[key] = Held(score, self.claims[key].deliveries if key in self.claims else 0, owner)
            self.inflight[member] = True
        if met and not taken:
            status = "adopt"
        if status == "probe":
            if taken:
                self.probe = owner
            else:
                status = "ok"
        return status, taken, alone_word, met

    def _reclaim(self) -> None:
        for member in sorted(member for member, holds in self.inflight.items() if not holds):
            key = key_of(member)
            held = self.claims[key]
            if held.deliveries + 1 >= MAX_DELIVERIES:
                self._bury(member, key)
            else:
                del self.inflight[member]
                place = self.alone if held.deliveries + 1 >= MAX_DELIVERIES - 1 else self.pending
                place[member] = held.score
                self.claims[key] = Held(held.score, held.deliveries + 1)

    def _take_all(self, members: Iterable[bytes], limit: int, taken: list[bytes], met: list[bytes]) -> None:
        for member in dict.fromkeys(members):
            if len(taken) == limit or (self.account is not None and self.account.full()):
                break
            self._take(member, taken, met)
            if self.account is not None and taken[-1:] == [member]:
                self.account.add(member)

    def _take(self, member: bytes, taken: list[bytes], met: list[bytes]) -> None:
        key = key_of(member)
        if self.member(key) != member:
            met.append(member)
        elif key in self.claims and self.claims[key].deliveries >= MAX_DELIVERIES - 1:
            self.alone[member] = self.pending.pop(member)
        else:
            taken.append(member)

    # -- batch jobs --------------------------------------------------------------------------------------------

    def outsource(self, job: str, bound: float, most: int, model: str) -> tuple[str, list[bytes]]:
        """``bound``: the score above which items wait for a job."""
        meant = [member for member in self.in_order() if self.pending[member] > bound]
        if self.at_odds(model):
            return "differs", []
        if self.unknown() > 0:
            return "adopt", []
        if self.pause or self.probe:
            return "paused", []
        taken = []
        for member in meant[:most]:
            key = key_of(member)
            deliveries = self.claims[key].deliveries if key in self.claims else 0
            if self.member(key) == member and not (deliveries and deliveries >= MAX_DELIVERIES - 1):
                self.claims[key] = Held(self.pending.pop(member), deliveries, f"job:{job}")
                self.inflight[member] = True
                taken.append(member)
        return ("taken" if taken else "few"), taken

    def in_jobs(self) -> list[bytes]:
        """Those that are in jobs, the first to be due first."""
        found = [member for member in self.inflight if self.held_by_job(member)]
        return sorted(found, key=lambda member: (self.claims[key_of(member)].score, member))

    def held_by_job(self, member: bytes) -> bool:
        held = self.claims.get(key_of(member))
        return held is not None and held.owner.startswith("job:")

    def give_back(self, members: Iterable[bytes], job: str, bound: float, offset: float, *, again: bool = False) -> int:
        """``offset``: what the bound is above the time that it is now."""
        back = 0
        for member in members:
            key = key_of(member)
            if member in self.inflight and self.claims[key].owner == f"job:{job}":
                held = self.claims.pop(key)
                del self.inflight[member]
                score = Unseen(offset) if not again and held.score > bound else held.score
                self.pending[member] = score
                if held.deliveries:
                    self.claims[key] = Held(score, held.deliveries)
                back += 1
        return back

    def pull(self, bound: float, offset: float) -> int:
        """All of them."""
        held = self.in_jobs()
        back = sum(self.give_back([one], self.claims[key_of(one)].owner[4:], bound, offset) for one in held)
        for member, score in self.pending.items():
            if not isinstance(score, Unseen) and score > bound:
                self.pending[member] = Unseen(offset)
                back += 1
        return back

    def adopt(self, members: Iterable[bytes], faulty: set[bytes]) -> None:
        """``faulty``: those that no enqueue of ours can have written, by the stricter parser of Python."""
        for member in members:
            key = key_of(member)
            if member not in self.pending or self.member(key) == member:
                continue
            if member in faulty:
                self._bury(member, None)
                continue
            score = self.pending[member]
            self.forget_ghosts({key})
            hash_stamp = self.hashes[key][1].stamp if key in self.hashes else None
            if key in self.latest and self.latest[key].age >= score:
                del self.pending[member]
            elif key not in self.latest and hash_stamp is not None and score * 1e6 < hash_stamp:
                del self.pending[member]
            else:
                if key in self.latest:
                    self._forget(key)
                self.exhume(key)
                self.latest[key] = Named(member, score)

    def at_odds(self, model: str) -> bool:
        return self.kept not in (None, model)

    def complete(
        self,
        owner: str,
        items: Sequence[tuple[bytes, bytes, bytes]],
        missing: set[bytes],
        bad: set[bytes],
        model: str,
    ):
        """``missing``: hashes that are gone and shall be left alone; ``bad``: keys that hold something else."""
        words, at_odds = [], self.at_odds(model)
        for key, member, vector in items:
            if member not in self.inflight or (owner.startswith("job:") and self.claims[key].owner != owner):
                words.append("stale")
            elif at_odds:
                words.append("differs")
            elif key not in missing and key in bad:
                words.append("refused")
            else:
                words.append("skipped" if key in missing else "done")
                if key not in missing:
                    self.hashes[key] = (vector, self.latest[key], model)
                self._forget(key)
        if "done" in words or "skipped" in words:
            self.kept = model
        if not at_odds:
            self._end_probe(owner)
        return words

    def release(self, owner: str, members: Iterable[bytes] | None) -> int:
        """``members`` None: all that the claim, or the worker, holds; it is closed by that."""
        back = 0
        for member in list(self.inflight if members is None else members):
            key = key_of(member)
            held = self.claims.get(key)
            if member in self.inflight and (held.owner == owner or (members is None and held.owner.startswith(owner))):
                del self.claims[key], self.inflight[member]
                self.pending[member] = held.score
                if held.deliveries:
                    self.claims[key] = Held(held.score, held.deliveries)
                back += 1
        if members is None:
            worker, _, number = owner.rstrip(":").partition(":")
            self.numbers[worker] = max(self.numbers.get(worker, 0), int(number or 9e15))
            if self.probe.startswith(owner):
                self.probe = ""
        return back

    def _holds(self, owner: str, member: bytes) -> bool:
        """Whether a claim, or a worker, holds it."""
        return member in self.inflight and self.claims[key_of(member)].owner.startswith(owner)

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
                if self.member(key) == member:
                    self._forget(key)
        self._end_probe(owner)
        return words

    def fail(
        self, owner: str, members: Iterable[bytes], reason: str, first: float, most: float, least: float, left: float
    ) -> float:
        """A pause; ``left`` are the seconds of the one, or of the probe, that may be under way."""
        probe = self.probe == owner
        if not self.release(owner, list(members)) and not probe:
            return left
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
                if ours:
                    self.forget_ghosts({name})
                if not ours or name not in self.latest:
                    if ours:
                        self.latest[name] = Named(member)
                    self.pending[member] = Unseen()
                    back += 1
        return back

    def discard_dead(self, names: Iterable[bytes]) -> int:
        return sum(self.dead.pop(name, None) is not None for name in names)

    def unfinished(self, flush: str) -> int:
        if not self.unknown():
            waits_for = self.flushes.setdefault(flush, set(self.latest.values()))
            waits_for &= set(self.latest.values())
        return 0 if self.unknown() else len(self.flushes[flush])

    def look(self, key: bytes, vector: bytes | None) -> tuple[str, bytes | None]:
        """A word and its value, None where the value is a reason. ``vector``: of the hash."""
        self.forget_ghosts({key})
        if key in self.latest:
            member = self.latest[key].member
            place = b"in a job" if self.held_by_job(member) else b"in flight"
            return "live", place if member in self.inflight else b"pending"
        if key in self.dead and self.dead[key][1]:
            return "dead", None
        return ("done", vector) if vector is not None else ("gone", b"")

    def take_cached(self, digests: Iterable[str], owner: str) -> list[bytes]:
        found = []
        mine = f"busy {owner}".encode()
        paused = self.probe != owner and (self.pause or self.probe or self.level)
        for name in digests:
            value = self.cache.get(name, mine)
            if value == mine:
                self.cache.pop(name, None)
                if not paused:
                    self.cache[name] = mine
                found.append(b"paused" if paused else b"")
            else:
                found.append(b"busy" if value.startswith(b"busy ") else value)
        return found

    def hold_cached(self, digest: str, owner: str, *, ends: bool) -> None:
        if ends and self.cache.get(digest) == f"busy {owner}".encode():
            del self.cache[digest]

    # -- comparing ---------------------------------------------------------------------------------------------

    def check(self, found: dict[str, Any]) -> None:
        """Compare with what stands in Redis, as :func:`read` has it."""
        now = found["now"][0]
        for place, name in ((self.pending, "pending"), (self.alone, "alone")):
            scores = dict(found[name])
            for member, score in place.items():
                if isinstance(score, Unseen):
                    place[member] = scores.get(member)
                    assert abs(place[member] - now - score.offset) < 20
            assert scores == place
        assert {member: score > now + LEASE_SECONDS - 100 for member, score in found["inflight"]} == self.inflight
        stamps, before = {}, self.stamp
        for key, value in found["latest"].items():
            head, _, member = value.partition(b" ")
            stamp, _, adopted = head.partition(b"/")
            named = self.latest[key]
            if named.stamp is None:
                named.stamp = int(stamp)
                assert named.stamp > before, "a stamp that is not above all before"
                self.stamp = max(self.stamp, named.stamp)
            if named.adopted is NOW:
                named.adopted = float(adopted)
                assert abs(now - named.adopted) < 100
            stamps[key] = (member, named.stamp, float(adopted) if adopted else None)
            assert int(stamp) == named.stamp
        assert stamps == {key: (named.member, named.stamp, named.adopted) for key, named in self.latest.items()}
        for name, line in found["flushes"].items():
            waits_for = self.flushes[name.decode()] & set(self.latest.values())
            assert int(line.split()[1]) == len(waits_for), "a flush waits for more or fewer items than are live"
        claims = {}
        for key, claim in found["claims"].items():
            score, deliveries, owner = re.fullmatch(rb"(\S+) (\d+) ?(\S*)", claim).groups()
            claims[key] = Held(float(score), int(deliveries), owner.decode())
        for key, held in self.claims.items():
            if isinstance(held.score, Unseen):
                assert abs(claims[key].score - now - held.score.offset) < 20
                held.score = claims[key].score
        assert claims == self.claims
        infos = {name: json.loads(info.decode("utf-8", "surrogateescape")) for name, info in found["info"].items()}
        letters = {
            name: (info["member"].encode("utf-8", "surrogateescape") if "member" in info else name, "member" in info)
            for name, info in infos.items()
        }
        assert letters == self.dead
        assert {member for member, _ in found["dead"]} == {member for member, _ in self.dead.values()}
        assert (found["pause"] or b"").decode() == self.pause
        assert (found["probe"] or b"").decode() == self.probe
        assert int(found["level"] or 0) == self.level


#: In one script, for redis-py takes long over a dozen commands, and proofs look some ten thousand times.
READ = """local found = {}
for at = 1, 4 do found[at] = redis.call("ZRANGE", KEYS[at], 0, -1, "WITHSCORES") end
for at = 5, 8 do found[at] = redis.call("HGETALL", KEYS[at]) end
for at = 9, 11 do found[at] = redis.call("GET", KEYS[at]) end
found[12] = redis.call("TIME")
return found"""


def read(client: redis.Redis, keys: Keys) -> dict[str, Any]:
    """All that stands in Redis of a queue."""
    sets = {"pending": keys.pending, "alone": keys.alone, "inflight": keys.inflight, "dead": keys.dead}
    hashes = {"flushes": keys.flushes, "latest": keys.latest, "claims": keys.claims, "info": keys.dead_info}
    words = {"pause": keys.pause, "level": keys.pause_level, "probe": keys.pause_probe}
    names = {**sets, **hashes, **words}
    found = dict(zip([*names, "now"], client.eval(READ, len(names), *names.values()), strict=True))
    for name in names.keys() - words.keys():
        found[name] = list(zip(found[name][::2], found[name][1::2], strict=True))
    return {
        **found,
        **{name: [(member, float(score)) for member, score in found[name]] for name in sets},
        **{name: dict(found[name]) for name in hashes},
        "now": [int(part) for part in found["now"]],
    }
