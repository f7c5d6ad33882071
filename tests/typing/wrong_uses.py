"""Uses that type checkers must refuse, each on a line of its own. Type checkers read this; nothing runs it."""

from __future__ import annotations

from collections.abc import Sequence

import redis
import redis.asyncio

from embedqueue import CallReport, EmbeddingBatchQueue, Observer
from embedqueue.contrib.django import enqueue_on_commit
from embedqueue.contrib.flask import EmbedQueue
from embedqueue.testing import FakeEmbedder, eager_queue


class NoDimensions:
    def embed_batch(self, texts: Sequence[str], model: str) -> list[list[float]]:
        return [[1.0] for _ in texts]


class Strings:
    dimensions = 1

    def embed_batch(self, texts: Sequence[str], model: str) -> list[str]:
        return ["1.0" for _ in texts]


class Wrong(Observer):
    def call_ended(self, report: str) -> None:  # refused
        pass


def not_of_calls(text: str) -> None:
    pass


fake = FakeEmbedder()
client = redis.Redis()
queue = EmbeddingBatchQueue(fake, client)

EmbeddingBatchQueue(client, fake)  # refused
EmbeddingBatchQueue(NoDimensions(), client)  # refused
EmbeddingBatchQueue(Strings(), client)  # refused
EmbeddingBatchQueue(fake, redis.asyncio.Redis())  # refused
EmbeddingBatchQueue(fake, client, max_batch_size="50")  # refused
EmbeddingBatchQueue(fake, client, max_batchsize=50)  # refused
EmbeddingBatchQueue(fake, client, if_missing="ignore")  # refused
EmbeddingBatchQueue(fake, client, max_concurrency="all")  # refused
EmbeddingBatchQueue(fake, client, observers=[fake])  # refused
EmbeddingBatchQueue(fake, client, on_error=not_of_calls)  # refused
EmbeddingBatchQueue(fake, client, retry=3)  # refused
queue.enqueue("doc:1")  # refused
queue.enqueue(1, "text")  # refused
queue.enqueue("doc:1", b"text")  # refused
queue.enqueue_many({"doc:1": "text"})  # refused
queue.enqueue_many(["doc:1"])  # refused
queue.enqueue("doc:1", "text").result("30")  # refused
text: str = queue.enqueue("doc:1", "text").result()  # refused
queue.stats().waiting = 3  # refused
queue.options = None  # refused
queue.retry_dead([1])  # refused
CallReport("error")  # refused
EmbedQueue("app")  # refused
EmbedQueue().enqueue("note:1", 7)  # refused
enqueue_on_commit("note:1", None)  # refused
eager_queue(client)  # refused
