"""Redis or the provider is well again, or the queue stops meanwhile: who goes on, and who ends."""

from __future__ import annotations

import redis

from embedqueue import Observer
from tests.redis.parts import PATIENCE_SECONDS, expected


def test_a_write_that_redis_does_not_answer_is_told_of_once(make_queue, monkeypatch, caplog):
    """In the log; whoever counts hears of each try."""
    told = []
    observer = type("Counting", (Observer,), {"redis_failed": lambda self, report: told.append(str(report.error))})
    queue = make_queue(observers=[observer()])
    errors = [redis.ConnectionError(f"gone {count}") for count in range(3)]
    complete = queue._process.store.complete

    def fail(*args):
        if errors:
            raise errors.pop(0)
        return complete(*args)

    monkeypatch.setattr(queue._process.store, "complete", fail)
    assert queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS) == expected("one")
    assert caplog.text.count("Redis did not take a result, trying again: gone 0") == 1
    assert caplog.text.count("Redis did not take a result") == 1
    assert len(told) == 3


def test_a_write_is_not_tried_for_ever_once_the_queue_stops(make_queue, monkeypatch, embedder):
    """The lease runs out, and another process writes it."""
    queue = make_queue()

    def complete(*args):
        raise redis.ConnectionError("gone")

    monkeypatch.setattr(queue._process.store, "complete", complete)
    queue.enqueue("doc:1", "one")
    queue.flush_now()
    embedder.wait_for_returns(1)
    queue.stop(timeout=0.1)
    assert queue._process.drain.crew.wait(PATIENCE_SECONDS)
