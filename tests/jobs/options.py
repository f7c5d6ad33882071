"""How the queues of these tests are made, also those of processes of their own."""

from __future__ import annotations

from typing import Any

from embedqueue import GeminiEmbedder, OpenAIEmbedder
from embedqueue.embedders import MistralEmbedder, VoyageEmbedder
from tests.jobs.standin import DIMENSIONS

#: A day as a test plays it.
OPTIONS: dict[str, Any] = {
    "economy": True,
    "economy_after": 1000.0,
    "economy_deadline": 500.0,
    "economy_min_texts": 2,
    "economy_poll": (0.05, 0.2),
    "economy_lag": 0.4,
    "lease_seconds": 2.0,
    "flush_interval": 100.0,
    "model": "m",
}
#: What goes into jobs.
PATIENT = 5000.0


def embedder_of(vendor: str, url: str) -> Any:
    if vendor == "openai":
        return OpenAIEmbedder("key", f"{url}/v1", DIMENSIONS, batches=True, max_text_tokens=1000)
    if vendor == "voyage":
        return VoyageEmbedder("key", f"{url}/v1", DIMENSIONS, max_text_tokens=1000)
    if vendor == "mistral":
        return MistralEmbedder("key", f"{url}/v1", DIMENSIONS, max_text_tokens=1000)
    return GeminiEmbedder("key", f"{url}/v1beta", DIMENSIONS, max_text_tokens=1000)
