"""The thread in which callbacks run: in order, whatever one of them does."""

from __future__ import annotations

import threading

import pytest

from embedqueue.futures import callbacks as module
from embedqueue.futures.callbacks import Callbacks
from tests.parts import PATIENCE_SECONDS, eventually, in_thread, join


@pytest.fixture
def callbacks():
    made = Callbacks("callbacks of a test")
    yield made
    made.stop()


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "callbacks of a test"]


def test_in_order_and_elsewhere(callbacks, monkeypatch):
    """One that takes long holds up those behind it, and nobody else."""
    monkeypatch.setattr("embedqueue.futures.callbacks.LAST_WAIT_SECONDS", PATIENCE_SECONDS)
    go_on, called = threading.Event(), []
    callbacks.later(lambda: (go_on.wait(PATIENCE_SECONDS), called.append("slow")))
    for i in range(5):
        callbacks.later(lambda i=i: called.append((i, threading.current_thread().name)))
    assert called == []
    go_on.set()
    callbacks.stop()
    assert called == ["slow", *((i, "callbacks of a test") for i in range(5))]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, ValueError])
def test_what_one_raises_stops_no_other(callbacks, caplog, error):
    """It is logged."""
    called = threading.Event()

    def fail():
        raise error

    callbacks.later(fail)
    callbacks.later(called.set)
    assert called.wait(PATIENCE_SECONDS)
    assert "a callback of a future ended in a way that it should not" in caplog.text


def test_the_thread_ends_when_idle_and_starts_again(callbacks, monkeypatch):
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.01)
    idle = Callbacks("callbacks of a test")
    for _ in range(3):
        called = threading.Event()
        idle.later(called.set)
        assert called.wait(PATIENCE_SECONDS)
        eventually(lambda: not threads(), "it has ended")


def test_a_callback_may_stop_it(callbacks, caplog):
    """It does not wait for itself; what comes later is called all the same."""
    stopped, called = threading.Event(), threading.Event()
    callbacks.later(lambda: (callbacks.stop(), stopped.set()))
    assert stopped.wait(PATIENCE_SECONDS)
    assert caplog.text == ""
    eventually(lambda: not threads(), "it has ended")
    callbacks.later(called.set)
    assert called.wait(PATIENCE_SECONDS)


def test_where_there_can_be_no_more_threads(callbacks, monkeypatch):
    """A callback runs at once, and lets through what is not its own: Ctrl-C in the main thread."""

    def fail(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        called = []
        callbacks.later(lambda: called.append(threading.current_thread()))
        assert called == [threading.current_thread()]
        with pytest.raises(KeyboardInterrupt):
            callbacks.later(_interrupt)
    callbacks.stop()
    later = threading.Event()
    callbacks.later(later.set)
    assert later.wait(PATIENCE_SECONDS)


def _interrupt():
    raise KeyboardInterrupt


def test_many_threads(callbacks):
    """Nothing is lost where the thread ends and starts again all the time."""
    callbacks.stop()  # from now on it ends as soon as it is idle
    counts = [0] * 8

    def hand_over(at):
        def count():
            counts[at] += 1

        for _ in range(300):
            callbacks.later(count)

    join(*(in_thread(lambda at=at: hand_over(at)) for at in range(8)))
    eventually(lambda: counts == [300] * 8, "all were called")
