"""The worker's thread: when it starts, what keeps it, and that nobody else's code holds it up."""

from __future__ import annotations

import concurrent.futures
import gc
import logging
import threading
import weakref

import pytest
import redis

from embedqueue import BatchFailed
from embedqueue.store.records import Claim
from embedqueue.values.options import Options
from embedqueue.work.agenda import Agenda
from tests.inside import inside
from tests.parts import PATIENCE_SECONDS, eventually, expected, in_flight, in_thread, join, provenance, renewed, stored


@pytest.fixture
def no_threads(monkeypatch):
    """No thread of the queue can be started until it is let go."""
    start = threading.Thread.start

    def refuse(thread):
        if thread.name.startswith("embedqueue"):
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        yield patched.undo


@pytest.mark.parametrize("urgent", [True, False])
def test_waiting_starts_a_queue_that_was_not_started(make_queue, urgent):
    """Also where waiting makes nothing urgent: then the timer decides."""
    queue = make_queue(start=False, flush_on_wait=urgent, flush_interval=0.2)
    assert queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS) == expected("one")


def test_a_worker_that_could_not_start_is_started_by_the_next_use(make_queue, no_threads, caplog):
    """And a stop() of one that has no thread is an ordinary one."""
    queue = make_queue(start=False, flush_interval=0.1)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        queue.start()
    stopped = make_queue(start=False, namespace="another")
    future = stopped.enqueue("doc:2", "two")
    with pytest.raises(TimeoutError):
        future.result(0.01)
    assert "nobody looks after those who wait" in caplog.text
    stopped.stop()
    assert future.cancelled()
    no_threads()
    assert queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS) == expected("one")


def test_a_flush_that_is_told_while_a_worker_starts_is_heard(make_queue, redis_client, monkeypatch):
    """Its thread runs already and has found nothing left, and it does not listen yet."""
    queue, producer = make_queue(start=False), make_queue(worker=False)
    owner, name = inside(queue).place("listen")
    listen = getattr(owner, name)

    def late(*since):
        threading.Event().wait(0.2)
        producer.enqueue("doc:1", "one")
        producer.flush_now()
        threading.Event().wait(0.2)
        listen(*since)

    monkeypatch.setattr(owner, name, late)
    queue.start()
    eventually(lambda: redis_client.hexists("doc:1", "embedding"), "it is embedded")


def test_a_stop_does_not_wait_for_a_thread_that_starts_the_queue(make_queue, monkeypatch):
    """The thread wants the queue's lock, which stop() holds until the thread has ended."""
    queue = make_queue(start=False)
    arrived, go_on = threading.Event(), threading.Event()
    owner, name = inside(queue).place("start")
    start = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda: (arrived.set(), go_on.wait(PATIENCE_SECONDS), start()))
    future = queue.enqueue("doc:1", "one")
    waiting = in_thread(lambda: concurrent.futures.wait([future], PATIENCE_SECONDS))
    assert arrived.wait(PATIENCE_SECONDS)
    stopping = in_thread(lambda: queue.stop(2 * PATIENCE_SECONDS))
    eventually(lambda: queue.closed, "the stop has begun")
    go_on.set()
    stopping.join(PATIENCE_SECONDS)
    assert not stopping.is_alive()
    join(waiting)
    assert future.cancelled()


def test_a_handler_may_stop_the_queue_while_its_thread_starts(make_queue, monkeypatch):
    """It interrupts ``Thread.start``, which waits for the new thread to run."""
    queue = make_queue(start=False)
    start = threading.Thread.start

    def interrupted(thread):
        start(thread)
        if "worker" in thread.name:
            queue.stop(0)

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    join(in_thread(queue.start))
    assert queue.closed


def test_a_start_inside_of_a_start_makes_no_second_thread(monkeypatch):
    """A signal's handler that waits for a future while the main thread is starting the worker's."""
    agenda = Agenda(Options())
    agenda.begin()
    started, start = [], threading.Thread.start

    def interrupted(thread):
        started.append(thread)
        agenda.ensure(lambda: None)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    agenda.ensure(lambda: None)
    assert len(started) == 1


def test_a_slow_callback_holds_up_neither_claims_nor_leases(make_queue, redis_client, embedder):
    """Of a future that nobody's notice has ended: whoever finds that out renews no leases meanwhile."""
    queue = make_queue(lease_seconds=6.0, max_concurrency=2)
    embedder.hold()
    slow = queue.enqueue("doc:slow", "slow")
    queue.flush_now()
    embedder.wait_for_calls(1)
    inside(queue).stop_listening()
    callback, go_on = threading.Event(), threading.Event()
    future = queue.enqueue("doc:elsewhere", "text")
    future.add_done_callback(lambda _: (callback.set(), go_on.wait(PATIENCE_SECONDS)))
    with redis_client.pipeline() as elsewhere:  # finished there, and no notice tells
        elsewhere.delete("embed_queue:pending")
        elsewhere.hdel("embed_queue:latest", "doc:elsewhere")
        elsewhere.hset("doc:elsewhere", mapping={"embedding": stored("text"), "embedding_of": provenance("text")})
        elsewhere.execute()
    waiting = in_thread(lambda: future.result(PATIENCE_SECONDS))
    assert callback.wait(PATIENCE_SECONDS)
    other = make_queue(namespace="embed_queue", lease_seconds=6.0)  # would take over what runs out
    renewed(redis_client)
    assert (in_flight(redis_client), other.stats().calls) == (1, 0)
    go_on.set()
    embedder.release()
    assert slow.result(PATIENCE_SECONDS) == expected("slow")
    join(waiting)


def test_a_dropped_future_is_gone_at_once(make_queue):
    """Else its process would look after it until the garbage collector comes."""
    make_queue()
    producer = make_queue(worker=False)
    gc.disable()
    try:
        gone = weakref.ref(producer.enqueue("doc:1", "one"))
        assert gone() is None
    finally:
        gc.enable()


def test_an_outage_is_told_once_though_somebody_waits(make_queue, fresh_redis_server, embedder, caplog):
    """Checks on those who wait, which bear with Redis, do not make each failure the first."""
    caplog.set_level(logging.WARNING, "embedqueue")
    client = fresh_redis_server.client()
    queue = make_queue(client, flush_interval=0.05)
    embedder.hold()
    future = queue.enqueue("doc:1", "one")
    waiting = in_thread(lambda: future.exception(PATIENCE_SECONDS))
    embedder.wait_for_calls(1)
    fresh_redis_server.kill()
    for _ in range(20):
        inside(queue).check_on_waiters()
        queue.flush_now()
        threading.Event().wait(0.05)
    assert caplog.text.count("Redis does not answer, trying again") <= 1
    fresh_redis_server.start()
    embedder.release()
    join(waiting)
    assert future.exception(0) is None or isinstance(future.exception(0), BatchFailed)


def test_one_check_at_a_time_and_none_that_fails_is_the_last(make_queue, redis_client, monkeypatch, caplog):
    """A check may take long, or meet a Redis that does not answer, or anything else."""
    caplog.set_level(logging.DEBUG, "embedqueue")
    queue = make_queue(start=False, worker=False)
    arrived, go_on, found = threading.Semaphore(0), threading.Event(), []
    errors = [redis.ConnectionError("gone"), ValueError("unforeseen"), None]

    def find_out(*_, **__):
        found.append(1)
        arrived.release()
        assert go_on.wait(PATIENCE_SECONDS)
        error = errors.pop(0)
        if error is not None:
            raise error

    monkeypatch.setattr(inside(queue).outcomes, "find_out", find_out)
    for number in range(1, 4):
        go_on.clear()
        inside(queue).check_on_waiters()
        assert arrived.acquire(timeout=PATIENCE_SECONDS)
        inside(queue).check_on_waiters()  # while the last one is at it
        go_on.set()
        eventually(lambda: not inside(queue).checks, "it is over")
        assert len(found) == number
    assert "Redis does not tell what became of items: gone" in caplog.text
    assert "could not look after those who wait, going on" in caplog.text


def test_a_thread_that_starts_the_queue_waits_for_its_lock(make_queue):
    """Somebody else may be at it for a while, without stopping it."""
    queue = make_queue(start=False)
    with inside(queue).locks()[0]:
        future = queue.enqueue("doc:1", "one")
        waiting = in_thread(lambda: future.result(PATIENCE_SECONDS))
        threading.Event().wait(0.2)
        assert not future.done()
    join(waiting)
    assert future.result(0) == expected("one")


def test_a_claim_that_comes_after_the_stop_is_not_begun():
    """The stop knows nothing of it: whoever claimed releases it."""
    agenda = Agenda(Options())
    agenda.begin()
    agenda.quit()
    assert not agenda.claimed(Claim("ok", "w:1/60:", [b"member"], 0, None, None, None, "no"))


@pytest.mark.parametrize("ended", [False, True])
def test_what_is_enqueued_where_nobody_claims_is_embedded_in_time(make_queue, redis_client, ended):
    """By a queue that was never started, or has been stopped since: a worker elsewhere hears of it."""
    worker = make_queue()
    worker.enqueue("doc:0", "zero").result(PATIENCE_SECONDS)
    producer = make_queue(start=ended)
    producer.enqueue("doc:1", "one", within=2)
    producer.stop()
    eventually(
        lambda: redis_client.exists("doc:1"), "it is embedded in time", seconds=15
    )  # else it would take half a minute
