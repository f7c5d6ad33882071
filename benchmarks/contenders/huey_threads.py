"""Huey: a consumer of threads, results off."""

from __future__ import annotations

from huey import RedisHuey

from benchmarks.contenders.embedding import embed_and_write
from benchmarks.contenders.producer import BaseProducer, Pairs, by_call
from benchmarks.settings import Settings, from_environment

LABEL = "Huey"
PACKAGES = ("huey", "redis")


def make_huey(settings: Settings) -> RedisHuey:
    """The instance, with its one task."""
    huey = RedisHuey("embed", results=False, url=settings.redis_url)
    huey.embed_batch = huey.task(retries=3, name="embed")(_embed)
    return huey


def _embed(keys: list[str], texts: list[str]) -> None:
    embed_and_write(from_environment(), keys, texts)


def work(settings: Settings) -> None:
    """``huey_consumer -k thread -w N``."""
    make_huey(settings).create_consumer(workers=settings.calls, worker_type="thread", periodic=False).run()


class Producer(BaseProducer):
    """A task per API call where there are many."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._task = make_huey(settings).embed_batch

    def enqueue(self, redis_key: str, text: str) -> None:
        self._task([redis_key], [text])

    def fill(self, pairs: Pairs) -> None:
        for keys, texts in by_call(pairs):
            self._task(keys, texts)
