"""Whoever has waited in vain is told why; that costs nothing while results come, and little where Redis is gone."""

from __future__ import annotations

import re
import threading
import time

import pytest

from embedqueue.futures import lateness
from embedqueue.futures.future import EmbeddingFuture
from embedqueue.futures.lateness import Lateness, waiting
from embedqueue.store.records import Status
from tests.inside import inside
from tests.parts import PATIENCE_SECONDS, eventually, expected, in_thread, join

#: Of a worker that has claimed nothing.
FACTS = {"host": "web-2", "pid": 7, "version": "1", "model": "m", "space": "m/8/-", "doing": "idle"}


def status(**differences) -> Status:
    nothing = {
        "now": 0.0,
        "waiting": 1,
        "in_flight": 0,
        "dead": 0,
        "oldest_age_seconds": 1.0,
        "lease_end_seconds": None,
    }
    plain = {"pause_seconds": None, "pause_reason": "", "failing": False, "unfinished": 0, "probe": "", "workers": 2}
    return Status(**{**nothing, **plain, **differences})


@pytest.mark.parametrize(
    ("differences", "works", "words"),
    [
        ({}, False, "it waits; 2 workers are running"),
        ({"waiting": 1201, "workers": 0}, False, "it waits with 1,200 others; no worker is running"),
        ({"workers": 0}, True, "it waits; one worker is running"),  # this process, which is not announced yet
        ({"workers": None}, False, "it waits"),
        ({"pause_seconds": float("inf"), "pause_reason": "by\nhand"}, False,
         r"the queue is paused until somebody resumes, because by\nhand"),
        ({"probe": "w1:", "pause_seconds": 3.0}, False, "it waits while one call tests the provider, which has failed"),
    ],
)  # fmt: skip
def test_why_an_item_waits(differences, works, words):
    """In a sentence; what Redis does not let us know is left out."""
    assert waiting(status(**differences), works=works) == words


@pytest.mark.parametrize(("seconds", "form"), [(30.0, r"\d\d:\d\d:\d\d"), (86_400.0, r"\d{4}-\d\d-\d\d \d\d:\d\d")])
def test_until_when_a_pause_lasts(seconds, form):
    """A time, or a day and a time; and where nobody works either, both are told."""
    words = waiting(status(pause_seconds=seconds, pause_reason="no credit", workers=0), works=False)
    assert re.fullmatch(rf"the queue is paused until {form}, because no credit; no worker is running", words)


def late(future, timeout: float = 0.05) -> str:
    with pytest.raises(TimeoutError) as caught:
        future.result(timeout)
    assert caught.value.__context__ is None
    return str(caught.value)


def test_where_an_item_stands(make_queue, embedder, redis_client, monkeypatch):
    """It waits, is claimed by this process or by another; a later look finds that it has ended."""
    monkeypatch.setattr(lateness, "LEAST_TIMEOUT_SECONDS", 0.05)
    monkeypatch.setattr(lateness, "LOOK_SECONDS", PATIENCE_SECONDS)
    producer = make_queue(worker=False)
    future = producer.enqueue("doc:1", "one")
    assert late(future) == "doc:1 was not embedded within 0.05 s: it waits; no worker is running"
    embedder.hold()
    worker = make_queue(start=False)
    mine = worker.enqueue("doc:2", "two")
    worker.start()
    embedder.wait_for_calls(1)  # with both
    eventually(lambda: producer.stats().workers == 1, "it is announced")
    assert re.search(r"a worker \(pid \d+ on .*, heard of \d+ s ago\) has claimed it, and its call is", late(future))
    assert late(mine).endswith("this process has claimed it, and its call is under way")
    redis_client.delete("embed_queue:workers")
    inside(producer).store.workers.announce("another", 60.0, 1.0, FACTS, tidy=False)
    assert "a worker has claimed it that is not heard of; if it has died, another takes" in late(future)
    with pytest.raises(TimeoutError, match="a worker has claimed it"):
        future.exception(0.05)
    embedder.release()
    assert future.result(PATIENCE_SECONDS) == expected("one")
    assert lateness_of(producer).words("doc:1", 5) == "doc:1 was not embedded within 5 s: just now it has ended"


def lateness_of(queue, store=None) -> Lateness:
    parts = inside(queue)
    return Lateness(store or parts.store, parts.terms, parts.agenda, name="w:", thread_name="late")


def test_nobody_is_asked_who_need_not_be(make_queue, monkeypatch):
    """Not for a result that comes, and not for a short look at whether it has come."""
    queue, asked = make_queue(), []
    monkeypatch.setattr(Lateness, "_look", lambda *args: asked.append(args))
    future = queue.enqueue("doc:1", "one")
    assert future.result(PATIENCE_SECONDS) == expected("one")
    producer = make_queue(worker=False, namespace="other")
    waits = producer.enqueue("doc:1", "one")
    for timeout in (0, 0.01):
        assert late(waits, timeout) == f"doc:1 was not embedded within {timeout:g} s; it stays queued"
    assert asked == []


class Silent:
    """A store of a Redis that does not answer before it may."""

    def __init__(self) -> None:
        self.answers, self.asked = threading.Event(), threading.Semaphore(0)

    def look(self, *args):
        self.asked.release()
        self.answers.wait(PATIENCE_SECONDS)
        raise OSError("gone")


def test_a_redis_that_does_not_answer_holds_nobody_up(make_queue, monkeypatch):
    """A few hundred milliseconds, however many wait; no more threads hang there than a few."""
    monkeypatch.setattr(lateness, "LOOKS", 2)
    silent = Silent()
    asked, said = lateness_of(make_queue(worker=False), silent), []
    began_mono = time.monotonic()
    callers = [in_thread(lambda: said.append(asked.words("doc:1", 1.0))) for _ in range(5)]
    join(*callers)
    assert time.monotonic() - began_mono < PATIENCE_SECONDS / 2  # of an answer, nothing comes for longer
    assert set(said) == {"doc:1 was not embedded within 1 s: it stays queued, and Redis does not tell more in time"}
    assert sum(thread.name == "late" for thread in threading.enumerate()) == 2
    silent.answers.set()
    eventually(lambda: not any(thread.name == "late" for thread in threading.enumerate()), "they end")
    monkeypatch.setattr(lateness, "LOOK_SECONDS", PATIENCE_SECONDS)
    silent.look = lambda *args: [("gone", b"")]
    assert asked.words("doc:1", 1.0).endswith("just now it has ended")


def test_no_more_threads(make_queue, monkeypatch):
    """What is known without one is told; the next may have one."""
    monkeypatch.setattr(lateness, "LOOK_SECONDS", PATIENCE_SECONDS)
    asked = lateness_of(make_queue(worker=False))

    def start(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        for _ in range(2 * lateness.LOOKS):
            assert "Redis does not tell more" in asked.words("doc:1", 1.0)
    assert asked.words("doc:1", 1.0).endswith("just now it has ended")


def test_a_timeout_that_is_the_outcome_is_told_as_it_is():
    """The future has ended: nobody is asked why it is late."""
    future = EmbeddingFuture("doc:1", late=lambda *args: pytest.fail("asked"))
    future.set_exception(TimeoutError("of the item"))
    with pytest.raises(TimeoutError, match="of the item"):
        future.result(1)
    with pytest.raises(TimeoutError, match="^$"):
        EmbeddingFuture("doc:1").exception(0)
