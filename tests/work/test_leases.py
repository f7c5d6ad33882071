"""Leases under long calls, and thousands of items in one script."""

from __future__ import annotations

import pytest

from embedqueue.values.item import Item, encode_member
from embedqueue.values.provenance import digest
from tests.inside import inside
from tests.parts import PATIENCE_SECONDS, eventually, expected, in_flight, renewed
from tests.proof.moves import Queue, terms


def test_a_call_that_takes_many_leases_is_made_once(make_queue, redis_client, embedder):
    """The lease is renewed again and again while the call runs, so that no other worker takes its items."""
    queue = make_queue(lease_seconds=6.0)
    embedder.hold()
    future = queue.enqueue("doc:1", "one")
    queue.flush_now()
    embedder.wait_for_calls(1)
    make_queue(lease_seconds=6.0, flush_interval=0.05)  # claims whatever runs out
    renewed(redis_client)
    assert redis_client.hget("embed_queue:claims", "doc:1").split()[1] == b"0", "its lease ran out"
    embedder.release()
    assert future.result(PATIENCE_SECONDS) == expected("one")
    assert embedder.sent == {"one": 1}


def test_thousands_of_leases_are_renewed(make_queue, redis_client, embedder):
    """None is left out between two pieces."""
    queue = make_queue(lease_seconds=100.0, api_batch_limit=2048, api_batch_tokens=10**9)
    embedder.hold()
    queue.enqueue_many([(f"doc:{place}", f"text {place}") for place in range(2001)])
    queue.flush_now()
    embedder.wait_for_calls(1)
    eventually(lambda: in_flight(redis_client) == 2001, "all are claimed")
    inside(queue).claim_nothing_more()  # which would take what has run out
    members = redis_client.zrange("embed_queue:inflight", 0, -1)
    redis_client.zadd("embed_queue:inflight", dict.fromkeys(members, 1), xx=True)
    assert inside(queue).renew()
    assert redis_client.zcount("embed_queue:inflight", 2, "+inf") == 2001


@pytest.mark.parametrize("limit", [None, 5000])
def test_thousands_at_once(redis_client, limit):
    """What Lua's stack cannot hold goes in pieces; no item falls between two of them."""
    queue = Queue(redis_client, "embed_queue", "embedding")
    pairs = [(f"doc:{place}", "text") for place in range(2500)]
    assert queue.enqueue(pairs, limit=limit) == [True]
    queue.check()
    assert queue.enqueue([(key, "newer") for key, _ in pairs], limit=limit) == [True]
    owner = queue.claim("w1:", 2300)
    queue.check()
    members = [member for _, member in queue.hands]
    assert len(members) == 2300
    queue.complete(owner, members[:2100])
    queue.check()
    assert queue.release(owner, members) == 200
    queue.check()
    assert queue.enqueue([(key, "") for key, _ in pairs], limit=limit) == [True]
    queue.check()
    assert not queue.model.pending
    assert not queue.model.inflight


def test_thousands_that_are_too_many_are_refused_as_a_whole(redis_client):
    """However many pieces they are counted in."""
    queue = Queue(redis_client, "embed_queue", "embedding")
    assert queue.enqueue([(f"doc:{place}", "text") for place in range(2500)], limit=2499) == [False]
    assert queue.enqueue([(f"doc:{place}", "text") for place in range(2500)], limit=2500) == [True]
    queue.check()


def test_more_leases_run_out_than_one_claim_looks_at(redis_client):
    """The next claim sees to the rest."""
    queue = Queue(redis_client, "embed_queue", "embedding")
    queue.enqueue([(f"doc:{place}", "text") for place in range(30)])
    queue.claim("w1:", 30)
    for member in list(queue.model.inflight):
        queue.lease_ends(member)
    queue.claim("w2:", 30)
    queue.check()
    assert len(queue.model.inflight) == 30


def test_a_hash_that_is_none_is_told_apart(redis_client):
    """The other items of the call are written; the refused one stays in flight until it is rejected."""
    queue = Queue(redis_client, "embed_queue", "embedding")
    queue.enqueue([("doc:0", "a"), ("doc:1", "b")])
    redis_client.set("doc:0", "no hash")
    owner = queue.claim("w1:")
    lines = [
        (f"doc:{place}", encode_member(f"doc:{place}", text), f"vec{place}".encode(), digest(text))
        for place, text in enumerate("ab")
    ]
    words = queue.store.complete(owner, terms("embedding"), lines)
    assert words[0].startswith("refused WRONGTYPE")
    assert words[1] == "done"
    assert redis_client.hget("doc:1", "embedding") == b"vec1"
    assert redis_client.zscore("embed_queue:inflight", lines[0][1]) is not None


def test_what_ends_lets_go_of_no_later_claim(make_queue):
    """Of the same text, that is enqueued again just then: its lease would run out, and it would be paid for twice."""
    settle = make_queue(start=False)._engine.settle
    before, later = (Item("doc:1", "one", encode_member("doc:1", "one"), owner) for owner in ("w:1:", "w:2:"))
    settle.hold([before])
    settle.hold([later])
    settle.let_go([before])
    assert settle.held == 1
    settle.let_go([later])
    assert settle.held == 0
