"""A queue's scripts and the model of them, moved together, and a book of what was promised that knows of neither."""

from __future__ import annotations

import numpy as np
import redis

from embedqueue.store.store import Store
from embedqueue.values.item import NotOurs, decode_member, encode_member
from tests.proof.model import ENDED, LEASE_SECONDS, MAX_DELIVERIES, Model, key_of, read


def member_vector(member: bytes) -> bytes:
    """A vector that tells which member it is of."""
    return np.frombuffer(member.ljust(64), dtype="<f4").tobytes()


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

    def accept(self, key: str, member: bytes) -> None:
        self.version += 1
        self.newest[key] = member
        self.order[member] = self.version

    # -- moves -------------------------------------------------------------------------------------------------

    def enqueue(self, *groups: list[tuple[str, str]], limit: int | None = None) -> list[bool]:
        pairs = [[(key, encode_member(key, text) if text else b"") for key, text in group] for group in groups]
        answer = self.store.enqueue(
            [[part for key, member in group for part in (key.encode(), member)] for group in pairs],
            max_pending=limit,
            tell_at=50,
            tell_first=True,
        )
        assert answer == self.model.enqueue([[(key.encode(), member) for key, member in g] for g in pairs], limit)
        for group, taken in zip(pairs, answer[1], strict=True):
            for key, member in group if taken else ():
                self.accept(key, member)
        return answer[1]

    def leave(self, member: bytes, seconds_ago: float = 0.0) -> None:
        """Something of the asyncio design, or of nobody, which looks whether the same is there and adds it."""
        if member not in self.model.pending and member not in self.model.latest.values():
            now = self.client.time()
            score = round(now[0] + now[1] / 1e6 - seconds_ago, 6)
            self.client.zadd(self.names.pending, {member: score})
            self.model.pending[member] = score
            self.legacy.add(member)

    def claim(self, worker: str, limit: int = 10, *, alone: bool = False, urgent: list[str] | None = None) -> str:
        self.check()
        self.claims += 1
        owner = f"{worker}{self.claims}:"
        holders = {member for member, holds in self.model.inflight.items() if holds}
        claim = self.store.claim(
            owner,
            limit,
            probe_limit=2,
            lease_seconds=LEASE_SECONDS,
            max_deliveries=MAX_DELIVERIES,
            alone=alone,
            urgent=urgent or [],
        )
        assert len(set(claim.members)) == len(claim.members) <= limit
        assert not holders & set(claim.members), "an item that another worker holds was handed out"
        wanted = [key.encode() for key in urgent or []]
        assert (claim.status, claim.members, claim.alone) == self.model.claim(owner, limit, 2, alone, wanted)
        assert claim.waiting == len(self.model.pending)
        for member in claim.members:
            try:
                key = decode_member(member).redis_key
            except NotOurs as error:  # as the drain does
                self.reject(owner, member, str(error), foreign=True)
                continue
            self.hands.append((owner, member))
            if member in self.legacy:  # from now on it is the newest of its key
                self.accept(key, member)
        self.legacy &= set(self.model.pending)
        return owner

    def complete(self, owner: str, members: list[bytes], *, skip: bool = False, times: int = 1) -> None:
        for _ in range(times):
            items = [(key_of(member), member, member_vector(member)) for member in members]
            types = {key: self.client.type(key) for key, _, _ in items}
            missing = {key for key, kind in types.items() if skip and kind == b"none"}
            bad = {key for key, kind in types.items() if kind not in (b"none", b"hash")}
            lines = [(key.decode(), member, vector) for key, member, vector in items]
            words = self.store.complete(owner, self.field, "skip" if skip else "create", lines)
            plain = ["refused" if word.startswith("refused WRONGTYPE") else word for word in words]
            assert plain == self.model.complete(owner, items, missing, bad)
            for (key, member, _), word in zip(lines, plain, strict=True):
                if word in ("done", "skipped"):
                    self.written[key] = self.order[member]

    def release(self, owner: str, members: list[bytes] | None = None) -> int:
        expected = self.model.release(owner, list(self.model.inflight) if members is None else members)
        assert self.store.release(owner, members) == expected
        return expected

    def reject(self, owner: str, member: bytes, reason: str = "bad", *, foreign: bool = False) -> None:
        items = [(member, reason, foreign)]
        assert self.store.reject(owner, items) == self.model.reject(owner, items)

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
        latest = found["latest"]
        # I1, I2 of docs/design.md: latest names exactly the live members, one a key, each in one place.
        assert not pending & inflight
        unseen = {member for member in pending if member in self.legacy or key_of(member) is None}
        assert set(latest.values()) >= (pending | inflight) - unseen
        assert set(latest.values()) <= pending | inflight
        assert all(key_of(member) == key for key, member in latest.items())
        assert set(found["claims"]) <= set(latest), "claims outlived their items"
        # I3, I4 there: the newest of each key is live, dead, or what its hash holds; nothing older is written over it.
        for key, member in self.newest.items():
            live = latest.get(key.encode())
            if not member:
                assert live is None or live in self.legacy
            elif live is not None:
                assert live == member or live in self.legacy
            elif not self.model.dead.get(key.encode(), (b"", False))[1]:
                assert self.written.get(key, 0) == self.order[member], f"{key} is lost, or holds an older text's vector"
