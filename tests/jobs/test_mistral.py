"""Mistral's batch jobs: what is not as at OpenAI, and what goes wrong with it."""

from __future__ import annotations

import numpy as np
import pytest

from embedqueue.embedders import CohereEmbedder, MistralEmbedder
from embedqueue.embedders.batch_jobs import batch_jobs_of
from tests.jobs.options import PATIENT
from tests.jobs.standin import DIMENSIONS, MistralJob, as_batch
from tests.jobs.test_faults import paid, served_by_both
from tests.jobs.test_jobs import in_jobs, over, pairs, stored

MODEL = "codestral-embed"


@pytest.fixture
def vendor() -> str:
    return "mistral"


@pytest.fixture
def mistral(stand_in):
    return batch_jobs_of(MistralEmbedder("key", f"{stand_in.url}/v1", DIMENSIONS), MODEL)


def test_who_has_them():
    assert batch_jobs_of(MistralEmbedder("key", "http://host/v1?a=b"), MODEL) is None
    assert batch_jobs_of(CohereEmbedder("key"), "embed-v4.0") is None


def test_a_job(make, redis_client, stand_in):
    """Its model is told once, its lines are a key and a body, and no file of it stays at Mistral."""
    queue, items = make(model=MODEL), pairs(4)
    queue.enqueue_many(items, within=PATIENT)
    assert over(queue).written == 4
    for key, text in items:
        assert np.allclose(stored(redis_client, key), as_batch(text))
    assert stand_in.files == {}


def test_the_answer_to_create_is_lost(make, redis_client, stand_in):
    """The job is found by its label, in a list that does not show it at first; nothing is paid for twice."""
    stand_in.drop["create"], stand_in.hidden_lists = 1, 1
    queue, items = make(model=MODEL, economy_lag=5.0), pairs(3)
    queue.enqueue_many(items, within=PATIENT)
    assert over(queue).written == 3
    assert (len(stand_in.jobs), max(stand_in.charged.values())) == (1, 1)


def test_the_list_has_pages_in_no_known_order(mistral, stand_in):
    """A job behind a hundred older ones is found, and one that is not there is not."""
    for number in range(101):
        name = f"job-{number}"
        stand_in.jobs[name] = MistralJob(name, f"label {number}", "", [], 1.0)
    assert mistral.find("label 100", 2e9) == "job-100"
    assert mistral.find("another", 2e9) is None
    assert stand_in.requests == ["list"] * 4


def test_it_ran_out_of_time(make, redis_client, stand_in):
    """What a job has done by then is written; the live lane does the rest."""
    stand_in.ending = "expired"
    stand_in.lines = lambda out, err: (out[:2], err)
    queue, items = make(model=MODEL), pairs(5)
    queue.enqueue_many(items, within=PATIENT)
    served_by_both(queue, redis_client, items)
    assert (queue.jobs()[0].written, queue.jobs()[0].back) == (2, 3)


def test_success_without_a_result(make, redis_client, stand_in):
    """All lines have failed: the live lane does them."""
    stand_in.null_output = True
    stand_in.lines = lambda out, err: ([], [(key, 400) for key, _ in out])
    queue, items = make(model=MODEL), pairs(3)
    queue.enqueue_many(items, within=PATIENT)
    served_by_both(queue, redis_client, items)
    assert (queue.jobs()[0].written, queue.jobs()[0].back) == (0, 3)


def test_the_result_is_kept_for_a_day_only(make, redis_client, stand_in):
    """Whoever comes later pays a second time, and nothing is lost."""
    stand_in.refuse["download"] = [(404, "no such file")] * 100
    queue, items = make(model=MODEL), pairs(3)
    queue.enqueue_many(items, within=PATIENT)
    served_by_both(queue, redis_client, items)
    assert (queue.jobs()[0].written, queue.jobs()[0].back) == (0, 3)
    assert all(paid(stand_in, text) >= 2 for _, text in items)


def test_failed(make, redis_client, stand_in):
    """Its reason is told, in Mistral's form."""
    stand_in.ending, stand_in.reason = "failed", "the file is invalid"
    queue, items = make(model=MODEL), pairs(3)
    queue.enqueue_many(items, within=PATIENT)
    served_by_both(queue, redis_client, items)
    assert "the file is invalid" in queue.jobs()[0].note


def test_cancelling_goes_on_until_it_has_ended(make, mistral, stand_in):
    stand_in.looks = None
    queue = make(model=MODEL)
    queue.enqueue_many(pairs(3), within=PATIENT)
    in_jobs(queue, 3)
    job = stand_in.job()
    job.status = "cancelling"
    assert mistral.look(job.id).standing == "waiting"
    job.status = "cancelled"
    assert mistral.look(job.id).standing == "cancelled"
    mistral.cancel(job.id)  # it has ended: no fault


def test_a_list_that_never_ends_is_left(mistral, stand_in, monkeypatch):
    """Behind so many pages, nobody's job of today is looked for."""
    monkeypatch.setattr("embedqueue.embedders.mistral_jobs.PAGES", 1)
    monkeypatch.setattr("embedqueue.embedders.mistral_jobs.PAGE", 1)
    stand_in.jobs["job"] = MistralJob("job", "label", "", [], 1.0)
    assert mistral.find("another", 2e9) is None
    assert stand_in.requests == ["list"]
