"""A queue's scripts and the model of them, moved together, and a book of what was promised that knows of neither."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import redis

from embedqueue.store.jobs import Job, Jobs
from embedqueue.store.records import Asked, Claim, Terms, Unless, Within
from embedqueue.store.store import Store
from embedqueue.values.item import FORGOTTEN, NotOurs, decode_member, encode_member
from embedqueue.values.provenance import digest
from tests.inside import Copies
from tests.proof.model import ENDED, LEASE_SECONDS, MAX_DELIVERIES, Model, key_of, read


def member_vector(member: bytes) -> bytes:
    """A vector that tells which member it is of."""
    return np.frombuffer(member.ljust(max(64, len(member) + -len(member) % 4)), dtype="<f4").tobytes()


def terms(field: str, if_missing: str = "create", *, model: str = "") -> Terms:
    """On which terms the moves write, with the provenance beside the vector; without a model, nobody is at odds."""
    return Terms(field, f"{field}_of", model, None, f"{model or 'm'}/16/-", if_missing)


def asked(key: str, member: bytes | None = None, stamp: int = 0) -> Asked:
    """A question about a key, or about one text of it."""
    return Asked(key, stamp, digest(decode_member(member).text) if member else "")


#: Seconds that an item may wait that has no patience of its own.
BASE = 100.0
#: How long before it is due an item is too late for a batch job.
JOBS_FOR = (1000.0, BASE)


class Queue:
    """A queue's scripts, the model of them, and the book of what was promised."""

    def __init__(self, client: redis.Redis, namespace: str, field: str, store: Store | None = None) -> None:
        self.client = client
        self.store = store or Store(client, namespace)
        self.names = self.store.keys
        self.field = field
        self.model = Model(namespace)
        self.version = 0
        self.claims = 0
        self.newest: dict[str, bytes] = {}  # the newest member accepted of each key; b"" for blank
        self.order: dict[bytes, int] = {}  # when each member was last accepted
        self.written: dict[str, int] = {}  # the order of the member whose vector stands in the hash
        self.hands: list[tuple[str, bytes]] = []  # (owner, member) that a worker believes to hold, dead or alive
        self.legacy: set[bytes] = set()  # members of others that no claim has seen
        self.taken: set[str] = set()  # keys whose newest text another program has taken away
        self.lives: dict[str, int] = {}  # how often each worker was stopped, and began anew under another name
        self.copies = None if store else Copies(self.store)  # of commands, as the network may hold them
        self.outsourcing = Jobs(self.store._scripts, self.names, JOBS_FOR)
        self.jobs = 0
        self.in_jobs: list[tuple[str, bytes]] = []  # (job, member) of all that ever went into one
        self.twin: Queue | None = None  # the second queue, while texts go to both

    def accept(self, key: str, member: bytes) -> None:
        self.version += 1
        self.newest[key] = member
        self.order[member] = self.version
        self.taken.discard(key)

    # -- moves -------------------------------------------------------------------------------------------------

    def now(self) -> float:
        """By the server's clock, in seconds."""
        seconds, micros = self.client.time()
        return seconds + micros / 1e6

    def enqueue(
        self, *groups: list[tuple[str, str]], limit: int | None = None, within: float | None = None
    ) -> list[bool]:
        now, count = self.now(), sum(map(len, groups))
        pairs = [[(key, encode_member(key, text) if text else b"") for key, text in group] for group in groups]
        waiting, taken, *_ = self.store.enqueue(
            [[part for key, member in group for part in (key.encode(), member)] for group in pairs],
            max_pending=limit,
            tell_at=50,
            tell_first=True,
            within=None if within is None else Within([within] * count, BASE),
        )
        offset = 0.0 if within is None else within - BASE
        groups = [[(key.encode(), member) for key, member in group] for group in pairs]
        expected = self.model.enqueue(groups, limit, now, offset)
        assert (waiting, taken) == expected
        for group, coded, fine in zip(pairs, groups, taken, strict=True):
            for key, member in group if fine else ():
                self.accept(key, member)
            if fine and self.twin:
                self.twin.has_taken(coded, now, offset)
        return taken

    def has_taken(self, pairs: list[tuple[bytes, bytes]], now: float = 0.0, offset: float = 0.0) -> None:
        """By the script that an enqueue of the first queue has run."""
        self.model.enqueue([pairs], None, now, offset)
        for key, member in pairs:
            self.accept(key.decode(), member)

    def begin_change(self, twin: Queue) -> None:
        """Texts go to a second queue from now on."""
        self.store.change.begin(twin.field, f"{twin.field}_of")
        self.twin = twin

    def give_up(self) -> None:
        """No longer; the second queue is gone, and its hashes stay as they are."""
        if self.twin is not None:
            twin, self.twin = self.twin, None
            self.store.change.give_up(self.names.second(f"{twin.field} {twin.field}_of"))
            twin.model = replace(Model(twin.model.namespace), hashes=twin.model.hashes, cache=twin.model.cache)
            twin.newest, twin.taken, twin.legacy, twin.hands = {}, set(), set(), []
            if twin.copies is not None:
                twin.copies.sent.clear()  # nothing tells copies from before, see docs/decisions/0063

    def enqueue_if_changed(self, *pairs: tuple[str, str], model: str) -> list[bool]:
        """Of different keys. Returns which of them were left out."""
        lines = [(key, encode_member(key, text) if text else b"") for key, text in pairs]
        sizes = {len(member_vector(member)) for _, member in lines}
        vector_bytes = max(sizes)
        conditions = [digest(text) if text else "" for _, text in pairs]
        expected = [
            bool(member) and self.model.holds(key.encode(), of, vector_bytes, model)
            for (key, member), of in zip(lines, conditions, strict=True)
        ]
        taken = self.store.enqueue(
            [[part for key, member in lines for part in (key.encode(), member)]],
            max_pending=None,
            tell_at=50,
            tell_first=True,
            unless=Unless(terms(self.field, model=model), vector_bytes, conditions),
        )
        assert [vector is not None for vector in taken.left_out or [None] * len(lines)] == expected
        admitted = [(key, member) for (key, member), out in zip(lines, expected, strict=True) if not out]
        for (key, _), out, vector in zip(lines, expected, taken.left_out or expected, strict=True):
            if out:
                assert vector == self.model.hashes[key.encode()][0]
                if self.model.dead.get(key.encode(), (b"", False))[1]:
                    self.newest[key] = b""  # whoever asks for the text that stands there gives up the one that is dead
                self.model.exhume(key.encode())
        self.model.enqueue([[(key.encode(), member) for key, member in admitted]], None, self.now())
        for key, member in admitted:
            self.accept(key, member)
        if self.twin:  # whose workers have not told yet how long their vectors are: nothing is left out
            self.twin.has_taken([(key.encode(), member) for key, member in lines], self.now())
        return expected

    def forget(self, key: str, *, vector: bool) -> None:
        """Nothing of the key is live or dead any more; and if so wanted, no vector stands there."""
        taken = self.store.enqueue([[key.encode(), FORGOTTEN]], max_pending=None, tell_at=50, tell_first=True)
        stamp = taken.stamp
        self.model.enqueue([[(key.encode(), b"")]], None)
        self.accept(key, b"")
        assert bool(taken.second_stamp) == bool(self.twin)
        if self.twin:
            self.twin.has_taken([(key.encode(), b"")])
            if vector and self.client.type(key) == b"hash":
                twin = self.twin
                word = f"{twin.field} {twin.field}_of"
                self.store.hashes.erase_second(key, self.names.second(word), taken.second_stamp)
                twin.model.hashes.pop(key.encode(), None)
                assert not self.client.hexists(key, twin.field)
        if vector and self.client.type(key) == b"hash":
            self.store.hashes.erase(key, terms(self.field), stamp)
            self.model.hashes.pop(key.encode(), None)
            assert not self.client.hexists(key, self.field)
            assert not self.client.hexists(key, f"{self.field}_of")

    def erase_late(self, key: str) -> None:
        """Of a vector that was seen before, which a newer one, or one to come, has taken the place of."""
        if self.client.type(key) == b"hash" and (of := self.model.hashes.get(key.encode())):
            self.model.forget_ghosts({key.encode()})
            self.store.hashes.erase(key, terms(self.field), of[1].stamp)
            assert self.client.hget(key, self.field) == of[0]

    def leave(self, member: bytes, seconds_ago: float = 0.0) -> None:
        """Something of the asyncio design, or of nobody, which looks whether the same is there and adds it."""
        if member not in self.model.pending and member not in {named.member for named in self.model.latest.values()}:
            now = self.client.time()
            score = round(now[0] + now[1] / 1e6 - seconds_ago, 6)
            self.client.zadd(self.names.pending, {member: score})
            self.model.pending[member] = score
            self.legacy.add(member)

    def take_away(self, count: int) -> None:
        """The asyncio design takes the oldest members, and will embed them or not."""
        for member, _ in self.client.zpopmin(self.names.pending, count):
            del self.model.pending[member]
            self.legacy.discard(member)
            key = key_of(member)
            if key is not None and self.newest.get(key.decode("utf-8", "replace")) == member:
                self.taken.add(key.decode())

    def put_in_order(self) -> None:
        """Strays are adopted, ghosts forgotten."""
        self.check()
        strays = self.model.strays()
        self.store.adoption.run(terms(self.field))
        self.model.adopt(strays, {member for member in strays if not _ours(member)})
        if strays or self.model.unknown():
            self.adopted(strays)
        if self.model.unknown():
            self.model.forget_ghosts()
        self.check()

    def adopted(self, strays: list[bytes]) -> None:
        """From now on those that won are the newest of their keys."""
        for member in strays:
            key = key_of(member)
            if self.model.member(key) == member:
                self.accept(key.decode(), member)
        self.legacy -= set(strays)

    def decide(self, model: str) -> None:
        """Somebody decides that from now on vectors are of this model."""
        self.store.agree(terms(self.field, model=model))
        self.model.kept = model

    def claim(
        self,
        worker: str,
        limit: int = 10,
        *,
        alone: bool = False,
        urgent: list[str] | None = None,
        model: str = "m",
        checked: bool = False,
    ) -> str:
        """``checked``: since the last move; else it is done now, for scores that were given just now to be known."""
        if not checked:
            self.check()
        owner, claim = self._claim(worker, limit, alone, urgent, model)
        while claim.status == "adopt":
            if self.model.unknown():
                self.put_in_order()
            if claim.strays:
                self.store.adoption.adopt(claim.strays, terms(self.field))
                self.model.adopt(claim.strays, {member for member in claim.strays if not _ours(member)})
                self.adopted(claim.strays)
            if not limit:
                break
            owner, claim = self._claim(worker, limit, alone, urgent, model)
        self.hands += [(owner, member) for member in claim.members]
        return owner

    def _claim(self, worker: str, limit: int, alone: bool, urgent: list[str] | None, model: str) -> tuple[str, Claim]:
        self.claims += 1
        owner = f"{self.name(worker)}{self.claims}:"
        held = self.model.inflight.items()
        holders = {member for member, holds in held if holds and not self.model.held_by_job(member)}
        claim = self.store.claim(
            owner,
            limit,
            probe_limit=2,
            lease_seconds=LEASE_SECONDS,
            max_deliveries=MAX_DELIVERIES,
            alone=alone,
            urgent=urgent or [],
            terms=terms(self.field, model=model),
        )
        assert len(set(claim.members)) == len(claim.members) <= limit
        assert not holders & set(claim.members), "an item that another worker holds was handed out"
        wanted = [key.encode() for key in urgent or []]
        status, members, word, met = self.model.claim(owner, limit, 2, alone, wanted, model, self.now())
        assert (claim.status, claim.members, claim.alone, claim.strays) == (status, members, word, met)
        assert claim.waiting == self.model.waiting
        return owner, claim

    def name(self, worker: str) -> str:
        """The name of a worker in its present life, with the colon."""
        return f"{worker.rstrip(':')}.{self.lives.get(worker, 0)}:"

    def complete(
        self, owner: str, members: list[bytes], *, skip: bool = False, times: int = 1, model: str = "m"
    ) -> None:
        for _ in range(times):
            items = [(key_of(member), member, member_vector(member)) for member in members]
            types = {key: self.client.type(key) for key, _, _ in items}
            missing = {key for key, kind in types.items() if skip and kind == b"none"}
            bad = {key for key, kind in types.items() if kind not in (b"none", b"hash")}
            lines = [
                (key.decode(), member, vector, digest(decode_member(member).text)) for key, member, vector in items
            ]
            on = terms(self.field, "skip" if skip else "create", model=model)
            words = self.store.complete(owner, on, lines)
            plain = ["refused" if word.startswith("refused WRONGTYPE") else word for word in words]
            assert plain == self.model.complete(owner, items, missing, bad, model)
            for (key, member, *_), word in zip(lines, plain, strict=True):
                if word in ("done", "skipped"):
                    self.written[key] = self.order[member]

    def release(self, owner: str, members: list[bytes] | None = None) -> int:
        expected = self.model.release(owner, members)
        if members is None:
            assert self.store.release_all(owner) == expected
        else:
            assert self.store.release([(owner, member) for member in members]) == expected
        return expected

    def stop(self, worker: str) -> None:
        """A worker stops, and comes back under another name."""
        self.release(self.name(worker))
        self.lives[worker] = self.lives.get(worker, 0) + 1

    def reject(self, owner: str, member: bytes, reason: str = "bad", *, foreign: bool = False) -> None:
        items = [(member, reason, foreign)]
        answer = self.store.reject(owner, [(owner, *item) for item in items])
        assert answer == self.model.reject(owner, items)

    def _bound(self) -> float:
        """The score above which items wait for a job."""
        return self.now() + JOBS_FOR[0] - BASE

    def outsource(self, most: int, *, model: str = "m") -> None:
        """What may wait goes into a new job."""
        self.check()
        self.jobs += 1
        job = Job(f"j{self.jobs}")
        assert self.store.jobs.lead("boss", LEASE_SECONDS).ours
        how = {"least": 1, "most": most, "most_bytes": 1 << 20, "max_deliveries": MAX_DELIVERIES}
        expected = self.model.outsource(job.name, self._bound(), most, model)
        found = self.outsourcing.outsource("boss", job, terms(self.field, model=model), **how)
        assert (found.word, found.members) == expected
        self.in_jobs += [(job.name, member) for member in found.members]

    def give_back(self, job: str, members: list[bytes], *, again: bool) -> None:
        self.check()
        expected = self.model.give_back(members, job, self._bound(), JOBS_FOR[0] - BASE, again=again)
        keys = [key_of(member).decode() for member in members]
        assert self.outsourcing.give_back(job, keys, again=again) == expected

    def pull(self) -> None:
        """Everything goes to the live lane."""
        self.check()
        expected = self.model.pull(self._bound(), JOBS_FOR[0] - BASE)
        assert self.outsourcing.pull() == expected

    def lease_ends(self, member: bytes) -> None:
        self.client.zadd(self.names.inflight, {member: ENDED})
        self.model.inflight[member] = False

    def retry_dead(self, names: list[bytes]) -> None:
        self.legacy |= {name for name in names if not self.model.dead.get(name, (b"", True))[1]}
        assert self.store.dead.retry(names) == self.model.retry_dead(names)

    def discard_dead(self, names: list[bytes]) -> None:
        for name in names:
            if (
                name in self.model.dead
                and name not in self.model.latest
                and name.decode("utf-8", "replace") in self.newest
            ):
                if self.model.dead[name][1]:
                    self.newest[name.decode()] = b""  # given up for good, by a human
        assert self.store.dead.discard(names) == self.model.discard_dead(names)

    # -- what must hold after every step -----------------------------------------------------------------------

    def check(self) -> None:
        found = read(self.client, self.names)
        self.model.check(found)
        pending, inflight = dict(found["pending"]).keys(), dict(found["inflight"]).keys()
        # I1, I2 of docs/design.md: latest names the live members, one a key, each in one place; else they are strays.
        alone = dict(found["alone"]).keys()
        places = [*pending, *inflight, *alone]
        assert len(places) == len(set(places))
        live = {key: value.partition(b" ")[2] for key, value in found["latest"].items()}
        unseen = {member for member in pending if member in self.legacy or key_of(member) is None}
        assert set(live.values()) >= set(places) - unseen
        assert {key.decode() for key, member in live.items() if member not in places} <= self.taken
        assert all(key_of(member) == key for key, member in live.items())
        assert set(found["claims"]) <= set(live), "claims outlived their items"
        # I3, I4 there: the newest of each key is live, dead, or what its hash holds; nothing older is written over it.
        for key, member in self.newest.items():
            named = live.get(key.encode())
            if not member:
                assert named is None or named in self.legacy
            elif named is not None:
                assert named == member or named in self.legacy
            elif key not in self.taken and not self.model.dead.get(key.encode(), (b"", False))[1]:
                assert self.written.get(key, 0) == self.order[member], f"{key} is lost, or holds an older text's vector"


def _ours(member: bytes) -> bool:
    try:
        return bool(decode_member(member))
    except NotOurs:
        return False
