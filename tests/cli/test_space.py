"""``embedqueue space``: what the workers of a namespace must agree in."""

from __future__ import annotations

import json

import pytest

from embedqueue import BatchFailed, EmbeddingBatchQueue
from embedqueue.testing import FakeEmbedder
from tests.parts import PATIENCE_SECONDS

KEPT = {"embedding_field": "embedding", "model": "old", "dimensions": "16"}


@pytest.fixture
def kept(run, redis_client, monkeypatch):
    """A namespace whose vectors are of one model, and settings that name another."""
    redis_client.hset("embed_queue:settings", mapping=KEPT)
    monkeypatch.setenv("EMBEDQUEUE_MODEL", "new")


def test_nothing_is_kept_of_a_new_namespace(run):
    assert "model: kept nothing yet, here " in run("space", "show")
    assert run("space", "adopt") == "Nothing differs.\n"


def test_show_says_what_differs_and_fails(run, kept):
    assert "model: kept old, here new  <- differs" in run("space", "show", code=1)
    shown = json.loads(run("space", "show", "--json", code=1))
    assert (shown["kept"], shown["differ"]) == (KEPT | {"vector_type": "float32"}, ["model"])


def test_adopt_asks_first(run, kept, redis_client):
    assert "model old -> new" in run("space", "adopt", text="n\n", code=1)
    assert run("space", "adopt", text="", code=1)
    assert redis_client.hget("embed_queue:settings", "model") == b"old"


def test_workers_with_the_adopted_settings_claim(run, kept, redis_client):
    """And none with the former ones."""
    assert "Adopted" in run("space", "adopt", "--yes")
    assert run("space", "adopt", "--yes") == "Nothing differs.\n"
    run("space", "show")
    with EmbeddingBatchQueue(FakeEmbedder(16), redis_client, model="new") as queue:
        assert len(queue.enqueue("doc:1", "text").result(PATIENCE_SECONDS)) == 16
    with EmbeddingBatchQueue(FakeEmbedder(16), redis_client, model="old") as queue, pytest.raises(BatchFailed):
        queue.enqueue("doc:2", "text").result(PATIENCE_SECONDS)


def test_vectors_of_an_earlier_release_are_float32_until_somebody_decides(run, kept, redis_client, monkeypatch):
    """Nothing was kept of that then; ``adopt`` keeps it."""
    monkeypatch.setenv("EMBEDQUEUE_MODEL", "old")
    run("space", "show")
    monkeypatch.setenv("EMBEDQUEUE_VECTOR_TYPE", "float16")
    assert "vector_type: kept float32, here float16  <- differs" in run("space", "show", code=1)
    assert "vector_type float32 -> float16" in run("space", "adopt", "--yes")
    run("space", "show")
    assert redis_client.hget("embed_queue:settings", "vector_type") == b"float16"
