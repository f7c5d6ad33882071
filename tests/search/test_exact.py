"""The same in the tests of an application: a fake Redis, which cannot search, and no thread."""

from __future__ import annotations

import pytest

from embedqueue import EmbedQueueError
from embedqueue.testing import FakeEmbedder, eager_queue
from tests.search.test_search import TEXTS, fill, found


@pytest.fixture
def queue():
    with eager_queue(FakeEmbedder(16)) as queue:
        yield queue


@pytest.mark.parametrize("distance", ["COSINE", "L2", "IP"])
def test_it_finds_what_redis_finds(queue, make_queue, searching, distance):
    """The same keys, scores and fields, in the same order."""
    real = make_queue(searching, embedder=FakeEmbedder(16))
    for one, client in ((queue, queue.redis), (real, searching)):
        one.create_index("notes", ["doc:", "other:"], distance=distance, fields={"lang": "TAG"})
        fill(one, client, raw=b"\xff")
        client.hset("elsewhere:1", "embedding", client.hget("doc:cat", "embedding"))
        client.hset("doc:short", "embedding", b"1234")
        client.hset("doc:none", "text", "not embedded yet")
    for options in ({}, {"k": 2}, {"return_fields": ["text", "embedding", "nothing"]}, {"return_fields": []}):
        ours = found(queue, "where is the cat", min(options.get("k", 3), 3), **options)
        theirs = found(real, "where is the cat", min(options.get("k", 3), 3), **options)
        for mine, other in zip(ours, theirs, strict=True):
            assert mine.redis_key == other.redis_key
            assert mine.score == pytest.approx(other.score, abs=1e-5)
            assert _without_stamp(mine.fields) == _without_stamp(other.fields)


def _without_stamp(fields):
    return {name: value for name, value in fields.items() if name != "embedding_of"}


def test_a_filter_is_refused_with_a_sentence(queue):
    queue.create_index("notes", "doc:")
    with pytest.raises(EmbedQueueError, match="no filter"):
        queue.search("the cat", index="notes", filter="@lang:{en}")


def test_indexes_are_there_or_not_as_in_redis(queue):
    """An equal one is no fault, another is; FLUSHALL drops them; another queue of the application finds them."""
    with pytest.raises(EmbedQueueError, match="no index 'notes'"):
        queue.search("the cat", index="notes")
    queue.create_index("notes", "doc:", fields={"lang": "TAG"})
    queue.create_index("notes", "doc:", fields={"lang": "TAG"})
    with pytest.raises(EmbedQueueError, match="prefixes: 'doc:', not 'note:'"):
        queue.create_index("notes", "note:", fields={"lang": "TAG"})
    fill(queue, queue.redis)
    with eager_queue(FakeEmbedder(16), queue.redis) as another:
        assert len(another.search("the cat", index="notes")) == len(TEXTS)
    queue.redis.flushall()
    with pytest.raises(EmbedQueueError, match="no index 'notes'"):
        queue.search("the cat", index="notes")
