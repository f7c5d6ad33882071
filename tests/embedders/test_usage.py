"""What a call was charged comes from its answer, and belongs to the thread that has made the call."""

from __future__ import annotations

import threading

import pytest

from embedqueue import GeminiEmbedder, LocalEmbedder, OpenAIEmbedder, OpenRouterEmbedder, TokenMeter
from embedqueue.embedders.usage import charged, whole
from tests.provider import fail, raw

EMBEDDERS = {
    "openai": lambda provider: OpenAIEmbedder("test-key", provider.openai_url, 16),
    "openrouter": lambda provider: OpenRouterEmbedder("test-key", provider.openrouter_url, 16),
    "gemini": lambda provider: GeminiEmbedder("test-key", provider.gemini_url, 128),
}


@pytest.fixture(params=EMBEDDERS)
def embedder(request, provider):
    """Each that speaks to a provider."""
    return EMBEDDERS[request.param](provider)


def test_the_answer_tells(embedder, provider):
    """Once: what was asked for is forgotten. Several calls of a thread add up."""
    provider.settings.tokens_per_text = 7
    assert isinstance(embedder, TokenMeter)
    assert embedder.take_tokens() is None
    embedder.embed_batch(["one", "two"], "google/m")
    assert embedder.take_tokens() == 14
    assert embedder.take_tokens() is None
    embedder.embed_batch(["one"], "google/m"), embedder.embed_batch(["two"], "google/m")
    assert embedder.take_tokens() == 14


def test_an_answer_without_usage_and_a_refusal_tell_nothing(embedder, provider):
    """Nobody guesses here."""
    provider.settings.tokens_per_text = None
    embedder.embed_batch(["one"], "google/m")
    assert embedder.take_tokens() is None
    provider.script(fail(429))
    with pytest.raises(Exception, match="429"):
        embedder.embed_batch(["one"], "google/m")
    assert embedder.take_tokens() is None


def test_an_answer_that_nobody_can_use_was_charged_all_the_same(provider):
    """Vectors are missing, and the provider has counted."""
    embedder = EMBEDDERS["openrouter"](provider)
    provider.script(raw({"data": [], "usage": {"total_tokens": 9}}))
    with pytest.raises(Exception, match="data"):
        embedder.embed_batch(["one"], "google/m")
    assert embedder.take_tokens() == 9


def test_threads_do_not_see_each_others(provider):
    """Calls run side by side."""
    embedder = EMBEDDERS["openai"](provider)
    embedder.embed_batch(["one"], "m")
    found = []
    thread = threading.Thread(
        target=lambda: (embedder.embed_batch(["a", "b"], "m"), found.append(embedder.take_tokens()))
    )
    thread.start()
    thread.join(45)
    assert (found, embedder.take_tokens()) == ([2], 1)


def test_who_overrides_embed_batch_keeps_the_usage(provider):
    """A subclass that changes the texts need know nothing of it."""

    class Prefixed(OpenAIEmbedder):
        def embed_batch(self, texts, model):
            return super().embed_batch([f"passage: {text}" for text in texts], model)

    embedder = Prefixed("test-key", provider.openai_url, 16)
    embedder.embed_batch(["one", "two"], "m")
    assert embedder.take_tokens() == 2


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"total_tokens": 5, "prompt_tokens": 4}, 5),
        ({"prompt_tokens": 4}, 4),
        ({"total_tokens": 0, "prompt_tokens": 4}, 4),
        ({"total_tokens": 0, "prompt_tokens": 0}, None),
        ({"total_tokens": "5"}, None),
        ({"total_tokens": True}, None),
        ({"total_tokens": -5}, None),
        ({"total_tokens": 10**13}, None),
        ({"total_tokens": 2.5, "prompt_tokens": [1]}, None),
        (None, None),
        ([1], None),
    ],
)
def test_whatever_stands_there(usage, tokens):
    """Servers that do not count say 0, or anything."""
    assert charged(usage, "total_tokens", "prompt_tokens") == tokens


def test_no_meter():
    """An embedder with the two names alone works, and is none."""
    assert not isinstance(LocalEmbedder(), TokenMeter)
    assert whole(0) == 0
