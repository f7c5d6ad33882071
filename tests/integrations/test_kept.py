"""Vectors of mere texts, through the queue. No other library is needed."""

from __future__ import annotations

import pytest

from embedqueue.integrations.kept import KeptVectors
from embedqueue.settings.application import DEFAULT
from embedqueue.settings.front import Front
from embedqueue.testing import FakeEmbedder, eager_queue
from embedqueue.values.errors import QueueStopped
from tests.parts import PATIENCE_SECONDS

TEXTS = ["one", " ", "two", "one"]


@pytest.fixture
def fake() -> FakeEmbedder:
    return FakeEmbedder(4)


@pytest.mark.parametrize("options", [{}, {"if_missing": "skip"}, {"provenance_field": None}])
def test_texts_become_vectors_in_hashes_that_expire(fake, options):
    """In order, each text once, zeros for a blank one, whatever the options of the queue; nothing stays for ever."""
    queue = eager_queue(fake, **options)
    vectors = KeptVectors(queue, "test", "kept:", 60, PATIENCE_SECONDS)(TEXTS)
    expected = [fake.vector_of(text).tolist() for text in TEXTS]
    assert vectors == [expected[0], [0.0] * 4, expected[2], expected[0]]
    assert fake.sent == {"one": 1, "two": 1}
    keys = list(queue.redis.scan_iter("kept:*"))
    assert len(keys) == 2
    assert all(50_000 < queue.redis.pttl(key) <= 60_000 for key in keys)


def test_a_text_that_was_asked_for_lately_is_not_sent_again(fake):
    """And is kept from then on, as a text is that is new."""
    queue = eager_queue(fake)
    kept = KeptVectors(queue, "test", "kept:", 60, PATIENCE_SECONDS)
    first = kept(["one"])
    [key] = queue.redis.scan_iter("kept:*")
    queue.redis.pexpire(key, 1_000)
    assert kept(["one"]) == first
    assert fake.sent == {"one": 1}
    assert queue.redis.pttl(key) > 50_000


def test_a_hash_that_expires_while_its_text_is_embedded_is_made_anew_for_a_while(fake):
    """Not for ever."""
    queue = eager_queue(fake)
    fake.rule = lambda texts: queue.redis.delete(*queue.redis.scan_iter("kept:*")) and None
    assert KeptVectors(queue, "test", "kept:", 60, PATIENCE_SECONDS)(["one"]) == [fake.vector_of("one").tolist()]
    [key] = queue.redis.scan_iter("kept:*")
    assert queue.redis.pttl(key) > 50_000


def test_what_is_not_there_in_time_is_still_queued(fake, make_queue, redis_client):
    """Here no worker runs until later; asking again goes on from there."""
    queue = make_queue(embedder=fake, worker=False)
    with pytest.raises(TimeoutError):
        KeptVectors(queue, "test", "kept:", 60, 0.01)(["one"])
    assert queue.pending_count() == 1
    make_queue(embedder=fake)
    assert KeptVectors(queue, "test", "kept:", 60, PATIENCE_SECONDS)(["one"]) == [fake.vector_of("one").tolist()]
    assert fake.sent == {"one": 1}


def test_nothing_is_written_for_what_is_refused(fake):
    """Neither a hash nor an item."""
    queue = eager_queue(fake, max_text_chars=5)
    kept = KeptVectors(queue, "test", "kept:", 60, None)
    refusals = [
        (7, TypeError, "must be a str"),
        ("too long", ValueError, "characters"),
        ("\ud800", ValueError, "surrogates"),
    ]
    for text, error, words in refusals:
        with pytest.raises(error, match=words):
            kept(["one", text])
    assert not list(queue.redis.scan_iter("kept:*"))
    assert fake.calls == []
    queue.stop()
    with pytest.raises(QueueStopped):
        kept(["one"])


@pytest.mark.parametrize(("prefix", "expire"), [("", 60), (7, 60), ("kept:", 0), ("kept:", float("nan"))])
def test_what_cannot_work_is_refused_at_once(fake, prefix, expire):
    """Before any text comes."""
    with pytest.raises(ValueError, match="prefix|expire"):
        KeptVectors(eager_queue(fake), "test", prefix, expire, None)


def test_an_applications_queue_is_a_queue_as_well(make_queue):
    """As Flask's and Django's objects are, which find theirs when they are used."""
    queue = make_queue(start=False)

    class OfAnApplication(Front):
        queues = {DEFAULT: queue}

    front = OfAnApplication()
    assert (front._redis, front._embedder) == (queue._redis, queue._embedder)
