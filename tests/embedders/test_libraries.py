"""Embedders over other libraries. What needs one that is not installed is skipped."""

from __future__ import annotations

import subprocess
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from embedqueue.embedders import LangChainEmbedder, LiteLLMEmbedder, SentenceTransformerEmbedder
from embedqueue.embedders.library import failure_of
from embedqueue.embedders.protocol import role_of
from embedqueue.values.errors import (
    CallTooLarge,
    ConfigurationError,
    InputRejected,
    OptionTypeError,
    OptionValueError,
    TransientError,
)
from tests.parts import ONE_TRY, PATIENCE_SECONDS, PROGRAM_SECONDS
from tests.provider import Provider, fail, vector_of


class Embeddings:
    """As LangChain's, without LangChain."""

    model = "small"

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.error: Exception | None = None

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.asked += texts
        if self.error is not None:
            raise self.error
        return [[float(len(text)), 1.0, 0.0] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [0.0, 1.0, float(len(text))]


class Refusal(Exception):
    """An exception as SDKs have it."""

    def __init__(self, status: int, words: str = "no", **headers: str) -> None:
        super().__init__(words)
        self.status_code = status
        self.response = SimpleNamespace(
            headers={name.replace("_", "-").title(): value for name, value in headers.items()}
        )


# -- LangChain -------------------------------------------------------------------------------------------------------


def test_langchains_embeddings_serve_a_queue(make_queue, redis_client):
    """Documents and queries go to its two methods; the length is learned, and stands in the provenance."""
    embedder = LangChainEmbedder(Embeddings())
    assert embedder.dimensions is None
    queue = make_queue(embedder=embedder, retry=ONE_TRY)
    assert queue.options.model == "small"
    assert queue.enqueue("doc:1", "four").result(PATIENCE_SECONDS) == [4.0, 1.0, 0.0]
    assert queue.embed_query("four", PATIENCE_SECONDS) == [0.0, 1.0, 4.0]
    assert redis_client.hget("doc:1", "embedding_of").startswith(b"small/3/- ")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 0.0])
def test_no_length_is_learned_from_a_vector_that_is_none(number):
    """A broken answer may be of any length: kept with the namespace, it would close that for good."""
    embeddings = Embeddings()
    embeddings.embed_documents = lambda texts: [[number]]
    embedder = LangChainEmbedder(embeddings)
    embedder.embed_batch(["a"], "small")
    assert embedder.dimensions is None


def test_the_length_is_learned_from_what_can_be_written_of_a_first_answer(make_queue, redis_client):
    """One bad vector beside good ones: these are written as of the space in which they are looked for."""
    embeddings = Embeddings()
    embeddings.embed_documents = lambda texts: [[float("nan")] * 3 if t == "bad" else [len(t), 1.0, 0.0] for t in texts]
    queue = make_queue(embedder=LangChainEmbedder(embeddings), retry=ONE_TRY, start=False)
    queue.enqueue_many([("doc:1", "four"), ("doc:2", "bad"), ("doc:3", "seven")])
    queue.start().flush(PATIENCE_SECONDS)
    assert {redis_client.hget(f"doc:{i}", "embedding_of").split()[0] for i in (1, 3)} == {b"small/3/-"}
    assert [letter.redis_key for letter in queue.dead_letters()] == ["doc:2"]


def test_a_model_without_a_name_is_never_called_like_another(make_queue):
    """What is written beside vectors is then the name of its class, and not the model that queues have by default."""

    class Unnamed:
        embed_documents = embed_query = encode = lambda self, texts: texts

    for embedder in (LangChainEmbedder(Unnamed()), SentenceTransformerEmbedder(Unnamed())):
        assert make_queue(embedder=embedder, start=False).options.model == "Unnamed"


def test_a_blank_text_before_any_other_asks_for_a_short_one(make_queue):
    """For its vector has the length of all others; the next one asks no more."""
    embeddings = Embeddings()
    queue = make_queue(embedder=LangChainEmbedder(embeddings), start=False)
    assert queue.enqueue("doc:1", "  ").result(0) == [0.0, 0.0, 0.0]
    assert queue.enqueue("doc:2", "").result(0) == [0.0, 0.0, 0.0]
    assert embeddings.asked == ["ok"]


def test_a_length_that_is_given_is_not_learned(make_queue):
    """Nothing is asked for a blank text then."""
    embeddings = Embeddings()
    queue = make_queue(embedder=LangChainEmbedder(embeddings, 3), start=False)
    assert queue.enqueue("doc:1", "").result(0) == [0.0, 0.0, 0.0]
    assert embeddings.asked == []


def test_what_is_no_langchain_is_refused():
    """At once, by name."""
    with pytest.raises(OptionTypeError, match="embed_documents and embed_query"):
        LangChainEmbedder(object())
    with pytest.raises(OptionTypeError, match="dimensions must be a whole number"):
        LangChainEmbedder(Embeddings(), "3")
    with pytest.raises(OptionValueError, match="dimensions must be at least 1"):
        LangChainEmbedder(Embeddings(), 0)


def test_langchains_keys_are_hidden():
    """They are secrets of the object; the provider's words repeat one. The original error is not the cause either."""
    embeddings = Embeddings()
    embeddings.api_key = SimpleNamespace(get_secret_value=lambda: "sk-very-secret-4711")
    embeddings.error = Refusal(401, "Incorrect API key provided: sk-very-secret-4711")
    with pytest.raises(ConfigurationError, match="401") as refused:
        LangChainEmbedder(embeddings).embed_batch(["x"])
    assert "4711" not in str(refused.value)
    assert (refused.value.__cause__, refused.value.__context__) == (None, None)


def test_openais_embeddings_of_langchain_do_not_cut():
    """They embed a long text in parts."""
    embeddings = Embeddings()
    assert LangChainEmbedder(embeddings).cuts_long_texts("m")
    embeddings.check_embedding_ctx_length = True
    assert not LangChainEmbedder(embeddings).cuts_long_texts("m")


def test_a_text_without_a_form_in_utf_8_is_named():
    """The library would fail in the middle of the others."""
    with pytest.raises(InputRejected) as refused:
        LangChainEmbedder(Embeddings()).embed_batch(["fine", "\ud800"])
    assert refused.value.index == 1
    with pytest.raises(TypeError, match="not one str"):
        LangChainEmbedder(Embeddings()).embed_batch("x")
    assert LangChainEmbedder(Embeddings()).embed_batch([]).shape == (0, 0)


@pytest.mark.parametrize("text", ["x"])
def test_langchain_itself(text):
    """The real interface, with LangChain's own offline embeddings."""
    embeddings = pytest.importorskip("langchain_core.embeddings", reason="embedqueue[langchain] is not installed")
    embedder = LangChainEmbedder(embeddings.DeterministicFakeEmbedding(size=16))
    np.testing.assert_array_equal(embedder.embed_batch([text]), embedder.embed_queries([text]))
    assert embedder.dimensions == 16


# -- what went wrong in a library ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind", "facts"),
    [
        (Refusal(503), TransientError, {"status": 503}),
        (Refusal(429, retry_after="7"), TransientError, {"retry_after": 7.0}),
        (Refusal(429, "slow down, try again in 6s"), TransientError, {"retry_after": 6.0}),
        (Refusal(429, "{'code': 'insufficient_quota'}"), ConfigurationError, {}),
        (Refusal(401), ConfigurationError, {}),
        (Refusal(400, "'input[1]' is too long"), InputRejected, {"index": 1}),
        (Refusal(413), CallTooLarge, {"measure": "bytes"}),
        (Refusal(400, "at most 100 requests"), CallTooLarge, {"limit": 100}),
        (TimeoutError(), TransientError, {"cause": "timeout"}),
        (ConnectionResetError("gone"), TransientError, {"cause": "connection"}),
        (MemoryError(), CallTooLarge, {"measure": "texts"}),
        (ImportError("no httpx"), ConfigurationError, {}),
        (KeyError("x"), TransientError, {"suspect_input": True}),
    ],
)
def test_an_exception_of_a_library_is_classified(error, kind, facts):
    """By its status as an answer over HTTP is, else by its kind."""
    failure = failure_of(error, ["one", "two"], [])
    assert type(failure) is kind
    assert {name: getattr(failure, name) for name in facts} == facts
    assert type(error).__name__ in str(failure)


def test_botos_status_is_found():
    """Amazon's SDK keeps it in a dictionary."""
    error = RuntimeError("throttled")
    error.response = {"ResponseMetadata": {"HTTPStatusCode": 429}}
    assert failure_of(error, ["x"], []).status == 429


def test_the_texts_of_a_call_are_not_shown():
    """Some libraries put the whole request into their errors."""
    text = "the patient's name is Mary"
    assert "Mary" not in str(failure_of(ValueError(f"cannot embed {text!r}"), [text], []))


def test_no_library_is_imported_with_embedqueue():
    """Also where they are installed: they take seconds."""
    code = (
        "import sys, embedqueue, embedqueue.embedders, embedqueue.integrations, embedqueue.settings.settings\n"
        "assert not {'litellm', 'langchain_core', 'sentence_transformers', 'torch', 'redisvl'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PROGRAM_SECONDS)


# -- LiteLLM ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "module", "extra"),
    [
        (lambda: LiteLLMEmbedder("openai/x"), "litellm", "litellm"),
        (SentenceTransformerEmbedder, "sentence_transformers", "sentence-transformers"),
    ],
)
def test_a_library_that_is_missing_is_named_at_the_first_call(make, module, extra, monkeypatch):
    """With what to install; making the embedder imports nothing."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigurationError, match=rf'needs {module}: pip install "embedqueue\[{extra}\]"'):
        make().embed_batch(["x"])


@pytest.fixture
def litellm(monkeypatch):
    """Offline: it would fetch a table of prices."""
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield pytest.importorskip("litellm", reason="embedqueue[litellm] is not installed")


def test_litellm_serves_documents_and_queries(litellm, provider: Provider):
    """With the length that is wanted; what it is asked for is the model of the embedder, not the queue's name of it."""
    place = {"api_key": "test-key", "api_base": provider.openai_url}
    embedder = LiteLLMEmbedder("openai/text-embedding-3-small", 8, query_role="query: ", **place)
    rows = embedder.embed_batch(["one", "two"], "label")
    np.testing.assert_allclose(rows, [vector_of("one", 8), vector_of("two", 8)])
    np.testing.assert_allclose(embedder.embed_queries(["one"]), [vector_of("query: one", 8)])
    assert {call.model for call in provider.calls} == {"text-embedding-3-small"}
    with pytest.raises(ConfigurationError, match="dimensions is not supported"):  # says LiteLLM, of any other model
        LiteLLMEmbedder("openai/small", 8, **place).embed_batch(["x"])


def test_litellm_hands_on_what_a_provider_says(litellm, provider: Provider):
    """And the key is not in it."""
    embedder = LiteLLMEmbedder("openai/small", api_key="another-secret-key", api_base=provider.openai_url)
    with pytest.raises(ConfigurationError, match="401") as refused:
        embedder.embed_batch(["x"])
    assert "another-secret" not in f"{refused.value}{embedder!r}"
    provider.settings.keys.append("another-secret-key")
    provider.script(fail(400, {"error": {"message": "Invalid 'input[0]': maximum input length is 8192 tokens."}}))
    with pytest.raises(InputRejected):
        embedder.embed_batch(["x"])


def test_litellms_roles_are_told(litellm, provider: Provider):
    """Cohere wants one in every call; the role of documents is a part of the space."""
    embedder = LiteLLMEmbedder(
        "cohere/embed-english-v3.0",
        8,
        api_key="test-key",
        api_base=f"{provider.url}/cohere/v2/embed",
        document_role={"input_type": "search_document"},
        query_role={"input_type": "search_query"},
    )
    embedder.embed_batch(["x"])
    embedder.embed_queries(["x"])
    assert [call.document["input_type"] for call in provider.calls] == ["search_document", "search_query"]
    assert role_of(embedder, "m") == "input_type=search_document"


# -- Sentence Transformers -------------------------------------------------------------------------------------------


class Model:
    """A loaded model of an older version, with prompts."""

    prompts = {"query": "query: "}
    max_seq_length = 256
    truncate_dim = None

    def encode(self, texts: list[str], prompt_name: str | None = None, **told: object) -> np.ndarray:
        prompt = self.prompts[prompt_name] if prompt_name else ""
        return np.stack([vector_of(prompt + text, self.truncate_dim or 8) for text in texts])


def test_an_older_model_gets_its_prompts():
    """Only where it has one: it fails for a prompt that it does not know."""
    embedder = SentenceTransformerEmbedder(Model(), 4)
    np.testing.assert_array_equal(embedder.embed_batch(["x"]), [vector_of("x", 4)])
    np.testing.assert_array_equal(embedder.embed_queries(["x"]), [vector_of("query: x", 4)])
    assert embedder.max_text_tokens == 256


def test_a_real_model_is_served(make_queue):
    """A small one that is made here: nothing is downloaded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library = pytest.importorskip("sentence_transformers", reason="embedqueue[sentence-transformers] is missing")
    tokenizers = pytest.importorskip("tokenizers")
    static = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"one": 0, "two": 1, "?": 2}, unk_token="?"))
    model = library.SentenceTransformer(modules=[static.StaticEmbedding(tokenizer, embedding_dim=16)], device="cpu")
    embedder = SentenceTransformerEmbedder(model, 8)
    queue = make_queue(embedder=embedder, model="static")
    one, again = queue.enqueue_many([("doc:1", "one"), ("doc:2", "one")])
    assert len(one.result(PATIENCE_SECONDS)) == 8
    assert one.result(0) == again.result(PATIENCE_SECONDS)
    assert len(queue.embed_query("two", PATIENCE_SECONDS)) == 8
