"""``forget()``: of a document that is deleted, nothing is left, whoever holds it."""

from __future__ import annotations

import pytest
import redis

from embedqueue import InputRejected, ItemRejected
from embedqueue.testing import eager_queue
from embedqueue.values.item import encode_member
from tests.inside import Copies, inside
from tests.parts import PATIENCE_SECONDS, expected, start_held


def test_what_waits_is_gone(make_queue, redis_client):
    queue = make_queue(start=False)
    future = queue.enqueue("doc:1", "text")
    queue.forget("doc:1")
    with pytest.raises(ItemRejected, match="doc:1: forget"):
        future.result(PATIENCE_SECONDS)
    assert queue.pending_count() == 0
    assert redis_client.hlen("embed_queue:latest") == 0


def test_a_call_under_way_writes_nothing(make_queue, embedder, redis_client):
    queue = start_held(make_queue, embedder, ["text"])
    queue.forget("doc:0", vector=True)
    embedder.release()
    embedder.wait_for_return()
    queue.flush(PATIENCE_SECONDS)
    assert not redis_client.exists("doc:0")
    assert not redis_client.zcard("embed_queue:inflight")


def test_who_waits_elsewhere_is_told(make_queue, redis_client):
    waiting, other = make_queue(worker=False), make_queue(start=False)
    future = waiting.enqueue("doc:1", "text")
    other.forget("doc:1")
    with pytest.raises(ItemRejected, match="forget"):
        future.result(PATIENCE_SECONDS)


def test_who_has_missed_the_notice_finds_out(make_queue, redis_client):
    queue = make_queue(start=False)
    future = queue.enqueue("doc:1", "text")
    make_queue(start=False).forget("doc:1")
    queue._engine.outcomes.find_out(["doc:1"])
    with pytest.raises(ItemRejected, match="forget"):
        future.result(0)


def test_who_looks_after_those_who_wait_may_come_at_any_moment(make_queue, monkeypatch):
    """When it is known here that the key is forgotten, and nobody was told yet."""
    queue = make_queue(start=False)
    future, other = queue.enqueue("doc:1", "text"), queue.enqueue("doc:2", "text")
    make_queue(start=False).forget("doc:2")
    commit = inside(queue).waiters.commit

    def look_in_between(entries, stamp):
        heard = commit(entries, stamp)
        inside(queue).outcomes.find_out(None)
        return heard

    monkeypatch.setattr(inside(queue).waiters, "commit", look_in_between)
    queue.forget("doc:1")
    for one in (future, other):
        with pytest.raises(ItemRejected, match="forget"):
            one.result(0)


def test_the_vector_stays_or_goes(make_queue, redis_client):
    queue = make_queue(max_batch_size=1)
    redis_client.hset("doc:1", "title", "A")
    queue.enqueue("doc:1", "text").result(PATIENCE_SECONDS)
    queue.forget("doc:1")
    assert set(redis_client.hgetall("doc:1")) == {b"title", b"embedding", b"embedding_of"}
    queue.forget("doc:1", vector=True)
    assert redis_client.hgetall("doc:1") == {b"title": b"A"}


@pytest.mark.parametrize("field", ["embedding_of", None])
def test_a_vector_that_is_newer_stays(make_queue, redis_client, monkeypatch, field):
    """Somebody enqueues the key anew between the two steps, and its vector is quicker; without provenance: waits."""
    queue = make_queue(max_batch_size=1, provenance_field=field)
    queue.enqueue("doc:1", "old").result(PATIENCE_SECONDS)
    erase = queue._engine.store.hashes.erase

    def late(redis_key, terms, stamp):
        if field:
            queue.enqueue("doc:1", "new").result(PATIENCE_SECONDS)
        else:
            queue.stop()
            make_queue(start=False, provenance_field=None).enqueue("doc:1", "new")
        return erase(redis_key, terms, stamp)

    monkeypatch.setattr(queue._engine.store.hashes, "erase", late)
    queue.forget("doc:1", vector=True)
    assert redis_client.hexists("doc:1", "embedding")


def test_a_removal_that_comes_late_takes_no_vector_that_is_wanted_again(make_queue, redis_client, monkeypatch):
    """The network holds it; whoever forgets gives up, and then somebody finds that the hash has what he wants."""
    queue = make_queue(max_batch_size=1)
    queue.enqueue("doc:1", "text").result(PATIENCE_SECONDS)
    copies = Copies(inside(queue).store)
    monkeypatch.setattr(inside(queue).store.hashes, "_patience_seconds", 0.0)
    erase, sent = inside(queue).store.hashes.erase, []

    def held(*args):
        copies.lost = True
        sent.append(len(copies.sent))
        try:
            erase(*args)
        finally:
            copies.lost = False

    monkeypatch.setattr(inside(queue).store.hashes, "erase", held)
    with pytest.raises(redis.TimeoutError):
        queue.forget("doc:1", vector=True)
    assert queue.enqueue("doc:1", "text", if_changed=True).done()
    copies.arrive(sent[0])
    assert redis_client.hexists("doc:1", "embedding")


def test_a_dead_letter_is_gone(make_queue, embedder):
    embedder.rule = lambda texts: InputRejected("bad") if "bad" in texts else None
    queue = make_queue(max_batch_size=1)
    with pytest.raises(ItemRejected):
        queue.enqueue("doc:1", "bad").result(PATIENCE_SECONDS)
    queue.forget("doc:1")
    assert (queue.dead_letters(), queue.stats().dead) == ([], 0)


def test_what_another_program_left_is_gone_too(make_queue, redis_client):
    queue = make_queue(start=False)
    redis_client.zadd("embed_queue:pending", {b'{"redis_key": "doc:1", "text": "theirs"}': 1, b"no JSON": 1})
    queue.forget("doc:1")
    assert queue.pending_count() == 0
    assert [letter.text for letter in queue.dead_letters()] == ["no JSON"]


def test_flush_does_not_wait_for_it(make_queue, embedder):
    queue = start_held(make_queue, embedder, ["text"])
    queue.forget("doc:0")
    queue.flush(PATIENCE_SECONDS)


def test_the_key_may_be_enqueued_again(make_queue, redis_client):
    queue = make_queue(max_batch_size=1)
    queue.enqueue("doc:1", "text").result(PATIENCE_SECONDS)
    queue.forget("doc:1", vector=True)
    assert queue.enqueue("doc:1", "text").result(PATIENCE_SECONDS) == expected("text")


def test_nothing_to_forget_is_nothing_to_do(make_queue, redis_client):
    queue = make_queue(start=False)
    queue.forget("doc:1", vector=True)
    assert queue.stats().enqueued == 0
    assert not redis_client.exists("doc:1")


@pytest.mark.parametrize(("key", "error"), [(7, TypeError), ("", ValueError), ("embed_queue:latest", ValueError)])
def test_no_possible_key(make_queue, key, error):
    with pytest.raises(error):
        make_queue(start=False).forget(key)


def test_eager():
    queue = eager_queue()
    queue.enqueue("doc:1", "text")
    queue.forget("doc:1", vector=True)
    assert not queue.redis.exists("doc:1")


def test_the_vector_of_that_very_item_stays(make_queue, redis_client):
    """Only what is older than the stamp goes; and who asks is told whether anything went."""
    queue = make_queue(max_batch_size=1)
    queue.enqueue("doc:1", "text").result(PATIENCE_SECONDS)
    stamp = int(redis_client.hget("doc:1", "embedding_of").split()[2])
    hashes, terms = queue._engine.store.hashes, queue._engine.terms()
    assert not hashes.erase("doc:1", terms, stamp)
    assert redis_client.hexists("doc:1", "embedding")
    assert hashes.erase("doc:1", terms, stamp + 1)
    assert not redis_client.exists("doc:1")
    assert not hashes.erase("doc:1", terms, stamp + 1)


def test_more_is_taken_out_than_put_in_by_another_program(make_queue, redis_client, embedder):
    """Its text of the key is found all the same."""
    queue = make_queue(start=False)
    queue.enqueue_many([("a", "one"), ("b", "two")])
    redis_client.zpopmin("embed_queue:pending", 2)
    redis_client.zadd("embed_queue:pending", {encode_member("doc:1", "secret"): 1})
    queue.forget("doc:1", vector=True)
    queue.start().flush(PATIENCE_SECONDS)
    assert not redis_client.exists("doc:1")
    assert not embedder.sent["secret"]
