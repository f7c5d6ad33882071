"""The cache between workers: who waits for another's text, who holds a reservation for long, who stops meanwhile."""

from __future__ import annotations

import threading

import pytest

from embedqueue import InputRejected
from embedqueue.calls.cache import BUSY, Cache
from embedqueue.calls.failures import Stopping
from embedqueue.store.store import Store
from tests.parts import PATIENCE_SECONDS, GatedEmbedder, eventually, expected, in_flight


def reservations(client) -> list[bytes]:
    return client.keys("embed_queue:cache:*")


def test_a_reservation_is_renewed_while_its_call_runs(make_queue, redis_client, embedder):
    """Otherwise a slow call's texts would be paid for by others, too."""
    queue = make_queue(cache_ttl=60, lease_seconds=0.6)
    embedder.hold()
    future = queue.enqueue("doc:1", "one")
    queue.flush_now()
    embedder.wait_for_calls(1)
    [reservation] = reservations(redis_client)
    assert redis_client.pttl(reservation) <= 600
    threading.Event().wait(1.0)  # longer than it would last by itself
    assert redis_client.get(reservation).startswith(b"busy ")
    embedder.release()
    assert future.result(PATIENCE_SECONDS) == expected("one")
    assert redis_client.pttl(reservation) > 10_000


def test_a_reservation_holds_for_workers_whose_leases_are_shorter(redis_client):
    """How long it may last is told by its holder's name: what is longer than one's own is not of a clock set back."""
    store = Store(redis_client, "embed_queue")
    assert store.cache.take(["digest"], "one:1/60.000:", 60.0) == [b""]
    assert store.cache.take(["digest"], "another:1/0.600:", 0.6) == [BUSY]
    assert redis_client.get("embed_queue:cache:digest") == b"busy one:1/60.000:"
    store.close()


@pytest.mark.parametrize("seconds", [0.6, 0])
def test_a_renewal_that_comes_late_does_not_shorten_a_vectors_time(redis_client, seconds):
    """Between the look at what is reserved and the renewal, or the letting go, the vector may have been put there."""
    store = Store(redis_client, "embed_queue")
    store.cache.take(["digest"], "one:1/0.6:", 0.6)
    store.cache.put([("digest", b"a vector")], 60)
    store.cache.hold(["digest"], seconds)
    assert redis_client.pttl("embed_queue:cache:digest") > 10_000
    assert redis_client.get("embed_queue:cache:digest") == b"a vector"
    store.close()


def test_stop_does_not_wait_for_another_workers_text(make_queue, redis_client, embedder):
    """What waits for the text of a call elsewhere goes back; the other's goes on."""
    first = make_queue(cache_ttl=60, max_concurrency=1)
    embedder.hold()
    slow = first.enqueue("doc:1", "same")
    first.flush_now()
    embedder.wait_for_calls(1)
    own = GatedEmbedder()
    second = make_queue(embedder=own, cache_ttl=60)
    second.enqueue("doc:2", "same")
    second.flush_now()
    eventually(lambda: in_flight(redis_client) == 2, "claimed by the second")
    second.stop(timeout=0.2)
    assert redis_client.zcard("embed_queue:pending") == 1
    assert own.calls == []
    embedder.release()
    assert slow.result(PATIENCE_SECONDS) == expected("same")
    first.flush(PATIENCE_SECONDS)
    assert embedder.sent["same"] == 1, "the second item's vector is in the cache by then"


def test_who_waits_for_another_workers_text_sees_the_stop(redis_client):
    """Whenever it comes: here between the look at the text, which somebody is embedding, and the next one."""
    store = Store(redis_client, "embed_queue")
    stopping = threading.Event()
    cache = Cache(
        store, ttl_seconds=60, hold_seconds=60, kind=lambda: "", stopping=stopping, persist=lambda write: write()
    )

    def embed(texts, keep):
        stopping.set()
        cache.serve(texts, "another:1/60:", deliver=lambda *_: None, embed=lambda *_: None)

    with pytest.raises(Stopping):
        cache.serve(["same"], "one:1/60:", deliver=lambda *_: None, embed=embed)
    assert reservations(redis_client) == []
    store.close()


def test_a_claim_is_kept_while_its_text_is_another_workers(make_queue, redis_client, embedder):
    """It has no reservation of its own to renew, and its lease is renewed all the same."""
    first = make_queue(cache_ttl=60, lease_seconds=0.6, max_concurrency=1)
    embedder.hold()
    first.enqueue("doc:1", "same")
    first.flush_now()
    embedder.wait_for_calls(1)
    second = make_queue(embedder=GatedEmbedder(), cache_ttl=60, lease_seconds=0.6)
    future = second.enqueue("doc:2", "same")
    second.flush_now()
    eventually(lambda: in_flight(redis_client) == 2, "claimed by the second")
    [claimed] = [member for member in redis_client.zrange("embed_queue:inflight", 0, -1) if b"doc:2" in member]
    ends = redis_client.zscore("embed_queue:inflight", claimed)
    eventually(lambda: redis_client.zscore("embed_queue:inflight", claimed) > ends + 0.6, "renewed twice")
    embedder.release()
    assert future.result(PATIENCE_SECONDS) == expected("same")


def test_a_text_that_is_refused_leaves_no_reservation(make_queue, redis_client, embedder):
    """The next one with that text need not wait for the reservation to end."""
    queue = make_queue(cache_ttl=60)
    embedder.rule = lambda texts: InputRejected("no") if "bad" in texts else None
    queue.enqueue("doc:0", "good").result(PATIENCE_SECONDS)
    assert queue.enqueue("doc:1", "bad").exception(PATIENCE_SECONDS)
    eventually(lambda: len(reservations(redis_client)) == 1, "the bad text's is let go")


def test_a_probe_that_the_cache_serves_lets_the_next_one_probe(make_queue, redis_client, embedder):
    """No call was made, so nothing is known of the provider."""
    queue = make_queue(cache_ttl=60)
    queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS)
    redis_client.set("embed_queue:pause:level", 1)
    assert queue.enqueue("doc:2", "one").result(PATIENCE_SECONDS) == expected("one")
    eventually(lambda: redis_client.get("embed_queue:pause:probe") is None, "the probe is let go")
    assert redis_client.exists("embed_queue:pause:level")
    assert embedder.sent == {"one": 1}
    queue.enqueue("doc:3", "three").result(PATIENCE_SECONDS)
    assert not redis_client.exists("embed_queue:pause:level")


def test_who_waits_for_another_workers_text_gets_it_when_it_is_there(make_queue, redis_client, embedder):
    """At once, and without a call of its own."""
    first = make_queue(cache_ttl=60, max_concurrency=1)
    embedder.hold()
    first.enqueue("doc:1", "same")
    first.flush_now()
    embedder.wait_for_calls(1)
    own = GatedEmbedder()
    second = make_queue(embedder=own, cache_ttl=60)
    waiting = second.enqueue("doc:2", "same")
    second.flush_now()
    eventually(lambda: in_flight(redis_client) == 2, "claimed by the second")
    embedder.release()
    assert waiting.result(PATIENCE_SECONDS) == expected("same")
    assert own.calls == []
