"""The cache between workers: who waits for another's text, who holds a reservation for long, who stops meanwhile."""

from __future__ import annotations

import itertools
import threading
import time

import pytest

from embedqueue import BatchFailed, InputRejected, OpenAIEmbedder, TransientError
from embedqueue.calls.cache import BUSY, PAUSED, Cache
from embedqueue.values.provenance import parts_of_space
from tests.inside import FIRST_PAUSE_SECONDS, inside
from tests.parts import (
    DIMENSIONS,
    ONE_TRY,
    PATIENCE_SECONDS,
    GatedEmbedder,
    Unlearned,
    eventually,
    expected,
    in_flight,
    renewed,
)
from tests.provider import Provider


def reservations(client) -> list[bytes]:
    return client.keys("embed_queue:cache:*")


def test_a_reservation_is_renewed_while_its_call_runs(make_queue, redis_client, embedder):
    """Otherwise a slow call's texts would be paid for by others, too."""
    queue = make_queue(cache_ttl=60, lease_seconds=6.0)
    embedder.hold()
    future = queue.enqueue("doc:1", "one")
    queue.flush_now()
    embedder.wait_for_calls(1)
    [reservation] = reservations(redis_client)
    assert redis_client.pttl(reservation) <= 6000
    renewed(redis_client)  # longer than it would last by itself
    assert redis_client.get(reservation).startswith(b"busy ")
    embedder.release()
    assert future.result(PATIENCE_SECONDS) == expected("one")
    assert redis_client.pttl(reservation) > 10_000


def test_a_reservation_holds_for_workers_whose_leases_are_shorter(redis_client, make_store):
    """How long it may last is told by its holder's name: what is longer than one's own is not of a clock set back."""
    store = make_store(redis_client)
    assert store.cache.take(["digest"], "one:1/60.000:", 60.0) == [b""]
    assert store.cache.take(["digest"], "another:1/0.600:", 0.6) == [BUSY]
    assert redis_client.get("embed_queue:cache:digest") == b"busy one:1/60.000:"


@pytest.mark.parametrize("seconds", [0.6, 0])
def test_a_renewal_that_comes_late_does_not_shorten_a_vectors_time(redis_client, make_store, seconds):
    """Between the look at what is reserved and the renewal, or the letting go, the vector may have been put there."""
    store = make_store(redis_client)
    store.cache.take(["digest"], "one:1/0.6:", 0.6)
    store.cache.put([("digest", b"a vector")], 60)
    store.cache.hold({"digest": "one:1/0.6:"}, seconds)
    assert redis_client.pttl("embed_queue:cache:digest") > 10_000
    assert redis_client.get("embed_queue:cache:digest") == b"a vector"


@pytest.mark.parametrize("seconds", [60.0, 0])
def test_who_has_lost_a_reservation_neither_renews_nor_ends_it(redis_client, make_store, seconds):
    """It stalled, and another one, or another claim of its own, is embedding the text by now."""
    store = make_store(redis_client)
    first, second = "one:1/0.1:", "one:2/10.000:"
    assert store.cache.take(["digest"], first, 0.1) == [b""]
    eventually(lambda: not reservations(redis_client), "it ends")
    assert store.cache.take(["digest"], second, 10.0) == [b""]
    store.cache.hold({"other": first, "digest": first}, seconds)
    assert redis_client.get("embed_queue:cache:digest") == f"busy {second}".encode()
    assert redis_client.pttl("embed_queue:cache:digest") <= 10_000


def test_a_reservation_whose_answer_was_lost_is_found_again(redis_client, make_store):
    """Its holder asks once more, and must not wait for itself."""
    store = make_store(redis_client)
    assert store.cache.take(["digest"], "one:1/60:", 60) == store.cache.take(["digest"], "one:1/60:", 60) == [b""]
    assert store.cache.take(["digest"], "one:2/60:", 60) == [BUSY]


@pytest.mark.parametrize("key", ["pause", "pause:level", "pause:probe"])
def test_under_a_pause_nothing_is_reserved(redis_client, make_store, key):
    """What is known is found, and what somebody embeds is waited for; one more text is for nobody but the probe."""
    store = make_store(redis_client)
    store.cache.take(["busy", "mine"], "one:1/60:", 60)
    store.cache.take(["mine"], "two:1/60:", 60)
    store.cache.put([("known", b"a vector")], 60)
    redis_client.delete("embed_queue:cache:mine")
    redis_client.set(f"embed_queue:{key}", "three:1/60:", px=10_000)
    digests = ["known", "busy", "missing", "mine"]
    assert store.cache.take(digests, "two:1/60:", 60) == [b"a vector", BUSY, PAUSED, PAUSED]
    assert len(reservations(redis_client)) == 2
    redis_client.set("embed_queue:pause:probe", "three:1/60:", px=10_000)
    assert store.cache.take(digests, "three:1/60:", 60) == [b"a vector", BUSY, b"", b""]


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


def test_what_waits_for_others_is_not_looked_at_again_after_a_stop(redis_client, make_store):
    """The thread that waits ends by itself."""
    stopping, again = threading.Event(), threading.Event()
    cache = Cache(
        make_store(redis_client),
        ttl_seconds=60,
        hold_seconds=60,
        kind=lambda: "",
        name="embedqueue-cache-test",
        stopping=stopping,
        persist=lambda write: write(),
    )
    for _ in range(2):  # the second one waits in the same thread
        cache.later(9, again.set)
    stopping.set()
    eventually(lambda: not any(thread.name == "embedqueue-cache-test" for thread in threading.enumerate()), "it ends")
    assert not again.is_set()


def waiting_for_another(make_queue, redis_client, embedder, **options):
    """A queue whose item has the text of another queue's call, which is under way; that one's future and its own."""
    first = make_queue(cache_ttl=60, max_concurrency=1, retry=ONE_TRY)
    embedder.hold()
    theirs = first.enqueue("doc:1", "same")
    first.flush_now()
    embedder.wait_for_calls(1)
    second = make_queue(embedder=GatedEmbedder(), cache_ttl=60, max_concurrency=1, **options)
    ours = second.enqueue("doc:2", "same")
    second.flush_now()
    eventually(lambda: in_flight(redis_client) == 2, "claimed by the second")
    eventually(lambda: inside(second).calls == 0, "it has looked")
    return second, theirs, ours


def test_a_text_of_another_worker_keeps_no_place_among_the_calls(make_queue, redis_client, embedder):
    """There is one place, and another text goes through it, while the first still waits."""
    second, theirs, ours = waiting_for_another(make_queue, redis_client, embedder)
    assert second.enqueue("doc:3", "three").result(PATIENCE_SECONDS) == expected("three")
    joined = second.enqueue("doc:4", "same")
    second.flush_now()
    eventually(lambda: in_flight(redis_client) == 3, "claimed, too")
    assert not (theirs.done() or ours.done() or joined.done())
    embedder.release()
    assert ours.result(PATIENCE_SECONDS) == joined.result(PATIENCE_SECONDS) == expected("same")
    assert dict(inside(second).embedder.sent) == {"three": 1}


def test_a_text_of_another_worker_is_looked_at_more_and_more_rarely(make_queue, redis_client, embedder, monkeypatch):
    monkeypatch.setattr("embedqueue.calls.cache.LOOK_SECONDS", (0.05, 0.4))
    second, _, ours = waiting_for_another(make_queue, redis_client, embedder)
    looks, take = [], inside(second).store.cache.take

    def noted(*args):
        looks.append(time.monotonic())
        return take(*args)

    monkeypatch.setattr(inside(second).store.cache, "take", noted)
    eventually(lambda: len(looks) >= 6, "looks")
    waits = [later - earlier for earlier, later in itertools.pairwise(looks)]
    assert all(wait >= 0.4 for wait in waits[4:]), waits
    embedder.release()
    assert ours.result(PATIENCE_SECONDS) == expected("same")


def test_a_text_whose_other_worker_failed_waits_again_under_the_pause(make_queue, redis_client, embedder):
    """The second process does not send what the first one could not get; the pause is for all."""
    second, theirs, ours = waiting_for_another(make_queue, redis_client, embedder, flush_on_wait=False)
    redis_client.set("embed_queue:pause", "by hand")
    embedder.rule = lambda texts: TransientError("down")
    embedder.release()
    assert isinstance(theirs.exception(PATIENCE_SECONDS), BatchFailed)
    eventually(lambda: redis_client.zcard("embed_queue:pending") == 2, "both wait again")
    eventually(lambda: inside(second).held == 0, "the second process has let go")
    assert inside(second).embedder.calls == []
    assert reservations(redis_client) == []
    embedder.rule = None  # whichever of the two takes it
    redis_client.delete(*redis_client.keys("embed_queue:pause*"))
    inside(second).refresh()
    second.flush(PATIENCE_SECONDS)
    assert ours.result(PATIENCE_SECONDS) == expected("same")


def test_a_text_of_another_worker_waits_again_where_no_thread_can_wait(make_queue, redis_client, embedder, monkeypatch):
    """Its item is released, and its lease does not run out."""
    monkeypatch.setattr(*FIRST_PAUSE_SECONDS, 5.0)  # no second try fails before the threads are there again
    start = threading.Thread.start

    def none_for_the_cache(thread):
        if "embedqueue-cache" in thread.name:
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", none_for_the_cache)
        first = make_queue(cache_ttl=60)
        embedder.hold()
        theirs = first.enqueue("doc:1", "same")
        first.flush_now()
        embedder.wait_for_calls(1)
        second = make_queue(embedder=GatedEmbedder(), cache_ttl=60)
        ours = second.enqueue("doc:2", "same")
        with pytest.raises(BatchFailed, match="can't start new thread"):
            ours.result(PATIENCE_SECONDS)
    embedder.release()
    assert theirs.result(PATIENCE_SECONDS) == expected("same")
    eventually(lambda: redis_client.hexists("doc:2", "embedding"), "when the pause is over")
    assert inside(second).embedder.calls == []


def test_a_claim_is_kept_while_its_text_is_another_workers(make_queue, redis_client, embedder):
    """It has no reservation of its own to renew, and its lease is renewed all the same."""
    first = make_queue(cache_ttl=60, lease_seconds=6.0, max_concurrency=1)
    embedder.hold()
    first.enqueue("doc:1", "same")
    first.flush_now()
    embedder.wait_for_calls(1)
    second = make_queue(embedder=GatedEmbedder(), cache_ttl=60, lease_seconds=6.0)
    future = second.enqueue("doc:2", "same")
    second.flush_now()
    eventually(lambda: in_flight(redis_client) == 2, "claimed by the second")
    [claimed] = [member for member in redis_client.zrange("embed_queue:inflight", 0, -1) if b"doc:2" in member]
    ends = redis_client.zscore("embed_queue:inflight", claimed)
    eventually(lambda: redis_client.zscore("embed_queue:inflight", claimed) > ends + 3.0, "renewed twice")
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
    """Without a call of its own."""
    second, _, ours = waiting_for_another(make_queue, redis_client, embedder)
    embedder.release()
    assert ours.result(PATIENCE_SECONDS) == expected("same")
    assert inside(second).embedder.calls == []


@pytest.mark.parametrize("other", [{"body": {"user": "another"}}, {"base_url": "the other"}])
def test_what_decides_a_vector_beside_its_text_has_entries_of_its_own(make_queue, redis_client, provider, other):
    """Another server's vector, or one that was made for another purpose, is not taken for this one's."""
    with Provider() as elsewhere:
        urls = {"base_url": elsewhere.openai_url} if "base_url" in other else other
        for given, told in (({}, provider), (urls, elsewhere if "base_url" in other else provider)):
            embedder = OpenAIEmbedder("test-key", **{"base_url": provider.openai_url, "dimensions": 8, **given})
            for place in (1, 2):  # the second time it is the cache's
                queue = make_queue(embedder=embedder, cache_ttl=60)
                queue.enqueue(f"doc:{place}", "text").result(PATIENCE_SECONDS)
                queue.stop()
        assert [len(one.calls) for one in (provider, elsewhere)] == ([1, 1] if "base_url" in other else [2, 0])


def test_what_an_embedder_was_sent_before_it_knew_its_length_is_found_afterwards(make_queue):
    """By the same process, and by one that has yet to learn it."""
    for process in range(2):
        embedder = Unlearned(DIMENSIONS)
        queue = make_queue(embedder=embedder, cache_ttl=60)
        for key in range(2):
            assert queue.enqueue(f"doc:{process}:{key}", "one").result(PATIENCE_SECONDS) == expected("one")
        assert embedder.texts.count("one") == (process == 0)
        queue.stop()


def test_what_the_cache_has_says_of_what_length_it_is_where_the_embedder_knows_none(make_queue, redis_client):
    """The line beside the vector is true, and a sink's row, and whoever waits in another process gets the vector."""

    class Rows(list):
        write = list.extend

    first, rows = make_queue(embedder=Unlearned(DIMENSIONS), cache_ttl=60), Rows()
    first.enqueue("doc:0", "one").result(PATIENCE_SECONDS)
    first.stop()
    producer = make_queue(embedder=Unlearned(DIMENSIONS), worker=False)
    make_queue(embedder=Unlearned(DIMENSIONS), cache_ttl=60, sink=rows)
    assert producer.enqueue("doc:1", "one").result(PATIENCE_SECONDS) == expected("one")
    lines = [redis_client.hget(key, "embedding_of").decode() for key in ("doc:0", "doc:1")]
    spaces = [parts_of_space(space) for space in (lines[0].split()[0], lines[1].split()[0], rows[0].space)]
    assert [space.dimensions for space in spaces] == [str(DIMENSIONS)] * 3
