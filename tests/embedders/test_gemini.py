"""Google's own format over real HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from embedqueue.embedders import GeminiEmbedder
from embedqueue.embedders.gemini import models_url
from embedqueue.values.errors import CallTooLarge, ConfigurationError, InputRejected, TransientError
from tests.provider import Provider, raw, vector_of

TEXTS = ["one", "two", "three"]


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as provider:
        yield provider


@pytest.mark.parametrize(
    "model", ["gemini-embedding-001", "google/gemini-embedding-001", "models/gemini-embedding-001"]
)
def test_vectors_under_every_name_of_the_model(provider: Provider, model: str) -> None:
    rows = GeminiEmbedder("test-key", provider.gemini_url).embed_batch(TEXTS, model)
    np.testing.assert_array_equal(rows, np.stack([vector_of(text) for text in TEXTS]))
    call = provider.calls[0]
    assert call.path == "/v1beta/models/gemini-embedding-001:batchEmbedContents"
    assert call.headers["x-goog-api-key"] == "test-key"
    assert {request["taskType"] for request in call.document["requests"]} == {"RETRIEVAL_DOCUMENT"}
    assert "outputDimensionality" not in call.document["requests"][0]


def test_one_element_a_text(provider: Provider) -> None:
    """Several parts in one content give one vector for all of them, under status 200."""
    GeminiEmbedder("test-key", provider.gemini_url).embed_batch(TEXTS, "gemini-embedding-2")
    assert [len(request["content"]["parts"]) for request in provider.calls[0].document["requests"]] == [1, 1, 1]


def test_short_vectors_of_001_are_normalised_here(provider: Provider) -> None:
    rows = GeminiEmbedder("test-key", provider.gemini_url, 768).embed_batch(TEXTS, "gemini-embedding-001")
    np.testing.assert_allclose(rows, np.stack([vector_of(text, 768) for text in TEXTS]), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-6)
    assert provider.calls[0].document["requests"][0]["outputDimensionality"] == 768


def test_vectors_of_2_are_left_alone_and_take_no_task_type(provider: Provider) -> None:
    provider.script(raw({"embeddings": [{"values": [3.0, 4.0]}]}))
    rows = GeminiEmbedder("test-key", provider.gemini_url, 768).embed_batch(["x"], "gemini-embedding-2")
    assert rows.tolist() == [[3.0, 4.0]]
    assert "taskType" not in provider.calls[0].document["requests"][0]


@pytest.mark.parametrize("task_type", ["RETRIEVAL_QUERY", None])
def test_task_type(provider: Provider, task_type: str | None) -> None:
    embedder = GeminiEmbedder("test-key", provider.gemini_url, task_type=task_type)
    embedder.embed_batch(["x"], "gemini-embedding-001")
    assert embedder.task_type == task_type
    assert provider.calls[0].document["requests"][0].get("taskType") == task_type


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("https://h", "https://h/v1beta"),
        ("https://h/", "https://h/v1beta"),
        ("https://h/v1beta", "https://h/v1beta"),
        ("https://h/v1beta/", "https://h/v1beta"),
        ("https://h/v1", "https://h/v1"),
        ("https://h/proxy/v1beta/models/", "https://h/proxy/v1beta"),
        ("https://h/v1beta/models/gemini-embedding-001:batchEmbedContents", "https://h/v1beta"),
        ("https://h/v1beta?x=1", "https://h/v1beta?x=1"),
    ],
)
def test_base_urls_as_people_write_them(given: str, url: str) -> None:
    assert models_url(given).url == url
    assert models_url(given).guessed_path == ("/v1beta" if given in ("https://h", "https://h/") else "")


def test_an_option_that_the_server_refuses_is_dropped_for_good(provider: Provider) -> None:
    provider.settings.refused_options = ["taskType", "outputDimensionality"]
    embedder = GeminiEmbedder("test-key", provider.gemini_url, 768)
    for _ in range(2):
        assert embedder.embed_batch(["x"], "gemini-embedding-001").shape == (1, 3072)
    assert [call.status for call in provider.calls] == [400, 400, 200, 200]


def test_refusals_of_a_strict_provider(provider: Provider) -> None:
    embedder = GeminiEmbedder("test-key", provider.gemini_url)
    assert embedder.max_texts == 100
    with pytest.raises(CallTooLarge) as too_large:
        embedder.embed_batch(["x"] * 101, "gemini-embedding-001")
    assert (too_large.value.measure, too_large.value.limit) == ("texts", 100)
    with pytest.raises(InputRejected, match="empty Part"):
        embedder.embed_batch(["x", ""], "gemini-embedding-001")
    with pytest.raises(ConfigurationError, match="API key not valid"):
        GeminiEmbedder("wrong", provider.gemini_url).embed_batch(["x"], "gemini-embedding-001")
    with pytest.raises(ConfigurationError, match="404"):
        embedder.embed_batch(["x"], "no-such-model")


@pytest.mark.parametrize(
    "body",
    [
        {"embeddings": []},
        {"embeddings": [{"values": [1.0]}]},
        {},
        {"embedding": {"values": [1.0]}},
        {"embeddings": [{}, {}]},
    ],
)
def test_fewer_vectors_than_texts_are_never_paired(provider: Provider, body: object) -> None:
    provider.script(raw(body))
    with pytest.raises(TransientError) as caught:
        GeminiEmbedder("test-key", provider.gemini_url).embed_batch(["x", "y"], "gemini-embedding-001")
    assert caught.value.suspect_input


def test_zero_vectors_come_through_without_a_warning(provider: Provider) -> None:
    provider.script(raw({"embeddings": [{"values": [0, 0]}, {"values": [3, 4]}]}))
    with np.errstate(all="raise"):
        rows = GeminiEmbedder("test-key", provider.gemini_url, 2).embed_batch(["x", "y"], "gemini-embedding-001")
    np.testing.assert_allclose(rows, [[0.0, 0.0], [0.6, 0.8]], rtol=1e-6)
