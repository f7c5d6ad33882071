"""The roles of texts over real HTTP: what tells a provider that a text is a query, and what that a document."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from embedqueue import EmbeddingBatchQueue, GeminiEmbedder, OpenAIEmbedder, OpenRouterEmbedder, QueryEmbedder
from embedqueue.embedders.protocol import QuerySide, role_of
from embedqueue.testing import FakeEmbedder
from embedqueue.values.provenance import digest, space
from tests.parts import PATIENCE_SECONDS
from tests.provider import Provider, vector_of

VOYAGE = {"input_type": ["query", "document"]}
#: gemini-embedding-2's own words (docs/providers.md, "Roles").
DOCUMENT, QUERY = "title: none | text: ", "task: search result | query: "


def sent(provider: Provider) -> list[list[str]]:
    return [call.texts for call in provider.calls]


def tasks(provider: Provider) -> list[str | None]:
    return [call.document["requests"][0].get("taskType") for call in provider.calls]


@pytest.mark.parametrize(
    ("task_type", "of_documents", "of_queries"),
    [
        ("RETRIEVAL_DOCUMENT", "RETRIEVAL_DOCUMENT", "RETRIEVAL_QUERY"),
        ("SEMANTIC_SIMILARITY", "SEMANTIC_SIMILARITY", "SEMANTIC_SIMILARITY"),
        (None, None, None),
    ],
)
def test_gemini_001_is_told_by_task_type(provider, task_type, of_documents, of_queries):
    """A task that is the same on both sides stays so. The text is sent as it is."""
    embedder = GeminiEmbedder("test-key", provider.gemini_url, task_type=task_type)
    embedder.embed_batch(["x"], "gemini-embedding-001")
    embedder.embed_queries(["x"], "google/gemini-embedding-001")
    assert tasks(provider) == [of_documents, of_queries]
    assert sent(provider) == [["x"], ["x"]]
    assert role_of(embedder, "gemini-embedding-001") == of_documents


@pytest.mark.parametrize(
    ("task_type", "of_documents", "of_queries"),
    [
        ("RETRIEVAL_DOCUMENT", DOCUMENT, QUERY),
        ("SEMANTIC_SIMILARITY", "task: sentence similarity | query: ", "task: sentence similarity | query: "),
        (None, "", ""),
    ],
)
@pytest.mark.parametrize("model", ["gemini-embedding-2", "models/gemini-embedding-2-preview"])
def test_gemini_2_is_told_by_prefixes(provider, model, task_type, of_documents, of_queries):
    """The strict provider refuses a task type for this model."""
    embedder = GeminiEmbedder("test-key", provider.gemini_url, task_type=task_type)
    rows = embedder.embed_batch(["x"], model)
    embedder.embed_queries(["x"], model)
    assert sent(provider) == [[f"{of_documents}x"], [f"{of_queries}x"]]
    assert tasks(provider) == [None, None]
    np.testing.assert_array_equal(rows[0], vector_of(f"{of_documents}x"))
    assert role_of(embedder, model) == (of_documents or None)


def test_gemini_2_is_the_same_space_through_openrouter(provider):
    """Vectors of one model are told apart only where they are apart."""
    direct = GeminiEmbedder("test-key", provider.gemini_url)
    routed = OpenRouterEmbedder("test-key", provider.openrouter_url)
    routed.embed_batch(["x"], "google/gemini-embedding-2")
    routed.embed_queries(["x"], "google/gemini-embedding-2")
    assert sent(provider) == [[f"{DOCUMENT}x"], [f"{QUERY}x"]]
    spaces = {
        space(model, 3072, role_of(embedder, model))
        for embedder, model in ((direct, "gemini-embedding-2"), (routed, "google/gemini-embedding-2"))
    }
    assert spaces == {"gemini-embedding-2/3072/title:_none_|_text:"}


def test_input_type_as_voyage_has_it(provider):
    provider.settings.roles = VOYAGE
    embedder = OpenAIEmbedder(
        "test-key",
        provider.openai_url,
        body={"user": "me"},
        document_role={"input_type": "document"},
        query_role={"input_type": "query"},
    )
    embedder.embed_batch(["x"], "voyage-4")
    embedder.embed_queries(["x"], "voyage-4")
    assert [(call.document["input_type"], call.document["user"]) for call in provider.calls] == [
        ("document", "me"),
        ("query", "me"),
    ]
    assert role_of(embedder, "voyage-4") == "input_type=document"


def test_prefixes_as_e5_has_them(provider):
    embedder = OpenAIEmbedder("test-key", provider.openai_url, document_role="passage: ", query_role="query: ")
    embedder.embed_batch(["x", "y"], "intfloat/multilingual-e5-large")
    embedder.embed_queries(["x"], "intfloat/multilingual-e5-large")
    assert sent(provider) == [["passage: x", "passage: y"], ["query: x"]]
    assert space("intfloat/multilingual-e5-large", 1024, role_of(embedder, "")) == (
        "intfloat/multilingual-e5-large/1024/passage:"
    )


def test_without_roles_nothing_is_told(provider):
    """As ever: no prefix, no field, no role in the space."""
    embedder = OpenAIEmbedder("test-key", provider.openai_url)
    embedder.embed_batch(["x"], "text-embedding-3-large")
    embedder.embed_queries(["x"], "text-embedding-3-large")
    first, second = (call.document for call in provider.calls)
    assert first == second
    assert sent(provider)[0] == ["x"]
    assert role_of(embedder, "text-embedding-3-large") is None


@pytest.mark.parametrize("option", ["document_role", "query_role"])
@pytest.mark.parametrize("value", [7, {1: "document"}, ["query: "]])
def test_what_is_no_role(option, value):
    with pytest.raises(TypeError, match=f"{option} must be a prefix or the fields"):
        OpenAIEmbedder("key", **{option: value})


def test_a_space_is_read_from_the_right_whatever_the_prefix():
    assert space("BAAI/bge-m3", 8, "a/b  c: ") == "BAAI/bge-m3/8/a_b_c:"


def test_other_roles_are_other_variants():
    """So a cache keeps no vector of the one for the other."""
    usual = OpenAIEmbedder("key")
    told = [OpenAIEmbedder("key", query_role="query: "), OpenAIEmbedder("key", document_role="query: ")]
    assert len({embedder.variant for embedder in (usual, *told)}) == 3


def test_an_embedder_without_a_role_of_queries_embeds_them_as_documents():
    embedder = FakeEmbedder()
    assert not isinstance(embedder, QueryEmbedder)
    assert isinstance(OpenAIEmbedder("key"), QueryEmbedder)
    QuerySide(embedder).embed_batch(["x"], "model")
    assert embedder.texts == ["x"]
    assert QuerySide(embedder).dimensions == embedder.dimensions
    assert role_of(embedder, "model") is None


@pytest.mark.parametrize(
    ("make", "model", "role"),
    [
        (lambda url: GeminiEmbedder("test-key", f"{url}/v1beta"), "gemini-embedding-2", "title:_none_|_text:"),
        (lambda url: GeminiEmbedder("test-key", f"{url}/v1beta"), "gemini-embedding-001", "RETRIEVAL_DOCUMENT"),
        (lambda url: OpenAIEmbedder("test-key", f"{url}/v1", document_role="passage: "), "e5", "passage:"),
    ],
)
def test_the_role_stands_beside_the_vector(provider, redis_client, make: Any, model, role):
    """The digest is of the text as it was enqueued, before any prefix."""
    with EmbeddingBatchQueue(make(provider.url), redis_client, model) as queue:
        queue.enqueue("doc:1", "a text").result(PATIENCE_SECONDS)
    told, of, _ = redis_client.hget("doc:1", "embedding_of").decode().split(" ")
    assert told == f"{model}/3072/{role}"
    assert of == digest("a text")


def test_queries_of_a_queue_arrive_in_their_role(provider, redis_client):
    """Through the whole queue: the strict provider gets queries as queries, documents as documents."""
    with EmbeddingBatchQueue(GeminiEmbedder("test-key", provider.gemini_url), redis_client, cache_ttl=60) as queue:
        vector = queue.embed_query("what is it?")
        queue.enqueue("doc:1", "what is it?").result(PATIENCE_SECONDS)
    assert tasks(provider) == ["RETRIEVAL_QUERY", "RETRIEVAL_DOCUMENT"]
    assert vector == vector_of("what is it?").tolist()
