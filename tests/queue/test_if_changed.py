"""``if_changed=True``: a text that its hash has the vector of already is not paid for."""

from __future__ import annotations

import pytest
import redis

from embedqueue import QueueFull, TransientError
from embedqueue.store.records import Unless
from embedqueue.testing import eager_queue
from embedqueue.values.item import encode_member
from embedqueue.values.provenance import digest
from tests.inside import inside
from tests.parts import DIMENSIONS, PATIENCE_SECONDS, Unlearned, expected, stored


@pytest.fixture
def queue(make_queue):
    """A queue that works, and whose ``doc:1`` has the vector of ``"one"``."""
    queue = make_queue(max_batch_size=1)
    queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS)
    return queue


def test_a_text_that_has_its_vector_is_not_sent(queue, embedder, redis_client):
    before = redis_client.hgetall("doc:1")
    future = queue.enqueue("doc:1", "one", if_changed=True)
    assert future.done()
    assert future.result(0) == expected("one")
    assert (queue.pending_count(), embedder.texts, queue.stats().enqueued) == (0, ["one"], 1)
    assert redis_client.hgetall("doc:1") == before


def test_it_takes_one_round_trip(queue, make_queue, monkeypatch):
    queue.stop()
    queue, sent = make_queue(start=False), []
    queue.enqueue("doc:1", "one", if_changed=True)  # the first one on a connection learns the server's time
    send = queue._engine.store._scripts._run
    monkeypatch.setattr(
        queue._engine.store._scripts, "_run", lambda *args, **more: sent.append(args[1]) or send(*args, **more)
    )
    monkeypatch.setattr(queue._engine.store.hashes, "vectors", None)
    queue.enqueue("doc:1", "one", if_changed=True).result(0)
    assert sent == ["enqueue_more"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("embedding_of", "gemini-embedding-001/8/- 0123456789abcdef 1"),  # of another text
        ("embedding_of", None),
        ("embedding_of", "other/8/- {digest} 1"),
        ("embedding_of", "not what we write"),
        ("embedding", b"short"),
        ("embedding", None),
    ],
)
def test_any_other_vector_is_replaced(queue, make_queue, embedder, redis_client, field, value):
    """By another queue: for a moment, the first still has the vector of its last text at hand."""
    queue.stop()
    queue = make_queue()
    line = redis_client.hget("doc:1", "embedding_of").decode()
    if value is None:
        redis_client.hdel("doc:1", field)
    else:
        redis_client.hset("doc:1", field, value if isinstance(value, bytes) else value.format(digest=line.split()[1]))
    assert queue.enqueue("doc:1", "one", if_changed=True).result(PATIENCE_SECONDS) == expected("one")
    assert embedder.texts == ["one", "one"]
    assert redis_client.hget("doc:1", "embedding") == stored("one")
    assert redis_client.hget("doc:1", "embedding_of").decode().split()[:2] == line.split()[:2]


def test_a_new_text_is_sent(queue, embedder):
    assert queue.enqueue("doc:1", "two", if_changed=True).result(PATIENCE_SECONDS) == expected("two")
    assert embedder.texts == ["one", "two"]


def test_what_waits_is_newer(make_queue, queue, embedder, redis_client):
    """The old text again, beside a newer one that waits: the hash must not end with the newer one's vector."""
    queue.stop()
    other = make_queue(start=False)
    newer = other.enqueue("doc:1", "two")
    again = other.enqueue("doc:1", "one", if_changed=True)
    assert other.pending_count() == 1
    other.start()
    assert newer.result(PATIENCE_SECONDS) == again.result(PATIENCE_SECONDS) == expected("one")
    assert embedder.texts == ["one", "one"]


def test_what_another_program_left_may_be_newer(queue, make_queue, redis_client):
    queue.stop()
    other = make_queue(start=False)
    redis_client.zadd("embed_queue:pending", {b'{"redis_key": "doc:1", "text": "two"}': 1})
    assert not other.enqueue("doc:1", "one", if_changed=True).done()


def test_an_item_that_another_program_took_away_is_none(make_queue, queue, redis_client):
    queue.stop()
    other = make_queue(start=False)
    other.enqueue("doc:1", "two")
    redis_client.delete("embed_queue:pending")
    other.enqueue("doc:1", "one", if_changed=True)
    assert other.enqueue("doc:1", "one", if_changed=True).result(PATIENCE_SECONDS) == expected("one")


def test_an_older_dead_letter_is_gone(queue, embedder, redis_client):
    def rule(texts):
        from embedqueue import InputRejected

        return InputRejected("bad") if "bad" in texts else None

    embedder.rule = rule
    with pytest.raises(Exception, match="bad"):
        queue.enqueue("doc:1", "bad").result(PATIENCE_SECONDS)
    assert len(queue.dead_letters()) == 1
    assert queue.enqueue("doc:1", "one", if_changed=True).result(0) == expected("one")
    assert queue.dead_letters() == []


def test_many_at_once(queue, embedder, redis_client):
    """Few have their vectors returned with the answer, many read them afterwards; in any case each has its own."""
    pairs = [(f"doc:{place}", f"text {place}") for place in range(600)]
    for future in queue.enqueue_many(pairs):
        future.result(PATIENCE_SECONDS)
    embedder.texts.clear()
    pairs[5] = ("doc:5", "new")
    pairs[7] = ("doc:7", " ")
    futures = queue.enqueue_many(pairs, if_changed=True)
    assert sum(future.done() for future in futures) >= 599
    for future, (_, text) in zip(futures, pairs, strict=True):
        assert future.result(PATIENCE_SECONDS) == (expected(text) if text.strip() else [0.0] * 8)
    assert embedder.texts == ["new"]


def test_a_vector_that_goes_meanwhile_leaves_nobody_waiting(queue, make_queue, redis_client, monkeypatch):
    pairs = [(f"doc:{place}", "same") for place in range(60)]
    for future in queue.enqueue_many(pairs):
        future.result(PATIENCE_SECONDS)
    other = make_queue(start=False)  # which hears no late notice of the first vectors, and asks for nothing by that
    read = other._engine.store.hashes.vectors

    def late(redis_keys, terms):
        redis_client.delete("doc:3")
        return read(redis_keys, terms)

    monkeypatch.setattr(other._engine.store.hashes, "vectors", late)
    futures = other.enqueue_many(pairs, if_changed=True)
    with pytest.raises(Exception, match="doc:3"):
        futures[3].result(PATIENCE_SECONDS)
    assert futures[4].result(0) == expected("same")


def test_of_several_texts_of_a_key_the_last_counts(queue, embedder):
    first, last = queue.enqueue_many([("doc:1", "two"), ("doc:1", "one")], if_changed=True)
    assert first.result(PATIENCE_SECONDS) == last.result(PATIENCE_SECONDS) == expected("one")
    assert embedder.texts == ["one"]


def test_a_full_queue_takes_what_is_there_already(queue, make_queue):
    queue.stop()
    full = make_queue(start=False, max_pending=1)
    full.enqueue("doc:2", "two")
    assert full.enqueue("doc:1", "one", if_changed=True).result(0) == expected("one")
    with pytest.raises(QueueFull):
        full.enqueue("doc:1", "other", if_changed=True)
    assert full.pending_count() == 1


def test_a_process_of_another_model_queues_it(queue, make_queue, redis_client):
    """The workers decide what becomes of it: the vector that is there is not the caller's."""
    queue.stop()
    other = make_queue(start=False, model="other")
    assert not other.enqueue("doc:1", "one", if_changed=True).done()


def test_a_process_of_another_provenance_field_queues_it(queue, make_queue, redis_client):
    """What its field says is of a vector that has been replaced since."""
    queue.stop()
    redis_client.hset("doc:1", "old_of", redis_client.hget("doc:1", "embedding_of"))
    make_queue(max_batch_size=1).enqueue("doc:1", "two").result(PATIENCE_SECONDS)
    assert not make_queue(start=False, provenance_field="old_of").enqueue("doc:1", "one", if_changed=True).done()


def test_a_hash_of_another_type_is_told_of_as_ever(queue, redis_client):
    redis_client.set("text:1", "no hash")
    with pytest.raises(Exception, match="WRONGTYPE"):
        queue.enqueue("text:1", "one", if_changed=True).result(PATIENCE_SECONDS)


def test_without_provenance_it_cannot_be_known(make_queue, redis_client):
    queue = make_queue(start=False, provenance_field=None)
    with pytest.raises(ValueError, match="provenance_field"):
        queue.enqueue("doc:1", "one", if_changed=True)
    with pytest.raises(ValueError, match="provenance_field"):
        queue.enqueue_many([("doc:1", "one")], if_changed=True)
    assert queue.pending_count() == 0


def test_bytes_or_text_for_replies(queue, make_queue, redis_server):
    """A client that decodes replies gets its vector all the same."""
    client = redis.Redis.from_url(redis_server.url, decode_responses=True, protocol=3)
    other = make_queue(client, start=False)
    assert other.enqueue("doc:1", "one", if_changed=True).result(0) == expected("one")


def test_eager():
    queue = eager_queue()
    queue.enqueue("doc:1", "one")
    queue.enqueue("doc:1", "one", if_changed=True)
    assert queue._embedder.texts == ["one"]


def test_who_asks_again_is_told_the_same(queue, make_queue):
    """The answer was lost, and the same command is sent again: it takes nothing in, and tells how it stands by now."""
    queue.enqueue("doc:2", "two").result(PATIENCE_SECONDS)
    queue.stop()
    engine = make_queue(start=False)._engine
    store, texts = engine.store, {"doc:1": "one", "doc:3": "new", "doc:2": "two", "doc:4": "newer"}
    pairs = [part for key, text in texts.items() for part in (key.encode(), encode_member(key, text))]
    unless = Unless(engine.terms(), 4 * DIMENSIONS, [digest(text) for text in texts.values()])

    def send():
        return store.enqueue([pairs], max_pending=None, tell_at=50, tell_first=True, unless=unless)

    first = send()
    store._scripts._senders[-1].number -= 1
    again = send()
    assert list(again.left_out) == list(first.left_out) == [stored("one"), None, stored("two"), None]
    assert (again.stamp, again.waiting) == (first.stamp, first.waiting)
    with make_queue() as working:
        working.flush(PATIENCE_SECONDS)
    store._scripts._senders[-1].number -= 1
    assert list(send().left_out) == [stored(text) for text in texts.values()]


def test_where_the_length_of_vectors_is_yet_to_be_learned(queue, make_queue):
    """A new process learns it first: what has its vector is not sent again."""
    queue.stop()
    unlearned = Unlearned(DIMENSIONS)
    other = make_queue(embedder=unlearned, max_batch_size=1)
    assert other.enqueue("doc:1", "one", if_changed=True).result(0) == expected("one")
    assert "one" not in unlearned.texts


def test_who_has_yet_to_learn_the_length_asks_no_provider(make_queue, redis_client):
    """It may be down, or this process may only enqueue: the namespace knows the length, or the text is taken in."""
    embedder = Unlearned(DIMENSIONS)
    embedder.rule = lambda texts: TransientError("down")
    producer = make_queue(embedder=embedder, worker=False)
    producer.enqueue("doc:1", "one", if_changed=True)
    assert producer.pending_count() == 1
    make_queue().flush(PATIENCE_SECONDS)
    assert producer.enqueue("doc:1", "one", if_changed=True).result(PATIENCE_SECONDS) == expected("one")
    assert producer.enqueue_many([(f"doc:{i}", "one") for i in range(1, 3)], if_changed=True)[0].done()
    assert producer.pending_count() <= 1
    assert embedder.calls == []


def test_somebody_looks_after_futures_before_those_left_out_have_ended(queue, make_queue, monkeypatch):
    """In a process that has yet to learn the length: the vector is known to be of the text all the same."""
    queue.stop()
    producer = make_queue(embedder=Unlearned(DIMENSIONS), worker=False)
    end, outcomes = inside(producer).intake._end_left_out, inside(producer).outcomes
    monkeypatch.setattr(inside(producer).intake, "_end_left_out", lambda commit: (outcomes.find_out(None), end(commit)))
    assert producer.enqueue("doc:1", "one", if_changed=True).result(0) == expected("one")
