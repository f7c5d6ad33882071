"""Dramatiq: one process of worker threads over its Redis broker."""

from __future__ import annotations

import threading

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.contenders.embedding import embed_and_write
from benchmarks.contenders.producer import BaseProducer, Pairs, by_call
from benchmarks.settings import Settings, from_environment

LABEL = "Dramatiq"
PACKAGES = ("dramatiq", "redis")


def make_actor(settings: Settings) -> dramatiq.Actor:
    """The actor, on a broker of its own."""
    quick = {"heartbeat_timeout": 5000, "maintenance_chance": 100_000} if settings.impatient else {}
    broker = RedisBroker(url=settings.redis_url, **quick)
    dramatiq.set_broker(broker)
    return dramatiq.actor(broker=broker, actor_name="embed", max_retries=3)(_embed)


def _embed(keys: list[str], texts: list[str]) -> None:
    embed_and_write(from_environment(), keys, texts)


def work(settings: Settings) -> None:
    """``dramatiq --processes 1 --threads N``."""
    actor = make_actor(settings)
    dramatiq.Worker(actor.broker, worker_threads=settings.calls).start()
    threading.Event().wait()


class Producer(BaseProducer):
    """A message per API call where there are many."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._actor = make_actor(settings)

    def enqueue(self, redis_key: str, text: str) -> None:
        self._actor.send([redis_key], [text])

    def fill(self, pairs: Pairs) -> None:
        for keys, texts in by_call(pairs):
            self._actor.send(keys, texts)
