"""How threads start, where a signal's handler raises meanwhile or there are no more of them."""

from __future__ import annotations

import threading

import pytest

from embedqueue.values.threads import start
from tests.parts import PATIENCE_SECONDS, interrupt_wait


class Late(threading.Thread):
    """Comes up when it may: until then, who starts it waits."""

    def __init__(self, may_come: threading.Event, target) -> None:
        super().__init__(target=target, daemon=True)
        self._may_come = may_come

    def _bootstrap_inner(self):
        self._may_come.wait(PATIENCE_SECONDS)
        super()._bootstrap_inner()


def test_what_a_handler_raises_while_a_lock_is_free_gets_through():
    """Python makes "release unlocked lock" of it, which sounds like a fault of ours; the thread runs all the same."""
    may_come, ran = threading.Event(), threading.Event()
    thread = Late(may_come, ran.set)
    interrupt_wait(thread._started._cond)
    with pytest.raises(KeyboardInterrupt, match="of a handler"):
        start(thread)
    may_come.set()
    assert ran.wait(PATIENCE_SECONDS)


def test_where_there_are_no_more_threads(monkeypatch):
    """It is said as it is, whatever else has just been caught."""

    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            start(threading.Thread())
