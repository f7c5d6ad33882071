"""One process of the rig: a producer that enqueues and waits, or a worker that drains. Started by the conductor."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import random
import signal
import threading
import time
from concurrent.futures import CancelledError
from typing import Any

import numpy as np
import redis
import tenacity

from embedqueue import EmbeddingBatchQueue, EmbedQueueError, OpenAIEmbedder

DIMENSIONS = 16
#: Short, so that a killed worker's items come back while the rig watches.
LEASE_SECONDS = 1.5
RESULT_SECONDS = 20.0


def text_of(redis_key: str, version: int) -> str:
    """The text of a key's version: unlike any other."""
    return f"{redis_key} in version {version} " + "word " * (version % 7)


def digest(vector: Any) -> str:
    """A short name of a vector, exact to the bit."""
    return hashlib.sha1(np.asarray(vector, dtype="<f4").tobytes()).hexdigest()[:16]


class Journal:
    """What this process knows, line by line: os.write survives a SIGKILL of the writer."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, event: str, **facts: Any) -> None:
        os.write(self._file, json.dumps({"event": event, **facts}).encode() + b"\n")


def make_queue(redis_url: str, provider_url: str, *, worker: bool) -> EmbeddingBatchQueue:
    """The queue as every process of the rig has it."""
    return EmbeddingBatchQueue(
        OpenAIEmbedder("test-key", provider_url, dimensions=DIMENSIONS, timeout=(1, 2), deadline=3),
        redis.from_url(redis_url, socket_timeout=2),
        model="torture",
        flush_interval=0.2,
        max_batch_size=20,
        api_batch_limit=20,
        lease_seconds=LEASE_SECONDS,
        max_deliveries=50,
        worker=worker,
        retry=tenacity.Retrying(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_random_exponential(0.05, 0.5)),
    )


class Producer:
    """Owns its keys, so that the order of their texts is known; enqueues in every way, and waits for some."""

    def __init__(self, queue: EmbeddingBatchQueue, journal: Journal, name: str, rng: random.Random) -> None:
        self._queue = queue
        self._journal = journal
        self._rng = rng
        self._versions = {f"doc:{name}:{i}": 0 for i in range(30)}

    def run(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            try:
                self._act()
            except (redis.RedisError, EmbedQueueError) as error:
                self._journal.write("refused", error=type(error).__name__)
                stopping.wait(0.05)
            stopping.wait(self._rng.uniform(0.0, 0.02))

    def _act(self) -> None:
        keys = self._rng.sample(sorted(self._versions), self._rng.choice([1, 1, 1, 5]))
        items = []
        for key in keys:
            if self._versions[key] == 0 or self._rng.random() < 0.8:
                self._versions[key] += 1
            items.append((key, text_of(key, self._versions[key])))
        named = {key: self._versions[key] for key in keys}
        self._journal.write("try", versions=named)
        if len(items) == 1:
            futures = [self._queue.enqueue(*items[0])]
        else:
            futures = self._queue.enqueue_many(items)
        self._journal.write("accepted", versions=named)
        if self._rng.random() < 0.3:
            self._wait(futures[0], keys[0], named[keys[0]])

    def _wait(self, future: Any, key: str, version: int) -> None:
        self._journal.write("waits", key=key)
        outcome: dict[str, Any] = {}
        try:
            outcome["vector"] = digest(future.result(timeout=RESULT_SECONDS))
        except (TimeoutError, CancelledError, EmbedQueueError) as error:
            outcome["error"] = type(error).__name__
        self._journal.write("ended", key=key, version=version, **outcome)


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("role", "name", "redis", "provider", "journal"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    journal = Journal(options.journal)
    rng = random.Random(options.seed)
    # Half of the producers drain as well, as a gunicorn worker does.
    queue = make_queue(options.redis, options.provider, worker=options.role == "worker" or rng.random() < 0.5)
    with queue:
        if options.role == "producer":
            Producer(queue, journal, options.name, rng).run(stopping)
        else:
            while not stopping.wait(0.2):
                pass
    journal.write("stopped", at=time.time())


if __name__ == "__main__":
    main()
