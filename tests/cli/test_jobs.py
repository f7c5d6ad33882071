"""``embedqueue jobs`` and ``embedqueue economy try``, with a stand-in for Gemini."""

from __future__ import annotations

import json

import pytest

from embedqueue.embedders.batch_jobs import JobSeen
from embedqueue.operating import jobs as operating
from embedqueue.settings.settings import read_environment
from tests.jobs.standin import DIMENSIONS, StandIn
from tests.parts import PATIENCE_SECONDS, eventually


@pytest.fixture
def stand_in():
    server = StandIn()
    yield server
    server.stop()


@pytest.fixture
def env(env, stand_in):
    own = {
        "PROVIDER": "gemini",
        "API_KEY": "key",
        "BASE_URL": f"{stand_in.url}/v1beta",
        "DIMENSIONS": str(DIMENSIONS),
        "MODEL": "m",
        "ECONOMY": "true",
        "ECONOMY_MIN_TEXTS": "2",
        "ECONOMY_POLL": "0.05, 0.2",
        "LEASE_SECONDS": "2",
    }
    return env | {f"EMBEDQUEUE_{name}": value for name, value in own.items()}


def test_jobs_are_listed_shown_and_cancelled(run, stand_in):
    """A job by the beginning of its name; what it held is in the live lane afterwards."""
    stand_in.looks = None
    assert run("jobs", "list") == "There are no batch jobs.\n"
    assert run("jobs", "list", "--json") == ""
    assert "There are no" not in run("jobs", "show", "x", code=1)
    with read_environment().queue(worker=True) as queue:
        queue.enqueue_many([("doc:1", "one"), ("doc:2", "two"), ("doc:3", "three")], within=86_400)
        eventually(lambda: any(job.provider_id for job in queue.jobs()))
        listed = run("jobs", "list")
        assert "submitted" in listed and "batches/b" in listed
        [job] = [json.loads(line) for line in run("jobs", "list", "--json").splitlines()]
        assert (job["texts"], job["items"], job["state"]) == (3, 3, "submitted")
        assert "provider_id" in run("jobs", "show", job["name"][:6])
        assert json.loads(run("jobs", "show", job["name"], "--json"))["items"] == 3
        assert "3 in jobs" in run("stats")
        found = json.loads(run("explain", "doc:1", "--json"))
        assert (found["state"], found["job"]) == ("in a job", job["name"])
        assert run("jobs", "cancel", job["name"]).startswith("3 items")
        queue.flush(PATIENCE_SECONDS)
        eventually(lambda: queue.jobs()[0].state == "over")
        assert "is over" in run("jobs", "cancel", job["name"], code=1)
        assert "over" in run("jobs", "list")


def test_cost_tells_what_jobs_have_saved(run, stand_in):
    with read_environment().queue(worker=True) as queue:
        items = [(f"doc:{number}", f"text {number}") for number in range(20)]
        queue.enqueue_many(items, within=86_400)
        eventually(lambda: queue.jobs() and queue.jobs()[0].state == "over")
    told = run("cost", "--price", "m=1000000")
    assert "20 went in batch jobs, which saved $" in told
    found = json.loads(run("cost", "--price", "m=1000000", "--json"))["total"]
    assert found["batch_texts"] == 20
    assert found["usd"] >= found["batch_saved_usd"] > 0


def test_a_trial(run, stand_in, monkeypatch):
    """Each step is told, the vectors are compared with those of a call, and nothing stays at the provider."""
    monkeypatch.setattr(operating, "LOOK_SECONDS", (0.01, 0.02))
    monkeypatch.setattr(operating.try_economy, "__kwdefaults__", {"seconds": 60.0, "look_seconds": (0.01, 0.02)})
    told = run("economy", "try", "--texts", "3")
    for words in ("uploaded as files/", "created as batches/", "label 'embedqueue:try:", "yes", "files are deleted"):
        assert words in told
    assert told.count("cosine 1.0000") == 3
    assert stand_in.files == {}


def test_a_trial_that_ends_badly(run, stand_in, monkeypatch):
    """In time, or with lines that have no vectors, or of another length."""
    monkeypatch.setattr(operating.try_economy, "__kwdefaults__", {"seconds": 60.0, "look_seconds": (0.01, 0.02)})
    stand_in.lines = lambda out, err: (
        [(out[0][0], {**out[0][1], "vector": out[0][1]["vector"][:8]}), ("strange", out[1][1])],
        [(out[2][0], 13)],
    )
    told = run("economy", "try")
    assert "8 numbers, but 16 of a call" in told
    assert "never sent" in told
    assert "no vector for" in told
    stand_in.looks = None
    assert "not ended within 1 s" in run("economy", "try", "--seconds", "1", code=1)
    assert stand_in.files == {}
    assert "no batch jobs" in run("--provider", "local", "economy", "try", code=1)
    assert "EMBEDQUEUE_ECONOMY needs" in run("--provider", "local", "check", code=1)
    assert JobSeen("waiting").parts == ()
