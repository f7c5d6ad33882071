"""The threads that make calls: no call is lost when threads run out or end, or when a call ends as it should not."""

from __future__ import annotations

import queue
import threading

import pytest

from embedqueue.calls import pool as module
from embedqueue.calls.pool import Pool
from tests.parts import PATIENCE_SECONDS


@pytest.fixture
def pool():
    return Pool(lambda: 2, "pool-under-test", lambda: None)


def done(pool: Pool) -> bool:
    return pool.wait(PATIENCE_SECONDS)


def no_more_threads(monkeypatch):
    def start(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(module.threading.Thread, "start", start)


def test_a_call_waits_for_a_thread_where_no_other_can_be_had(pool, monkeypatch):
    """Those that there are do it."""
    go, ran = threading.Event(), []
    pool.submit(lambda: ran.append(go.wait(PATIENCE_SECONDS)))
    with monkeypatch.context() as patched:
        no_more_threads(patched)
        pool.submit(lambda: ran.append("second"))
    go.set()
    assert done(pool)
    assert ran == [True, "second"]


def test_without_any_thread_the_caller_makes_the_call(pool, monkeypatch, caplog):
    ran = []
    no_more_threads(monkeypatch)
    pool.submit(lambda: ran.append(threading.current_thread()))
    assert ran == [threading.current_thread()]
    assert "without a thread of its own" in caplog.text


def test_a_call_that_comes_as_a_thread_gives_up_is_made(pool):
    """The thread looks once more before it ends."""

    class Late(queue.SimpleQueue):
        waited = False

        def get(self, block=True, timeout=None):
            if not self.waited:
                self.waited = True
                raise queue.Empty  # though a call has just come in
            return super().get(block, timeout)

    pool._calls = Late()
    ran = []
    pool.submit(lambda: ran.append(1))
    assert done(pool)
    assert ran == [1]


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_whatever_a_call_raises_the_next_one_is_made(pool, caplog, error):
    def call():
        raise error

    pool.submit(call)
    assert done(pool)
    assert "in a way that it should not" in caplog.text
    pool.submit(lambda: None)
    assert done(pool)
    assert pool.room() == 2


def test_an_answer_in_no_call_makes_no_room(pool):
    """It is told of once a call, in the call's own thread."""
    pool.answered()
    pool.submit(lambda: [pool.answered(), pool.answered()])
    assert done(pool)
    assert pool.room() == 2


def test_room(pool):
    """There is room for two at a time, and for the next when the first has its answer."""
    begun, go = threading.Semaphore(0), threading.Event()

    def call(answered):
        if answered:
            pool.answered()
        begun.release()
        go.wait(PATIENCE_SECONDS)

    pool.submit(lambda: call(False))
    assert begun.acquire(timeout=PATIENCE_SECONDS)
    assert (pool.room(), pool.in_flight) == (1, 1)
    pool.submit(lambda: call(True))
    assert begun.acquire(timeout=PATIENCE_SECONDS)
    assert (pool.room(), pool.in_flight) == (1, 1)
    for _ in range(3):
        pool.submit(lambda: call(False))
    assert (pool.room(), pool.in_flight) == (0, 4)
    go.set()
    assert done(pool)


def test_a_call_that_was_given_up(pool):
    """Another one starts in its place, nobody waits for it, and its thread ends once it is back."""
    begun, go = threading.Semaphore(0), threading.Event()
    threads = []

    def hang():
        threads.append(threading.current_thread())
        begun.release()
        go.wait(PATIENCE_SECONDS)
        pool.answered()

    for _ in range(2):
        pool.submit(hang)
        assert begun.acquire(timeout=PATIENCE_SECONDS)
    assert pool.room() == 0
    for thread in threads:
        pool.give_up(thread.ident)
        pool.give_up(thread.ident)  # once is enough
    assert (pool.room(), pool.unfinished) == (2, 0)
    made = []
    for _ in range(9):
        pool.submit(lambda: made.append(threading.current_thread()))
    assert done(pool)
    assert len(made) == 9
    assert not set(made) & set(threads)
    go.set()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()
    assert (pool.room(), pool.unfinished) == (2, 0)


def test_close(pool):
    """What is under way ends, what waits for its turn is not made."""
    begun, go, made = threading.Semaphore(0), threading.Event(), []

    def call(name):
        made.append(name)
        begun.release()
        go.wait(PATIENCE_SECONDS)

    for name in ("first", "second"):
        pool.submit(lambda name=name: call(name))
        assert begun.acquire(timeout=PATIENCE_SECONDS)
    pool.submit(lambda: call("third"))
    pool.close()
    go.set()
    assert done(pool)
    assert made == ["first", "second"]


def test_a_call_that_comes_while_the_last_thread_ends_is_made(pool, monkeypatch):
    """However long the one who brings it is held up in between."""
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.05)
    threads, made = [], []
    pool.submit(lambda: threads.append(threading.current_thread()))
    assert done(pool)

    class Slow:
        calls = pool._calls

        def put(self, call):
            threads[0].join(0.5)  # which is idle, and ends if it can
            self.calls.put(call)

        def __getattr__(self, name):
            return getattr(self.calls, name)

    pool._calls = Slow()
    pool.submit(lambda: made.append(1))
    assert done(pool)
    assert made == [1]
