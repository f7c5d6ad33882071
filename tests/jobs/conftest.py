"""Queues whose items go into batch jobs of a stand-in."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from embedqueue import EmbeddingBatchQueue
from tests.inside import FAILURE_SECONDS, REFRESH_SECONDS
from tests.jobs.options import OPTIONS, embedder_of
from tests.jobs.standin import StandIn


@pytest.fixture(autouse=True)
def said(caplog):
    """Where a test fails, all that was said of jobs is told, for some of it is said quietly."""
    caplog.set_level(logging.DEBUG, "embedqueue")


@pytest.fixture(autouse=True)
def short_day(monkeypatch):
    """A day as these tests play it has no seconds to find out that something waits for jobs, or to try again."""
    monkeypatch.setattr(*REFRESH_SECONDS, 0.2)
    monkeypatch.setattr(*FAILURE_SECONDS, (0.2, 60.0))


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    server = StandIn()
    yield server
    server.stop()


@pytest.fixture(params=["openai", "gemini"])
def vendor(request) -> str:
    return request.param


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
