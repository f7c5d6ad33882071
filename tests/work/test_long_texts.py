"""``on_long``: a text that the model cannot take is rejected or cut by us, and said to be; never cut in silence."""

from __future__ import annotations

import logging

import pytest

from embedqueue import EmbeddingBatchQueue, GeminiEmbedder, ItemRejected, OpenAIEmbedder, OpenRouterEmbedder
from embedqueue.embedders.text_limits import text_limit
from embedqueue.testing import FakeEmbedder, eager_queue
from embedqueue.values.item import encode_member
from embedqueue.values.provenance import digest
from tests.inside import inside
from tests.parts import PATIENCE_SECONDS, GatedEmbedder, eventually, expected, stored

#: Thirty words, of which twelve are left of a model that takes twenty tokens: eight are kept free.
WORDS = [f"{letter}{letter}" for letter in "abcdefghijklmnopqrstuvwxyzabcd"]
LONG, BEGINNING = " ".join(WORDS), " ".join(WORDS[:12])


class Cutting(GatedEmbedder):
    """Its model takes few tokens, and it would cut what is longer."""

    max_text_tokens = 20

    def cuts_long_texts(self, model: str) -> bool:
        return True


class Refusing(Cutting):
    """The same, which refuses."""

    def cuts_long_texts(self, model: str) -> bool:
        return False


@pytest.fixture
def embedder():
    gated = Cutting()
    yield gated
    gated.release()


def test_what_a_provider_would_cut_is_rejected_before_it_is_sent(redis_client, make_queue, embedder):
    """By default. It is a dead letter that tells the length, the limit and the way out; its neighbours are embedded."""
    other = make_queue(start=False, worker=False)
    elsewhere = other.enqueue("doc:1", LONG)
    queue = make_queue(start=False)
    long, again, short = queue.enqueue_many([("doc:1", LONG), ("doc:2", LONG), ("doc:3", "short")])
    foreign = encode_member("doc:4", f"foreign {LONG}")
    redis_client.zadd("embed_queue:pending", {foreign: 1.0})
    queue.start()
    for future in (long, again, elsewhere):
        with pytest.raises(ItemRejected, match=r"at least 30 tokens, and it takes 20; .*on_long=\"truncate\""):
            future.result(PATIENCE_SECONDS)
    assert short.result(PATIENCE_SECONDS) == expected("short")
    eventually(lambda: len(queue.dead_letters()) == 3)
    assert {letter.redis_key for letter in queue.dead_letters()} == {"doc:1", "doc:2", "doc:4"}
    assert not redis_client.exists("doc:1")
    assert embedder.texts == ["short"]
    eventually(lambda: queue.stats().rejected == 3)


def test_what_a_provider_refuses_is_left_to_it(make_queue):
    """Nothing has changed there; nor where nothing is known of the provider, or of the model."""
    nothing = FakeEmbedder()
    nothing.max_text_tokens = 20  # type: ignore[attr-defined]
    for place, embedder in enumerate([Refusing(), nothing, FakeEmbedder()]):
        queue = make_queue(embedder=embedder, namespace=f"n{place}")
        queue.enqueue(f"doc:{place}", LONG).result(PATIENCE_SECONDS)
        assert embedder.texts == [LONG]
    queue = make_queue(embedder=Refusing(), namespace="told", on_long="reject")
    with pytest.raises(ItemRejected):
        queue.enqueue("doc:told", LONG).result(PATIENCE_SECONDS)


def test_what_is_cut_is_counted_and_keeps_the_digest_of_the_whole(redis_client, make_queue, embedder, caplog):
    """The vector is that of a beginning that fits; whoever compares texts compares the whole ones."""
    caplog.set_level(logging.INFO, "embedqueue")
    queue = make_queue(on_long="truncate")
    assert queue.enqueue("doc:1", LONG).result(PATIENCE_SECONDS) == expected(BEGINNING)
    queue.enqueue("doc:2", "short").result(PATIENCE_SECONDS)
    assert redis_client.hget("doc:1", "embedding") == stored(BEGINNING)
    assert redis_client.hget("doc:1", "embedding_of").split()[1].decode() == digest(LONG)
    assert embedder.texts == [BEGINNING, "short"]
    assert (queue.stats().truncated, queue.stats().embedded) == (1, 2)
    assert f"of doc:1, {len(BEGINNING)} of {len(LONG)} characters are embedded" in caplog.text
    queue.stop()
    history = queue.history()
    assert (history.days[-1].truncated, sum(minute.truncated for minute in history.minutes)) == (1, 1)


def test_equal_beginnings_are_sent_once(make_queue, embedder):
    """Two long texts, and a short one that reads as they begin."""
    queue = make_queue(start=False, on_long="truncate")
    futures = queue.enqueue_many([("doc:1", f"{LONG} x"), ("doc:2", f"{LONG} y"), ("doc:3", BEGINNING)])
    queue.start()
    assert [future.result(PATIENCE_SECONDS) for future in futures] == [expected(BEGINNING)] * 3
    assert embedder.texts == [BEGINNING]


def test_one_that_is_cut_joins_a_call_under_way(make_queue, embedder):
    """And ends with it."""
    embedder.hold()
    queue = make_queue(on_long="truncate")
    first = queue.enqueue("doc:1", BEGINNING)
    queue.flush_now()
    embedder.wait_for_calls(1)
    second = queue.enqueue("doc:2", LONG)
    queue.flush_now()
    eventually(lambda: inside(queue).held == 2)
    embedder.release()
    assert first.result(PATIENCE_SECONDS) == second.result(PATIENCE_SECONDS) == expected(BEGINNING)
    assert embedder.texts == [BEGINNING]


def test_the_cache_knows_a_whole_text_from_its_beginning(make_queue, embedder):
    """A vector of the beginning serves what begins so and is cut there, and never the whole text."""
    make_queue(on_long="truncate", cache_ttl=60).enqueue("doc:1", LONG).result(PATIENCE_SECONDS)
    make_queue(on_long="truncate", cache_ttl=60).enqueue("doc:2", f"{LONG} x").result(PATIENCE_SECONDS)
    assert embedder.texts == [BEGINNING]
    able = Cutting()
    able.max_text_tokens = 10_000
    whole = make_queue(embedder=able, on_long="truncate", cache_ttl=60).enqueue("doc:3", LONG)
    assert whole.result(PATIENCE_SECONDS) == expected(LONG)


def test_a_probe_that_is_too_long_proves_nothing(redis_client, make_queue):
    """It is rejected without a call, so the pause's level stays, and the next text probes."""
    redis_client.set("embed_queue:pause:level", 1, ex=60)
    queue = make_queue()
    with pytest.raises(ItemRejected):
        queue.enqueue("doc:1", LONG).result(PATIENCE_SECONDS)
    eventually(lambda: not redis_client.exists("embed_queue:pause:probe"))
    assert redis_client.exists("embed_queue:pause:level")
    queue.enqueue("doc:2", "short").result(PATIENCE_SECONDS)
    eventually(lambda: not redis_client.exists("embed_queue:pause:level"))


def test_who_waits_for_it_waits_for_no_call(make_queue, embedder):
    """Though the one call that there may be is under way."""
    embedder.hold()
    queue = make_queue(start=False, max_concurrency=1)
    _, long = queue.enqueue_many([("doc:1", "short"), ("doc:2", LONG)])
    queue.start()
    with pytest.raises(ItemRejected):
        long.result(PATIENCE_SECONDS)
    embedder.release()


def test_an_eager_queue_does_the_same(fake_redis):
    """So users' tests tell what will happen."""
    with pytest.raises(ItemRejected, match="on_long"):
        eager_queue(Cutting(), fake_redis).enqueue("doc:1", LONG).result()
    queue = eager_queue(Cutting(), fake_redis, on_long="truncate")
    assert queue.enqueue("doc:2", LONG).result() == expected(BEGINNING)


def test_who_asks_for_it_in_vain_is_told(fake_redis, caplog):
    """Of an unknown model nobody knows the limit."""
    EmbeddingBatchQueue(FakeEmbedder(), fake_redis, model="my-model", on_long="truncate")
    assert "on_long does nothing, for it is not known what my-model takes" in caplog.text
    caplog.clear()
    EmbeddingBatchQueue(FakeEmbedder(), fake_redis, on_long="truncate")
    EmbeddingBatchQueue(FakeEmbedder(), fake_redis, model="my-model")
    assert not caplog.text


@pytest.mark.parametrize(
    ("embedder", "model", "tokens", "cuts"),
    [
        (GeminiEmbedder("key"), "google/gemini-embedding-001", 2048, True),
        (GeminiEmbedder("key", max_text_tokens=100), "models/gemini-embedding-001", 100, True),
        (OpenRouterEmbedder("key"), "google/gemini-embedding-2:free", 8192, True),
        (OpenRouterEmbedder("key"), "openai/text-embedding-3-small", 8192, False),
        (OpenAIEmbedder("key"), "text-embedding-3-large", 8192, False),
        (OpenAIEmbedder("", "http://localhost:11434/v1"), "mxbai-embed-large:latest", 512, True),
        (OpenAIEmbedder("", "http://localhost:11434/api/embed"), "mxbai-embed-large", 512, False),
        (OpenAIEmbedder("", "http://localhost:8080/v1"), "BAAI/bge-m3", 8192, True),
    ],
)
def test_what_is_known_of_providers(embedder, model, tokens, cuts):
    """The table of docs/providers.md."""
    limit = text_limit(embedder, model)
    assert (limit.tokens, limit.cuts) == (tokens, cuts)
    assert text_limit(OpenAIEmbedder("", "http://localhost:8080/v1"), "my/own-model") is None
