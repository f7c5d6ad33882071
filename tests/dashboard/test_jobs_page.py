"""Batch jobs on the dashboard: what they hold, and how one is cancelled."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("flask", reason='the dashboard is in the extra "embedqueue[dashboard]"')

from tests.dashboard.test_dashboard import client_of, token_of  # noqa: E402
from tests.jobs.conftest import make, stand_in  # noqa: E402, F401 - fixtures
from tests.jobs.options import PATIENT  # noqa: E402
from tests.jobs.test_jobs import in_jobs, pairs  # noqa: E402
from tests.parts import eventually  # noqa: E402


@pytest.fixture
def vendor() -> str:
    """One is enough: the page does not know the provider."""
    return "openai"


def test_jobs_are_listed_and_cancelled(make, stand_in):  # noqa: F811
    """With their items wherever items are shown; cancelling asks first."""
    client = client_of(make(start=False), allow_changes=True)
    assert "There are none" in client.get("/jobs").text
    stand_in.looks = None  # its jobs do not end by themselves
    queue = make()
    queue.enqueue_many(pairs(4), within=PATIENT)
    in_jobs(queue, 4)
    page = client.get("/jobs")
    [job] = queue.jobs()
    assert "4 items in them" in page.text and job.name in page.text and job.provider_id in page.text
    assert re.search(r"4</a> in batch jobs|4 in batch jobs", client.get("/live").text)
    assert "not heard of any more" not in client.get("/live").text, "no job is a worker that is gone"
    assert 'id="item-state">in a job<' in client.get("/item?key=doc:1").text
    assert "in a batch job" in client.get("/items?place=inflight").text
    assert "In batch jobs" in client.get("/items").text
    assert "in a batch job" in client.get("/find?words=doc:1").text

    def press(do: str, **form):
        return client.post("/jobs", data={"csrf_token": token_of(page), "queue": "default", "do": do, **form})

    assert f"Cancel the batch job {job.name}?" in press(f"cancel:{job.name}").text
    assert queue.stats().outsourced == 4
    answer = press(f"cancel:{job.name}", sure="yes")
    assert "4 items went to the live lane." in client.get(answer.location).text
    eventually(lambda: queue.stats().outsourced == 0, "they are out of it")
    assert press("cancel:nothing", sure="yes").status_code == 404
    for do in ("", "cancel", "cancel:", f"explode:{job.name}"):
        assert press(do, sure="yes").status_code == 400
