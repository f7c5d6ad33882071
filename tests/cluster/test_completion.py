"""Vectors across slots, interleaving by interleaving: none of an older text comes after a newer one's."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from embedqueue.store.cluster import completion
from embedqueue.store.cluster.lines import LATE
from embedqueue.store.cluster.scripts import hash_script
from embedqueue.store.cluster.store import ClusterStore
from embedqueue.store.door import open_store
from embedqueue.store.records import Claim, Terms
from embedqueue.store.replicas import Replicas
from embedqueue.values.item import encode_member
from embedqueue.values.provenance import digest
from tests.localcluster import LocalCluster
from tests.parts import PATIENCE_SECONDS, eventually, in_thread, join, stand_still, stored

TERMS = Terms("embedding", "embedding_of", "m", 8, "m/8/-", "create")
KEY = "doc:1"
LEASE_SECONDS = 60.0


class Worker:
    """What one process does to a queue, step by step.

    Args:
        client: of the cluster.
        name: of the worker.
        replicas: that a vector waits for.
    """

    def __init__(
        self, client: redis.RedisCluster, name: str, terms: Terms = TERMS, replicas: Replicas | None = None
    ) -> None:
        self.store: Any = open_store(client, "embed_queue", replicas, patience_seconds=PATIENCE_SECONDS)
        assert isinstance(self.store, ClusterStore)
        self.name, self.terms = name, terms
        self.claims = 0
        self._run = self.store._lines.run
        self.reached, self.go_on = threading.Event(), threading.Event()

    def enqueue(self, text: str, key: str = KEY) -> int:
        member = encode_member(key, text) if text else b""
        taken = self.store.enqueue([[key.encode(), member]], max_pending=None, tell_at=50, tell_first=False)
        return int(taken.stamp)

    def claim(self, *, lease_seconds: float = LEASE_SECONDS) -> Claim:
        self.claims += 1
        owner = f"{self.name}:{self.claims}/{lease_seconds:.3f}:"
        how = {"probe_limit": 50, "lease_seconds": lease_seconds, "max_deliveries": 5, "alone": True}
        return self.store.claim(owner, 50, terms=self.terms, **how)

    def take(self, text: str, *, lease_seconds: float = LEASE_SECONDS, key: str = KEY) -> str:
        """Claim this text and nothing else; returns the owner."""
        claim = self.claim(lease_seconds=lease_seconds)
        assert claim.members == [encode_member(key, text)]
        return claim.owner

    def complete(self, owner: str, text: str, key: str = KEY) -> str:
        item = (key, encode_member(key, text), stored(text), digest(text))
        (word,) = self.store.complete(owner, self.terms, [item])
        return str(word)

    def held_before_write(self, owner: str, text: str) -> Callable[[], str]:
        """Begin to complete, and stop before the write; what is returned goes on, and tells the word."""

        def run(orders: Any, replicas: Any = None, **how: Any) -> Any:
            if orders and orders[0].script == "write" and not self.go_on.is_set():
                self.reached.set()
                assert self.go_on.wait(PATIENCE_SECONDS)
            return self._run(orders, replicas)

        self.store._completion._lines.run = run
        words: list[str] = []
        thread = in_thread(lambda: words.append(self.complete(owner, text)))
        assert self.reached.wait(PATIENCE_SECONDS)

        def go_on() -> str:
            self.go_on.set()
            join(thread)
            return words[0]

        return go_on


@pytest.fixture
def worker(client) -> Iterator[Callable[..., Worker]]:
    made: list[Worker] = []

    def make(name: str, terms: Terms = TERMS) -> Worker:
        made.append(Worker(client, name, terms))
        return made[-1]

    yield make
    for one in made:
        one.store.close()


@pytest.fixture(scope="module", autouse=True)
def _patient():
    """A receipt that is read too late is none, and its text is embedded once more."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(completion, "RECEIPT_SECONDS", PATIENCE_SECONDS)
        yield


def vector(client: redis.RedisCluster, key: str = KEY) -> bytes | None:
    found: Any = client.hget(key, "embedding")
    return found


def test_a_vector_is_written_and_its_item_is_gone(worker, client):
    one = worker("a")
    one.enqueue("e1")
    assert one.complete(one.take("e1"), "e1") == "done"
    assert vector(client) == stored("e1")
    status = one.store.status()
    assert (status.waiting, status.in_flight) == (0, 0)
    assert not client.exists("{embed_queue}:air")


def test_a_newer_text_before_the_confirmation(worker, client):
    """Nothing is written."""
    one = worker("a")
    one.enqueue("e1")
    owner = one.take("e1")
    one.enqueue("e2")
    assert one.complete(owner, "e1") == "stale"
    assert vector(client) is None


def test_a_newer_text_between_confirmation_and_write_waits_until_that_has_come(worker, client):
    """It is not claimed while the older one's write is in the air, so its vector always comes after it."""
    one, two = worker("a"), worker("b")
    one.enqueue("e1")
    go_on = one.held_before_write(one.take("e1"), "e1")
    two.enqueue("e2")
    claim = two.claim()
    assert claim.members == []
    assert claim.limited_seconds is not None
    assert claim.limited_seconds < 1.0
    assert go_on() == "stale"
    assert vector(client) == stored("e1")
    assert two.complete(two.take("e2"), "e2") == "done"
    assert vector(client) == stored("e2")


def test_a_write_that_stalls_is_late_when_the_newer_text_may_be_claimed(worker, client, monkeypatch):
    """The hash, and its fence with it, is deleted after the newer vector came; the older write comes after that."""
    monkeypatch.setattr(completion, "WRITE_SECONDS", 0.2)
    monkeypatch.setattr(completion, "AIR_SECONDS", 0.5)
    one, two = worker("a"), worker("b")
    one.enqueue("e1")
    go_on = one.held_before_write(one.take("e1"), "e1")
    two.enqueue("e2")
    claims: list[Claim] = []

    def claimed() -> bool:
        claims.append(two.claim())
        return bool(claims[-1].members)

    eventually(claimed, "the newer text is claimed")
    monkeypatch.undo()  # the newer one may take its time
    assert two.complete(claims[-1].owner, "e2") == "done"
    client.delete(KEY)
    client.hset(KEY, "title", "anew")
    assert go_on() == "stale"
    assert vector(client) is None


def test_a_write_that_lay_in_a_socket_is_refused_by_its_nodes_clock(client):
    """It was sent in time, and is read by the node after its deadline."""
    _, text = hash_script("write")
    fields = "embedding", "embedding_of", "m d 5", "5", "d", "5", "", "vector"
    assert client.eval(text, 1, KEY, *fields, f"{time.time() - 1.0:.6f}").startswith(b"late ")
    assert not client.exists(KEY)
    assert client.eval(text, 1, KEY, *fields, f"{time.time() + 9.0:.6f}") == b"done"


def test_an_older_write_never_stands_over_a_newer_ones_vector(worker, client):
    """By the fence alone."""
    one = worker("a")
    stamp = one.enqueue("e1")
    owner = one.take("e1")
    client.hset(KEY, mapping={"embedding": stored("later"), "embedding_of": f"m/8/- {digest('later')} {stamp + 1}"})
    word = one.complete(owner, "e1")
    assert word.startswith("refused its hash holds the vector of a later text")
    assert vector(client) == stored("later")
    (letter,) = (one.store.reject(owner, [(owner, encode_member(KEY, "e1"), word, False)]), one.store.dead.page(1))[1]
    assert letter.redis_key == KEY
    one.store.dead.retry([KEY])
    assert one.complete(one.take("e1"), "e1") == "done"


def test_two_workers_write_the_same_text(worker, client):
    """A lease ran out, another worker embeds the same, and both write."""
    one, two = worker("a"), worker("b")
    one.enqueue("e1")
    go_on = one.held_before_write(one.take("e1", lease_seconds=0.01), "e1")
    client.zadd("{embed_queue}:inflight", {encode_member(KEY, "e1"): 1.0})
    assert two.complete(two.take("e1"), "e1") == "done"
    two.enqueue("e2")
    assert two.claim().members == []  # the first write may still come
    assert go_on() == "stale"
    assert vector(client) == stored("e1")


def test_a_crash_between_write_and_acknowledgement_is_not_paid_for_again(worker, client):
    """The fence is the receipt."""
    one, two = worker("a"), worker("b")
    one.enqueue("e1")
    one.enqueue("other", "doc:2")
    owner = one.claim(lease_seconds=0.01).owner
    call = one.store._completion._call

    def crashing(name: str, *args: Any) -> Any:
        if name == "acknowledge":
            raise SystemExit
        return call(name, *args)

    one.store._completion._call = crashing
    with pytest.raises(SystemExit):
        one.complete(owner, "e1")
    assert vector(client) == stored("e1")
    for key, text in ((KEY, "e1"), ("doc:2", "other")):
        client.zadd("{embed_queue}:inflight", {encode_member(key, text): 1.0})
    assert two.claim().members == [encode_member("doc:2", "other")]
    assert two.store.status().in_flight == 1
    assert client.hget("{embed_queue}:latest", KEY) is None


def test_a_probe_that_turns_out_to_be_done_leaves_the_next_one_to_others(worker, client):
    """Else nobody would ask the provider before this worker's lease had run out."""
    one = worker("a")
    die_after_the_write(one, client)
    client.set("{embed_queue}:pause:level", 1)
    claim = one.claim()
    assert (claim.status, claim.members) == ("ok", [])
    assert not client.exists("{embed_queue}:pause:probe")


def die_after_the_write(one: Worker, client: redis.RedisCluster) -> None:
    """Of e1, which is not acknowledged; and its lease has run out."""
    one.enqueue("e1")
    owner = one.take("e1")
    one.store._completion._lines.run = lambda *args, **how: (one._run(*args, **how), stop())
    with pytest.raises(SystemExit):
        one.complete(owner, "e1")
    one.store._completion._lines.run = one._run
    client.zadd("{embed_queue}:inflight", {encode_member(KEY, "e1"): 1.0})


def stop() -> None:
    raise SystemExit


def test_what_is_left_of_a_write_that_was_tried_twice_is_no_later_items_receipt(worker, monkeypatch):
    """The key's text is enqueued once more when none of these writes can come any more."""
    monkeypatch.setattr(completion, "AIR_SECONDS", 0.5)
    one = worker("a")
    one.enqueue("e1")
    owner, answers = one.take("e1"), [([LATE], 0)]
    one.store._completion._lines.run = lambda *args, **how: answers.pop() if answers else one._run(*args, **how)
    assert one.complete(owner, "e1") == "done"
    one.enqueue("e1")
    claims: list[Claim] = []
    eventually(lambda: claims.append(one.claim()) or one.store.status().waiting == 0, "it can be claimed")
    assert claims[-1].members == [encode_member(KEY, "e1")]


def test_a_vector_that_was_taken_out_before_it_was_acknowledged_is_embedded_again(worker, client):
    """Its fence alone is no receipt."""
    one = worker("a")
    die_after_the_write(one, client)
    client.hdel(KEY, "embedding")
    assert one.complete(one.take("e1"), "e1") == "done"
    assert vector(client) == stored("e1")


def test_a_receipt_is_good_although_the_live_text_was_enqueued_again(worker, client):
    """It is the same item, of the same stamp."""
    one = worker("a")
    die_after_the_write(one, client)
    one.enqueue("e1")
    assert one.claim().members == []
    assert client.hget("{embed_queue}:latest", KEY) is None


def test_what_cannot_be_read_has_no_receipt(worker):
    """Lua takes for text what is no UTF-8; the worker finds out, and makes a dead letter of it."""
    one = worker("a")
    member = b'{"redis_key":"doc:1","text":"\xff"}'
    one.store.enqueue([[KEY.encode(), member]], max_pending=None, tell_at=50, tell_first=False)
    assert one.claim().members == [member]


def test_a_write_that_is_not_answered_in_time_is_told(worker, client):
    """The worker releases the item, and embeds it again."""
    one = worker("a")
    one.store._nodes.patience_seconds = 0.05
    one.enqueue("e1")
    owner = one.take("e1")
    one.store._completion._lines.run = lambda orders, *args, **how: ([LATE] * len(orders), 0)
    with pytest.raises(redis.TimeoutError, match="in time"):
        one.complete(owner, "e1")
    assert one.store.status().in_flight == 1


def test_the_same_text_again_is_embedded_again(worker, client):
    """A receipt is of an item, not of a text: who enqueues without if_changed wants it done."""
    one = worker("a")
    one.enqueue("e1")
    assert one.complete(one.take("e1"), "e1") == "done"
    one.enqueue("e1")
    assert one.complete(one.take("e1"), "e1") == "done"


def test_the_queues_shard_forgets_that_something_was_done(worker, client):
    """A failover has lost the acknowledgement; the write is known by its fence."""
    one = worker("a")
    stamp = one.enqueue("e1")
    owner = one.take("e1")
    latest = client.hget("{embed_queue}:latest", KEY)
    assert one.complete(owner, "e1") == "done"
    client.hset("{embed_queue}:latest", KEY, latest)
    client.zadd("{embed_queue}:pending", {encode_member(KEY, "e1"): 1.0})
    client.hset("{embed_queue}:air", KEY, f"1.0 {owner} {stamp}")
    assert one.claim().members == []
    assert one.store.status().waiting == 0


def test_a_blank_text_returns_when_no_older_vector_can_come(worker, client):
    one, two = worker("a"), worker("b")
    one.enqueue("e1")
    go_on = one.held_before_write(one.take("e1"), "e1")
    blank = in_thread(lambda: two.enqueue(""))
    eventually(lambda: not client.hexists("{embed_queue}:latest", KEY), "it is withdrawn")
    assert blank.is_alive()
    assert go_on() == "stale"
    join(blank)
    client.hdel(KEY, "embedding", "embedding_of")
    assert one.store.status().in_flight == 0


def test_a_hash_that_is_copied_to_another_key_does_not_bar_what_comes(worker, client):
    """Stamps are of one clock for all keys."""
    one = worker("a")
    one.enqueue("e1")
    assert one.complete(one.take("e1"), "e1") == "done"
    client.hset("doc:2", mapping=client.hgetall(KEY))
    one.enqueue("e2", "doc:2")
    assert one.complete(one.take("e2", key="doc:2"), "e2", "doc:2") == "done"


def test_a_clock_that_was_set_back_bars_nobody_for_long(worker, client):
    one = worker("a")
    one.enqueue("e1")
    client.hset("{embed_queue}:air", KEY, f"{time.time() + 3600:.6f} a:1/60.000: 5")
    assert one.take("e1")


def test_of_leftovers_that_are_older_than_the_hash_none_is_written(worker, client):
    """What another program has left is as old as its score says."""
    one = worker("a")
    one.enqueue("e1")
    assert one.complete(one.take("e1"), "e1") == "done"
    client.zadd("{embed_queue}:pending", {encode_member(KEY, "theirs"): 1.0})
    one.store.adoption.run(TERMS)
    assert one.complete(one.take("theirs"), "theirs") == "stale"
    assert vector(client) == stored("e1")
    assert one.store.status().in_flight == 0


def test_a_hash_that_expires_is_made_anew_or_left_alone(worker, client):
    for if_missing, word in (("create", "done"), ("skip", "skipped")):
        terms = Terms("embedding", "embedding_of", "m", 8, "m/8/-", if_missing)
        one = worker(f"w{if_missing}", terms)
        one.enqueue("e1")
        client.delete(KEY)
        assert one.complete(one.take("e1"), "e1") == word
        assert bool(client.exists(KEY)) == (word == "done")
        client.delete(KEY)


def test_a_worker_that_differs_writes_nothing(worker, client):
    """It has claimed before anybody had written anything."""
    one, two = worker("a"), worker("b", Terms("embedding", "embedding_of", "other", 8, "other/8/-", "create"))
    one.enqueue("e1")
    owner = two.take("e1")
    one.enqueue("first", "doc:2")
    assert one.complete(one.take("first", key="doc:2"), "first", "doc:2") == "done"
    assert two.complete(owner, "e1") == "differs"
    assert vector(client) is None
    assert one.store.status().in_flight == 1


def test_without_a_provenance_field_a_crash_is_settled_by_the_fence_as_well(worker, client):
    terms = Terms("embedding", None, "m", 8, "m/8/-", "create")
    one = worker("a", terms)
    one.enqueue("e1")
    owner = one.take("e1")
    stamp = client.hget("{embed_queue}:latest", KEY).split()[0].decode()
    client.hset(KEY, mapping={"embedding": stored("e1"), "embedding_stamp": f"{digest('e1')} {stamp}"})
    client.hset("{embed_queue}:air", KEY, f"1.0 {owner} {stamp}")
    client.zadd("{embed_queue}:inflight", {encode_member(KEY, "e1"): 1.0})
    assert one.claim().members == []


def test_a_receipt_is_good_when_replicas_have_the_vector(replicated: LocalCluster, monkeypatch):
    """With min_replicas. Where they are away, its text is embedded once more, and that vector waits for them."""
    with contextlib.ExitStack() as opened:
        client = opened.enter_context(contextlib.closing(replicated.client()))
        one, two = (Worker(client, name, replicas=Replicas(1, PATIENCE_SECONDS)) for name in ("a", "b"))
        for each in (one, two):
            opened.enter_context(contextlib.closing(each.store))
        die_after_the_write(one, client)
        [replica] = replicated.replicas_of(replicated.master_of(KEY))
        assert replica.pid is not None
        stand_still(replica.pid)
        try:
            with monkeypatch.context() as hasty:
                hasty.setattr(completion, "RECEIPT_SECONDS", 0.5)
                assert two.claim().members == [encode_member(KEY, "e1")]
        finally:
            os.kill(replica.pid, signal.SIGCONT)
        replicated.await_well()
        client.zadd("{embed_queue}:inflight", {encode_member(KEY, "e1"): 1.0})
        assert two.claim().members == []
        assert client.hget("{embed_queue}:latest", KEY) is None
