"""What only a real worker on a real Redis tells its observers."""

from __future__ import annotations

import concurrent.futures
import itertools
import queue as stdlib_queue
import threading

import pytest

from embedqueue import InputRejected, Observer
from embedqueue.values.item import encode_member
from tests.inside import inside
from tests.parts import PATIENCE_SECONDS, eventually, in_thread, join

#: Of claims of workers that die: each has one above all before.
NUMBERS = itertools.count(1)


class Inbox(Observer):
    """Hands over what it is told."""

    def __init__(self) -> None:
        self.ran_out: stdlib_queue.Queue = stdlib_queue.Queue()
        self.dead: stdlib_queue.Queue = stdlib_queue.Queue()
        self.batches: stdlib_queue.Queue = stdlib_queue.Queue()
        self.redis: stdlib_queue.Queue = stdlib_queue.Queue()

    def leases_ended(self, count):
        self.ran_out.put(count)

    def died(self, letter):
        self.dead.put(letter)

    def written(self, report):
        self.batches.put(report)

    def redis_failed(self, report):
        self.redis.put(report)


def _abandon(queue, *, times: int) -> None:
    """Claim what waits as a worker that dies would, so often."""
    store = inside(queue).store
    limits = {"probe_limit": 10, "lease_seconds": 0.001, "max_deliveries": 9, "alone": True}
    for _ in range(times):
        eventually(lambda: store.claim(f"dead:{next(NUMBERS)}/0.001:", 10, **limits).members, "the lease ends")


def test_leases_that_ran_out_are_told(make_queue, redis_client):
    """Another worker died with the item: that is told, and then the item is written; its age is that of the item."""
    inbox = Inbox()
    queue = make_queue(start=False, observers=[inbox])
    queue.enqueue("k", "words")
    redis_client.zadd("embed_queue:pending", {encode_member("k", "words"): 1000}, xx=True)
    _abandon(queue, times=1)
    queue.start()
    assert inbox.ran_out.get(timeout=PATIENCE_SECONDS) == 1
    report = inbox.batches.get(timeout=PATIENCE_SECONDS)
    assert report.redis_keys == ("k",)
    assert report.waited_seconds > 1e9
    assert report.seconds < PATIENCE_SECONDS


def test_an_item_that_kills_its_workers_is_told_when_it_dies(make_queue):
    """The script buries it, and the worker that ran the script tells."""
    inbox = Inbox()
    queue = make_queue(start=False, observers=[inbox], max_deliveries=2)
    queue.enqueue("k", "words")
    _abandon(queue, times=2)
    queue.start()
    letter = inbox.dead.get(timeout=PATIENCE_SECONDS)
    assert (letter.redis_key, letter.text, letter.deliveries) == ("k", "words", 2)
    assert "its worker died 2 times" in letter.reason


def test_redis_that_is_gone_is_told(fresh_redis_server, make_queue):
    """The worker's next look fails, and it goes on."""
    inbox = Inbox()
    queue = make_queue(fresh_redis_server.client(), observers=[inbox])
    queue.enqueue("a", "words").result(PATIENCE_SECONDS)
    fresh_redis_server.stop()
    queue.flush_now()
    assert inbox.redis.get(timeout=PATIENCE_SECONDS).error
    fresh_redis_server.start()
    assert queue.enqueue("b", "more").result(PATIENCE_SECONDS)


@pytest.mark.parametrize("event", ["on_batch", "on_error", "on_dead"])
@pytest.mark.parametrize("wait", ["result", "flush", "wait"])
def test_an_observer_that_waits_is_told_that_it_must_not(make_queue, embedder, caplog, event, wait):
    """Else the thread that tells it waits for itself, and the work stands still; to enqueue is fine."""
    waits = {
        "result": lambda: queue.enqueue("more", "more words").result(),
        "flush": lambda: (queue.enqueue("more", "more words"), queue.flush()),
        "wait": lambda: concurrent.futures.wait([queue.enqueue("more", "more words")]),
    }
    told = threading.Event()

    def observe(_):
        if not told.is_set():
            told.set()
            waits[wait]()

    embedder.rule = lambda texts: InputRejected("no") if "bad" in texts else None
    queue = make_queue(max_concurrency=1, **{event: observe})
    queue.enqueue("k", "words" if event == "on_batch" else "bad").exception(PATIENCE_SECONDS)
    assert told.wait(PATIENCE_SECONDS)
    assert queue.enqueue("last", "last words").result(PATIENCE_SECONDS)
    assert queue.enqueue("more", "more words").result(PATIENCE_SECONDS)
    eventually(lambda: "an observer must not wait for its queue" in caplog.text, "it is told")


def test_who_enqueues_may_wait_in_an_observer(make_queue):
    """Its thread does no work."""

    class Waits(Observer):
        def enqueued(self, redis_keys):
            vectors.append(queue.enqueue("k", "words").result(PATIENCE_SECONDS) if redis_keys == ["first"] else None)

    vectors: list = []
    queue = make_queue(observers=[Waits()])
    join(in_thread(lambda: queue.enqueue("first", "words")))
    assert [len(vector) for vector in vectors if vector] == [8]
