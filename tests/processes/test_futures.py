"""Futures in one process, work in another."""

from __future__ import annotations

import pytest

from embedqueue import PENDING_ZSET_KEY
from tests.parts import DIMENSIONS, PATIENCE_SECONDS, expected, stored
from tests.processes.peer import Failed
from tests.provider import fail, poison


@pytest.fixture
def worker(make_peer):
    return make_peer()


@pytest.fixture
def producer(make_peer):
    return make_peer(worker=False)


def test_producer_waits(worker, producer, provider, redis_client):
    """A process that only enqueues gets its vector as soon as a worker elsewhere has it, without waiting for timers."""
    producer.run("future = queue.enqueue('doc:1', 'hello')")
    assert producer.get("future.result(45)") == expected("hello")
    assert redis_client.hget("doc:1", "embedding") == stored("hello")
    assert provider.sent == {"hello": 1}


@pytest.mark.quiet
def test_no_waiting_for_sweeps(worker, producer):
    """Another process' work is known within milliseconds, not after the seconds between two sweeps."""
    worker.get("queue.pending_count()")
    producer.run("import time")
    seconds = []
    for i in range(5):
        producer.run(f"began = time.monotonic(); queue.enqueue('doc:{i}', 'text {i}').result(45)")
        seconds.append(producer.get("time.monotonic() - began"))
    assert sorted(seconds)[2] < 0.5


@pytest.mark.parametrize("way", [
    "[f.result() for f in concurrent.futures.as_completed(futures, 45)]",
    "[f.result() for f in concurrent.futures.wait(futures, 45).done]",
    "asyncio.run(gather(futures))",
])  # fmt: skip
def test_other_ways_to_wait(worker, producer, way):
    """as_completed, wait and asyncio work across processes, and make the items urgent."""
    producer.run("""
import asyncio, concurrent.futures
async def gather(futures):
    return await asyncio.wait_for(asyncio.gather(*map(asyncio.wrap_future, futures)), 45)
""")
    producer.run("futures = queue.enqueue_many([(f'doc:{i}', f'text {i}') for i in range(8)])")
    assert sorted(producer.get(way)) == sorted(expected(f"text {i}") for i in range(8))


def test_callback_elsewhere(worker, producer, redis_client):
    """A done callback in another process finds the vector in the hash."""
    producer.run("""
seen = {}
def note(future):
    seen['hash'] = client.hget('doc:1', 'embedding').hex()
    say('called')
queue.enqueue('doc:1', 'hello').add_done_callback(note)
queue.flush_now()
""")
    producer.heard("called")
    assert producer.get("seen") == {"hash": stored("hello").hex()}


def test_both_directions(make_peer, provider):
    """Two processes that both work and wait: each gets everything, whoever embedded it, and nothing is sent twice."""
    peers = [make_peer(), make_peer()]
    for name, peer in enumerate(peers):
        peer.run(f"futures = queue.enqueue_many([(f'doc:{name}:{{i}}', f'text {name}/{{i}}') for i in range(120)])")
    answers = [peer.ask("[f.result(45) for f in futures]") for peer in peers]
    for name, answer in enumerate(answers):
        assert answer.get() == [expected(f"text {name}/{i}") for i in range(120)]
    assert set(provider.sent.values()) == {1}
    assert len(provider.sent) == 240


def test_other_process_takes_it(make_peer, provider):
    """A worker's future ends when another worker has embedded its item."""
    first, second = make_peer(), make_peer()
    first.run("inside(queue).claim_nothing_more()  # it claims nothing more, as if it were busy")
    first.run("future = queue.enqueue('doc:1', 'hello')")
    answer = first.ask("future.result(45)")
    second.run("queue.flush(45)")
    assert answer.get() == expected("hello")


@pytest.mark.parametrize("loss", ["r.delete('embed_queue:events')", "r.xtrim('embed_queue:events', 0)"])
def test_notices_lost(worker, producer, provider, redis_client, loss):
    """A notice that was trimmed away before anybody read it is made up for by a sweep within seconds."""
    provider.hold()
    producer.run("future = queue.enqueue('doc:1', 'hello')")
    answer = producer.ask("future.result(45)")
    assert provider.wait_for_calls(1, PATIENCE_SECONDS)
    producer.run("""
# main thread: deaf from now on, so that the loss comes before the reading
import threading
deaf, go_on = threading.Event(), threading.Event()
listen = inside(queue).store.events.listen
def late(after, seconds):
    deaf.set()
    go_on.wait(45)
    return listen(after, seconds)
inside(queue).store.events.listen = late
""")
    redis_client.xadd("embed_queue:events", {"kind": "nothing", "by": "", "body": ""})  # ends the read that runs
    producer.run("deaf.wait(45)")
    provider.release()
    worker.run("queue.flush(45)")
    eval(loss, {"r": redis_client})
    producer.run("go_on.set()")
    assert answer.get() == expected("hello")


def test_superseded_elsewhere(make_peer, provider, redis_client):
    """The future of an older text ends with the vector of the newer one that another process enqueued."""
    first, second = make_peer(worker=False), make_peer(worker=False)
    first.run("future = queue.enqueue('doc:1', 'old')")
    second.run("future = queue.enqueue('doc:1', 'new')")
    make_peer().run("queue.flush(45)")
    assert first.get("future.result(45)") == second.get("future.result(45)") == expected("new")
    assert provider.sent == {"new": 1}
    assert redis_client.hget("doc:1", "embedding") == stored("new")


def test_superseded_during_the_call(make_peer, provider, redis_client):
    """Another process replaces the text while its call runs: whoever waits gets the newer one's vector, at once."""
    first, second, worker = make_peer(worker=False), make_peer(worker=False), make_peer()
    provider.hold()
    first.run("future = queue.enqueue('doc:1', 'old')")
    answer = first.ask("future.result(45)")
    assert provider.wait_for_calls(1, PATIENCE_SECONDS)
    second.run("queue.enqueue('doc:1', 'new')")
    provider.release()
    assert answer.get() == expected("new")
    assert redis_client.hget("doc:1", "embedding") == stored("new")
    assert worker.get("queue.stats().in_flight") == 0


def test_blank_elsewhere(make_peer):
    """Another process empties the text: whoever waits gets the zero vector."""
    first, second = make_peer(worker=False), make_peer(worker=False)
    first.run("future = queue.enqueue('doc:1', 'old')")
    answer = first.ask("future.result(45)")
    first.run("while not inside(queue).waiters.any_wanted(): pass")
    assert second.get("queue.enqueue('doc:1', ' ').result(0)") == [0.0] * DIMENSIONS
    assert answer.get() == [0.0] * DIMENSIONS


def test_blank_elsewhere_without_a_notice(make_peer):
    """The same where the notice is missed: a sweep, which finds the item gone, finds out why."""
    first, second = make_peer(worker=False), make_peer(worker=False)
    first.run("future = queue.enqueue('doc:1', 'old')")
    first.run("inside(queue).stop_listening()")
    answer = first.ask("future.result(45)")
    first.run("while not inside(queue).waiters.any_wanted(): pass")
    second.run("queue.enqueue('doc:1', ' ')")
    assert answer.get() == [0.0] * DIMENSIONS


def test_rejected_elsewhere(worker, producer, provider):
    """Whoever waits in another process gets the provider's words for a bad text; its neighbours get vectors."""
    provider.rule = poison("bad", 400)
    producer.run("futures = queue.enqueue_many([('doc:1', 'good'), ('doc:2', 'bad'), ('doc:3', 'fine')])")
    assert producer.get("[type(f.exception(45)).__name__ for f in futures]") == ["NoneType", "ItemRejected", "NoneType"]
    assert producer.get("[d.redis_key for d in queue.dead_letters()]") == ["doc:2"]


def test_failed_elsewhere(worker, producer, provider, redis_client):
    """Whoever waits in another process learns that the provider fails; the item waits on."""
    provider.rule = lambda texts: fail(401)
    producer.run("future = queue.enqueue('doc:1', 'hello')")
    assert producer.get("type(future.exception(45)).__name__") == "BatchFailed"
    provider.rule = None  # before a probe finds it as it was
    assert worker.get("inside(queue).wait_for_calls(45)")  # it gives the item back right after it has told
    producer.run("queue.flush(45)")
    assert redis_client.hget("doc:1", "embedding") == stored("hello")
    producer.run("future = queue.enqueue('doc:1', 'hello')")
    assert producer.get("future.result(45)") == expected("hello")


def test_flush_elsewhere(worker, producer, provider):
    """``flush()`` in a process without a worker drains, and returns when all is finished."""
    producer.run("futures = queue.enqueue_many([(f'doc:{i}', f'text {i}') for i in range(130)])")
    producer.run("queue.flush(45)")
    assert producer.get("[f.done() for f in futures]") == [True] * 130
    assert producer.get("queue.pending_count()") == 0


def test_flush_now_elsewhere(worker, producer, provider):
    """``flush_now()`` in a process without a worker wakes one elsewhere."""
    producer.run("queue.enqueue('doc:1', 'hello'); queue.flush_now()")
    assert provider.wait_for_calls(1, PATIENCE_SECONDS)


def test_drain_on_stop(worker, producer):
    """``stop(drain=True)`` of a producer returns when the workers elsewhere have done its items."""
    producer.run("futures = queue.enqueue_many([(f'doc:{i}', f'text {i}') for i in range(20)])")
    producer.run("queue.stop(timeout=45, drain=True)")
    assert producer.get("[f.result(0) for f in futures]") == [expected(f"text {i}") for i in range(20)]


def test_size_elsewhere(worker, producer, provider):
    """A producer whose items fill a batch need not ask for anything: the workers elsewhere are told."""
    worker.run("while not inside(queue).has_looked: pass")  # what it finds at its start it would drain at once
    producer.run("for i in range(50): queue.enqueue(f'doc:{i}', f'text {i}')")
    assert provider.wait_for_calls(1, PATIENCE_SECONDS)
    assert len(provider.calls[0].texts) == 50


def test_timer_elsewhere(make_peer, provider):
    """The timer of a worker runs for items that a producer enqueued, too."""
    make_peer(flush_interval=0.3).get("queue.pending_count()")
    make_peer(worker=False).run("queue.enqueue('doc:1', 'hello')")
    assert provider.wait_for_calls(1, PATIENCE_SECONDS)


def test_cancelled_elsewhere(worker, producer, provider, redis_client):
    """A process that cancels its futures disturbs neither the worker nor others that wait for the same items."""
    provider.hold()
    producer.run("future = queue.enqueue('doc:1', 'hello')")
    worker.run("future = queue.enqueue('doc:1', 'hello')")
    answer = worker.ask("future.result(45)")
    assert provider.wait_for_calls(1, PATIENCE_SECONDS)
    assert producer.get("future.cancel()")
    provider.release()
    assert answer.get() == expected("hello")
    assert producer.get("future.cancelled()")
    assert provider.sent == {"hello": 1}


def test_worker_comes_later(make_peer, provider):
    """Whoever waits before any worker exists is served when one starts."""
    producer = make_peer(worker=False)
    answer = producer.ask("queue.enqueue('doc:1', 'hello').result(45)")
    producer.run("while not inside(queue).waiters.any_wanted(): pass")
    make_peer()
    assert answer.get() == expected("hello")


def test_left_by_the_asyncio_design(make_peer, redis_client):
    """What the asyncio design left in pending is drained on start."""
    redis_client.zadd(PENDING_ZSET_KEY, {'{"redis_key":"doc:1","text":"hello"}': 1.0})
    make_peer().run("queue.flush(45)")
    assert redis_client.hget("doc:1", "embedding") == stored("hello")


def test_bad_use_is_told(producer):
    """Errors of arguments are raised at once, before anything is written."""
    with pytest.raises(Failed) as raised:
        producer.run("queue.enqueue('', 'text')")
    assert raised.value.kind == "ValueError"
