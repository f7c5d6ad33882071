"""Every way to wait for a future, and that none of them hangs."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import json
import logging
import threading
import tracemalloc
import weakref

import pytest

from embedqueue import BatchFailed, ConfigurationError, EmbeddingBatchQueue, QueueStopped
from embedqueue.futures import notices
from embedqueue.store.events import Events
from tests.inside import FIRST_PAUSE_SECONDS, inside
from tests.parts import PATIENCE_SECONDS, eventually, expected, in_flight, in_thread, join, provenance, stored


@pytest.fixture(params=[True, False], ids=["worker", "producer"])
def queue(request, make_queue):
    """A queue with a worker, or a producer beside another queue that works."""
    if not request.param:
        other = make_queue()  # what is there when it looks first it takes for left, and drains it at once
        eventually(lambda: inside(other).has_looked)
    return make_queue(worker=request.param)


def test_result(queue, redis_client):
    """``.result()`` gives the vector at once, though the timer is an hour away, and the hash has it by then."""
    future = queue.enqueue("doc:1", "hello")
    assert future.result(PATIENCE_SECONDS) == expected("hello")
    assert redis_client.hget("doc:1", "embedding") == stored("hello")


def test_exception(queue):
    """``.exception()`` makes an item as urgent as ``.result()`` does."""
    assert queue.enqueue("doc:1", "hello").exception(PATIENCE_SECONDS) is None


def test_wait(queue):
    """``concurrent.futures.wait`` makes all of its items urgent."""
    futures = queue.enqueue_many((f"doc:{i}", f"text {i}") for i in range(20))
    done, left = concurrent.futures.wait(futures, PATIENCE_SECONDS)
    assert (len(done), len(left)) == (20, 0)


def test_as_completed(queue):
    """``as_completed`` yields every future, with its own vector."""
    futures = {queue.enqueue(f"doc:{i}", f"text {i}"): f"text {i}" for i in range(20)}
    for future in concurrent.futures.as_completed(futures, PATIENCE_SECONDS):
        assert future.result() == expected(futures.pop(future))
    assert not futures


def test_wrap_future(queue):
    """An asyncio application can await an item, and its event loop goes on meanwhile."""

    async def main():
        futures = [queue.enqueue(f"doc:{i}", f"text {i}") for i in range(10)]
        return await asyncio.wait_for(asyncio.gather(*map(asyncio.wrap_future, futures)), PATIENCE_SECONDS)

    assert asyncio.run(main()) == [expected(f"text {i}") for i in range(10)]


def test_cancelled_await(queue, embedder, redis_client):
    """A web request that is given up cancels its future; the item is embedded all the same."""
    embedder.hold()

    async def main():
        waiting = asyncio.wrap_future(queue.enqueue("doc:1", "hello"))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())
    embedder.release()
    queue.flush(PATIENCE_SECONDS)
    assert redis_client.hget("doc:1", "embedding") == stored("hello")


def test_a_cancelled_await_is_nobody_elses(queue, embedder):
    """Two requests save the same text: that one is given up does not end the other."""
    embedder.hold()

    async def main():
        given_up, other = (asyncio.wrap_future(queue.enqueue("doc:1", "hello")) for _ in range(2))
        await asyncio.sleep(0)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        embedder.release()
        return await asyncio.wait_for(other, PATIENCE_SECONDS)

    assert asyncio.run(main()) == expected("hello")


def test_callback_sees_the_hash(queue, redis_client):
    """A done callback finds the vector in the hash: no future ends before the write."""
    seen = {}
    for i in range(30):
        queue.enqueue(f"doc:{i}", f"text {i}").add_done_callback(
            lambda future, i=i: seen.update({i: (redis_client.hget(f"doc:{i}", "embedding"), future.result())})
        )
    queue.flush(PATIENCE_SECONDS)
    eventually(lambda: len(seen) == 30, "all callbacks were called")
    assert seen == {i: (stored(f"text {i}"), expected(f"text {i}")) for i in range(30)}


def test_callback_of_a_dropped_future(queue):
    """Whoever adds a callback need not keep the future."""
    called = threading.Event()
    queue.enqueue("doc:1", "hello").add_done_callback(lambda future: called.set())
    gc.collect()
    queue.flush_now()
    assert called.wait(PATIENCE_SECONDS)


def test_callbacks_that_fail(queue, redis_client, caplog):
    """A callback that raises, even SystemExit or MemoryError, harms no other item."""

    def fail(error):
        def callback(_):
            raise error

        return callback

    futures = queue.enqueue_many((f"doc:{i}", f"text {i}") for i in range(5))
    for future, error in zip(futures, [ValueError(), MemoryError(), SystemExit(3), KeyboardInterrupt()], strict=False):
        future.add_done_callback(fail(error))
    done, left = concurrent.futures.wait(futures, PATIENCE_SECONDS)
    assert not left
    assert queue.enqueue("doc:0", "another").result(PATIENCE_SECONDS) == expected("another")
    assert in_flight(redis_client) == 0


def test_a_callback_and_a_log_that_fail(queue):
    """Whoever adds the callback to a future that has ended hears of neither."""

    class Broken(logging.Handler):
        def emit(self, record):
            raise OSError("the disk is full")

    future = queue.enqueue("doc:1", "hello")
    future.result(PATIENCE_SECONDS)
    handler = Broken()
    logging.getLogger().addHandler(handler)
    try:
        future.add_done_callback(lambda _: 1 / 0)
    finally:
        logging.getLogger().removeHandler(handler)


def test_callback_that_waits(make_queue):
    """A callback may wait for another item of the same call."""
    queue = make_queue()
    first, second = queue.enqueue_many([("doc:1", "one"), ("doc:2", "two")])
    got = []
    called = threading.Event()
    first.add_done_callback(lambda _: (got.append(second.result(PATIENCE_SECONDS)), called.set()))
    queue.flush_now()
    assert called.wait(PATIENCE_SECONDS)
    assert got == [expected("two")]


@pytest.mark.parametrize("do", ["wait", "flush", "stop", "retry", "enqueue the same"])
def test_callbacks_may_use_the_queue_as_anybody_may(make_queue, do):
    """Though there be one call at a time, and more callbacks than threads: the work goes on beside them."""
    queue, called, count = make_queue(max_concurrency=1, api_batch_limit=1), threading.Semaphore(0), 6
    use = {
        "wait": lambda i: queue.enqueue(f"more:{i}", f"more {i}").result(PATIENCE_SECONDS),
        "flush": lambda i: (queue.enqueue(f"more:{i}", f"more {i}"), queue.flush(PATIENCE_SECONDS)),
        "stop": lambda i: queue.stop(),
        "retry": lambda i: queue.retry_dead(),
        "enqueue the same": lambda i: queue.enqueue(f"doc:{i}", f"text {i}"),
    }[do]
    futures = queue.enqueue_many((f"doc:{i}", f"text {i}") for i in range(count))
    for i, future in enumerate(futures):
        future.add_done_callback(lambda _, i=i: (use(i), called.release()))
    queue.flush_now()
    for _ in range(count):
        assert called.acquire(timeout=PATIENCE_SECONDS)
    if do != "stop":
        assert queue.enqueue("doc:new", "new").result(PATIENCE_SECONDS) == expected("new")


def test_a_callback_that_hangs_holds_up_nobody_who_waits(queue):
    """Nor does it keep an item from its vector, or an event loop from hearing of it."""
    hangs, go_on = threading.Event(), threading.Event()
    queue.enqueue("doc:1", "one").add_done_callback(lambda _: (hangs.set(), go_on.wait(2 * PATIENCE_SECONDS)))
    queue.flush_now()
    assert hangs.wait(PATIENCE_SECONDS)
    try:
        assert queue.enqueue("doc:2", "two").result(PATIENCE_SECONDS) == expected("two")

        async def main():
            return await asyncio.wait_for(asyncio.wrap_future(queue.enqueue("doc:3", "three")), PATIENCE_SECONDS)

        assert asyncio.run(main()) == expected("three")
        queue.flush(PATIENCE_SECONDS)
    finally:
        go_on.set()


def test_a_callback_of_an_item_that_is_withdrawn_may_enqueue(make_queue):
    """It is ended by an enqueue, on which every other enqueue waits."""
    queue, got = make_queue(start=False), []
    called = threading.Event()
    queue.enqueue("doc:1", "old").add_done_callback(
        lambda future: (got.append(future.result()), queue.enqueue("doc:2", "more"), called.set())
    )
    join(in_thread(lambda: queue.enqueue("doc:1", " ")))
    assert called.wait(PATIENCE_SECONDS)
    assert got == [[0.0] * 8]
    assert queue.pending_count() == 1


def test_same_future(make_queue, embedder):
    """The same text for the same key gives the same future while it is unfinished, and a new one later."""
    embedder.hold()  # a worker that begins late takes what waits for a leftover, and embeds it at once
    queue = make_queue()
    first = queue.enqueue("doc:1", "hello")
    assert queue.enqueue("doc:1", "hello") is first
    assert queue.enqueue_many([("doc:1", "hello"), ("doc:1", "hello")]) == [first, first]
    embedder.release()
    first.result(PATIENCE_SECONDS)
    again = queue.enqueue("doc:1", "hello")
    assert again is not first
    assert again.result(PATIENCE_SECONDS) == expected("hello")


def test_same_text_after_a_cancel(make_queue, embedder):
    """A cancelled future is not handed to the next who enqueues the same text."""
    queue = make_queue()
    first = queue.enqueue("doc:1", "hello")
    first.cancel()
    assert queue.enqueue("doc:1", "hello").result(PATIENCE_SECONDS) == expected("hello")
    assert embedder.sent == {"hello": 1}


def test_cancelled_disturbs_nobody(queue, embedder, redis_client):
    """Some cancel before, some while the call runs: all hashes get their vectors, and all other futures theirs."""
    embedder.hold()
    futures = queue.enqueue_many((f"doc:{i}", f"text {i}") for i in range(6))
    assert futures[0].cancel()
    queue.flush_now()
    embedder.wait_for_calls(1)
    assert futures[1].cancel()
    embedder.release()
    done, left = concurrent.futures.wait(futures, PATIENCE_SECONDS)
    assert not left
    assert [future.cancelled() for future in futures] == [True, True] + [False] * 4
    assert [future.result() for future in futures[2:]] == [expected(f"text {i}") for i in range(2, 6)]
    assert redis_client.hget("doc:0", "embedding") == stored("text 0")


def test_wait_for_cancelled(queue):
    """Waiting for a future that was cancelled ends at once, as nothing else will ever end it."""
    future = queue.enqueue("doc:1", "hello")
    future.cancel()
    assert concurrent.futures.wait([future], 1.0).done == {future}


def test_dropped_futures_are_free(queue):
    """A million items enqueued in passing cost this process nothing: dropped futures are forgotten."""
    kept = queue.enqueue("doc:kept", "kept")
    reference = weakref.ref(queue.enqueue("doc:one", "one"))
    gc.collect()
    assert reference() is None

    def some():
        for i in range(300):
            queue.enqueue_many((f"doc:{i}:{j}", "text") for j in range(10))
        queue.flush(PATIENCE_SECONDS)  # what the worker has in hand counts, too
        gc.collect()

    some()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        some()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 300_000  # 3,000 futures would be a megabyte
    assert len(inside(queue).waiters) < 50
    assert kept.result(PATIENCE_SECONDS) == expected("kept")


def test_who_waits_for_an_item_on_its_way_asks_for_nothing(make_queue, embedder, monkeypatch):
    """Its call is under way already; a newer text of its key is asked for."""
    queue = make_queue()
    embedder.hold()
    older = queue.enqueue("doc:1", "old")
    queue.flush_now()
    embedder.wait_for_calls(1)
    inside(queue).claim_nothing_more()  # else it may take the newer text along
    asked: list[list[str]] = []
    monkeypatch.setattr(*inside(queue).place("want"), asked.append)
    with pytest.raises(TimeoutError):
        older.result(0)
    with pytest.raises(TimeoutError):
        queue.enqueue("doc:1", "new").result(0)
    assert asked == [[], ["doc:1"]]


@pytest.mark.parametrize("probe", [False, True])
def test_who_is_told_that_a_call_failed(make_queue, redis_client, embedder, monkeypatch, probe):
    """Who waits for its items; and everybody, where it was the one call that tests a provider that had failed."""
    monkeypatch.setattr(*FIRST_PAUSE_SECONDS, 5.0)  # so that it stands while it is looked at
    queue = make_queue(start=False, api_batch_limit=1, max_concurrency=1, flush_on_wait=False)
    if probe:
        redis_client.set("embed_queue:pause:level", 1)
    embedder.rule = lambda texts: ConfigurationError("no credit") if "one" in texts else None
    first, second = queue.enqueue_many([("doc:1", "one"), ("doc:2", "two")])
    queue.start().flush_now()
    with pytest.raises(BatchFailed):
        first.result(PATIENCE_SECONDS)
    eventually(lambda: queue.stats().released == 1, "given back")
    eventually(lambda: inside(queue).calls == 0, "the calls are over")
    if probe:
        with pytest.raises(BatchFailed):
            second.result(PATIENCE_SECONDS)
    else:
        assert not second.done() or second.result(0) == expected("two")


def test_superseded_in_flight(make_queue, embedder, redis_client):
    """A newer text that comes while the call with the older one runs is embedded at once for those who wait."""
    queue = make_queue()
    embedder.hold()
    older = queue.enqueue("doc:1", "old")
    waiting = in_thread(lambda: older.result(PATIENCE_SECONDS))
    embedder.wait_for_calls(1)
    newer = queue.enqueue("doc:1", "new")
    embedder.release()
    assert newer.result(PATIENCE_SECONDS) == expected("new")
    join(waiting)
    assert older.result(0) == expected("new")
    assert redis_client.hget("doc:1", "embedding") == stored("new")


def test_superseded_while_somebody_waits(make_queue, embedder):
    """Who waits for a text that is replaced by another need not ask again: the newer text is as urgent."""
    queue = make_queue()
    embedder.hold()
    older = queue.enqueue("doc:1", "old")
    waiting = in_thread(lambda: older.result(PATIENCE_SECONDS))
    embedder.wait_for_calls(1)
    queue.enqueue("doc:1", "new")
    embedder.release()
    join(waiting)
    assert older.result(0) == expected("new")


def test_superseded_by_another_queue(make_queue, embedder):
    """A future of an older text ends as soon as this process embeds the newer text of another one."""
    queue, other = make_queue(), make_queue(worker=False)
    older = queue.enqueue("doc:1", "old")
    other.enqueue("doc:1", "new")
    ended = threading.Event()
    older.add_done_callback(lambda _: ended.set())
    queue.flush_now()
    assert ended.wait(PATIENCE_SECONDS)  # a sweep would find it, too, but only after a minute
    assert older.result(0) == expected("new")
    assert "old" not in embedder.sent


@pytest.mark.parametrize("broken", [False, True], ids=["at the start", "while it connects again"])
def test_flush_that_is_told_while_nobody_listens(make_queue, embedder, redis_client, monkeypatch, broken):
    """What is told before a worker's listener knows where to begin is heard all the same."""
    arrived, go_on, begin = threading.Event(), threading.Event(), Events.since

    def late(store, mono):
        arrived.set()
        assert go_on.wait(PATIENCE_SECONDS)
        return begin(store, mono)

    monkeypatch.setattr(notices, "OVERLAP_SECONDS", 0.0)  # there is some, but nothing may depend on how fast we are
    monkeypatch.setattr(Events, "since", late)
    if broken:
        go_on.set()
    make_queue()
    producer = make_queue(worker=False)
    if broken:
        eventually(lambda: any(peer["cmd"] == "xread" for peer in redis_client.client_list()))
        arrived.clear(), go_on.clear()
        redis_client.client_kill_filter(_type="normal", skipme=True)
    assert arrived.wait(PATIENCE_SECONDS)
    producer.enqueue("doc:1", "hello")
    producer.flush_now()
    go_on.set()
    embedder.wait_for_calls(1)


@pytest.mark.parametrize("keys", [{"keys": ["doc:1"]}, {}], ids=["unserved", "paused"])
def test_old_news_of_a_failure(make_queue, redis_client, keys):
    """A failure that is read late, when the provider is well again, is none of those who have enqueued since."""
    producer = make_queue(worker=False)
    future = producer.enqueue("doc:1", "hello")
    eventually(lambda: any(peer["cmd"] == "xread" for peer in redis_client.client_list()))
    body = json.dumps({"reason": "the provider failed", **keys})
    redis_client.xadd("embed_queue:events", {"kind": "unserved" if keys else "paused", "by": "other:1:", "body": body})
    make_queue()
    assert future.result(PATIENCE_SECONDS) == expected("hello")


def test_wait_and_enqueue_at_once(make_queue):
    """One thread waits for a future with ``wait`` while another enqueues the same text: neither blocks the other."""
    queue = make_queue()
    future = queue.enqueue("doc:1", "hello")
    registry = inside(queue).waiters
    arrived, go_on = threading.Event(), threading.Event()
    real = registry.mark_wanted

    def mark_wanted(*args):
        arrived.set()  # the one who waits holds the future's own lock here
        go_on.wait(PATIENCE_SECONDS)
        return real(*args)

    registry.mark_wanted = mark_wanted
    waiting = in_thread(lambda: concurrent.futures.wait([future], PATIENCE_SECONDS))
    assert arrived.wait(PATIENCE_SECONDS)
    enqueuing = in_thread(lambda: queue.enqueue("doc:1", "hello"))
    enqueuing.join(0.3)  # if it does not come through now, it must when the other goes on
    go_on.set()
    join(enqueuing, waiting)


def test_wait_and_slow_redis(make_queue, embedder):
    """``wait`` in a process that only enqueues holds no future's lock while it speaks to Redis."""
    make_queue()
    queue = make_queue(worker=False)
    store = inside(queue).store
    real, telling, go_on = store.events.tell, threading.Event(), threading.Event()

    def tell(*args):
        telling.set()
        go_on.wait(PATIENCE_SECONDS)
        real(*args)

    store.events.tell = tell
    future = queue.enqueue("doc:1", "hello")
    waiting = in_thread(lambda: concurrent.futures.wait([future], PATIENCE_SECONDS))
    assert telling.wait(PATIENCE_SECONDS)
    asking = in_thread(future.done)
    asking.join(PATIENCE_SECONDS / 2)
    blocked = asking.is_alive()
    go_on.set()
    join(waiting, asking)
    assert not blocked


def test_a_result_in_a_handler(make_queue):
    """Where it would wait for ever, for its own thread holds what is needed to end the future, it says so."""
    queue = make_queue()
    future = queue.enqueue("doc:1", "one")
    with inside(queue).waiters._lock, pytest.raises(RuntimeError, match="handler"):
        future.result(PATIENCE_SECONDS)
    assert future.result(PATIENCE_SECONDS) == expected("one")


def test_result_while_stopping(make_queue):
    """A ``.result()`` that meets ``stop()`` never starts the queue again."""
    queue = make_queue(start=False)
    future = queue.enqueue("doc:1", "hello")
    registry = inside(queue).waiters
    real = registry.mark_wanted
    registry.mark_wanted = lambda *args: (queue.stop(), real(*args))[1]
    with pytest.raises((concurrent.futures.CancelledError, QueueStopped)):
        future.result(PATIENCE_SECONDS)
    assert queue.closed


def test_blank(queue, redis_client):
    """A blank text has the zero vector at once, stores nothing, and ends whoever waits for an older text of its key."""
    older = queue.enqueue("doc:1", "old")
    blank = queue.enqueue("doc:1", " \n")
    assert blank.done()
    assert blank.result() == [0.0] * 8
    assert older.result(PATIENCE_SECONDS) == [0.0] * 8
    assert queue.pending_count() == 0
    assert not redis_client.exists("doc:1")


def test_unsent_notices(queue, redis_client, embedder):
    """Whoever waits gets the vector even if the notice of it is lost with the whole stream."""
    embedder.hold()
    future = queue.enqueue("doc:1", "hello")
    waiting = in_thread(lambda: future.result(PATIENCE_SECONDS))
    embedder.wait_for_calls(1)
    redis_client.eval(  # the write and the loss of its notice, in one step
        "redis.call('DEL', 'embed_queue:inflight')"
        "redis.call('HDEL', 'embed_queue:latest', 'doc:1') redis.call('HDEL', 'embed_queue:claims', 'doc:1')"
        "redis.call('HSET', 'doc:1', 'embedding', ARGV[1], 'embedding_of', ARGV[2])"
        "redis.call('DEL', 'embed_queue:events')",
        0,
        stored("hello"),
        provenance("hello"),
    )
    join(waiting)
    assert future.result(0) == expected("hello")


@pytest.mark.parametrize("start", [True, False])
def test_queue_that_only_its_future_holds(redis_client, embedder, start):
    """Waiting is enough, also where nobody has kept the queue."""
    queue = EmbeddingBatchQueue(embedder, redis_client)
    future = (queue.start() if start else queue).enqueue("doc:1", "text")
    held = weakref.ref(queue)
    del queue
    gc.collect()
    assert future.result(PATIENCE_SECONDS) == expected("text")
    held().stop(timeout=1)


def test_a_text_that_comes_back_by_another_process_ends_the_futures_between(make_queue, embedder):
    """Here A, then B; elsewhere A again, whose vector we write ourselves: nobody tells us that B was superseded."""
    queue, other = make_queue(), make_queue(start=False, worker=False)
    queue.enqueue("doc:0", "first").result(PATIENCE_SECONDS)
    futures = [queue.enqueue("doc:1", "A"), queue.enqueue("doc:1", "B")]
    other.enqueue("doc:1", "A")
    queue.flush_now()
    eventually(lambda: all(future.done() for future in futures), "the futures ended")  # which does not make it urgent
    assert [future.result() for future in futures] == [expected("A")] * 2
    assert embedder.sent == {"first": 1, "A": 1}
