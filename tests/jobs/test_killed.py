"""A process is killed before and after every step of a batch job; another goes on, and double payments are counted."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from embedqueue import EmbeddingBatchQueue
from tests import nursery
from tests.jobs.options import OPTIONS, PATIENT, embedder_of
from tests.jobs.standin import as_batch
from tests.jobs.test_jobs import pairs, stored
from tests.parts import PATIENCE_SECONDS, eventually, stand_still

#: Lines of two chunks that are written one after another.
COUNT = 120
STEPS = [
    f"{step}{when}" for step in ("upload", "create", "look", "live", "download", "delete") for when in ("", " done")
]
#: All of them with one provider, with the other those at which they differ.
KILLS = [
    *(("openai", step) for step in STEPS),
    *(("gemini", step) for step in ("create done", "download", "delete done")),
]


@pytest.fixture
def vendor(request) -> str:
    return getattr(request, "param", "openai")


@pytest.fixture
def begin(redis_server, redis_client, stand_in, vendor) -> Iterator[Callable[..., nursery.Process]]:
    """Begins a process that works the queue."""
    processes = []

    def begin(**options) -> nursery.Process:
        told = json.dumps({"lease_seconds": 2.0, **options})
        process = nursery.start("tests.jobs.worker", redis_server.url, stand_in.url, vendor, told)
        processes.append(process)
        assert process.stdout.readline() == b"started\n"
        return process

    yield begin
    for process in processes:
        process.kill()
        process.wait(PATIENCE_SECONDS)
        process.stdout.close()


@pytest.fixture
def queue(redis_client, stand_in, vendor) -> Iterator[EmbeddingBatchQueue]:
    embedder = embedder_of(vendor, stand_in.url)
    queue = EmbeddingBatchQueue(embedder, redis_client, worker=False, **OPTIONS)
    yield queue
    queue.stop()
    embedder.close()


def kill(process: nursery.Process) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(PATIENCE_SECONDS)


def all_served(queue, client, items) -> None:
    eventually(lambda: client.hexists(items[-1][0], "embedding") and queue.stats().outsourced == 0, "all", 40)
    eventually(lambda: all(job.state == "over" for job in queue.jobs()), "jobs that are over", 40)
    for key, text in items:
        assert np.allclose(stored(client, key), as_batch(text)), key


@pytest.mark.parametrize(("vendor", "step"), KILLS, indirect=["vendor"])
def test_killed(begin, queue, redis_client, stand_in, step):
    """Every text has its vector, was in one job, and the provider keeps nothing."""
    items = pairs(COUNT)
    queue.enqueue_many(items, within=PATIENT)
    hold = stand_in.hold(step)
    process = begin()
    assert hold.arrived.wait(PATIENCE_SECONDS), stand_in.requests
    kill(process)
    hold.go_on.set()
    begin()
    all_served(queue, redis_client, items)
    assert set(stand_in.charged.values()) == {1}, "a text was paid for twice"
    assert sum(stand_in.live.values()) <= 4, "canaries"
    eventually(lambda: not stand_in.files, "no file is left")
    assert {job.back for job in queue.jobs() if job.written} == {0}


def test_killed_while_it_writes(begin, queue, redis_client, stand_in):
    """The next one goes on behind what was written."""
    items = pairs(600)
    queue.enqueue_many(items, within=PATIENT)
    stand_in.stall_download = 2  # the first one verifies
    hold = stand_in.hold("middle")
    process = begin()
    assert hold.arrived.wait(PATIENCE_SECONDS)
    eventually(lambda: any(redis_client.hexists(key, "embedding") for key, _ in items))
    kill(process)
    hold.go_on.set()
    written = sum(redis_client.hexists(key, "embedding") for key, _ in items)
    assert 0 < written < len(items)
    begin()
    all_served(queue, redis_client, items)
    assert set(stand_in.charged.values()) == {1}
    assert sum(stand_in.live.values()) == 2, "what is verified is not verified again"
    [job] = queue.jobs()
    assert job.back == 0
    assert len(items) - 100 <= job.written <= len(items), "of the chunk under way nobody may have counted"


def test_the_one_window(begin, queue, redis_client, stand_in):
    """Killed after the create and before its answer, with a list that lags for longer than we wait: paid for twice."""
    items = pairs(20)
    queue.enqueue_many(items, within=PATIENT)
    stand_in.hidden_lists = 1000
    hold = stand_in.hold("create done")
    process = begin()
    assert hold.arrived.wait(PATIENCE_SECONDS)
    kill(process)
    hold.go_on.set()
    begin()
    all_served(queue, redis_client, items)
    assert set(stand_in.charged.values()) == {2}
    assert any("paid for twice" in job.note for job in queue.jobs())


def test_a_process_that_was_stopped_for_long(begin, queue, redis_client, stand_in):
    """It wakes after another has taken over, and touches nothing any more."""
    items = pairs(20)
    queue.enqueue_many(items, within=PATIENT)
    hold = stand_in.hold("upload done")
    process = begin()
    assert hold.arrived.wait(PATIENCE_SECONDS)
    stand_still(process.pid)
    hold.go_on.set()
    begin()
    eventually(lambda: any(job.state == "submitted" or job.written for job in queue.jobs()))
    process.send_signal(signal.SIGCONT)
    all_served(queue, redis_client, items)
    assert set(stand_in.charged.values()) == {1}
