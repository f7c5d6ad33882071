"""A batch job that a person gives up: its items go to the live lane, whatever its provider says."""

from __future__ import annotations

import logging

import pytest

from embedqueue import EmbeddingBatchQueue, TransientError
from embedqueue.store.jobs import Job
from embedqueue.testing import FakeEmbedder
from tests.jobs.test_moves import PATIENT, TERMS, enqueue
from tests.proof.moves import JOBS_FOR


@pytest.fixture
def queue(redis_client, make_store):
    """A queue with a job at the provider, and two items in it."""
    store = make_store(redis_client, jobs_for=JOBS_FOR)
    enqueue(store, "ab", within=PATIENT)
    assert store.jobs.lead("boss", 60).ours
    job = Job("j1", state="planned", provider_id="batch-1")
    store.jobs.outsource("boss", job, TERMS, least=1, most=10, most_bytes=10_000, max_deliveries=3)
    with EmbeddingBatchQueue(FakeEmbedder(), redis_client, worker=False) as made:
        yield made


@pytest.fixture
def provider(monkeypatch):
    """What a provider is asked to cancel."""

    class Batches:
        def __init__(self):
            self.cancelled, self.error = [], None

        def cancel(self, job_id):
            self.cancelled.append(job_id)
            if self.error is not None:
                raise self.error

    found = Batches()
    monkeypatch.setattr("embedqueue.queue.batch_jobs_of", lambda *_: found)
    return found


def test_its_items_wait_again_and_the_provider_is_told(queue, provider):
    assert queue.cancel_job("j1") == 2
    assert (queue.stats().outsourced, queue.pending_count()) == (0, 2)
    assert provider.cancelled == ["batch-1"]


def test_a_provider_that_refuses_is_a_line_in_the_log(queue, provider, caplog):
    """Whoever looks after the jobs asks again."""
    provider.error = TransientError("not now")
    with caplog.at_level(logging.WARNING):
        assert queue.cancel_job("j1") == 2
    assert "has not cancelled batch job j1 yet: not now" in caplog.text


def test_a_job_that_holds_nothing_any_more_is_cancelled_all_the_same(queue, provider):
    """Its texts have been forgotten meanwhile."""
    for key in "ab":
        queue.forget(key)
    assert queue.cancel_job("j1") == 0
    assert provider.cancelled == ["batch-1"]


def test_where_the_embedder_has_no_batch_jobs_nobody_is_asked(queue):
    """A process with other settings may take the items back as well."""
    assert queue.cancel_job("j1") == 2
