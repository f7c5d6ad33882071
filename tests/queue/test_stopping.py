"""Stopping, starting again, and flushing: never hanging, never losing."""

from __future__ import annotations

import atexit
import concurrent.futures
import contextlib
import gc
import itertools
import logging
import threading
import time

import pytest
import redis
import tenacity

from embedqueue import BatchFailed, EmbeddingBatchQueue, QueueStopped, TransientError
from tests.inside import GRACE_SECONDS, inside, worker_threads
from tests.parts import (
    ONE_TRY,
    PATIENCE_SECONDS,
    eventually,
    expected,
    in_flight,
    in_thread,
    join,
    start_held,
    stored,
)


@pytest.mark.quiet
def test_stop_while_a_call_hangs(make_queue, embedder, redis_client):
    """Where calls take no time, ``stop()`` leaves one that hangs behind in about a second, and releases its items."""
    queue = make_queue()
    queue.enqueue("doc:first", "first").result(PATIENCE_SECONDS)
    embedder.hold()
    futures = queue.enqueue_many((f"doc:{i}", f"text {i}") for i in range(5))
    queue.flush_now()
    embedder.wait_for_calls(2)
    began_mono = time.monotonic()
    queue.stop()
    assert time.monotonic() - began_mono < 8  # where nobody knows how long calls take, it is ten
    assert all(future.cancelled() for future in futures)
    assert (redis_client.zcard("embed_queue:pending"), in_flight(redis_client)) == (5, 0)
    assert redis_client.hlen("embed_queue:claims") == 0  # no delivery was charged
    with pytest.raises(concurrent.futures.CancelledError):
        futures[0].result()


@pytest.mark.quiet
@pytest.mark.parametrize("known", [False, True])
def test_stop_pays_once(make_queue, embedder, redis_client, known, monkeypatch):
    """``stop()`` waits for a call that takes longer than a second if calls do, or if nobody knows: it is paid for."""
    monkeypatch.setattr(*GRACE_SECONDS, (1.0, PATIENCE_SECONDS, PATIENCE_SECONDS))
    queue = make_queue()
    for calls, text in enumerate(["before", "at the end"] if known else ["at the end"], 1):
        embedder.hold()
        future = queue.enqueue(f"doc:{text}", text)
        queue.flush_now()
        embedder.wait_for_calls(calls)
        stopping = in_thread(queue.stop if text == "at the end" else lambda: future.result(PATIENCE_SECONDS))
        stopping.join(1.3)
        assert stopping.is_alive()
        embedder.release()
        join(stopping)
        assert inside(queue).usual_seconds >= 1.3
        inside(queue).usual_seconds = PATIENCE_SECONDS / 2  # for a machine that stands still meanwhile
    assert redis_client.hget("doc:at the end", "embedding") == stored("at the end")
    assert set(embedder.sent.values()) == {1}


def test_stop_ends_tries_at_once(make_queue, embedder, redis_client):
    """A call that rests between two tries is not under way: its items go back at once."""
    rests = threading.Event()
    queue = make_queue(retry=tenacity.Retrying(wait=tenacity.wait_fixed(60), before_sleep=lambda _: rests.set()))
    embedder.rule = lambda texts: TransientError("down")
    queue.enqueue("doc:1", "one")
    queue.flush_now()
    assert rests.wait(PATIENCE_SECONDS)
    began_mono = time.monotonic()
    queue.stop(timeout=PATIENCE_SECONDS)
    assert time.monotonic() - began_mono < PATIENCE_SECONDS / 2
    assert (redis_client.zcard("embed_queue:pending"), in_flight(redis_client)) == (1, 0)


def test_nothing_is_left_of_a_queue(make_queue, redis_client):
    """However often it is started and stopped: no thread, no connection, no object, nothing to do at the end."""
    queue = make_queue(start=False)

    before = set(threading.enumerate())

    def cycle():
        for _ in range(20):
            queue.start().stop(timeout=0)
        eventually(lambda: set(threading.enumerate()) <= before, "all threads end", seconds=20)
        gc.collect()
        return len(redis_client.client_list()), atexit._ncallbacks(), len(gc.get_objects())

    seen = [cycle() for _ in range(4)]
    assert seen[-1][0] <= seen[0][0]
    assert seen[-1][1] == seen[0][1]
    # Five a start at most: coverage, too, keeps some. What is left of a queue is so after each of them; what else this
    # process does, such as a first import, is not.
    assert min(later[2] - earlier[2] for earlier, later in itertools.pairwise(seen)) < 100


def test_a_stop_under_a_command_is_no_fault(make_queue, monkeypatch, caplog):
    """``stop(timeout=0)`` closes the connection on which the worker reads: that is no trouble with Redis."""
    queue = make_queue(start=False)
    stops = []

    def status(*_, **__):
        stops.append(in_thread(lambda: queue.stop(timeout=0)))
        join(stops[0])
        raise redis.ConnectionError("closed")

    monkeypatch.setattr(inside(queue).store, "status", status)
    queue.start()
    eventually(lambda: stops and worker_threads() == 0, "the worker ends")
    assert not [record for record in caplog.records if "Redis does not answer" in record.message]


def test_nothing_is_left_of_a_dropped_queue(make_queue, redis_client, embedder):
    """Not even in what is done after a fork."""

    def objects():
        for _ in range(100):
            EmbeddingBatchQueue(embedder, redis_client)
        gc.collect()
        return len(gc.get_objects())

    before = objects()
    assert objects() - before < 100


def test_a_dropped_queue_stops(redis_client, embedder, caplog):
    """Its call under way is written, and nothing of it stays; the log says that it should have been held."""
    gc.collect()  # else it may take down a queue of another test meanwhile
    eventually(
        lambda: "embedqueue-stop" not in {thread.name for thread in threading.enumerate()}, "others have stopped"
    )
    caplog.set_level(logging.INFO, "embedqueue")
    before, connections = set(threading.enumerate()), _connections(redis_client)
    queue = EmbeddingBatchQueue(embedder, redis_client).start()
    embedder.hold()
    future = queue.enqueue("doc:1", "one")
    queue.flush_now()
    embedder.wait_for_calls(1)
    del queue
    gc.collect()
    embedder.release()
    assert future.result(PATIENCE_SECONDS) == expected("one"), "a queue lives as long as a future of it"
    del future
    gc.collect()
    eventually(lambda: set(threading.enumerate()) <= before, "its threads end")
    eventually(lambda: _connections(redis_client) <= connections, "disconnected")
    assert [record.levelname for record in caplog.records if "was dropped" in record.message] == ["INFO"]


def test_a_queue_that_is_dropped_during_a_call_pays_once(redis_client, embedder):
    """Also where nobody holds a future."""
    queue = EmbeddingBatchQueue(embedder, redis_client).start()
    embedder.hold()
    queue.enqueue("doc:1", "one")
    queue.flush_now()
    embedder.wait_for_calls(1)
    del queue
    gc.collect()
    embedder.release()
    eventually(lambda: redis_client.hexists("doc:1", "embedding"), "written")
    eventually(lambda: worker_threads() == 0, "it ends")
    assert (in_flight(redis_client), embedder.sent) == (0, {"one": 1})


def test_a_result_during_a_stop_asks_nobody(make_queue, embedder):
    """While ``stop()`` waits for a call under way, who waits for another item starts nothing, and learns of the end."""
    queue = make_queue()
    embedder.hold()
    under_way = queue.enqueue("doc:1", "one")
    queue.flush_now()
    embedder.wait_for_calls(1)
    other = queue.enqueue("doc:2", "two")
    stopping = in_thread(lambda: queue.stop(timeout=PATIENCE_SECONDS))
    eventually(lambda: queue.closed, "the stop has begun")
    before = set(threading.enumerate())
    with pytest.raises(TimeoutError):
        other.result(0.01)
    assert set(threading.enumerate()) <= before
    embedder.release()
    join(stopping)
    assert under_way.result(0) == expected("one")
    assert other.cancelled()
    assert "two" not in embedder.sent


def test_items_that_are_claimed_during_a_stop_go_back(make_queue, embedder, redis_client):
    """The answer to a claim may come when ``stop()`` has begun: nothing of it is embedded, and no lease has to end."""
    queue = make_queue()
    store, stops = inside(queue).store, []
    claim = store.claim

    def claim_late(*args, **kwargs):
        answer = claim(*args, **kwargs)
        if answer.members:
            stops.append(in_thread(lambda: queue.stop(timeout=PATIENCE_SECONDS)))
            eventually(lambda: inside(queue).claims_no_more, "the stop has begun")
        return answer

    store.claim = claim_late
    future = queue.enqueue("doc:1", "one")
    with contextlib.suppress(QueueStopped):  # the claim at the start may take it at once
        queue.flush_now()
    eventually(lambda: stops, "claimed")
    join(*stops)
    assert future.cancelled()
    assert embedder.calls == []
    assert (redis_client.zcard("embed_queue:pending"), in_flight(redis_client)) == (1, 0)
    assert redis_client.hlen("embed_queue:claims") == 0  # no delivery was charged


def _connections(client) -> set[str]:
    return {connection["id"] for connection in client.client_list()}


def test_an_enqueue_that_loses_its_connection_to_a_stop(make_queue, redis_client, monkeypatch):
    """Its item is durable when it returns, as ever, and its future cancelled like all others; no connection is left."""
    before = _connections(redis_client)
    queue = make_queue()
    exchange, stops = inside(queue).place("exchange"), [queue.stop]
    run = getattr(*exchange)

    def closed_under_it(connection, *args, **kwargs):
        if stops and args[0] == "enqueue":
            stops.pop()(timeout=0)
        return run(connection, *args, **kwargs)

    queue.enqueue("doc:1", "one")  # from now on its connection is kept
    monkeypatch.setattr(*exchange, closed_under_it)
    future = queue.enqueue("doc:2", "two")
    assert future.cancelled()
    assert b'{"redis_key":"doc:2","text":"two"}' in redis_client.zrange("embed_queue:pending", 0, -1)
    eventually(lambda: _connections(redis_client) <= before, "disconnected")


def test_late_answer(make_queue, embedder, redis_client):
    """The answer that a stopped queue gets in the end spoils nothing that others have done since."""
    queue, other = make_queue(), make_queue(start=False)
    embedder.hold()
    queue.enqueue("doc:1", "old")
    queue.flush_now()
    embedder.wait_for_calls(1)
    queue.stop(timeout=0)
    newer = other.enqueue("doc:1", "new")
    embedder.release()
    embedder.wait_for_return()
    assert newer.result(PATIENCE_SECONDS) == expected("new")
    eventually(lambda: inside(queue).calls == 0)
    assert redis_client.hget("doc:1", "embedding") == stored("new")


def test_stop_keeps_what_is_paid_for(make_queue, embedder, redis_client):
    """A call that is nearly back when ``stop()`` is called is written, not paid for twice."""
    queue = make_queue()
    embedder.hold()
    future = queue.enqueue("doc:1", "hello")
    queue.flush_now()
    embedder.wait_for_calls(1)
    stopping = in_thread(lambda: queue.stop(timeout=PATIENCE_SECONDS))
    eventually(lambda: queue.closed)
    embedder.release()
    join(stopping)
    assert future.result() == expected("hello")
    assert redis_client.hget("doc:1", "embedding") == stored("hello")


def test_stop_starts_no_call(make_queue, embedder, redis_client):
    """What was claimed for a call that waits for its turn goes back at once: it is for others to send."""
    queue = start_held(make_queue, embedder, [f"text {i}" for i in range(5)])
    eventually(lambda: inside(queue).calls == 2, "the next one waits for its turn")
    stopping = in_thread(lambda: queue.stop(timeout=PATIENCE_SECONDS))
    eventually(lambda: inside(queue).calls == 1)
    embedder.release()
    join(stopping)
    assert len(embedder.calls) == 1
    assert (redis_client.zcard("embed_queue:pending"), in_flight(redis_client)) == (4, 0)
    assert redis_client.hlen("embed_queue:claims") == 0  # no delivery was charged


def test_stop_is_idempotent(make_queue):
    """``stop()`` may be called as often as one likes, by several threads, before any start, and by a callback."""
    queue = make_queue(start=False)
    queue.stop()
    queue.stop()
    queue.start()
    called = threading.Event()
    queue.enqueue("doc:1", "hello").add_done_callback(lambda _: (queue.stop(timeout=0.2), called.set()))
    queue.flush_now()
    assert called.wait(PATIENCE_SECONDS)
    join(*(in_thread(queue.stop) for _ in range(4)))
    assert queue.closed
    assert "closed" in repr(queue)


def test_stop_inside_stop(make_queue, embedder):
    """A callback that stops the queue while it is being stopped does not hang the program."""
    queue = make_queue()
    future, called = queue.enqueue("doc:1", "hello"), threading.Event()
    future.add_done_callback(lambda _: (queue.stop(), called.set()))
    join(in_thread(queue.stop))
    assert future.cancelled()
    assert called.wait(PATIENCE_SECONDS)


def test_stop_sees_callbacks_off(make_queue, monkeypatch):
    """All have run when it returns, in their order; what they wait for of the queue has ended by then."""
    monkeypatch.setattr("embedqueue.futures.callbacks.LAST_WAIT_SECONDS", PATIENCE_SECONDS)
    queue = make_queue()
    futures, called = queue.enqueue_many((f"doc:{i}", f"text {i}") for i in range(20)), []
    for i, future in enumerate(futures):
        future.add_done_callback(lambda _, i=i: called.append((i, futures[-1].cancelled())))
    futures[0].add_done_callback(lambda _: futures[-1].exception(PATIENCE_SECONDS))
    queue.stop()
    assert called == [(i, True) for i in range(20)]


def test_stop_leaves_a_callback_behind_that_hangs(make_queue, caplog):
    """A program must end."""
    queue, go_on = make_queue(), threading.Event()
    queue.enqueue("doc:1", "hello").add_done_callback(lambda _: go_on.wait(2 * PATIENCE_SECONDS))
    join(in_thread(queue.stop))
    assert "a callback of a future has not come to its end" in caplog.text
    go_on.set()


def test_stop_inside_stop_wherever_it_is(make_queue):
    """The same while what it interrupts holds a lock."""
    queue = make_queue()
    future = queue.enqueue("doc:1", "hello")
    waiters = inside(queue).waiters
    cancel_all, interrupted = waiters.cancel_all, []

    def interrupt():
        if not interrupted:
            interrupted.append(1)
            with waiters._lock:
                queue.stop()
        cancel_all()

    waiters.cancel_all = interrupt
    join(in_thread(queue.stop))
    assert interrupted
    assert future.cancelled()


def test_start_after_stop(make_queue):
    """A stopped queue can be started again, and drains what it left."""
    queue = make_queue()
    queue.enqueue("doc:0", "zero").result(PATIENCE_SECONDS)  # so it has looked for what an earlier run left
    first = queue.enqueue("doc:1", "one")
    queue.stop()
    assert first.cancelled()
    assert queue.start() is queue.start()
    queue.flush(PATIENCE_SECONDS)
    assert queue.pending_count() == 0
    assert queue.enqueue("doc:2", "two").result(PATIENCE_SECONDS) == expected("two")


def test_use_after_stop(make_queue):
    """A stopped queue says so to whoever enqueues or flushes; looking is still possible."""
    queue = make_queue()
    queue.enqueue("doc:1", "one")
    queue.stop()
    for use in (
        lambda: queue.enqueue("doc:1", "one"),
        lambda: queue.enqueue_many([("doc:1", "one")]),
        queue.flush_now,
        lambda: queue.flush(1),
    ):
        with pytest.raises(QueueStopped):
            use()
    assert queue.pending_count() == queue.stats().waiting == 1


def test_stop_ends_a_flush(make_queue, embedder):
    """A thread in ``flush()`` learns that the queue was stopped."""
    queue = make_queue()
    embedder.hold()
    queue.enqueue("doc:1", "one")
    errors = []

    def flush():
        try:
            queue.flush()
        except QueueStopped as error:
            errors.append(error)

    flushing = in_thread(flush)
    embedder.wait_for_calls(1)
    queue.stop(timeout=0)
    join(flushing)
    assert len(errors) == 1


@pytest.mark.parametrize("worker", [True, False])
def test_flush(make_queue, worker):
    """``flush()`` returns when all that was pending is embedded and every future of this process has its vector."""
    if not worker:
        make_queue()
    queue = make_queue(worker=worker)
    futures = queue.enqueue_many((f"doc:{i}", f"text {i}") for i in range(130))
    queue.flush(PATIENCE_SECONDS)
    assert all(future.done() for future in futures)
    assert queue.pending_count() == 0


def test_flush_ignores_what_comes_later(make_queue, embedder):
    """``flush()`` waits for what was pending at its call, not for what others enqueue meanwhile."""
    queue = make_queue(max_concurrency=1)
    embedder.hold()
    queue.enqueue("doc:1", "one")
    flushing = in_thread(lambda: queue.flush(PATIENCE_SECONDS))
    embedder.wait_for_calls(1)
    later = queue.enqueue("doc:2", "two")
    embedder.release()
    join(flushing)
    later.cancel()
    assert embedder.sent["one"] == 1


def test_flush_times_out(make_queue, embedder):
    """``flush(timeout)`` raises ``TimeoutError`` when the provider is slower; the items stay."""
    queue = make_queue()
    embedder.hold()
    future = queue.enqueue("doc:1", "one")
    with pytest.raises(TimeoutError):
        queue.flush(0.1)
    embedder.release()
    assert future.result(PATIENCE_SECONDS) == expected("one")


def test_flush_without_a_worker(make_queue):
    """Where nobody works, ``flush(timeout)`` says so in time."""
    queue = make_queue(worker=False)
    queue.enqueue("doc:1", "one")
    with pytest.raises(TimeoutError):
        queue.flush(0.1)


def test_drain_on_stop(make_queue, embedder):
    """``stop(drain=True)`` empties the queue first, however many calls that takes."""
    queue = make_queue()
    futures = queue.enqueue_many((f"doc:{i}", f"text {i}") for i in range(430))
    queue.stop(drain=True)
    assert [future.result(0) for future in futures] == [expected(f"text {i}") for i in range(430)]
    assert queue.stats().waiting == 0


def test_drain_on_stop_without_a_worker(make_queue):
    """A producer that stops with ``drain=True`` waits for the workers elsewhere."""
    make_queue()
    queue = make_queue(worker=False)
    future = queue.enqueue("doc:1", "one")
    queue.stop(drain=True, timeout=PATIENCE_SECONDS)
    assert future.result(0) == expected("one")


@pytest.mark.quiet
def test_drain_on_stop_in_time(make_queue, embedder, redis_client, caplog):
    """``stop(drain=True, timeout=...)`` keeps to its time when the provider hangs; what is left stays queued."""
    queue = make_queue()
    embedder.hold()
    future = queue.enqueue("doc:1", "one")
    began_mono = time.monotonic()
    queue.stop(drain=True, timeout=0.2)
    assert time.monotonic() - began_mono < PATIENCE_SECONDS / 2
    assert future.cancelled()
    assert redis_client.zcard("embed_queue:pending") == 1


def test_drain_on_stop_while_the_provider_fails(make_queue, embedder, redis_client, caplog):
    """``stop(drain=True)`` without a time limit ends when the provider has failed; nothing is lost."""
    queue = make_queue(retry=ONE_TRY)
    embedder.rule = lambda texts: TransientError("down")
    future = queue.enqueue("doc:1", "one")
    join(in_thread(lambda: queue.stop(drain=True)))
    assert isinstance(future.exception(0), BatchFailed)
    assert redis_client.zcard("embed_queue:pending") == 1


def test_claim_under_way(make_queue, redis_client):
    """What a worker claims just while it is stopped goes back as well, instead of waiting for its lease to end."""
    queue = make_queue()
    store = inside(queue).store
    real, claimed, go_on = store.claim, threading.Event(), threading.Event()

    def claim(*args, **kwargs):
        answer = real(*args, **kwargs)
        if answer.members:
            claimed.set()
            go_on.wait(PATIENCE_SECONDS)
        return answer

    store.claim = claim
    queue.enqueue("doc:1", "one")
    queue.flush_now()
    assert claimed.wait(PATIENCE_SECONDS)
    queue.stop(timeout=0)
    go_on.set()
    eventually(lambda: redis_client.zcard("embed_queue:pending") == 1, "given back")


def test_embedder_that_exits(make_queue, embedder, redis_client, caplog):
    """An embedder that raises SystemExit, or another exotic error, loses nothing: its items are tried again."""
    queue = make_queue(retry=ONE_TRY)
    embedder.rule = lambda texts: SystemExit(1)
    future = queue.enqueue("doc:1", "one")
    with pytest.raises(BatchFailed):
        future.result(PATIENCE_SECONDS)
    embedder.rule = None
    assert queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS) == expected("one")


def test_enqueue_meets_stop(make_queue, redis_client):
    """An ``enqueue`` that meets ``stop()`` raises ``QueueStopped``, rather than hand out a future that nobody ends."""
    queue = make_queue()
    intake = inside(queue).intake
    real = intake.submit
    intake.submit = lambda *what: (queue.stop(), real(*what))[1]
    with pytest.raises(QueueStopped):
        queue.enqueue("doc:1", "one")
    assert redis_client.zcard("embed_queue:pending") == 0
