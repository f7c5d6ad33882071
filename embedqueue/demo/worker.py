"""A worker process of the demo: a real model behind the queue, made as slow as an API across the network."""

from __future__ import annotations

import argparse
import os
import signal
import time
from collections.abc import Sequence
from typing import Any

import redis

from embedqueue.embedders import LocalEmbedder
from embedqueue.queue import EmbeddingBatchQueue

#: Seconds that a call takes: what a hosted API takes, so that there is something to interrupt.
CALL_SECONDS = 0.15
#: Texts in one call, few enough to make a progress bar worth watching.
CALL_TEXTS = 16
#: Seconds after which a killed worker's items are taken over.
LEASE_SECONDS = 2.0
#: Where the workers count their calls, to be honest about what the kill cost.
COUNTERS = "demo_counters"


class HostedLike:
    """The offline model, with the latency of a hosted one, and every call counted in Redis."""

    def __init__(self, client: redis.Redis) -> None:
        self._model = LocalEmbedder()
        self._client = client

    @property
    def dimensions(self) -> int:
        """Length of the model's vectors."""
        return self._model.dimensions

    def embed_batch(self, texts: Sequence[str], model: str) -> Any:
        """Embed, after the time that a hosted API takes."""
        self._client.hincrby(COUNTERS, "calls", 1)
        self._client.hincrby(COUNTERS, "texts", len(texts))
        time.sleep(CALL_SECONDS)
        return self._model.embed_batch(texts, model)


def make_queue(client: redis.Redis, *, worker: bool) -> EmbeddingBatchQueue:
    """The queue as all processes of the demo have it."""
    return EmbeddingBatchQueue(
        HostedLike(client),
        client,
        model="wordllama",
        lease_seconds=LEASE_SECONDS,
        api_batch_limit=CALL_TEXTS,
        max_concurrency=2,
        worker=worker,
    )


def main() -> None:
    """Work until told to stop, or until the process that started us is gone."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    url = parser.parse_args().url
    told: list[int] = []  # by a signal; its handler sets no event, for it may interrupt the wait for that
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: told.append(number))
    parent = os.getppid()
    with make_queue(redis.from_url(url), worker=True):
        while not told and os.getppid() == parent:
            time.sleep(0.5)


if __name__ == "__main__":
    main()
