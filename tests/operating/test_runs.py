"""Named runs, in lines for a person."""

from __future__ import annotations

import threading
from dataclasses import replace

import redis

from embedqueue.operating.runs import NamedRun, describe_runs
from embedqueue.values.runs import Run
from tests.parts import PATIENCE_SECONDS

RUN = Run(
    name="backfill",
    kind="backfill",
    state="paused",
    done=1000,
    total=2000,
    failed=0,
    texts=0,
    tokens=0,
    usd=None,
    rate=5.0,
    eta=None,
    host="here",
    pid=7,
    began=0.0,
    heard_age=1.0,
    words="",
)


def test_what_has_failed_and_why_it_stands_still_is_told():
    """And nothing of that where there is nothing."""
    [line] = describe_runs([RUN])
    assert "1,000 of 2,000 done" in line
    assert "failed" not in line
    line, why = describe_runs([replace(RUN, failed=1200, words="Redis\nis away")])
    assert "1,200 failed" in line
    assert why.strip() == r"Redis\nis away"


def test_a_note_that_redis_does_not_take_is_made_later(redis_client, make_store, monkeypatch):
    """Who works finds out by itself that Redis is away."""
    monkeypatch.setattr("embedqueue.operating.runs.NOTE_SECONDS", 0.01)
    runs, made = make_store(redis_client).runs, threading.Semaphore(0)
    note, outages = runs.note, [redis.ConnectionError("away")]

    def noting(*args, begins, **kwargs):
        if outages and not begins:
            raise outages.pop()
        wanted = note(*args, begins=begins, **kwargs)
        made.release()
        return wanted

    monkeypatch.setattr(runs, "note", noting)
    with NamedRun(runs, "one", "backfill") as one:
        for _ in range(3):
            assert made.acquire(timeout=PATIENCE_SECONDS)
        one.check()
    assert not outages
    assert runs.all()[0].state == "done"


def test_a_note_that_comes_late_tells_of_no_run_that_has_ended(redis_client, make_store):
    """It lay on its way to Redis. Who takes the run up again is heard."""
    runs = make_store(redis_client).runs
    with NamedRun(runs, "one", "backfill") as one:
        late = {**one._facts}
    assert late["state"] == "running"
    runs.note("one", one._owner, 15.0, late)
    assert runs.all()[0].state == "done"
    runs.note("one", one._owner, 15.0, late, begins=True)
    assert runs.all()[0].state == "running"
