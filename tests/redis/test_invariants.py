"""The invariants of the design, checked after every step of histories that hypothesis makes up, on a real server."""

from __future__ import annotations

import json

import numpy as np
import pytest
import redis
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from embedqueue.item import decode_member, encode_member
from embedqueue.store import Store

KEYS = [f"doc:{i}" for i in range(4)]
WORKERS = ["w1:", "w2:", "w3:"]
MAX_DELIVERIES = 3
#: Shrinking a history of fifty steps takes minutes, and the steps are printed as they are.
PHASES = [Phase.explicit, Phase.reuse, Phase.generate]
keys = st.sampled_from(KEYS)
workers = st.sampled_from(WORKERS)


def vector_of(member: bytes) -> bytes:
    """A vector that tells which member it is of."""
    return np.frombuffer(member.ljust(64), dtype="<f4").tobytes()


class History(RuleBasedStateMachine):
    """Producers, workers that stall and die, an asyncio writer of old, and a book of what was promised."""

    client: redis.Redis  # set by the test

    @initialize()
    def begin(self):
        self.client.flushall()
        self.store = Store(self.client, "embed_queue")
        self.version = 0
        self.claims = 0
        self.newest: dict[str, bytes] = {}  # the newest member accepted of each key; b"" for blank
        self.order: dict[bytes, int] = {}  # when each member was last accepted
        self.hands: list[tuple[str, bytes]] = []  # (owner, member) that a worker believes to hold, dead or alive
        self.legacy: set[bytes] = set()  # members of the asyncio design that were not yet seen by a claim
        self.written: dict[str, int] = {}  # the order of the member whose vector stands in the hash

    def accept(self, key: str, member: bytes) -> None:
        self.version += 1
        self.newest[key] = member
        self.order[member] = self.version

    # -- producers ---------------------------------------------------------------------------------------------

    @rule(key=keys, text=st.sampled_from(["a", "b", "", 'q"\\\n', "é😀"]))
    def enqueue(self, key, text):
        member = encode_member(key, text) if text else b""
        self.store.enqueue([[key.encode(), member]], max_pending=None, tell_at=50, tell_first=True)
        self.accept(key, member)

    @rule(some=st.lists(keys, unique=True, min_size=2), text=st.sampled_from(["many", "more"]))
    def enqueue_many(self, some, text):
        pairs = [(key, encode_member(key, text)) for key in some]
        parts = [part for key, member in pairs for part in (key.encode(), member)]
        self.store.enqueue([parts], max_pending=None, tell_at=50, tell_first=False)
        for key, member in pairs:
            self.accept(key, member)

    @rule(key=keys, text=st.sampled_from(["a", "old"]))
    def legacy_enqueue(self, key, text):
        """The asyncio design only adds to the ZSET, in another JSON style, if the key is not there yet."""
        if self.client.hexists("embed_queue:latest", key):
            return
        member = json.dumps({"redis_key": key, "text": text}).encode()
        self.client.zadd("embed_queue:pending", {member: float(self.client.time()[0])})
        self.legacy.add(member)

    # -- workers -----------------------------------------------------------------------------------------------

    @rule(worker=workers, limit=st.integers(1, 5), urgent=st.lists(keys, max_size=2), alone=st.booleans())
    def claim(self, worker, limit, urgent, alone):
        self.claims += 1
        owner = f"{worker}{self.claims}:"
        inflight = set(self.client.zrangebyscore("embed_queue:inflight", 2, "+inf"))  # those whose lease holds
        claim = self.store.claim(
            owner,
            limit,
            probe_limit=2,
            lease_seconds=1000,
            max_deliveries=MAX_DELIVERIES,
            alone=alone,
            urgent=urgent,
        )
        assert len(claim.members) <= limit
        assert len(set(claim.members)) == len(claim.members)
        assert not inflight & set(claim.members), "an item that another worker holds was handed out"
        if claim.company == "none":
            assert len(claim.members) == 1
        if claim.status == "paused":
            assert not claim.members
        for member in claim.members:
            self.hands.append((owner, member))
            if member in self.legacy:  # from now on it is the newest of its key
                self.accept(decode_member(member).redis_key, member)
        self.legacy &= set(self.client.zrange("embed_queue:pending", 0, -1))

    @rule(data=st.data(), lost=st.booleans())
    def complete(self, data, lost):
        """A worker writes what it holds, be it still its own or not; the answer may be lost, and it tries again."""
        if not self.hands:
            return
        owner, member = data.draw(st.sampled_from(self.hands))
        key = decode_member(member).redis_key
        live = self.client.zscore("embed_queue:inflight", member) is not None
        for _ in range(1 + lost):
            words = self.store.complete(owner, "embedding", "create", [(key, member, 0)], [vector_of(member)])
            assert words == (["done"] if live else ["stale"])
            if live:
                self.written[key] = self.order[member]
            live = False
        self.hands.remove((owner, member))

    @rule(data=st.data())
    def release(self, data):
        if self.hands:
            owner, member = data.draw(st.sampled_from(self.hands))
            holder = self.claimed().get(decode_member(member).redis_key, "").rpartition(" ")[2]
            inflight = self.client.zscore("embed_queue:inflight", member) is not None
            given_back = self.store.release(owner, [member])
            assert given_back == (inflight and holder == owner), "only the holder may give back"
            self.hands.remove((owner, member))

    @rule(worker=workers)
    def stop(self, worker):
        """A worker stops: everything that it holds goes back."""
        self.store.release(worker)
        assert not [claim for claim in self.claimed().values() if claim.endswith(f" {worker}")]

    @rule(data=st.data())
    def reject(self, data):
        if self.hands:
            owner, member = data.draw(st.sampled_from(self.hands))
            self.store.reject(owner, [(member, "bad")])
            self.hands.remove((owner, member))

    @rule(worker=workers)
    def extend(self, worker):
        self.store.extend(worker, 1000, [member for owner, member in self.hands if owner.startswith(worker)])

    @rule(data=st.data())
    def lease_ends(self, data):
        """A worker stalls or dies; it may believe for long that it holds its items."""
        inflight = self.client.zrange("embed_queue:inflight", 0, -1)
        if inflight:
            self.client.zadd("embed_queue:inflight", {data.draw(st.sampled_from(inflight)): 1.0})

    # -- operators and the provider ----------------------------------------------------------------------------

    @rule(data=st.data(), retry=st.booleans())
    def dead_letters(self, data, retry):
        names = self.store.dead_names()
        if names:
            name = data.draw(st.sampled_from(names))
            (self.store.retry_dead if retry else self.store.discard_dead)([name])
            if not retry and name.decode() in self.newest and not self.live(name.decode()):
                self.newest[name.decode()] = b""  # given up for good, by a human

    @rule(worker=workers)
    def provider_fails(self, worker):
        self.store.pause(
            f"{worker}0:", first_seconds=100, most_seconds=300, least_seconds=0, reason="down", redis_keys=[]
        )

    @rule()
    def pause_ends(self):
        self.client.delete("embed_queue:pause")

    # -- what must hold after every step -----------------------------------------------------------------------

    def claimed(self) -> dict[str, str]:
        found = self.client.hgetall("embed_queue:claims")
        return {key.decode(): claim.decode() for key, claim in found.items()}

    def live(self, key: str) -> bytes | None:
        return self.client.hget("embed_queue:latest", key)

    @invariant()
    def one_live_member_a_key(self):
        """I1, I2: latest names exactly the live members, one a key, each in one place."""
        if not hasattr(self, "store"):
            return
        pending = set(self.client.zrange("embed_queue:pending", 0, -1))
        inflight = set(self.client.zrange("embed_queue:inflight", 0, -1))
        latest = self.client.hgetall("embed_queue:latest")
        assert not pending & inflight
        assert set(latest.values()) == (pending | inflight) - self.legacy or set(latest.values()) == pending | inflight
        assert all(decode_member(member).redis_key.encode() == key for key, member in latest.items())
        assert {key.encode() for key in self.claimed()} <= set(latest), "claims outlived their items"

    @invariant()
    def the_newest_is_somewhere(self):
        """I3, I4: the newest of each key is live, dead, or what its hash holds; nothing older is written over it."""
        if not hasattr(self, "store"):
            return
        dead = {name.decode() for name in self.store.dead_names()}
        for key, member in self.newest.items():
            if not member:
                assert self.live(key) is None or self.live(key) in self.legacy
                continue
            live = self.live(key)
            if live is not None:
                assert live == member or live in self.legacy
            elif key not in dead:
                assert self.written.get(key, 0) == self.order[member], f"{key} is lost, or holds an older text's vector"
                assert self.client.hget(key, "embedding") == vector_of(member)

    @invariant()
    def dead_letters_agree(self):
        """The ZSET of the dead and their infos are of the same items."""
        if hasattr(self, "store"):
            infos = [json.loads(info) for info in self.client.hvals("embed_queue:dead:info")]
            members = {info["member"].encode() for info in infos}
            assert members == set(self.client.zrange("embed_queue:dead", 0, -1))
            for member in members:
                assert self.newest[decode_member(member).redis_key] == member, (
                    "a superseded text is still a dead letter"
                )


@pytest.mark.timeout(120)
def test_the_invariants_hold_in_every_history(redis_client):
    """No order of enqueues, claims, writes, deaths and pauses loses an item or lets an old text win."""
    machine = type("HistoryOnRedis", (History,), {"client": redis_client})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=200, stateful_step_count=50, deadline=None, phases=PHASES)
    )


@pytest.mark.timeout(120)
def test_the_invariants_hold_on_fakeredis(fake_redis):
    """The same on fakeredis, so that the unit tests of users prove something."""
    machine = type("HistoryOnFake", (History,), {"client": fake_redis})
    run_state_machine_as_test(machine, settings=settings(max_examples=15, stateful_step_count=30, deadline=None))
