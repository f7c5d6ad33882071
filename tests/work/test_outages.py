"""Redis goes away in every manner and comes back: nothing is lost, and everything goes on by itself."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from embedqueue import Budget, ConfigurationError, InputRejected, ItemRejected
from tests.inside import CHECK_SECONDS, inside
from tests.parts import ONE_TRY, PATIENCE_SECONDS, eventually, expected, in_flight, in_thread, join, stand_still, stored

COUNT = 60


@pytest.fixture
def impatient(fresh_redis_server):
    """A client that tries once, so that enqueue fails at once."""
    return fresh_redis_server.client(retry=Retry(NoBackoff(), 0))


def _held_call(queue, embedder):
    """Items of which some are in a call that the provider holds."""
    embedder.hold()
    futures = queue.enqueue_many((f"doc:{i}", f"text {i}") for i in range(COUNT))
    queue.flush_now()
    embedder.wait_for_calls(2)
    return futures


def _all_well(queue, futures, client, embedder, *, most_sent=1):
    assert [future.result(PATIENCE_SECONDS) for future in futures] == [expected(f"text {i}") for i in range(COUNT)]
    assert [client.hget(f"doc:{i}", "embedding") for i in range(COUNT)] == [stored(f"text {i}") for i in range(COUNT)]
    assert max(embedder.sent.values()) <= most_sent
    assert queue.enqueue("doc:after", "after").result(PATIENCE_SECONDS) == expected("after")
    assert in_flight(client) == queue.pending_count() == 0
    assert {thread.name for thread in threading.enumerate()} >= {"embedqueue-worker-embed_queue"}


def _waits_for_redis(caplog) -> bool:
    return "Redis did not take a result" in caplog.text


@pytest.mark.quiet
def test_enqueue_while_down(fresh_redis_server, impatient, make_queue, embedder):
    """While Redis is down, ``enqueue`` raises redis-py's own error at once and accepts nothing; then all goes on."""
    queue = make_queue(impatient)
    futures = queue.enqueue_many((f"doc:{i}", f"text {i}") for i in range(COUNT))
    queue.flush(PATIENCE_SECONDS)
    fresh_redis_server.stop()
    began_mono = time.monotonic()
    for use in (lambda: queue.enqueue("doc:1", "refused"), lambda: queue.flush(1), queue.pending_count, queue.stats):
        with pytest.raises(redis.ConnectionError):
            use()
    assert time.monotonic() - began_mono < PATIENCE_SECONDS / 2
    fresh_redis_server.start()
    _all_well(queue, futures, impatient, embedder)
    assert "refused" not in embedder.sent


def test_many_enqueue_while_down(fresh_redis_server, impatient, make_queue):
    """Many threads that enqueue while Redis goes down and comes back: each gets its future or its error, none hangs."""
    queue = make_queue(impatient, max_batch_size=10_000)
    accepted: dict[str, str] = {}
    errors: list[redis.RedisError] = []
    began, finish = threading.Barrier(9), threading.Event()

    def work(thread: int) -> None:
        began.wait(PATIENCE_SECONDS)
        i = 0
        while not finish.is_set():
            i += 1
            try:
                queue.enqueue(f"doc:{thread}:{i % 50}", f"text {thread}/{i}")
                accepted[f"doc:{thread}:{i % 50}"] = f"text {thread}/{i}"
            except redis.RedisError as error:
                errors.append(error)

    threads = [in_thread(lambda thread=thread: work(thread)) for thread in range(8)]
    began.wait(PATIENCE_SECONDS)
    eventually(lambda: len(accepted) > 100, "some are in")
    fresh_redis_server.stop()
    eventually(lambda: len(errors) > 20, "all have met it")
    fresh_redis_server.start()
    seen = len(accepted)
    eventually(lambda: len(accepted) >= seen, "some more")
    finish.set()
    join(*threads)
    assert len({id(error) for error in errors}) == len(errors)  # a shared exception would grow a traceback for ever
    queue.flush(PATIENCE_SECONDS)
    wrong = {key for key, text in accepted.items() if impatient.hget(key, "embedding") != stored(text)}
    # What was refused after it may have been accepted all the same: nothing is known of it, as redis-py's error says.
    assert len(wrong) <= 8


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_down_during_a_call(fresh_redis_server, impatient, make_queue, embedder, caplog, end):
    """Redis restarts while the provider works: the answer is kept until Redis is back, and paid for once."""
    queue = make_queue(impatient)
    futures = _held_call(queue, embedder)
    getattr(fresh_redis_server, end)()
    embedder.release()
    eventually(lambda: _waits_for_redis(caplog), "the answer waits")
    fresh_redis_server.start()
    _all_well(queue, futures, impatient, embedder)


def test_down_longer_than_the_lease(fresh_redis_server, impatient, make_queue, embedder, caplog):
    """Redis is away for longer than the lease: somebody may embed again, nothing is lost, nobody is blamed."""
    queue = make_queue(impatient, lease_seconds=0.3)
    futures = _held_call(queue, embedder)
    fresh_redis_server.stop()
    embedder.release()
    eventually(lambda: _waits_for_redis(caplog), "the answer waits")
    threading.Event().wait(0.4)  # the lease itself is what passes
    fresh_redis_server.start()
    _all_well(queue, futures, impatient, embedder, most_sent=2)
    assert queue.stats().dead == 0


def test_stalled(fresh_redis_server, make_queue, embedder):
    """Redis stands still for longer than the client's time limit, with our commands in its buffers."""
    client = fresh_redis_server.client(socket_timeout=3.0, retry=Retry(NoBackoff(), 0))
    queue = make_queue(client)
    futures = _held_call(queue, embedder)
    stand_still(fresh_redis_server.pid)
    embedder.release()
    with pytest.raises(redis.TimeoutError):
        queue.enqueue("doc:1", "text 1")
    os.kill(fresh_redis_server.pid, signal.SIGCONT)
    _all_well(queue, futures, client, embedder, most_sent=2)


@pytest.mark.parametrize("budget", [None, Budget(usd_per_day=1.0, usd_per_million_tokens=1.0)])
def test_answer_of_a_claim_lost(make_queue, embedder, budget):
    """A claim whose answer got lost is taken back at once, at no charge, instead of waiting for its lease."""
    queue = make_queue(budget=budget)
    store = inside(queue).store
    real, times = store.claim, iter([redis.ConnectionError("cut"), redis.TimeoutError("late")])

    def claim(*args, **kwargs):
        answer = real(*args, **kwargs)
        error = next(times, None) if answer.members else None
        if error:
            raise error
        return answer

    store.claim = claim
    assert queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS) == expected("one")
    assert next(times, None) is None
    assert embedder.sent == {"one": 1}
    if budget is not None:
        eventually(lambda: store.budget.state().held == 0, "what the lost claims have reserved is free again")


def test_a_stop_while_redis_takes_no_news_of_a_failure(make_queue, embedder):
    """It does not wait for Redis; the item's lease ends by itself."""
    queue, told = make_queue(retry=ONE_TRY), threading.Event()

    def fail(*args, **kwargs):
        told.set()
        raise redis.ConnectionError("away")

    inside(queue).store.fail = fail
    embedder.rule = lambda texts: ConfigurationError("no credit")
    future = queue.enqueue("doc:1", "one")
    queue.flush_now()
    assert told.wait(PATIENCE_SECONDS)
    queue.stop(timeout=0.1)
    assert future.cancelled()


def test_answer_of_a_write_lost(make_queue, embedder, monkeypatch):
    """A write whose answer got lost is not done twice, and its futures end with what it wrote, without another look."""
    monkeypatch.setattr(*CHECK_SECONDS, (600.0, 600.0))
    queue = make_queue()
    store = inside(queue).store
    real, faults = store.complete, [redis.ConnectionError("cut")]

    def complete(*args, **kwargs):
        words = real(*args, **kwargs)
        if faults:
            raise faults.pop()
        return words

    store.complete = complete
    assert queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS) == expected("one")
    assert embedder.sent == {"one": 1}


def test_look_fails(make_queue, embedder, redis_client, caplog):
    """Redis is cut off just after a bad item was buried: its neighbours are embedded in the same call all the same."""
    queue = make_queue(lease_seconds=600)
    embedder.rule = lambda texts: InputRejected("bad") if any("bad" in text for text in texts) else None
    store = inside(queue).store
    real, faults = store.look, [redis.ConnectionError("cut")]

    def look(*args, **kwargs):
        if faults:
            raise faults.pop()
        return real(*args, **kwargs)

    store.look = look
    futures = queue.enqueue_many([("doc:1", "bad 1"), ("doc:2", "bad 2"), ("doc:3", "good")])
    assert futures[2].result(PATIENCE_SECONDS) == expected("good")
    for future in futures[:2]:
        with pytest.raises(ItemRejected):
            future.result(PATIENCE_SECONDS)


def test_cut_while_foreign_members_are_buried(make_queue, embedder, redis_client):
    """A cut connection while a member that is not ours is buried does not strand the items claimed with it."""
    queue = make_queue(lease_seconds=600)
    store = inside(queue).store
    real, faults = store.reject, [redis.ConnectionError("cut")]

    def reject(*args, **kwargs):
        if faults:
            raise faults.pop()
        return real(*args, **kwargs)

    store.reject = reject
    # JSON to Redis' own parser, but not a pair to ours: the text is no UTF-8
    redis_client.zadd("embed_queue:pending", {b'{"redis_key":"doc:0","text":"\xff"}': 1})
    future = queue.enqueue("doc:1", "one")
    assert future.result(PATIENCE_SECONDS) == expected("one")
    eventually(lambda: queue.stats().dead == 1, "buried")
    assert in_flight(redis_client) == 0


def test_scripts_flushed(fresh_redis_server, impatient, make_queue, embedder):
    """SCRIPT FLUSH at any moment is not noticed."""
    queue = make_queue(impatient)
    futures = _held_call(queue, embedder)
    impatient.script_flush()
    embedder.release()
    impatient.script_flush()
    _all_well(queue, futures, impatient, embedder)


def test_connections_killed(fresh_redis_server, make_queue, embedder):
    """CLIENT KILL of all connections, in use and idle: everything reconnects by itself."""
    client = fresh_redis_server.client()
    queue, producer = make_queue(client), make_queue(client, worker=False)
    waiting = producer.enqueue("doc:p", "of another")
    futures = _held_call(queue, embedder)
    with contextlib.closing(fresh_redis_server.client()) as admin:

        def kill():
            for other in admin.client_list():
                if int(other["id"]) != admin.client_id():
                    admin.client_kill_filter(_id=other["id"])

        kill()
        embedder.release()
        kill()
        assert waiting.result(PATIENCE_SECONDS) == expected("of another")
        kill()
        _all_well(queue, futures, client, embedder)


def test_an_idle_connection_that_the_server_closes(fresh_redis_server, impatient, make_queue):
    """Each time, the next ``enqueue`` connects anew, also for a client that never tries again."""
    queue = make_queue(impatient, worker=False)
    with contextlib.closing(fresh_redis_server.client()) as admin:
        for place in range(4):
            queue.enqueue(f"doc:{place}", "text")
            admin.client_kill_filter(_type="normal", skipme=True)
        assert queue.pending_count() == admin.zcard("embed_queue:pending") == 4


def test_paused(fresh_redis_server, make_queue, embedder):
    """CLIENT PAUSE delays everything and loses nothing."""
    client = fresh_redis_server.client()
    queue = make_queue(client)
    futures = _held_call(queue, embedder)
    client.client_pause(300)
    embedder.release()
    _all_well(queue, futures, client, embedder)


def test_read_only(fresh_redis_server, impatient, make_queue, embedder, caplog):
    """While Redis is a replica, ``enqueue`` raises ReadOnlyError; answers under way are kept until it is a master."""
    queue = make_queue(impatient)
    futures = _held_call(queue, embedder)
    impatient.execute_command("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(redis.ReadOnlyError):
        queue.enqueue("doc:1", "refused")
    embedder.release()
    eventually(lambda: _waits_for_redis(caplog), "the answer waits")
    impatient.execute_command("REPLICAOF", "NO", "ONE")
    _all_well(queue, futures, impatient, embedder)
    assert "refused" not in embedder.sent


def test_out_of_memory(fresh_redis_server, impatient, make_queue, embedder, caplog):
    """While Redis is full, ``enqueue`` raises OutOfMemoryError; what waits is embedded when there is room again."""
    queue = make_queue(impatient)
    futures = _held_call(queue, embedder)
    impatient.config_set("maxmemory", 1)
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        queue.enqueue("doc:1", "refused")
    embedder.release()
    eventually(lambda: _waits_for_redis(caplog), "the answer waits")
    impatient.config_set("maxmemory", 0)
    _all_well(queue, futures, impatient, embedder)
    assert "refused" not in embedder.sent


def test_out_of_memory_when_leases_end(fresh_redis_server, impatient, make_queue, embedder):
    """A claim on a full Redis that finds leases at their end, items to adopt and items to bury loses none of them."""
    dead, queue = make_queue(impatient, lease_seconds=0.05, start=False), make_queue(impatient, start=False)
    futures = queue.enqueue_many((f"doc:{i}", f"text {i}") for i in range(COUNT))
    store = inside(dead).store
    store.claim("gone:1/0.050:", 20, probe_limit=50, lease_seconds=0.05, max_deliveries=5, alone=True)
    impatient.zadd("embed_queue:pending", {'{"redis_key":"doc:old","text":"old"}': 1, "not ours": 2})
    threading.Event().wait(0.1)  # the lease passes
    impatient.config_set("maxmemory", 1)
    for attempt in range(3):
        with contextlib.suppress(redis.exceptions.OutOfMemoryError):
            store.claim(
                f"gone:{attempt + 2}/0.050:", 5, probe_limit=50, lease_seconds=0.05, max_deliveries=5, alone=True
            )
    impatient.config_set("maxmemory", 0)
    standing = sum(impatient.zcard(f"embed_queue:{name}") for name in ("pending", "inflight", "dead"))
    assert standing == COUNT + 2
    dead.stop()
    queue.start()
    _all_well(queue, futures, impatient, embedder)
    assert impatient.hget("doc:old", "embedding") == stored("old")


def test_flushed(make_queue, embedder, redis_client):
    """FLUSHALL takes the items, as it must; whoever waits is told, and the queue goes on."""
    queue = make_queue()
    embedder.hold()
    future = queue.enqueue("doc:1", "one")
    waiting = in_thread(lambda: future.exception(PATIENCE_SECONDS))
    embedder.wait_for_calls(1)
    redis_client.flushall()
    embedder.release()
    join(waiting)
    assert isinstance(future.exception(0), ItemRejected)
    assert queue.enqueue("doc:2", "two").result(PATIENCE_SECONDS) == expected("two")


def test_stop_while_down(fresh_redis_server, impatient, make_queue, embedder, caplog):
    """``stop()`` returns while Redis is down, and the futures of this process end."""
    queue = make_queue(impatient)
    futures = _held_call(queue, embedder)
    fresh_redis_server.stop()
    join(in_thread(lambda: queue.stop(timeout=0)))
    assert all(future.cancelled() for future in futures)


def test_stop_while_an_answer_waits_for_redis(fresh_redis_server, impatient, make_queue, embedder, caplog):
    """A vector that Redis does not take keeps no thread alive after the stop."""
    queue = make_queue(impatient)
    futures = _held_call(queue, embedder)
    fresh_redis_server.stop()
    embedder.release()
    eventually(lambda: _waits_for_redis(caplog), "the answer waits")
    assert inside(queue).calls
    join(in_thread(lambda: queue.stop(timeout=0)))
    assert inside(queue).wait_for_calls(PATIENCE_SECONDS)
    assert all(future.cancelled() for future in futures)


def test_every_enqueue_while_down_gets_its_error(fresh_redis_server, impatient, make_queue):
    """The first finds its connection cut, the next ones have none; none hangs, and the first one after it works."""
    queue = make_queue(impatient, worker=False)
    queue.enqueue("doc:1", "one")
    fresh_redis_server.stop()
    for _ in range(3):
        with pytest.raises(redis.ConnectionError):
            queue.enqueue("doc:2", "two")
    fresh_redis_server.start()
    queue.enqueue("doc:3", "three")
    assert impatient.zcard("embed_queue:pending") == 2
