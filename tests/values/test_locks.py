"""Locks that a signal's handler cannot leave locked are ordinary ones otherwise."""

from __future__ import annotations

import contextlib
import threading

import pytest

from embedqueue.values.locks import Condition, Event, held_here
from tests.parts import PATIENCE_SECONDS, interrupt_wait


def test_a_condition_in_an_exit_stack():
    """Which calls its methods as those of its class."""
    condition = Condition(threading.Lock())
    with contextlib.ExitStack() as stack:
        stack.enter_context(condition)
        assert condition._lock.locked()
    assert not condition._lock.locked()


def test_an_event_wakes_who_waits():
    event = Event()
    threading.Timer(0.01, event.set).start()
    assert event.wait(PATIENCE_SECONDS)
    assert event.is_set()


def test_what_a_handler_raises_as_a_wait_begins_gets_through():
    """Python's own condition makes "release unlocked lock" of it, and the lock is good for nothing afterwards."""
    event = Event()
    interrupt_wait(event._cond)
    with pytest.raises(KeyboardInterrupt, match="of a handler"):
        event.wait(PATIENCE_SECONDS)
    event.set()
    assert event.wait(PATIENCE_SECONDS)


def test_who_holds_a_lock():
    """It is this thread that is asked about, and no other."""
    lock, condition, held = threading.RLock(), Condition(), []
    with lock, condition:
        assert held_here(lock)
        assert held_here(condition)
        other = threading.Thread(target=lambda: held.extend((held_here(lock), held_here(condition))))
        other.start()
        other.join(PATIENCE_SECONDS)
    assert held == [False, False]
    assert not held_here(lock)
