"""Load on a cluster: ever newer texts of a few keys, workers that are killed, and what must be so in the end."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from embedqueue import EmbeddingBatchQueue, NotReplicated
from tests import nursery
from tests.localcluster import LocalCluster
from tests.parts import DIMENSIONS, GatedEmbedder, eventually, in_thread, join, stored

#: Seconds in which all must be done when nothing disturbs it any more.
SETTLE_SECONDS = 40.0


class Load:
    """Enqueues texts of ever newer versions, and knows the last one of each key that was taken in."""

    def __init__(self, cluster: LocalCluster, keys: int = 40, **options) -> None:
        self.client = cluster.client()
        self.embedder = GatedEmbedder(DIMENSIONS)
        self.queue = EmbeddingBatchQueue(self.embedder, self.client, lease_seconds=2.0, flush_interval=0.05, **options)
        self.last: dict[str, str] = {}
        self.count, self.errors = 0, list[Exception]()
        self._keys = [f"doc:{number}" for number in range(keys)]
        self._stop = threading.Event()
        self._random = random.Random(7)

    def _run(self) -> None:
        while not self._stop.is_set():
            key, text = self._random.choice(self._keys), f"version {self.count}"
            self._enqueue(key, text)
            self.last[key] = text
            self.count += 1
            self._stop.wait(0.002)

    def _enqueue(self, key: str, text: str) -> None:
        while True:
            try:
                self.queue.enqueue(key, text)
                return
            except (redis.RedisError, NotReplicated) as error:  # it may or may not be taken in: again
                self.errors.append(error)
                assert len(self.errors) < 200

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = in_thread(self._run)
        try:
            yield
        finally:
            self._stop.set()
            join(thread)

    def settled(self) -> None:
        """All is done, and each hash has the vector of its newest text."""
        end_mono = time.monotonic() + SETTLE_SECONDS
        self.queue.flush(SETTLE_SECONDS)
        assert time.monotonic() < end_mono
        eventually(lambda: self.queue.stats().in_flight == 0, "nothing is in flight")
        stats = self.queue.stats()
        assert (stats.waiting, stats.dead) == (0, 0)
        wrong = {key: text for key, text in self.last.items() if self.client.hget(key, "embedding") != stored(text)}
        assert not wrong

    def close(self) -> None:
        self.queue.stop(timeout=0.2)
        self.client.close()


class Workers:
    """Worker processes, of which one is killed and replaced now and then."""

    def __init__(self, cluster: LocalCluster, count: int = 2, **options) -> None:
        ports = ",".join(str(node.port) for node in cluster.nodes)
        words = [f"{name}={value}" for name, value in options.items()]
        self._arguments = [ports, "flush_interval=0.05", *words]
        self._running = [self._start() for _ in range(count)]
        self.killed = 0

    def _start(self) -> nursery.Process:
        return nursery.start("tests.cluster.worker", *self._arguments)

    def kill_one(self) -> None:
        one = self._running.pop(0)
        assert one.stdout is not None
        assert one.stdout.readline() == b"works\n"
        self._end(one)
        self.killed += 1
        self._running.append(self._start())

    @staticmethod
    def _end(one: nursery.Process) -> None:
        one.kill()
        one.wait(45)
        if one.stdout is not None:
            one.stdout.close()

    def close(self) -> None:
        for one in self._running:
            self._end(one)
