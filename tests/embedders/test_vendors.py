"""Azure, Voyage, Cohere and Mistral over real HTTP, as strictly as they are known to be."""

from __future__ import annotations

import numpy as np
import pytest

from embedqueue.embedders import AzureOpenAIEmbedder, CohereEmbedder, MistralEmbedder, VoyageEmbedder
from embedqueue.embedders.protocol import role_of
from embedqueue.embedders.text_limits import text_limit
from embedqueue.values.errors import CallTooLarge, ConfigurationError, InputRejected, OptionValueError
from tests.parts import ONE_TRY, PATIENCE_SECONDS
from tests.provider import Provider, vector_of

KINDS = {"voyage/v1": VoyageEmbedder, "mistral/v1": MistralEmbedder, "cohere/v2": CohereEmbedder}


@pytest.fixture(params=[*KINDS, "azure"])
def vendor(request, provider: Provider, monkeypatch):
    """Each of the four, made as its users make it, for vectors of 256 numbers."""
    if request.param == "azure":
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", provider.url)
        return AzureOpenAIEmbedder("test-key", dimensions=256)
    return KINDS[request.param]("test-key", f"{provider.url}/{request.param}", 256)


def test_each_serves_a_queue_and_its_searches(vendor, make_queue):
    """Vectors of the asked length are in the hashes; nothing that was sent is unknown to the strict server."""
    queue = make_queue(embedder=vendor, start=False, retry=ONE_TRY, model=vendor.default_model)
    futures = queue.enqueue_many([("doc:1", "one"), ("doc:2", "two")])
    queue.start()
    assert [future.result(PATIENCE_SECONDS) for future in futures] == [
        vector_of(t, 256).tolist() for t in ("one", "two")
    ]
    assert queue.embed_query("one", PATIENCE_SECONDS) == vector_of("one", 256).tolist()


def test_a_wrong_key_is_the_accounts_fault(vendor, provider):
    """And neither key is shown."""
    provider.settings.keys = ["another-key"]
    with pytest.raises(ConfigurationError, match="401") as refused:
        vendor.embed_batch(["x"], vendor.default_model)
    assert "test-key" not in str(refused.value)


def test_a_length_that_the_model_cannot_have_is_left_out(vendor, provider):
    """So that the queue says which length the model has."""
    provider.settings.refused_options = ["dimensions", "output_dimension"]
    assert vendor.embed_batch(["x"], vendor.default_model).shape[1] > 256


@pytest.mark.parametrize(
    ("kind", "variables"),
    [
        (VoyageEmbedder, "VOYAGE_API_KEY"),
        (MistralEmbedder, "MISTRAL_API_KEY"),
        (CohereEmbedder, "COHERE_API_KEY or CO_API_KEY"),
        (lambda: AzureOpenAIEmbedder(base_url="http://127.0.0.1:9"), "AZURE_OPENAI_API_KEY"),
    ],
)
def test_the_variable_of_a_missing_key_is_named(kind, variables, monkeypatch):
    """Before anything is sent."""
    for name in ("VOYAGE_API_KEY", "MISTRAL_API_KEY", "COHERE_API_KEY", "CO_API_KEY", "AZURE_OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigurationError, match=f"no API key: set {variables},"):
        kind().embed_batch(["x"], "m")


@pytest.mark.parametrize(
    ("kind", "path", "of_documents", "of_queries"),
    [
        (VoyageEmbedder, "voyage/v1", "document", "query"),
        (CohereEmbedder, "cohere/v2", "search_document", "search_query"),
        (MistralEmbedder, "mistral/v1", None, None),
    ],
)
def test_documents_and_queries_go_in_their_roles(provider, kind, path, of_documents, of_queries):
    """As each vendor's documentation has it; the role is a part of the space."""
    embedder = kind("test-key", f"{provider.url}/{path}")
    embedder.embed_batch(["x"], embedder.default_model)
    embedder.embed_queries(["x"], embedder.default_model)
    assert [call.document.get("input_type") for call in provider.calls] == [of_documents, of_queries]
    assert role_of(embedder, "m") == (of_documents and f"input_type={of_documents}")


def test_a_role_that_is_given_wins(provider):
    """Also over the one that Cohere asks for in every call."""
    fields = {"input_type": "clustering"}
    embedder = CohereEmbedder("test-key", f"{provider.url}/cohere", document_role=fields, query_role=fields)
    assert "/cohere/embed" in repr(embedder)
    embedder = CohereEmbedder("test-key", f"{provider.url}/cohere/v2/embed", document_role=fields, query_role=fields)
    embedder.embed_batch(["x"], "embed-v4.0")
    assert provider.calls[0].document["input_type"] == "clustering"
    assert embedder.role_of_documents("embed-v4.0") == "input_type=clustering"


@pytest.mark.parametrize(("kind", "path"), [(VoyageEmbedder, "voyage/v1"), (CohereEmbedder, "cohere/v2")])
def test_a_text_that_is_too_long_is_refused_not_cut(provider, kind, path):
    """Both cut by default, and are told not to."""
    provider.settings.text_tokens, provider.settings.cuts = 2, True
    embedder = kind("test-key", f"{provider.url}/{path}")
    with pytest.raises(InputRejected) as refused:
        embedder.embed_batch(["one", "one two three"], "m")
    assert not isinstance(refused.value, CallTooLarge)
    limit = text_limit(embedder, "voyage-4")
    assert limit and not limit.cuts


@pytest.mark.parametrize(
    ("kind", "path", "texts", "limit"),
    [(MistralEmbedder, "mistral/v1", 513, None), (CohereEmbedder, "cohere/v2", 97, 96)],
)
def test_a_call_of_too_many_texts_is_halved_not_blamed_on_a_text(provider, kind, path, texts, limit):
    """Where the limit that the queue keeps is not the vendor's any more."""
    embedder = kind("test-key", f"{provider.url}/{path}")
    assert embedder.max_texts == texts - 1
    with pytest.raises(CallTooLarge) as refused:
        embedder.embed_batch([f"text {number}" for number in range(texts)], embedder.default_model)
    assert (refused.value.measure, refused.value.limit) == ("texts", limit)


def test_vectors_have_the_length_that_a_known_model_has():
    """Unless another was given."""
    embedder = CohereEmbedder("k")
    assert (VoyageEmbedder("k").dimensions, MistralEmbedder("k").dimensions, embedder.dimensions) == (1024, 1024, 1536)
    embedder.meet("cohere/embed-english-v3.0")
    assert embedder.dimensions == 1024


@pytest.mark.parametrize(
    ("base", "more", "path", "query"),
    [
        ("", {}, "/openai/deployments/small/embeddings", "api-version=2024-10-21"),
        ("/", {"deployment": "mine"}, "/openai/deployments/mine/embeddings", "api-version=2024-10-21"),
        ("/openai", {"api_version": "2025-01-01"}, "/openai/deployments/small/embeddings", "api-version=2025-01-01"),
        (
            "/openai/deployments/d/embeddings?api-version=2023-05-15",
            {},
            "/openai/deployments/d/embeddings",
            "api-version=2023-05-15",
        ),
        ("/openai/v1", {"deployment": "mine"}, "/openai/v1/embeddings", ""),
    ],
)
def test_azure_is_found_by_every_address_that_people_have(provider, base, more, path, query):
    """The resource's, the deployment's as the portal shows it, and the newer API's."""
    embedder = AzureOpenAIEmbedder("test-key", provider.url + base, 8, **more)
    np.testing.assert_array_equal(embedder.embed_batch(["x"], "small"), [vector_of("x", 8)])
    call = provider.calls[0]
    assert (call.path, call.query, call.model) == (path, query, more.get("deployment", "small"))
    assert "authorization" not in call.headers


def test_azure_takes_a_token_instead_of_a_key(provider, monkeypatch):
    """Of Entra ID, as a header."""
    monkeypatch.delenv("AZURE_OPENAI_API_KEY", raising=False)
    embedder = AzureOpenAIEmbedder(
        base_url=provider.url, dimensions=8, headers={"Authorization": "Bearer token-of-ours"}
    )
    assert embedder.embed_batch(["x"], "small").shape == (1, 8)
    assert provider.calls[0].headers["authorization"] == "Bearer token-of-ours"
    assert "token-of-ours" not in repr(embedder)


def test_azure_without_an_address_is_refused_at_once(monkeypatch):
    """The sentence says what to set."""
    monkeypatch.delenv("AZURE_OPENAI_ENDPOINT", raising=False)
    with pytest.raises(OptionValueError, match="set AZURE_OPENAI_ENDPOINT"):
        AzureOpenAIEmbedder("key")


def test_an_unknown_deployment_is_the_accounts_fault(provider):
    """Whoever reads the log sees which address was asked."""
    with pytest.raises(ConfigurationError, match=r"does not exist.*deployments/nobody/embeddings"):
        AzureOpenAIEmbedder("test-key", provider.url).embed_batch(["x"], "nobody")


def test_deployments_do_not_share_a_cache():
    """Two of them may be two models."""
    one, other = (AzureOpenAIEmbedder("k", "http://x", deployment=name) for name in ("a", "b"))
    assert one.variant != other.variant
