"""Celery with celery-batches: a task a text, gathered into batches by the worker.

As its README says: a prefetch count above ``flush_every``, results ignored, arguments read from the requests.
The pool is of threads, because the work waits for a network; a pool of processes was slower here.
"""

from __future__ import annotations

from celery import Celery
from celery_batches import Batches, SimpleRequest

from benchmarks.contenders.embedding import embed_and_write
from benchmarks.contenders.producer import BaseProducer, Pairs
from benchmarks.settings import CALL_TEXTS, Settings, from_environment

LABEL = "celery-batches"
PACKAGES = ("celery", "celery-batches", "kombu", "redis")
#: A dead worker's messages come back after an hour, some each ten seconds, unless told otherwise.
IMPATIENT = {
    "visibility_timeout": 5,
    "unacked_restore_limit": 10_000,
    "unacked_restore_interval": 1,
    "unacked_restore_throttle": 1,
}
#: Seconds that a batch waits to be full.
FLUSH_SECONDS = 0.05


def make_app(settings: Settings) -> Celery:
    """The application: broker and settings."""
    app = Celery("benchmark", broker=settings.redis_url)
    app.conf.update(
        task_ignore_result=True,
        worker_prefetch_multiplier=2 * CALL_TEXTS,  # times the concurrency: two batches for each
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        broker_connection_retry_on_startup=True,
        broker_transport_options=IMPATIENT if settings.impatient else {},
    )
    app.task(base=Batches, flush_every=CALL_TEXTS, flush_interval=FLUSH_SECONDS, name="embed", acks_late=True)(_embed)
    return app


def _embed(requests: list[SimpleRequest]) -> None:
    embed_and_write(from_environment(), [r.args[0] for r in requests], [r.args[1] for r in requests])


def work(settings: Settings) -> None:
    """``celery worker --pool threads``."""
    app = make_app(settings)
    arguments = ["--quiet", "worker", "--pool", "threads", "--concurrency", str(settings.calls), "--loglevel", "ERROR"]
    app.worker_main([*arguments, "--without-gossip", "--without-mingle", "--without-heartbeat"])


class Producer(BaseProducer):
    """``delay``, one task a text: batching is the worker's work."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._task = make_app(settings).tasks["embed"]

    def enqueue(self, redis_key: str, text: str) -> None:
        self._task.delay(redis_key, text)

    def fill(self, pairs: Pairs) -> None:
        for redis_key, text in pairs:
            self._task.delay(redis_key, text)
