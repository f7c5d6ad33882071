"""What the log says: to whom a record belongs, and nothing that must not leave the process."""

from __future__ import annotations

import contextvars
import logging
import threading

import pytest

from embedqueue import EmbeddingBatchQueue, InputRejected, ItemRejected
from embedqueue.testing import FakeEmbedder

REQUEST: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")
SECRET_TEXT = "the patient's name is Ada"


class Choosy(FakeEmbedder):
    """Refuses the secret text, quoting it as providers do."""

    def embed_batch(self, texts, model):
        if SECRET_TEXT in texts:
            raise InputRejected(f"cannot embed {SECRET_TEXT!r}")
        return super().embed_batch(texts, model)


def test_records_of_a_call(fake_redis, caplog):
    """A call's record names the queue, its texts by number and its time; the user's own ``extra`` would be kept."""
    caplog.set_level(logging.INFO, "embedqueue")
    with EmbeddingBatchQueue(FakeEmbedder(), fake_redis, namespace="mine") as queue:
        futures = queue.enqueue_many((f"doc:{i}", f"text {i}") for i in range(3))
        futures[0].result(10)
    [record] = [record for record in caplog.records if hasattr(record, "duration")]
    assert (record.namespace, record.batch_size, record.levelname) == ("mine", 3, "INFO")
    assert 0 <= record.duration < 10


@pytest.mark.parametrize("level", [logging.INFO, logging.DEBUG])
def test_no_text_at_info(fake_redis, caplog, level):
    """A refusal that quotes the text is told in dead_letters(), and in the log at DEBUG only."""
    caplog.set_level(level, "embedqueue")
    with EmbeddingBatchQueue(Choosy(), fake_redis) as queue:
        with pytest.raises(ItemRejected):
            queue.enqueue("doc:1", SECRET_TEXT).result(10)
        assert SECRET_TEXT in queue.dead_letters()[0].reason
    assert "doc:1 is a dead letter now" in caplog.text
    assert {record.namespace for record in caplog.records} == {"embed_queue"}
    assert (SECRET_TEXT in caplog.text) == (level == logging.DEBUG)


def test_whose_context_variables_are_seen(fake_redis):
    """A callback sees those of its request, whichever thread ends the future; an API call is of many and sees none."""
    seen: dict[str, str] = {}
    ended = threading.Semaphore(0)

    class Watching(FakeEmbedder):
        def embed_batch(self, texts, model):
            seen["call"] = REQUEST.get()
            return super().embed_batch(texts, model)

    def request(name):
        REQUEST.set(name)
        future = queue.enqueue(f"doc:{name}", "text")
        future.add_done_callback(lambda _: (seen.update({name: REQUEST.get()}), ended.release()))

    def ask():
        REQUEST.set("who starts the worker")
        queue.start().flush_now()

    queue = EmbeddingBatchQueue(Watching(), fake_redis)
    for target, *args in ((request, "one"), (request, "two"), (ask,)):
        thread = threading.Thread(target=target, args=args)
        thread.start()
        thread.join(10)
    assert ended.acquire(timeout=10) and ended.acquire(timeout=10)
    queue.stop()
    assert seen == {"one": "one", "two": "two", "call": "none"}
