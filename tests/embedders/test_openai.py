"""OpenAI's format over real HTTP: what is sent, what comes back, and what is done about servers that know less."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from redis import Redis

from embedqueue import EmbeddingBatchQueue
from embedqueue.embedders import Embedder, OpenAIEmbedder, OpenRouterEmbedder
from embedqueue.embedders.openai import embeddings_url
from embedqueue.values.errors import CallTooLarge, ConfigurationError, EmbedQueueError, InputRejected, TransientError
from tests.provider import Provider, fail, raw, vector_of

TEXTS = ["one", "two", "Grüße 🙂\n"]


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as provider:
        yield provider


def expected(dimensions: int = 3072) -> np.ndarray:
    return np.stack([vector_of(text, dimensions) for text in TEXTS])


@pytest.mark.parametrize("encoding", [None, "base64", "float"])
def test_vectors(provider: Provider, encoding: str | None) -> None:
    embedder = OpenAIEmbedder("test-key", provider.openai_url, encoding_format=encoding)  # type: ignore[arg-type]
    rows = embedder.embed_batch(TEXTS, "text-embedding-3-large")
    np.testing.assert_array_equal(rows, expected())
    assert rows.dtype == np.float32
    assert rows.flags.c_contiguous
    assert provider.calls[0].document["encoding_format"] == (encoding or "base64")
    assert "dimensions" not in provider.calls[0].document  # 3072 is what the model gives by itself
    assert isinstance(embedder, Embedder)


def test_openrouter(provider: Provider) -> None:
    rows = OpenRouterEmbedder("test-key", provider.openrouter_url).embed_batch(TEXTS, "google/gemini-embedding-001")
    np.testing.assert_array_equal(rows, expected())
    assert provider.calls[0].path == "/api/v1/embeddings"
    assert provider.calls[0].document["encoding_format"] == "float"


def test_dimensions_are_sent_when_they_are_not_the_default(provider: Provider) -> None:
    rows = OpenAIEmbedder("test-key", provider.openai_url, 256).embed_batch(TEXTS, "text-embedding-3-small")
    np.testing.assert_array_equal(rows, expected(256))
    assert provider.calls[0].document["dimensions"] == 256


def test_no_texts_no_call(provider: Provider) -> None:
    assert OpenAIEmbedder("test-key", provider.openai_url).embed_batch([], "m").shape == (0, 3072)
    with pytest.raises(TypeError, match="not one str"):
        OpenAIEmbedder("test-key", provider.openai_url).embed_batch("text", "m")
    assert not provider.calls


def test_further_fields_and_headers(provider: Provider) -> None:
    embedder = OpenRouterEmbedder(
        "test-key",
        provider.openrouter_url,
        headers={"HTTP-Referer": "https://example.org"},
        body={"input_type": "document"},
    )
    embedder.embed_batch(["x"], "openai/text-embedding-3-large")
    assert provider.calls[0].headers["http-referer"] == "https://example.org"
    assert provider.calls[0].document["input_type"] == "document"


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://h:8080", "http://h:8080/v1/embeddings"),
        ("http://h:8080/", "http://h:8080/v1/embeddings"),
        (" http://h/v1 ", "http://h/v1/embeddings"),
        ("http://h/v1/", "http://h/v1/embeddings"),
        ("http://h/v1/embeddings", "http://h/v1/embeddings"),
        ("http://h/embeddings/", "http://h/embeddings"),
        ("http://h/openai/deployments/d?api-version=1", "http://h/openai/deployments/d/embeddings?api-version=1"),
        ("https://openrouter.ai/api/v1", "https://openrouter.ai/api/v1/embeddings"),
    ],
)
def test_base_urls_as_people_write_them(given: str, url: str) -> None:
    assert embeddings_url(given, "/v1").url == url


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/", "/v1/embeddings", "/embeddings", "/api/v1"])
def test_base_urls_work(provider: Provider, path: str) -> None:
    OpenAIEmbedder("test-key", provider.url + path).embed_batch(["x"], "vendor/model")
    OpenRouterEmbedder("test-key", provider.url + path).embed_batch(["x"], "vendor/model")
    assert len(provider.calls) == 2


def test_slugs() -> None:
    router = OpenRouterEmbedder("k")
    own, hosted = OpenAIEmbedder(base_url="http://localhost:1"), OpenAIEmbedder("k")
    assert router._slug("gemini-embedding-001") == "google/gemini-embedding-001"
    assert router._slug("models/gemini-embedding-001") == "google/gemini-embedding-001"
    assert router._slug("text-embedding-3-large") == "openai/text-embedding-3-large"
    assert router._slug("qwen/qwen3-embedding-8b") == "qwen/qwen3-embedding-8b"
    assert hosted._slug("openai/text-embedding-3-large") == "text-embedding-3-large"
    assert own._slug("openai/text-embedding-3-large") == "openai/text-embedding-3-large"


def test_limits_of_the_hosts() -> None:
    hosted, own, router = OpenAIEmbedder("k"), OpenAIEmbedder("k", "http://localhost:1"), OpenRouterEmbedder("k")
    assert (hosted.max_texts, hosted.max_tokens) == (2048, 300_000)
    assert (own.max_texts, own.max_tokens) == (None, None)
    assert (router.max_texts, router.max_tokens) == (100, None)
    assert OpenAIEmbedder("k", max_texts=7).max_texts == 7
    assert own.task_type is None


def test_a_server_of_ones_own_needs_no_key(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    provider.settings.require_key = False
    OpenAIEmbedder(base_url=provider.url).embed_batch(["x"], "m")
    assert "authorization" not in provider.calls[0].headers


def test_base64_answered_by_nothing_falls_back_for_good(provider: Provider) -> None:
    provider.settings.base64 = "empty"
    embedder = OpenAIEmbedder("test-key", provider.openai_url)
    for _ in range(2):
        np.testing.assert_array_equal(embedder.embed_batch(TEXTS, "m"), expected())
    assert [call.document["encoding_format"] for call in provider.calls] == ["base64", "float", "float"]


@pytest.mark.parametrize(
    "bad",
    [
        raw(b'{"object": "list", "model": "m"}'),
        raw({"data": [{"embedding": "!!", "index": index} for index in range(3)]}),
        raw({"detail": "no such encoding"}),
        fail(400, {"error": {"message": "encoding_format is not supported", "param": "encoding_format"}}),
        fail(422, {"detail": [{"loc": ["body", "encoding_format"], "msg": "unexpected value"}]}),
    ],
)
def test_base64_answered_badly_falls_back_for_good(provider: Provider, bad: object) -> None:
    provider.script(bad)  # type: ignore[arg-type]
    embedder = OpenAIEmbedder("test-key", provider.openai_url)
    for _ in range(2):
        np.testing.assert_array_equal(embedder.embed_batch(TEXTS, "m"), expected())
    assert [call.document["encoding_format"] for call in provider.calls] == ["base64", "float", "float"]


def test_floats_where_base64_was_asked_are_fine(provider: Provider) -> None:
    provider.settings.base64 = "floats"
    np.testing.assert_array_equal(OpenAIEmbedder("test-key", provider.openai_url).embed_batch(TEXTS, "m"), expected())
    assert len(provider.calls) == 1


def test_a_fault_that_floats_do_not_mend_is_not_remembered(provider: Provider) -> None:
    provider.script(raw({"data": []}), raw({"data": []}), None)
    embedder = OpenAIEmbedder("test-key", provider.openai_url)
    with pytest.raises(TransientError) as caught:
        embedder.embed_batch(TEXTS, "m")
    assert caught.value.suspect_input
    embedder.embed_batch(TEXTS, "m")
    assert provider.calls[-1].document["encoding_format"] == "base64"


def test_an_encoding_that_the_user_insists_on_is_not_changed(provider: Provider) -> None:
    provider.settings.base64 = "empty"
    with pytest.raises(TransientError):
        OpenAIEmbedder("test-key", provider.openai_url, encoding_format="base64").embed_batch(TEXTS, "m")
    assert len(provider.calls) == 1


def test_options_that_the_server_refuses_are_dropped_for_good(provider: Provider) -> None:
    provider.settings.refused_options = ["dimensions", "encoding_format"]
    embedder = OpenAIEmbedder("test-key", provider.openai_url, 256)
    for _ in range(2):
        assert embedder.embed_batch(TEXTS, "m").shape == (3, 3072)  # not 256: the queue will say so
    assert set(provider.calls[-1].document) == {"model", "input"}
    assert sum(call.status == 200 for call in provider.calls) == 2
    assert len(provider.calls) <= 5  # base64, float, without; without dimensions; then one call each


@pytest.mark.parametrize("indices", [True, False])
def test_order(provider: Provider, indices: bool) -> None:
    provider.settings.indices = indices
    np.testing.assert_array_equal(OpenAIEmbedder("test-key", provider.openai_url).embed_batch(TEXTS, "m"), expected())
    entries = [{"embedding": [float(place)] * 4, "index": place} for place in (2, 0, 1)]
    provider.script(raw({"data": entries}))
    rows = OpenAIEmbedder("test-key", provider.openai_url).embed_batch(TEXTS, "m")
    np.testing.assert_array_equal(rows[:, 0], [0, 1, 2])


def test_refusals_of_a_strict_provider(provider: Provider) -> None:
    embedder = OpenAIEmbedder("test-key", provider.openai_url)
    with pytest.raises(CallTooLarge) as too_large:
        embedder.embed_batch(["x"] * 2049, "m")
    assert (too_large.value.measure, too_large.value.limit) == ("texts", 2048)
    with pytest.raises(CallTooLarge) as too_large:
        OpenRouterEmbedder("test-key", provider.openrouter_url).embed_batch(["x"] * 101, "google/m")
    assert (too_large.value.measure, too_large.value.limit) == ("texts", 100)
    with pytest.raises(InputRejected):
        embedder.embed_batch(["x", ""], "m")
    with pytest.raises(ConfigurationError, match="no-such-model"):
        embedder.embed_batch(["x"], "no-such-model")
    with pytest.raises(ConfigurationError, match="401"):
        OpenAIEmbedder("wrong", provider.openai_url).embed_batch(["x"], "m")
    with pytest.raises(ConfigurationError, match="404"):
        OpenAIEmbedder("test-key", provider.url + "/nowhere").embed_batch(["x"], "m")


@pytest.mark.parametrize("answer", [fail(404, "Not Found"), fail(405, "Not Allowed"), raw("<html>Welcome</html>")])
def test_an_answer_from_a_wrong_address_tells_which_was_asked(provider: Provider, answer: Any) -> None:
    """And that a part of it was guessed, if it was; without what is secret in it."""
    for base_url, guess in (
        (provider.url.replace("//", "//user:hunter2@"), ", where /v1 is a guess: give base_url with its path"),
        (provider.url + "/v1", ""),
    ):
        provider.script(answer)
        with pytest.raises((ConfigurationError, TransientError)) as caught:
            OpenAIEmbedder("test-key", base_url).embed_batch(["x"], "m")
        assert str(caught.value).endswith(f"the base URL: {provider.url}/v1/embeddings was asked{guess})")


def test_an_error_under_status_200(provider: Provider) -> None:
    provider.script(raw({"error": {"code": 429, "message": "later"}}, retry_after="3"))
    with pytest.raises(TransientError, match="later") as caught:
        OpenRouterEmbedder("test-key", provider.openrouter_url).embed_batch(["x"], "google/m")
    assert (caught.value.status, caught.value.retry_after, caught.value.suspect_input) == (429, 3.0, False)


def test_retry_after_reaches_the_queue(provider: Provider) -> None:
    provider.script(fail(429, retry_after_ms="250"), fail(503, {"error": "try again in 2s"}))
    embedder = OpenAIEmbedder("test-key", provider.openai_url)
    for seconds in (0.25, 2.0):
        with pytest.raises(TransientError) as caught:
            embedder.embed_batch(["x"], "m")
        assert caught.value.retry_after == seconds


@pytest.mark.parametrize("body", ["<html>", "", "[]", "{}", '"text"', "null", '{"data": 5}', '{"data": [{'])
def test_a_malformed_success_is_transient(provider: Provider, body: str) -> None:
    provider.script(raw(body), raw(body))
    with pytest.raises(TransientError) as caught:
        OpenAIEmbedder("test-key", provider.openai_url).embed_batch(["x"], "m")
    assert caught.value.suspect_input
    assert caught.value.status == 200


def test_nan_is_delivered_for_the_queue_to_blame_its_text(provider: Provider) -> None:
    """As a literal, as null, as a null row: the neighbours keep their vectors."""
    bodies = [f'{{"data":[{{"embedding":[1,2]}},{{"embedding":{bad}}}]}}' for bad in ("[NaN,1]", "[null,1]", "null")]
    provider.script(*map(raw, bodies))
    for _ in bodies:
        rows = OpenAIEmbedder("test-key", provider.openai_url).embed_batch(["x", "y"], "m")
        assert rows[0].tolist() == [1, 2]
        assert math.isnan(rows[1][0])


def test_a_lone_surrogate_is_one_texts_fault(provider: Provider) -> None:
    with pytest.raises(InputRejected) as caught:
        OpenAIEmbedder("test-key", provider.openai_url).embed_batch(["x", "cut emoji \ud83d"], "m")
    assert caught.value.index == 1
    assert not provider.calls


@pytest.mark.parametrize("status", [200, 400, 401, 429, 503])
def test_words_with_a_lone_surrogate_can_be_told(provider: Provider, status: int) -> None:
    """They go into logs, into Redis, and to whoever prints the error."""
    provider.script(raw('{"error": {"message": "bad \\ud800\\u202e\\u0007 thing"}}', status=status))
    with pytest.raises(EmbedQueueError) as caught:
        OpenAIEmbedder("test-key", provider.openai_url).embed_batch(["x"], "m")
    assert r"bad \ud800\u202e\x07 thing" in str(caught.value)


def test_a_queue_asks_openai_for_a_model_of_its_own(fake_redis: Redis) -> None:
    """And for vectors as long as the model makes them, where nobody has said more."""
    subject = OpenAIEmbedder("k")
    assert EmbeddingBatchQueue(subject, fake_redis).options.model == "text-embedding-3-large"
    assert subject.dimensions == 3072
    for model in ("text-embedding-3-small", "openai/text-embedding-ada-002"):
        subject = OpenAIEmbedder("k")
        assert EmbeddingBatchQueue(subject, fake_redis, model).options.model == model
        assert subject.dimensions == 1536
    given = OpenAIEmbedder("k", dimensions=256)
    EmbeddingBatchQueue(given, fake_redis, "text-embedding-3-small")
    assert given.dimensions == 256
    own = OpenAIEmbedder("k", "http://localhost:8080/v1")
    assert EmbeddingBatchQueue(own, fake_redis).options.model == "google/gemini-embedding-001"


def test_the_length_of_an_unknown_model_is_learned(provider: Provider, fake_redis: Redis) -> None:
    """And never asked for: the server gives what its model gives. A blank text before that asks for one canary."""
    provider.settings.dimensions = 768
    subject = OpenAIEmbedder("test-key", provider.openai_url)
    with EmbeddingBatchQueue(subject, fake_redis, "my-own-model") as queue:
        assert subject.dimensions is None
        assert queue.enqueue("doc:blank", " ").result(45) == [0.0] * 768
        assert [call.texts for call in provider.calls] == [["ok"]]
        assert len(queue.enqueue("doc:1", "some text").result(45)) == 768
        assert subject.dimensions == 768
        assert all("dimensions" not in call.document for call in provider.calls)
    again = OpenAIEmbedder("test-key", provider.openai_url)
    with EmbeddingBatchQueue(again, fake_redis, "my-own-model") as queue:
        assert len(queue.enqueue("doc:2", "some more").result(45)) == 768


def test_no_length_is_learned_from_a_vector_that_is_none(provider: Provider, fake_redis: Redis) -> None:
    """As a server may answer that has just begun; kept with the namespace, it would close that for good."""
    provider.settings.dimensions = 768
    broken = b'{"data": [{"index": 0, "embedding": [0.0]}]}'
    provider.rule = lambda texts: raw(broken) if len(provider.calls) == 1 else None
    subject = OpenAIEmbedder("test-key", provider.openai_url)
    with EmbeddingBatchQueue(subject, fake_redis, "my-own-model") as queue:
        assert len(queue.enqueue("doc:1", "some text").result(45)) == 768


def test_a_length_that_is_learned_is_one_for_all(provider: Provider, fake_redis: Redis) -> None:
    """A server that gives another one later is at fault, as ever; one that was given is checked from the first."""
    provider.settings.dimensions = 768
    for given in (None, 256):
        subject = OpenAIEmbedder("test-key", provider.openai_url, given)
        subject.meet("my-own-model")
        subject.embed_batch(["a"], "my-own-model")
        subject.meet("my-own-model")  # another queue for the same
        assert subject.dimensions == given or 768
