"""``vector_type="float16"``: what is written, who may write it, and who reads it."""

from __future__ import annotations

import numpy as np
import pytest

from embedqueue import BatchFailed, EmbeddingBatchQueue, ItemRejected
from embedqueue.testing import FakeEmbedder
from tests.parts import DIMENSIONS, ONE_TRY, PATIENCE_SECONDS, GatedEmbedder, eventually
from tests.provider import vector_of


def half(text: str) -> np.ndarray:
    """The vector of a text as float16."""
    return vector_of(text, DIMENSIONS).astype("<f2")


def test_hash_and_futures_have_the_same_numbers(redis_client, make_queue):
    """Two bytes a number; who enqueues here, in another process, or after the fact, gets what stands in the hash."""
    other = make_queue(start=False, worker=False, vector_type="float16")
    queue = make_queue(start=False, vector_type="float16")
    elsewhere, here = other.enqueue("doc:1", "text"), queue.enqueue("doc:1", "text")
    queue.start()
    assert here.result(PATIENCE_SECONDS) == half("text").tolist()
    assert elsewhere.result(PATIENCE_SECONDS) == half("text").tolist()
    assert redis_client.hget("doc:1", "embedding") == half("text").tobytes()
    assert queue.enqueue("doc:2", " ").result(0) == [0.0] * DIMENSIONS


def test_a_blank_text_of_another_process_is_a_zero_vector_of_the_right_length(embedder, make_queue):
    """A future that waits there learns of it by a notice."""
    embedder.hold()
    queue = make_queue(vector_type="float16")
    future = queue.enqueue("doc:1", "text")
    make_queue(start=False, worker=False, vector_type="float16").enqueue("doc:1", " ")
    assert future.result(PATIENCE_SECONDS) == [0.0] * DIMENSIONS


def test_from_the_cache(redis_client, make_queue, embedder):
    """It keeps what is written; what it has of float32 is of no use to float16, and the other way round."""
    for place, kind in enumerate(["float32", "float16", "float32", "float16"]):
        queue = make_queue(vector_type=kind, cache_ttl=60)
        redis_client.hdel("embed_queue:settings", "vector_type", "embedding_field")
        queue.enqueue(f"doc:{place}", "text").result(PATIENCE_SECONDS)
        size = 2 if kind == "float16" else 4
        assert redis_client.hstrlen(f"doc:{place}", "embedding") == size * DIMENSIONS
        queue.stop()
    assert embedder.calls == [["text"], ["text"]]


class Wide(GatedEmbedder):
    """Numbers of some texts are beyond float16."""

    def vector_of(self, text: str) -> np.ndarray:
        return super().vector_of(text) * (1e6 if text.startswith("wide") else 1.0)


def test_numbers_beyond_float16_are_never_written(redis_client, make_queue):
    """That text is a dead letter, which says why; its neighbours are written. As float32 it is fine."""
    queue = make_queue(embedder=Wide(), retry=ONE_TRY, start=False, vector_type="float16")
    wide, narrow = queue.enqueue_many([("doc:1", "wide text"), ("doc:2", "text")])
    queue.start()
    assert narrow.result(PATIENCE_SECONDS) == half("text").tolist()
    with pytest.raises(ItemRejected, match="infinity.* as float16"):
        wide.result(PATIENCE_SECONDS)
    assert not redis_client.exists("doc:1")
    make_queue(embedder=Wide(), namespace="other").enqueue("doc:1", "wide text").result(PATIENCE_SECONDS)


def test_workers_of_a_namespace_agree(redis_client, make_queue):
    """Whoever comes with another type claims nothing, is told so, and gets no vector that it would misread."""
    make_queue(vector_type="float16").enqueue("doc:1", "text").result(PATIENCE_SECONDS)
    assert redis_client.hget("embed_queue:settings", "vector_type") == b"float16"
    late = make_queue(start=False)
    future = late.enqueue("doc:2", "text")
    late.start()
    with pytest.raises(BatchFailed, match="vector_type"):
        future.result(PATIENCE_SECONDS)


def test_a_namespace_of_an_earlier_release_goes_on_as_float32(redis_client, make_queue):
    """Nothing is kept of the type there: float32 goes on, and float16 is refused."""
    kept = {"embedding_field": "embedding", "model": "gemini-embedding-001", "dimensions": str(DIMENSIONS)}
    redis_client.hset("embed_queue:settings", mapping=kept)
    half_queue = make_queue(start=False, vector_type="float16")
    future = half_queue.enqueue("doc:1", "text")
    half_queue.start()
    with pytest.raises(BatchFailed, match="vector_type 'float32' where this process has 'float16'"):
        future.result(PATIENCE_SECONDS)
    half_queue.stop()
    assert make_queue().enqueue("doc:1", "text").result(PATIENCE_SECONDS) == vector_of("text", DIMENSIONS).tolist()
    eventually(lambda: redis_client.hstrlen("doc:1", "embedding") == 4 * DIMENSIONS)


def test_an_eager_queue(fake_redis):
    """In users' tests it writes, and tells, the same."""
    from embedqueue.testing import eager_queue

    queue = eager_queue(embedder := FakeEmbedder(), fake_redis, vector_type="float16")
    found = queue.enqueue("doc:1", "text").result()
    assert fake_redis.hget("doc:1", "embedding") == embedder.bytes_of("text", "float16")
    assert found == embedder.vector_of("text").astype("<f2").tolist()
    assert EmbeddingBatchQueue(embedder, fake_redis, vector_type="float16").options.vector_type == "float16"
