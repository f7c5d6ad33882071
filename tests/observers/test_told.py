"""What only a real worker on a real Redis tells its observers."""

from __future__ import annotations

import itertools
import queue as stdlib_queue

from embedqueue import Observer
from embedqueue.values.item import encode_member
from tests.inside import inside
from tests.parts import PATIENCE_SECONDS, eventually

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
    redis_client.hset("embed_queue:latest", "k", b"1000000000 " + encode_member("k", "words"))
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
