"""What providers say of their limits, in every form that is known."""

from __future__ import annotations

import json

import pytest
from requests.structures import CaseInsensitiveDict

from embedqueue import GeminiEmbedder, OpenAIEmbedder, TransientError
from embedqueue.embedders.faults import read_fault
from embedqueue.embedders.protocol import RateSeen, TellsRates
from embedqueue.embedders.rates import rates_of
from tests.provider import Answer

NOW = 1_800_000_000.0
MINUTE = RateSeen("requests", "minute", 600, 599)


def headers(suffix: str, limit: object, remaining: object = "", reset: object = "") -> CaseInsensitiveDict:
    names = ("limit", "remaining", "reset")
    pairs = zip(names, (limit, remaining, reset), strict=True)
    return CaseInsensitiveDict({f"X-RateLimit-{name}{suffix}": str(value) for name, value in pairs if value != ""})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (headers("-Requests", 600, 599, "100ms"), [MINUTE]),
        (headers("-Requests", 600, 599), [MINUTE]),
        (headers("-Tokens", 1_000_000, 0, "1m0s"), [RateSeen("tokens", "minute", 1_000_000, 0)]),
        # the limit of a day, which comes back steadily: OpenAI's free tier, Groq
        (headers("-Requests", 200, 199, "7m12s"), [RateSeen("requests", "day", 200, 199)]),
        (headers("-Requests", 14_400, 14_370, "2m59.56s"), [RateSeen("requests", "day", 14_400, 14_370)]),
        # windows that end at an instant, or in so many seconds: OpenRouter, Cohere
        (headers("", 20, 0, int((NOW + 58) * 1000)), [RateSeen("requests", "minute", 20, 0)]),
        (headers("", 50, 0, int(NOW + 40_000)), [RateSeen("requests", "day", 50, 0)]),
        (headers("", 1500, 1499, 58), [RateSeen("requests", "minute", 1500, 1499)]),
        (headers("-Requests", 0), []),
        (headers("-Requests", "unlimited"), []),
        (headers("-Requests", "9" * 200), []),
        (CaseInsensitiveDict(), []),
    ],
)
def test_headers(given, expected):
    assert list(rates_of(given, None, NOW)) == expected


def quota(name: str, value: object = "100") -> bytes:
    violation = {"quotaMetric": "m", "quotaId": name, "quotaValue": value}
    details = [{"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]}]
    return json.dumps({"error": {"code": 429, "message": "quota", "details": details}}).encode()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (quota("EmbedContentRequestsPerMinutePerProjectPerModel-FreeTier"), [RateSeen("texts", "minute", 100, 0)]),
        (quota("EmbedContentInputTokensPerMinutePerProject"), [RateSeen("tokens", "minute", 100, 0)]),
        (quota("EmbedContentRequestsPerDayPerUser-FreeTier", "1000"), [RateSeen("texts", "day", 1000, 0)]),
        (quota("SpendPerTenMinutes"), []),
        (quota("EmbedContentRequestsPerMinute", None), []),
        (
            json.dumps({"error": {"message": "Rate limit reached for m on requests per min (RPM): Limit 3, Used 3"}}),
            [RateSeen("requests", "minute", 3, 0)],
        ),
        (
            json.dumps({"error": {"message": "on tokens per min (TPM): Limit 1,000,000, Used 999"}}),
            [RateSeen("tokens", "minute", 1_000_000, 0)],
        ),
        (b"Too Many Requests", []),
    ],
)
def test_refusals(body, expected):
    fault = read_fault(429, body if isinstance(body, bytes) else body.encode())
    assert list(rates_of(CaseInsensitiveDict(), fault, NOW)) == expected


def test_an_embedder_tells_of_its_last_answer(provider):
    """Of a success, and of a refusal; nothing of what was said before."""
    embedder = OpenAIEmbedder("test-key", provider.openai_url, dimensions=8)
    assert isinstance(embedder, TellsRates)
    assert isinstance(GeminiEmbedder("k"), TellsRates)
    assert embedder.rates_seen() == ()
    provider.script(Answer(headers={"x-ratelimit-limit-requests": "600", "x-ratelimit-remaining-requests": "599"}))
    embedder.embed_batch(["a", "b"], "m")
    assert list(embedder.rates_seen()) == [MINUTE]
    provider.script(Answer(429, body=quota("EmbedContentRequestsPerMinute", "30").decode()))
    with pytest.raises(TransientError):
        embedder.embed_batch(["a"], "m")
    assert list(embedder.rates_seen()) == [RateSeen("texts", "minute", 30, 0)]
    provider.script(Answer(429, body="{}"))
    with pytest.raises(TransientError):
        embedder.embed_batch(["a"], "m")
    assert list(embedder.rates_seen()) == []
