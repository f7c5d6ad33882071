"""Programs that fork, as servers do that load the application first: each process has a queue of its own then."""

from __future__ import annotations

import json

import pytest

from tests import nursery
from tests.parts import PATIENCE_SECONDS, eventually, expected, stored


@pytest.fixture
def busy(make_peer, provider):
    """A process with futures pending and a call in flight."""
    provider.hold()
    peer = make_peer()
    peer.run("futures = queue.enqueue_many([(f'doc:{i}', f'text {i}') for i in range(10)]); queue.flush_now()")
    assert provider.wait_for_calls(1, PATIENCE_SECONDS)
    return peer


def test_fork_during_a_call(busy, provider, redis_client):
    """The forked child works at its first use; the parent keeps its futures and its call, which is paid for once."""
    busy.run("join = fork(lambda: queue.enqueue('doc:child', 'of the child').result(45))")
    assert provider.wait_for_calls(2, PATIENCE_SECONDS)  # the child's
    provider.release()
    assert busy.get("join()") == expected("of the child")
    assert busy.get("[f.result(45) for f in futures]") == [expected(f"text {i}") for i in range(10)]
    assert set(provider.sent.values()) == {1}
    assert redis_client.hget("doc:child", "embedding") == stored("of the child")


def test_child_is_clean(busy):
    """The child has none of the parent's threads, futures or counts, and starts nothing until it is used."""
    busy.run(
        "import threading\n"
        "join = fork(lambda: [[t.name for t in threading.enumerate() if 'embedqueue' in t.name],"
        " len(inside(queue).waiters), queue.stats().enqueued, queue.closed])"
    )
    assert busy.get("join()") == [[], 0, 0, False]


@pytest.mark.parametrize("use", [
    "futures[0].result(45)",
    "futures[0].exception(45)",
    "futures[0].add_done_callback(print)",
    "concurrent.futures.wait(futures, 45)",
    "next(concurrent.futures.as_completed(futures, 45))",
])  # fmt: skip
def test_futures_of_the_parent(busy, provider, use):
    """A future of the parent does not hang in the child: it says whose it is."""
    busy.run("import concurrent.futures")
    busy.run(f"join = fork(lambda: {use}, futures[0]._condition)")
    assert "QueueStopped: this future was made before a fork" in busy.get("join()")
    provider.release()
    assert busy.get("futures[0].result(45)") == expected("text 0")


def test_finished_future_of_the_parent(busy, provider):
    """What a future already holds can be read in the child as well."""
    provider.release()
    busy.run("futures[0].result(45)")
    busy.run("join = fork(lambda: futures[0].result())")
    assert busy.get("join()") == expected("text 0")


def test_fork_with_every_lock_held(busy, provider):
    """A fork at the worst moment, with each of our locks held by some thread of the parent, leaves no lock shut."""
    busy.run("""
import contextlib
@contextlib.contextmanager
def locked():
    with contextlib.ExitStack() as held:
        for lock in inside(queue).locks():
            held.enter_context(lock)
        yield
join = fork(lambda: queue.enqueue('doc:child', 'of the child').result(45), locked())
""")
    provider.release()
    assert busy.get("join()") == expected("of the child")


def test_fork_during_a_stop(make_peer):
    """The child has a queue that can be started, and stopped."""
    peer = make_peer()
    peer.run("""
queue.start()
stop = queue._engine.stop
joins = []
def stop_and_fork(grace):
    joins.append(fork(child))
    stop(grace)
def child():
    future = queue.start().enqueue('doc:child', 'hello')
    result = future.result(45)
    queue.stop()
    return result, inside(queue).works
queue._engine.stop = stop_and_fork
queue.stop()
""")
    assert peer.get("joins[0]()") == [expected("hello"), False]


def test_traffic_in_both(make_peer, provider):
    """Parent and children work at the same time on connections of their own: no answer goes astray."""
    peer = make_peer()
    peer.run("""
queue.enqueue('doc:first', 'first').result(45)
def traffic(name):
    futures = []
    for i in range(150):
        futures.append(queue.enqueue(f'doc:{name}:{i}', f'text {name}/{i}'))
        if i % 10 == 0:
            futures[-1].result(45)
    return [future.result(45)[0] for future in futures]
def child(name):
    try:
        return traffic(name)
    finally:
        queue.stop(timeout=45)  # it may hold items of the others, who would wait until its leases run out
""")
    peer.run("joins = [fork(lambda name=name: child(name)) for name in range(2)]; mine = traffic('parent')")
    for name, code in (("parent", "mine"), (0, "joins[0]()"), (1, "joins[1]()")):
        assert peer.get(code) == [expected(f"text {name}/{i}")[0] for i in range(150)]
    assert set(provider.sent.values()) == {1}


def test_forks_under_traffic(make_peer):
    """A process that enqueues in four threads forks again and again: each child works."""
    peer = make_peer()
    peer.run("""
import threading
finish = threading.Event()
def enqueue(name):
    i = 0
    while not finish.is_set():
        i += 1
        queue.enqueue(f'doc:{name}:{i % 100}', f'text {i}')
threads = [threading.Thread(target=enqueue, args=(name,)) for name in range(4)]
for thread in threads: thread.start()
""")
    for i in range(8):
        peer.run(f"join = fork(lambda: queue.enqueue('doc:child:{i}', 'text of {i}').result(45))")
        assert peer.get("join()") == expected(f"text of {i}")
    peer.run("finish.set(); [thread.join(45) for thread in threads]")


def test_preload(redis_server, redis_client, provider):
    """A queue used before the fork works in all workers, as with gunicorn's preload; each process ends silently."""
    code = f"""
import os, sys, warnings, redis
from embedqueue import EmbeddingBatchQueue, OpenAIEmbedder
warnings.simplefilter("ignore")
embedder = OpenAIEmbedder("test-key", {provider.openai_url!r}, dimensions=8)
queue = EmbeddingBatchQueue(embedder, redis.from_url({redis_server.url!r})).start()
queue.enqueue("doc:parent", "parent").result(45)
for name in range(3):
    if os.fork() == 0:
        queue.enqueue(f"doc:{{name}}", f"text {{name}}").result(45)
        sys.exit(0)  # the whole way out, atexit included
codes = [os.wait()[1] for _ in range(3)]
queue.enqueue("doc:parent", "parent again").result(45)
print(codes)
"""
    done = nursery.run("-c", code, timeout=3 * PATIENCE_SECONDS)
    assert (done.stdout, done.stderr, done.returncode) == ("[0, 0, 0]\n", "", 0)
    assert [redis_client.hget(f"doc:{name}", "embedding") for name in range(3)] == [
        stored(f"text {name}") for name in range(3)
    ]
    assert redis_client.hget("doc:parent", "embedding") == stored("parent again")


def test_multiprocessing(redis_server, redis_client, provider):
    """Children of multiprocessing (fork) use the queue of their parent as if it were theirs."""
    code = f"""
import multiprocessing, warnings, redis
from embedqueue import EmbeddingBatchQueue, OpenAIEmbedder
warnings.simplefilter("ignore")
embedder = OpenAIEmbedder("test-key", {provider.openai_url!r}, dimensions=8)
queue = EmbeddingBatchQueue(embedder, redis.from_url({redis_server.url!r})).start()
def embed(name):
    return queue.enqueue(f"doc:{{name}}", f"text {{name}}").result(45)[0]
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(pool.map(embed, range(6)))
"""
    done = nursery.run("-c", code, timeout=3 * PATIENCE_SECONDS)
    assert (json.loads(done.stdout), done.stderr) == ([expected(f"text {name}")[0] for name in range(6)], "")


def test_stopped_before_the_fork(make_peer):
    """A queue that was stopped before the fork is stopped in the child, and can be started there."""
    peer = make_peer()
    peer.run("queue.stop()")
    peer.run("join = fork(lambda: [queue.closed, queue.start().enqueue('doc:1', 'hello').result(45)])")
    assert peer.get("join()") == [True, expected("hello")]


def test_a_child_announces_itself_under_its_own_pid(make_peer, make_queue):
    """Once it works; its parent stays announced under its own."""
    peer, onlooker = make_peer(), make_queue(start=False, worker=False)
    eventually(lambda: len(onlooker.workers()) == 1, "the parent")
    peer.run("import os, time")
    parent = peer.get("os.getpid()")
    peer.run(
        "def child():\n"
        "    queue.enqueue('doc:child', 'of the child').result(45)\n"
        "    end = time.monotonic() + 15\n"
        "    while time.monotonic() < end and os.getpid() not in [w.pid for w in queue.workers()]: time.sleep(0.01)\n"
        "    return [os.getpid(), sorted(w.pid for w in queue.workers())]\n"
        "join = fork(child)"
    )
    child, found = peer.get("join()")
    assert found == sorted([parent, child])


def test_queries_in_a_forked_child(make_peer, provider):
    """While the parent's is under way: the child has a sender of its own."""
    provider.hold()
    peer = make_peer()
    parent = peer.ask("queue.embed_query('of the parent', 45)")
    assert provider.wait_for_calls(1, PATIENCE_SECONDS)
    peer.run("join = fork(lambda: queue.embed_query('of the child', 45))")
    assert provider.wait_for_calls(2, PATIENCE_SECONDS)
    provider.release()
    assert peer.get("join()") == expected("of the child")
    assert parent.get() == expected("of the parent")
