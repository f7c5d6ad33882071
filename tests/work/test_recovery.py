"""Redis or the provider is well again, or the queue stops meanwhile: who goes on, and who ends."""

from __future__ import annotations

import threading

import redis

from embedqueue import Observer
from tests.inside import inside
from tests.parts import PATIENCE_SECONDS, expected


def test_a_write_that_redis_does_not_answer_is_told_of_once(make_queue, monkeypatch, caplog):
    """In the log; whoever counts hears of each try."""
    told = []
    observer = type("Counting", (Observer,), {"redis_failed": lambda self, report: told.append(str(report.error))})
    queue = make_queue(observers=[observer()])
    errors = [redis.ConnectionError(f"gone {count}") for count in range(3)]
    complete = inside(queue).store.complete

    def fail(*args):
        if errors:
            raise errors.pop(0)
        return complete(*args)

    monkeypatch.setattr(inside(queue).store, "complete", fail)
    assert queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS) == expected("one")
    assert caplog.text.count("Redis did not take a result, trying again: gone 0") == 1
    assert caplog.text.count("Redis did not take a result") == 1
    assert len(told) == 3


def test_a_write_is_not_tried_for_ever_once_the_queue_stops(make_queue, monkeypatch, embedder):
    """The lease runs out, and another process writes it."""
    queue = make_queue()

    def complete(*args):
        raise redis.ConnectionError("gone")

    monkeypatch.setattr(inside(queue).store, "complete", complete)
    queue.enqueue("doc:1", "one")
    queue.flush_now()
    embedder.wait_for_return()
    queue.stop(timeout=0.1)
    assert inside(queue).wait_for_calls(PATIENCE_SECONDS)


def test_a_worker_that_looks_while_its_probe_is_under_way_goes_on_after_it(
    make_queue, redis_client, embedder, monkeypatch
):
    """It had taken the probe's own pause for one to wait for, and rested for half a minute when all was well again."""
    queue = make_queue(start=False, api_batch_limit=1, max_concurrency=1)
    redis_client.set("embed_queue:pause:level", 1)
    futures = queue.enqueue_many([("doc:1", "one"), ("doc:2", "two")])
    embedder.hold()
    queue.start().flush_now()
    embedder.wait_for_calls(1)
    store, looked = inside(queue).store, threading.Event()
    status = store.status

    def look(*args):
        found = status(*args)
        looked.set()
        return found

    monkeypatch.setattr(store, "status", look)
    inside(queue).refresh()
    assert looked.wait(PATIENCE_SECONDS)
    embedder.release()
    assert [future.result(PATIENCE_SECONDS) for future in futures] == [expected("one"), expected("two")]
