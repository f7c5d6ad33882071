"""Many threads, one queue; and a queue with nothing to do."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from embedqueue import TransientError
from embedqueue.values.locks import Condition
from tests.inside import FIRST_PAUSE_SECONDS, WRITE_BYTES, WRITE_ITEMS, inside, worker_threads
from tests.parts import (
    DIMENSIONS,
    ONE_TRY,
    PATIENCE_SECONDS,
    GatedEmbedder,
    eventually,
    expected,
    in_flight,
    start_held,
    stored,
)

THREADS, EACH = 16, 50


def test_all_wait(make_queue, embedder, redis_client):
    """16 threads enqueue 50 texts each and wait for each: every vector is right, each text is sent once."""
    queue = make_queue()
    together = threading.Barrier(THREADS)

    def work(thread: int) -> int:
        right = 0
        for i in range(EACH):
            together.wait(PATIENCE_SECONDS)
            text = f"text {thread}/{i}"
            right += queue.enqueue(f"doc:{thread}:{i}", text).result(PATIENCE_SECONDS) == expected(text)
        return right

    with ThreadPoolExecutor(THREADS) as pool:
        assert sum(pool.map(work, range(THREADS))) == THREADS * EACH
    assert embedder.sent == {f"text {thread}/{i}": 1 for thread in range(THREADS) for i in range(EACH)}
    # Sixteen who come together share a call, now and then two, on a busy machine a few: not sixteen.
    assert len(embedder.calls) <= THREADS * EACH / 2
    assert redis_client.hget("doc:3:7", "embedding") == stored("text 3/7")


def test_enqueue_first_wait_later(make_queue, embedder):
    """800 items enqueued by 16 threads, and only then waited for, need about as many calls as texts fit into them."""
    queue = make_queue(max_batch_size=10_000)

    def enqueue(thread: int):
        return [queue.enqueue(f"doc:{thread}:{i}", f"text {thread}/{i}") for i in range(EACH)]

    with ThreadPoolExecutor(THREADS) as pool:
        futures = list(pool.map(enqueue, range(THREADS)))
        for got in pool.map(lambda mine: [future.result(PATIENCE_SECONDS) for future in mine], futures):
            assert len(got) == EACH
    assert futures[2][9].result() == expected("text 2/9")
    assert len(embedder.calls) <= THREADS * EACH / 50 + 2


def test_same_keys(make_queue, embedder, redis_client):
    """16 threads overwrite the same few keys: each future ends, and the hash has the text that Redis saw last."""
    queue = make_queue()
    order = threading.Lock()
    last: dict[str, str] = {}

    def work(thread: int):
        futures = []
        for i in range(EACH):
            key, text = f"doc:{i % 5}", f"text {thread}/{i}"
            with order:
                futures.append(queue.enqueue(key, text))
                last[key] = text
        return [future.result(PATIENCE_SECONDS) for future in futures]

    with ThreadPoolExecutor(THREADS) as pool:
        vectors = list(pool.map(work, range(THREADS)))
    assert sum(map(len, vectors)) == THREADS * EACH
    queue.flush(PATIENCE_SECONDS)
    assert {key: redis_client.hget(key, "embedding") for key in last} == {k: stored(t) for k, t in last.items()}


def test_start_and_stop_by_many(make_queue, embedder, redis_client):
    """Threads that start, use and stop one queue against each other never hang, and no item is lost."""
    queue = make_queue()
    accepted: list[str] = []
    end_mono = time.monotonic() + 2

    def use(thread: int) -> None:
        i = 0
        while time.monotonic() < end_mono:
            i += 1
            try:
                future = queue.enqueue(f"doc:{thread}:{i}", f"text {thread}/{i}")
                accepted.append(f"doc:{thread}:{i}")
                future.exception(PATIENCE_SECONDS)
            except (RuntimeError, OSError):  # QueueStopped
                queue.start()
            except BaseException:  # CancelledError
                pass

    def stop(_: int) -> None:
        while time.monotonic() < end_mono:
            queue.stop(timeout=0.05)
            queue.start()

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(use, i) for i in range(6)] + [pool.submit(stop, i) for i in range(2)]:
            done.result(PATIENCE_SECONDS)
    queue.start()
    queue.flush(PATIENCE_SECONDS)
    assert all(redis_client.hexists(key, "embedding") for key in accepted)
    assert in_flight(redis_client) == queue.pending_count() == 0


def _calls(client) -> int:
    """Commands that Redis was sent; what scripts call is counted as well, but for their look at the clock."""
    stats = client.info("commandstats")
    return sum(stats[name]["calls"] for name in stats if name not in ("cmdstat_info", "cmdstat_time"))


@pytest.mark.quiet
def test_idle(make_queue, redis_client):
    """A queue with nothing to do costs no CPU to speak of, and fewer than 20 Redis commands in 10 s."""
    worker, producer = make_queue(), make_queue(worker=False)
    kept = [worker.enqueue("doc:1", "one"), producer.enqueue("doc:2", "two")]
    assert [future.result(PATIENCE_SECONDS) for future in kept] == [expected("one"), expected("two")]
    eventually(lambda: worker_threads() == 1, "nobody waits, so only the one that works has its thread")
    waiting = producer.enqueue("doc:3", "three")  # unfinished, but nobody waits for it
    eventually(lambda: inside(worker).knows_of == 1, "the worker has heard of it")
    commands, cpu, began = _calls(redis_client), time.process_time(), time.monotonic()
    threading.Event().wait(3)
    seconds = time.monotonic() - began
    assert (time.process_time() - cpu) / seconds < 0.01
    assert (_calls(redis_client) - commands) / seconds < 2 * 20 / 10  # two queues; scripts count what they call
    assert not waiting.done()


def test_next_call_is_at_hand(make_queue, embedder, redis_client):
    """Of a long backlog one call more is claimed than may start: it is made at once, however long Redis takes."""
    queue = start_held(make_queue, embedder, [f"text {i}" for i in range(10)], calls=2)
    eventually(lambda: in_flight(redis_client) == 3)
    assert len(embedder.calls) == 2
    store, redis_answers = inside(queue).store, threading.Event()
    claim, complete = store.claim, store.complete
    store.claim = lambda *args, **kwargs: redis_answers.wait(PATIENCE_SECONDS) and claim(*args, **kwargs)
    store.complete = lambda *args: redis_answers.wait(PATIENCE_SECONDS) and complete(*args)
    embedder.release()
    embedder.wait_for_calls(3)
    redis_answers.set()
    queue.flush(PATIENCE_SECONDS)
    assert embedder.sent == {f"text {i}": 1 for i in range(10)}


def test_next_call_waits_for_the_pause(make_queue, embedder, redis_client, monkeypatch):
    """The call that is at hand when the provider fails is not made before the pause is over."""
    monkeypatch.setattr(*FIRST_PAUSE_SECONDS, 5.0)  # so that it stands while it is looked at
    embedder.rule = lambda texts: TransientError("down")
    queue = start_held(make_queue, embedder, [f"text {i}" for i in range(5)], retry=ONE_TRY)
    eventually(lambda: in_flight(redis_client) == 2)
    embedder.release()
    eventually(lambda: in_flight(redis_client) == 0)
    assert redis_client.exists("embed_queue:pause")
    assert len(embedder.calls) == 1
    assert redis_client.hlen("embed_queue:claims") == 0  # no delivery was charged
    embedder.rule = None
    queue.flush(PATIENCE_SECONDS)
    assert embedder.sent == {f"text {i}": 2 if i == 0 else 1 for i in range(5)}


def test_short_backlog_is_left_to_others(make_queue, embedder, redis_client):
    """What is less than a call for each that may be under way waits for whoever is free first."""
    start_held(make_queue, embedder, [f"text {i}" for i in range(3)], calls=2)
    assert in_flight(redis_client) == 2
    free = GatedEmbedder()
    make_queue(embedder=free).flush_now()
    free.wait_for_calls(1)
    embedder.release()


def test_threads_end(make_queue, redis_client):
    """A stopped queue leaves no thread and no connection behind."""
    before = set(os.listdir("/proc/self/fd")), {thread.name for thread in threading.enumerate()}
    queue = make_queue()
    assert queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS)
    queue.stop()
    eventually(lambda: {t.name for t in threading.enumerate() if "embedqueue-call" not in t.name} <= before[1], "ended")
    eventually(lambda: len(os.listdir("/proc/self/fd")) <= len(before[0]), "closed")


def test_no_more_threads(make_queue, monkeypatch, caplog):
    """Where the system gives no more threads, items are embedded all the same, one call at a time."""
    queue = make_queue()
    real = threading.Thread.start

    def start(thread):
        if thread.name.startswith("embedqueue-"):
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    futures = queue.enqueue_many((f"doc:{i}", f"text {i}") for i in range(120))
    assert [future.result(PATIENCE_SECONDS) for future in futures] == [expected(f"text {i}") for i in range(120)]


def test_the_worker_hears_what_was_noted_when_a_signal_came(make_queue, monkeypatch):
    """Ctrl-C when a wish is noted and the worker is not told yet: who wishes the same next need not tell it."""
    queue = make_queue()
    future = queue.enqueue("doc:1", "hello")
    condition = inside(queue).worker_condition
    notify_all = condition.notify_all

    def interrupted():
        if threading.current_thread() is threading.main_thread():
            monkeypatch.undo()
            raise KeyboardInterrupt
        notify_all()

    monkeypatch.setattr(condition, "notify_all", interrupted)
    with pytest.raises(KeyboardInterrupt):
        future.result(0)
    assert future.result(PATIENCE_SECONDS) == expected("hello")


def fail(make_queue, redis_client, monkeypatch):
    """Let the provider fail for a worker that is gone then; its pause is over at once, what is known of it is not."""
    monkeypatch.setattr(*FIRST_PAUSE_SECONDS, 60.0)  # nobody else tests the provider by this one's text
    down = GatedEmbedder()
    down.rule = lambda texts: TransientError("down")
    queue = make_queue(embedder=down, retry=ONE_TRY)
    queue.enqueue("doc:down", "down")
    queue.flush_now()
    eventually(lambda: redis_client.exists("embed_queue:pause"))
    queue.stop()
    blank = make_queue(start=False)
    blank.enqueue("doc:down", "")
    inside(blank).store.unhold()


def test_who_has_no_place_free_tests_no_provider(make_queue, embedder, redis_client, monkeypatch):
    """One call tests a provider that has failed, and all wait for it: it must not stand behind a call that hangs."""
    busy = make_queue(max_concurrency=1, api_batch_limit=1)
    embedder.hold()
    busy.enqueue("doc:hangs", "hangs")
    busy.flush_now()
    embedder.wait_for_calls(1)
    busy.enqueue_many((f"doc:{i}", f"text {i}") for i in range(5))
    fail(make_queue, redis_client, monkeypatch)
    inside(busy).claim_now()  # ahead, and not knowing of the failure yet
    idle = make_queue(embedder=GatedEmbedder(), start=False)
    future = idle.enqueue("doc:new", "new")  # before it starts, for the busy one claims again then
    assert idle.start() and future.result(PATIENCE_SECONDS) == expected("new")
    embedder.release()


def test_nothing_is_claimed_ahead_while_the_provider_fails(make_queue):
    """The next claim is a test of it, and for that a place must be free."""
    queue = make_queue(start=False, max_concurrency=1, api_batch_limit=1)
    inside(queue).pretend(waiting=10)
    assert inside(queue).room() == 1
    inside(queue).pretend(calls=1)
    assert inside(queue).room() == 1
    inside(queue).pretend(failing=True)
    assert inside(queue).room() == 0


def test_a_test_of_the_provider_by_a_text_under_way(make_queue, embedder, redis_client, monkeypatch):
    """It is none, for no call is made for it: the next may test."""
    queue = make_queue(max_concurrency=2, api_batch_limit=1)
    embedder.hold()
    queue.enqueue("doc:1", "same")
    queue.flush_now()
    embedder.wait_for_calls(1)
    fail(make_queue, redis_client, monkeypatch)
    queue.enqueue("doc:2", "same")
    queue.flush_now()
    eventually(lambda: in_flight(redis_client) == 2)
    eventually(lambda: not redis_client.exists("embed_queue:pause:probe"), "it is no probe")
    embedder.release()
    queue.flush(PATIENCE_SECONDS)
    assert embedder.sent == {"same": 1}


@pytest.mark.parametrize(("limit", "value"), [(WRITE_ITEMS, 2), (WRITE_BYTES, 2 * (4 * DIMENSIONS + 45))])
def test_equal_texts_are_claimed_within_bounds(make_queue, embedder, redis_client, monkeypatch, limit, value):
    """They join a call under way and are no call; yet not all of a long backlog is taken, or written, at once."""
    monkeypatch.setattr(*limit, value)
    queue = start_held(make_queue, embedder, ["same"] * 20)
    store, written = inside(queue).store, []
    complete = store.complete
    store.complete = lambda *args: [written.append(len(args[2])), *complete(*args)][1:]
    eventually(lambda: inside(queue).held == 3)
    assert inside(queue).room() == 0
    embedder.release()
    queue.flush(PATIENCE_SECONDS)
    assert max(written) == 2
    assert sum(written) == 20
    assert embedder.sent == {"same": 1}


class Witnessed:
    """A lock that notes which others its thread holds when it takes it."""

    def __init__(self, name, lock, held, seen):
        self._name, self._lock, self._held, self._seen = name, lock, held, seen

    def acquire(self, *args, **kwargs):
        mine = self._held.__dict__.setdefault("names", [])
        self._seen.update((other, self._name) for other in mine if other != self._name)
        taken = self._lock.acquire(*args, **kwargs)
        if taken:
            mine.append(self._name)
        return taken

    def release(self):
        self._held.names.remove(self._name)
        self._lock.release()

    def __enter__(self):
        return self.acquire()

    def __exit__(self, *_):
        self.release()

    def _is_owned(self):
        return self._lock._is_owned()


def test_nobody_holds_two_locks(make_queue):
    """But who enters or leaves the intake: a handler whose thread holds one lock must never wait for who wants that."""
    held, seen = threading.local(), set()
    queue, producer = make_queue(start=False), make_queue(start=False, worker=False)
    for one in (queue, producer):
        for name, (owner, attribute) in inside(one).locks_of_users().items():
            lock = Witnessed(name, threading.RLock(), held, seen)
            setattr(owner, attribute, Condition(lock) if attribute == "_condition" else lock)
        one.start()
    kept = [queue.enqueue(f"doc:{i % 30}", f"text {i}") for i in range(100)]
    queue.enqueue("doc:0", "")
    assert [len(future.result(PATIENCE_SECONDS)) for future in kept]
    for number in range(3):
        assert producer.enqueue("other", f"text {number}").result(PATIENCE_SECONDS)
        inside(producer).check_on_waiters()
    queue.flush(PATIENCE_SECONDS)
    queue.stats()
    queue.stop()
    producer.stop()
    assert seen <= {("intake", "waiters")}
