"""RQ: its worker pool, of workers that do not fork for each job (``rq worker-pool -w rq.SimpleWorker``)."""

from __future__ import annotations

import logging
import time

import redis
from rq import Queue, Retry, SimpleWorker
from rq.registry import StartedJobRegistry
from rq.worker_pool import WorkerPool

from benchmarks.contenders.embedding import embed_and_write
from benchmarks.contenders.producer import BaseProducer, Pairs, by_call
from benchmarks.settings import Settings, from_environment

LABEL = "RQ"
PACKAGES = ("rq", "redis")
QUEUE = "embed"


def embed_batch(keys: list[str], texts: list[str]) -> None:
    """The job: one API call's worth."""
    embed_and_write(from_environment(), keys, texts)


def _connect(settings: Settings) -> redis.Redis:
    return redis.Redis(port=settings.redis_port, db=settings.db)


def work(settings: Settings) -> None:
    """As many worker processes as calls in flight: each runs one job at a time."""
    logging.getLogger("rq.worker").setLevel(logging.ERROR)
    pool = WorkerPool([QUEUE], connection=_connect(settings), num_workers=settings.calls, worker_class=SimpleWorker)
    pool.start(burst=False, logging_level="ERROR")


def recover(settings: Settings) -> None:
    """What RQ's maintenance does with jobs of dead workers, every ten minutes: now instead."""
    queue = Queue(QUEUE, connection=_connect(settings))
    StartedJobRegistry(queue=queue).cleanup(timestamp=time.time() + 3600)


class Producer(BaseProducer):
    """Jobs without results, tried again when their worker dies."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._queue = Queue(QUEUE, connection=_connect(settings))

    def enqueue(self, redis_key: str, text: str) -> None:
        self._queue.enqueue(embed_batch, [redis_key], [text], result_ttl=0, retry=Retry(max=3))

    def fill(self, pairs: Pairs) -> None:
        self._queue.enqueue_many(
            [Queue.prepare_data(embed_batch, task, result_ttl=0, retry=Retry(max=3)) for task in by_call(pairs)]
        )
