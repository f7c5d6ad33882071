"""Queues whose items go into batch jobs of a stand-in."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from embedqueue import EmbeddingBatchQueue, GeminiEmbedder, OpenAIEmbedder
from embedqueue.embedders import MistralEmbedder, VoyageEmbedder
from tests.jobs.standin import DIMENSIONS, StandIn

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


@pytest.fixture(autouse=True)
def said(caplog):
    """Where a test fails, all that was said of jobs is told, for some of it is said quietly."""
    caplog.set_level(logging.DEBUG, "embedqueue")


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    server = StandIn()
    yield server
    server.stop()


@pytest.fixture(params=["openai", "gemini"])
def vendor(request) -> str:
    return request.param


def embedder_of(vendor: str, url: str) -> Any:
    if vendor == "openai":
        return OpenAIEmbedder("key", f"{url}/v1", DIMENSIONS, batches=True, max_text_tokens=1000)
    if vendor == "voyage":
        return VoyageEmbedder("key", f"{url}/v1", DIMENSIONS, max_text_tokens=1000)
    if vendor == "mistral":
        return MistralEmbedder("key", f"{url}/v1", DIMENSIONS, max_text_tokens=1000)
    return GeminiEmbedder("key", f"{url}/v1beta", DIMENSIONS, max_text_tokens=1000)


@pytest.fixture
def make(redis_client, stand_in, vendor) -> Iterator[Callable[..., EmbeddingBatchQueue]]:
    made = []

    def make(*, start: bool = True, **options: Any) -> EmbeddingBatchQueue:
        embedder = embedder_of(vendor, stand_in.url)
        queue = EmbeddingBatchQueue(embedder, redis_client, **{**OPTIONS, **options})
        made.append((queue, embedder))
        return queue.start() if start else queue

    yield make
    for queue, embedder in made:
        queue.stop(timeout=5)
        embedder.close()
