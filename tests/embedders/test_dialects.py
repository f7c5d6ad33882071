"""Servers that cut a text which is too long are asked to refuse it, where they can be asked."""

from __future__ import annotations

import numpy as np
import pytest

from embedqueue import ItemRejected, OpenAIEmbedder, TransientError
from embedqueue.embedders.dialects import dialect_of
from embedqueue.values.errors import CallTooLarge, InputRejected
from tests.parts import ONE_TRY, PATIENCE_SECONDS
from tests.provider import Provider, raw, vector_of

LONG = "one two three four five six"


@pytest.fixture
def server(provider: Provider) -> Provider:
    """A server of one's own whose model takes four words."""
    provider.settings.require_key, provider.settings.text_tokens, provider.settings.cuts = False, 4, True
    return provider


@pytest.fixture(params=["/embed", "/api/embed"])
def own(request, server) -> OpenAIEmbedder:
    """TEI and Ollama, by the address of their own formats."""
    return OpenAIEmbedder("", f"{server.url}{request.param}", dimensions=8)


def test_texts_come_in_order(own):
    """As many vectors as texts, each its own."""
    rows = own.embed_batch(["one", "two"], "bge-m3")
    np.testing.assert_array_equal(rows, [vector_of("one", 8), vector_of("two", 8)])


def test_a_long_text_is_refused_and_its_neighbours_are_embedded(own, make_queue, redis_client):
    """The server would have cut it without a word: it has to be told not to, in every call."""
    queue = make_queue(embedder=own, start=False, retry=ONE_TRY, model="some-model")
    short, long = queue.enqueue_many([("doc:1", "one two"), ("doc:2", LONG)])
    queue.start()
    assert short.result(PATIENCE_SECONDS) == vector_of("one two", 8).tolist()
    with pytest.raises(ItemRejected, match=r"length exceeds|must have less than 4 tokens"):
        long.result(PATIENCE_SECONDS)
    assert not redis_client.exists("doc:2")
    assert not own.cuts_long_texts("some-model")


def test_the_same_servers_in_openais_format_cannot_be_asked(server):
    """They cut, and so whoever sends must know the limit."""
    embedder = OpenAIEmbedder("", server.openai_url, dimensions=8)
    np.testing.assert_array_equal(embedder.embed_batch([LONG], "m"), [vector_of("one two three four", 8)])
    assert embedder.cuts_long_texts("m")
    assert not OpenAIEmbedder("key").cuts_long_texts("text-embedding-3-large")


def test_a_user_may_want_the_server_to_cut(server):
    """What the user gives for every request wins."""
    embedder = OpenAIEmbedder("", f"{server.url}/api/embed", dimensions=8, body={"truncate": True})
    np.testing.assert_array_equal(embedder.embed_batch([LONG], "m"), [vector_of("one two three four", 8)])


def test_voyage_is_told_not_to_cut(server, monkeypatch):
    """By its host; its words speak of truncation, and are not taken for a refusal of that option."""
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", server.url)
    embedder = OpenAIEmbedder("key", "http://api.voyageai.com/v1", dimensions=8, body={"output_dimension": 8})
    np.testing.assert_array_equal(embedder.embed_batch(["one two"], "voyage-4"), [vector_of("one two", 8)])
    with pytest.raises(InputRejected, match="index 1") as refused:
        embedder.embed_batch(["one", LONG], "voyage-4")
    assert refused.value.index == 1
    assert {call.document["truncation"] for call in server.calls} == {False}
    assert not embedder.cuts_long_texts("voyage-4")


def test_a_call_of_too_many_texts_is_told_from_a_long_text(server):
    """TEI says both with 422."""
    server.settings.max_texts = 2
    with pytest.raises(CallTooLarge) as refused:
        OpenAIEmbedder("", f"{server.url}/embed", dimensions=8).embed_batch(["a", "b", "c"], "m")
    assert (refused.value.measure, refused.value.limit) == ("texts", 2)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/embed", {"error": "overloaded"}),
        ("/embed", "text"),
        ("/embed", [[1.0] * 8]),
        ("/embed", [1.0, 2.0]),
        ("/api/embed", {"embeddings": None}),
        ("/api/embed", {"embeddings": [[1.0] * 8]}),
        ("/api/embed", {"model": "m"}),
        ("/api/embed", [[1.0] * 8] * 2),
    ],
    ids=repr,
)
def test_answers_that_cannot_be_paired_are_never_taken(server, path, body):
    """Two texts, and something else than two vectors."""
    server.script(raw(body))
    with pytest.raises(TransientError):
        OpenAIEmbedder("", server.url + path, dimensions=8).embed_batch(["a", "b"], "m")


def test_a_broken_address_is_no_dialect():
    """It shows at the first call."""
    assert dialect_of("http://[").texts == "input"
