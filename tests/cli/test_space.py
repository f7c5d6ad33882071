"""``embedqueue space``: what the workers of a namespace must agree in."""

from __future__ import annotations

import json

import pytest

from embedqueue import BatchFailed, EmbeddingBatchQueue
from embedqueue.testing import FakeEmbedder
from embedqueue.values.provenance import digest
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
    """And where there is no terminal, nobody says yes."""
    for text in ("n\n", "y\n", ""):
        said = run("space", "adopt", text=text, code=1)
        assert "model old -> new" in said and "nothing was changed: --yes" in said
    assert redis_client.hget("embed_queue:settings", "model") == b"old"


def test_who_waits_is_told_both_spaces_and_the_ways_out(redis_client, make_queue):
    """So is the log."""
    make_queue(model="google/old").enqueue("doc:1", "text").result(PATIENCE_SECONDS)
    late = make_queue(model="new", start=False)
    future = late.enqueue("doc:2", "text")
    late.start()
    with pytest.raises(BatchFailed, match="old/8/- there, and of new/8/- here") as told:
        future.result(PATIENCE_SECONDS)
    for way in ("embedding_field", "embedqueue reembed", "embedqueue space adopt"):
        assert way in str(told.value)
    assert redis_client.zcard("embed_queue:pending") == 1


def test_vectors_are_counted_by_space(run, redis_client):
    vector = b"\0" * 64
    for place in range(2):
        redis_client.hset(f"doc:{place}", mapping={"embedding": vector, "embedding_of": f"old/16/- {16 * 'a'} 1"})
    redis_client.hset("doc:2", mapping={"embedding": vector})
    redis_client.hset("doc:3", mapping={"embedding": vector, "embedding_of": "nobody's"})
    redis_client.hset("other:4", mapping={"embedding": vector})
    redis_client.hset("doc:5", mapping={"title": "no vector"})
    assert "2 vectors: old/16/-\n" in run("space", "show")
    shown = json.loads(run("space", "show", "--match", "doc:*", "--json"))
    assert shown["spaces"] == {"old/16/-": 2, "unlabelled": 1, "malformed": 1}


def test_adopt_tells_how_many_vectors_are_of_what(run, kept, redis_client):
    redis_client.hset("doc:1", mapping={"embedding": b"\0" * 64, "embedding_of": f"old/16/- {16 * 'a'} 1"})
    assert "1 vectors: old/16/-" in run("space", "adopt", text="n\n", code=1)


def test_labels_cost_nothing(run, redis_client, monkeypatch, provider):
    """Only what nothing says anything of, and only where the length is right; not while a newer text waits."""
    monkeypatch.setenv("EMBEDQUEUE_MODEL", "mine")
    vector, of = b"\1" * 64, f"old/16/- {16 * 'a'} 1"
    redis_client.hset("doc:1", mapping={"body": "one", "embedding": vector})
    redis_client.hset("doc:2", mapping={"body": "two", "embedding": vector, "embedding_of": of})
    redis_client.hset("doc:3", mapping={"body": "three", "embedding": vector[:-4]})
    redis_client.hset("doc:4", mapping={"body": "four", "embedding": vector})
    redis_client.hset("doc:5", mapping={"body": " ", "embedding": vector})
    redis_client.hset("doc:6", mapping={"title": "no text", "embedding": vector})
    run("enqueue", "-", text='{"redis_key": "doc:4", "text": "newer"}')
    assert "--text-field" in run("space", "adopt", "--label", "--yes", code=2)
    assert "1 labelled" in run("space", "adopt", "--label", "--match", "doc:*", "--text-field", "body", "--yes")
    assert redis_client.hget("doc:1", "embedding_of").decode() == f"mine/16/- {digest('one')} 0"
    assert redis_client.hget("doc:2", "embedding_of").decode() == of
    assert not any(redis_client.hexists(f"doc:{place}", "embedding_of") for place in (3, 4, 5, 6))
    assert "0 labelled" in run("space", "adopt", "--label", "--match", "doc:*", "--text-field", "body", "--yes")
    assert provider.calls == []
    found = json.loads(run("verify", "--match", "doc:1", "--text-field", "body", "--json"))
    assert (found["checked"], found["unlabelled"]) == (1, 0)


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
