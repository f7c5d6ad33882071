"""Locks that a signal's handler cannot leave locked are ordinary ones otherwise."""

from __future__ import annotations

import contextlib
import threading

from embedqueue.values.locks import Condition, Event

PATIENCE_SECONDS = 10.0


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
