"""Long work has a name: everybody sees how it stands, and stops it."""

from __future__ import annotations

import json
import os
import signal
import threading

import pytest

from embedqueue import EmbedQueueError
from embedqueue.operating.runs import NamedRun, Stopped
from embedqueue.testing import eager_queue
from tests.parts import PATIENCE_SECONDS, eventually, in_thread, join

FILL = ("backfill", "--match", "doc:*", "--text-field", "body")
NAME = "backfill:doc:*:body"


@pytest.fixture
def hashes(redis_client):
    for i in range(20):
        redis_client.hset(f"doc:{i}", "body", f"text {i}")


def listed(run) -> dict[str, dict]:
    return {one["name"]: one for one in map(json.loads, run("runs", "--json").splitlines())}


def test_what_was_done(run, redis_client, hashes):
    """A run that is done stays in the list, with what it enqueued and what that costs."""
    assert "There are no runs" in run("runs")
    run(*FILL)
    one = listed(run)[NAME]
    assert (one["kind"], one["state"], one["done"], one["total"], one["texts"]) == ("backfill", "done", 20, 20, 20)
    assert one["usd"] > 0
    assert one["eta"] is None
    run("verify", *FILL[1:], "--fix", "--name", "mine", code=0)
    assert "mine  verify done" in run("runs")
    assert list(listed(run)) == ["mine", NAME]
    run("verify", *FILL[1:], code=0)
    assert len(listed(run)) == 2, "one that only looks is no run"


@pytest.fixture
def waiting_backfill(command, redis_client, hashes):
    """A process whose backfill finds no room: five items may wait, and nobody works."""
    return lambda: command(*FILL, "--max-waiting", "5")


def test_it_is_killed_and_taken_up_again(run, redis_client, waiting_backfill, monkeypatch):
    """Nobody hears of it any more, so it is lost; the same command goes on under the same name. One at a time."""
    process = waiting_backfill()
    eventually(lambda: redis_client.zcard("embed_queue:pending") == 5)
    assert listed(run)[NAME]["state"] == "running"
    assert f"is at work already on {listed(run)[NAME]['host']}, process {process.pid}" in run(*FILL, code=1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(PATIENCE_SECONDS)
    entry = redis_client.hget("embed_queue:runs", NAME).split(b" ", 3)
    redis_client.hset("embed_queue:runs", NAME, b" ".join([entry[0], b"1.0", *entry[2:]]))  # as 15 s later
    assert listed(run)[NAME]["state"] == "lost"
    assert "nobody is at work on" in run("runs", "stop", NAME, code=1)
    run(*FILL)
    assert listed(run)[NAME]["state"] == "done"
    assert redis_client.zcard("embed_queue:pending") == 20


def test_the_same_command_at_once_after_a_kill(run, redis_client, hashes):
    """It waits until the killed process would have been heard of, instead of telling that it is still at work."""
    soon = redis_client.time()[0] + 2
    redis_client.hset("embed_queue:runs", NAME, f"killed {soon}.0 15 {{}}")  # the rest of its 15 s
    run(*FILL)
    assert listed(run)[NAME]["state"] == "done"
    assert redis_client.zcard("embed_queue:pending") == 20


def test_another_process_stops_it(run, redis_client, waiting_backfill):
    """It ends with a sentence, and what it has done stays."""
    process = waiting_backfill()
    eventually(lambda: redis_client.zcard("embed_queue:pending") == 5)
    assert f"{NAME} will stop." in json.loads(run("runs", "stop", NAME, "--json"))["said"]
    said = "".join(process.communicate(timeout=PATIENCE_SECONDS))
    assert process.returncode == 1
    assert "stopped, as somebody has asked" in said
    assert listed(run)[NAME]["state"] == "stopped"
    assert redis_client.zcard("embed_queue:pending") == 5


def test_it_stands_still_and_goes_on(redis_client, make_store, monkeypatch):
    """Until somebody wants it to go on, or to stop."""
    monkeypatch.setattr("embedqueue.operating.runs.NOTE_SECONDS", 0.05)
    store, told = make_store(redis_client), []
    passed = threading.Semaphore(0)

    def work():
        with pytest.raises(Stopped), NamedRun(store.runs, "one", "backfill", told.append) as one:
            one.report(done=1, total=10)
            for _ in range(10_000):
                one.check()
                passed.release()
                threading.Event().wait(0.01)

    def state() -> str:
        return store.runs.all()[0].state

    thread = in_thread(work)
    assert passed.acquire(timeout=PATIENCE_SECONDS)
    store.runs.ask("one", "pause")
    eventually(lambda: state() == "paused")
    while passed.acquire(blocking=False):
        pass
    assert not passed.acquire(timeout=0.2)
    store.runs.ask("one", "resume")
    assert passed.acquire(timeout=PATIENCE_SECONDS)
    eventually(lambda: state() == "running")
    assert told == [True, False]
    store.runs.ask("one", "stop")
    join(thread)
    assert state() == "stopped"


def test_wrong_use(run, redis_client):
    """Each is a sentence."""
    assert "there is no run 'x'" in run("runs", "pause", "x", code=1)
    assert "which run?" in run("runs", "stop", code=2)
    run("runs", "kill", "x", code=2)
    assert "no blanks" in run(*FILL, "--name", "two words", code=1)
    with eager_queue() as queue, pytest.raises(ValueError, match="pause, resume, stop"):
        queue.ask_run("x", "kill")
    assert "Traceback" not in run("runs")
    redis_client.hset("embed_queue:runs", "broken", b"\xff no run")
    assert "There are no runs" in run("runs")


def test_who_was_not_heard_of_gives_way(redis_client, make_store, monkeypatch):
    """Another process has taken the run up meanwhile: two shall not work on it."""
    monkeypatch.setattr("embedqueue.operating.runs.NOTE_SECONDS", 0.05)
    store = make_store(redis_client)
    with pytest.raises(EmbedQueueError, match="at work already"), NamedRun(store.runs, "one", "backfill") as one:
        redis_client.hset("embed_queue:runs", "one", b"other 9999999999 15 {}")
        for _ in range(1000):
            one.check()
            threading.Event().wait(0.01)
