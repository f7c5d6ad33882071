"""Who looks after those who wait goes on, whatever happens."""

from __future__ import annotations

import threading

import redis

from embedqueue.futures import demand as module
from embedqueue.futures.demand import Demand
from tests.parts import PATIENCE_SECONDS


def test_an_error_ends_neither_the_thread_nor_the_asking(monkeypatch, caplog):
    """Of Redis: the next sweep asks again, without a word; any other: with one."""
    monkeypatch.setattr(module, "SWEEP_SECONDS", (0.01, 0.01))
    errors = [redis.ConnectionError("gone"), ValueError("unforeseen")]
    swept, asked = threading.Event(), []

    def sweep():
        if errors:
            raise errors.pop(0)
        swept.set()

    demand = Demand(ask=asked.append, sweep=sweep, wanted=lambda: True, name="demand-under-test")
    demand.note(["a"])
    assert swept.wait(PATIENCE_SECONDS)
    demand.stop()
    assert asked == [["a"]]
    assert caplog.text.count("could not look after those who wait") == 1
    assert "unforeseen" in caplog.text
    assert "gone" not in caplog.text
