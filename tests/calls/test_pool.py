"""The threads that make calls: no call is lost when threads run out or end, or when a call ends as it should not."""

from __future__ import annotations

import threading
from collections import deque

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
    """And those that came beside it, whose callers have left them to it."""
    ran = []
    no_more_threads(monkeypatch)

    def call():
        ran.append(threading.current_thread())
        if len(ran) == 1:
            pool.submit(call)

    pool.submit(call)
    assert ran == [threading.current_thread()] * 2
    assert "without a thread of its own" in caplog.text
    assert (pool.room(), pool.unfinished) == (2, 0)


def test_a_call_that_comes_as_a_thread_gives_up_is_made(pool, monkeypatch):
    """The thread looks once more before it ends."""
    wait, idle = pool._turn.wait, threading.Event()

    def wait_too_long(seconds):
        idle.set()
        wait(PATIENCE_SECONDS)  # until a call has come
        return False  # but its time was over

    monkeypatch.setattr(pool._turn, "wait", wait_too_long)
    ran = []
    pool.submit(lambda: None)
    assert idle.wait(PATIENCE_SECONDS)
    pool.submit(lambda: ran.append(1))
    assert done(pool)
    assert ran == [1]


def test_a_thread_stays_for_a_call_that_waits_for_its_turn(pool, monkeypatch):
    """However long that takes: else it would start when a call before it is back, and not when that is answered."""
    wait, waits = pool._turn.wait, threading.Event()

    def wait_in_vain(seconds):
        if not waits.is_set():
            waits.set()
            return False
        return wait(seconds)

    monkeypatch.setattr(pool._turn, "wait", wait_in_vain)
    monkeypatch.setattr(pool, "_size", lambda: 1)
    begun, seen = threading.Event(), []

    def first():
        seen.append(waits.wait(PATIENCE_SECONDS))
        pool.answered()
        seen.append(begun.wait(PATIENCE_SECONDS))

    pool.submit(first)
    pool.submit(begun.set)
    assert done(pool)
    assert seen == [True, True]


def test_first_come_first_served(monkeypatch):
    """Also where who waits for a turn is slow to take it, and another call comes in the meantime."""
    waits, is_told, go = threading.Event(), threading.Event(), threading.Event()

    class Slow(module.Condition):
        def wait(self, timeout=None):
            first = not waits.is_set() and threading.current_thread() is not threading.main_thread()
            if first:
                waits.set()
            told = super().wait(timeout)
            if first:
                self.release()
                is_told.set()
                go.wait(PATIENCE_SECONDS)
                self.acquire()
            return told

    monkeypatch.setattr(module, "Condition", Slow)
    pool = Pool(lambda: 1, "pool-under-test", lambda: None)
    answer, begun, made = threading.Event(), threading.Event(), []
    one_more = threading.Semaphore(0)

    def note(name):
        made.append(name)
        one_more.release()

    pool.submit(lambda: [begun.set(), answer.wait(PATIENCE_SECONDS)])
    assert begun.wait(PATIENCE_SECONDS)
    pool.submit(lambda: note("second"))
    assert waits.wait(PATIENCE_SECONDS)
    answer.set()
    assert is_told.wait(PATIENCE_SECONDS)
    pool.submit(lambda: note("third"))
    assert one_more.acquire(timeout=PATIENCE_SECONDS)
    go.set()
    assert done(pool)
    assert made == ["second", "third"]


def test_more_at_a_time_than_before(pool, monkeypatch):
    """One answer makes room for two calls where the limit has grown: both start."""
    begun, answer, go = threading.Semaphore(0), threading.Event(), threading.Event()
    monkeypatch.setattr(pool, "_size", lambda: 1)

    def first():
        answer.wait(PATIENCE_SECONDS)
        pool.answered()
        go.wait(PATIENCE_SECONDS)

    pool.submit(first)
    for _ in range(2):
        pool.submit(lambda: [begun.release(), go.wait(PATIENCE_SECONDS)])
    monkeypatch.setattr(pool, "_size", lambda: 2)
    answer.set()
    for _ in range(2):
        assert begun.acquire(timeout=PATIENCE_SECONDS)
    go.set()
    assert done(pool)


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
    pool.submit(lambda: call("fourth"))
    go.set()
    assert done(pool)
    assert made == ["first", "second"]


def test_a_call_that_comes_while_the_last_thread_ends_is_made(pool, monkeypatch):
    """However long the one who brings it is held up in between."""
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.05)
    threads, made = [], []
    pool.submit(lambda: threads.append(threading.current_thread()))
    assert done(pool)

    class Slow(deque):
        def append(self, call):
            threads[0].join(0.5)  # which is idle, and ends if it can
            super().append(call)

    pool._line = Slow()
    pool.submit(lambda: made.append(1))
    assert done(pool)
    assert made == [1]
