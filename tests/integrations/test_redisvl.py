"""A queue as RedisVL's vectorizer. Skipped where RedisVL is missing."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("redisvl", reason="embedqueue[redisvl] is not installed")

from redisvl.extensions.cache.llm import SemanticCache

from embedqueue import EmbeddingBatchQueue
from embedqueue.demo.localredis import LocalRedis, find_search_module, find_server
from embedqueue.integrations.redisvl import QueueVectorizer
from embedqueue.testing import FakeEmbedder, eager_queue
from tests.parts import PATIENCE_SECONDS


class WithQueries(FakeEmbedder):
    """One that embeds queries otherwise."""

    def embed_queries(self, texts, model):
        return self.embed_batch([f"query: {text}" for text in texts], model)


def test_texts_become_vectors_and_buffers():
    """As documents unless told otherwise; the model and the length are the queue's."""
    embedder = WithQueries(8)
    queue = eager_queue(embedder, model="small")
    vectorizer = QueueVectorizer(queue, timeout=PATIENCE_SECONDS)
    assert (vectorizer.model, vectorizer.dims, vectorizer.type) == ("small", 8, "embedqueue")
    assert vectorizer.embed("one") == embedder.vector_of("one").tolist()
    assert vectorizer.embed_many(["one", "two"], as_buffer=True) == [embedder.bytes_of(text) for text in ("one", "two")]
    assert vectorizer.embed("one", input_type="query") == embedder.vector_of("query: one").tolist()
    assert embedder.sent == {"one": 1, "two": 1, "query: one": 1}
    assert asyncio.run(vectorizer.aembed("one")) == embedder.vector_of("one").tolist()
    assert asyncio.run(vectorizer.aembed_many(["two"])) == [embedder.vector_of("two").tolist()]
    with pytest.raises(TypeError, match="only texts"):
        vectorizer.embed(7)


@pytest.mark.skipif(None in (find_server(), find_search_module()), reason="no Redis with search: embedqueue[demo]")
def test_a_semantic_cache_of_redisvls_finds_what_is_near():
    """On a Redis with search, beside the hashes of the vectorizer, which its index does not cover."""
    with LocalRedis(search=True, appendonly=False) as server:
        client = server.client()
        with EmbeddingBatchQueue(FakeEmbedder(32), client) as queue:
            vectorizer = QueueVectorizer(queue, timeout=PATIENCE_SECONDS)
            cache = SemanticCache("answers", vectorizer=vectorizer, redis_client=client, distance_threshold=0.4)
            cache.store("where does the cat sleep", "on the sofa")
            assert [hit["response"] for hit in cache.check("where does a cat sleep")] == ["on the sofa"]
            assert cache.check("how much is it") == []
