"""Metrics under gunicorn with several processes: whichever answers the scrape, it tells of all."""

from __future__ import annotations

import re
import time

import pytest
import requests

pytest.importorskip("prometheus_client", reason='metrics are in the extra "embedqueue[prometheus]"')
pytest.importorskip("gunicorn", reason="gunicorn is not installed: pip install gunicorn")
pytest.importorskip("flask", reason="Flask is not installed: pip install embedqueue[flask]")

from prometheus_client import CollectorRegistry  # noqa: E402

from embedqueue.metrics import Metrics  # noqa: E402
from tests.web.servers import PATIENCE_SECONDS, gunicorn, site_of  # noqa: E402


@pytest.mark.parametrize("preload", [False, True], ids=["", "preload"])
def test_a_scrape_tells_of_all_processes(env, redis_client, tmp_path, preload):
    """Both processes enqueue; any of them tells the sum, and the gauges once."""
    env = {**env, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}  # which prometheus_client reads when it is imported
    options = ["--workers", "2", *(["--preload"] if preload else [])]
    with gunicorn(env, *options, app="tests.web.metrics_site:app", afresh=True) as running:
        site = site_of(running)
        text = requests.get(site.url + "/metrics", timeout=PATIENCE_SECONDS, headers={"Connection": "close"}).text
        assert _values(text, "embedqueue_waiting") == [0], "the first request of a process is a scrape"
        assert _values(text, 'embedqueue_api_calls_total{outcome="configuration",queue="embed_queue"}') == [0]
        pids, count, end_mono = set(), 0, time.monotonic() + PATIENCE_SECONDS
        while len(pids) < 2 and time.monotonic() < end_mono:
            pids.add(site.post(f"/save/note:{count}", text=f"text {count}", wait="1")["pid"])
            count += 1
        assert len(pids) == 2
        for _ in range(4):  # whoever answers
            text = requests.get(site.url + "/metrics", timeout=PATIENCE_SECONDS, headers={"Connection": "close"}).text
            assert _values(text, "embedqueue_enqueued_total") == [count]
            assert _values(text, "embedqueue_waiting") == [0]
            assert _values(text, "embedqueue_up") == [1]
            assert sum(_values(text, "embedqueue_api_calls_total")) == sum(
                _values(text, "embedqueue_api_call_seconds_count")
            )
        running.assert_quiet()


@pytest.mark.parametrize("worker", [True, False], ids=["", "enqueues only"])
def test_the_first_request_is_a_scrape(real_app, worker):
    """All queues of the application are told of, used or not, also where Redis is gone."""
    metrics = Metrics(CollectorRegistry())
    gone = {"REDIS_URL": "unix:///nonexistent/embedqueue.sock"}
    real_app.config.update(EMBEDQUEUE_OBSERVERS=[metrics], EMBEDQUEUE_WORKER=worker, EMBEDQUEUE_QUEUES={"gone": gone})
    real_app.get("/metrics")(lambda: metrics.exposition()[1])
    text = real_app.test_client().get("/metrics").text
    assert _values(text, 'embedqueue_waiting{queue="embed_queue"}') == [0]
    assert _values(text, 'embedqueue_up{queue="embed_queue"}') == [1]
    assert _values(text, 'embedqueue_up{queue="embed_queue_gone"}') == [0]
    for queue in ("embed_queue", "embed_queue_gone"):
        assert _values(text, f'embedqueue_api_calls_total{{outcome="configuration",queue="{queue}"}}') == [0]


def _values(text: str, name: str) -> list[float]:
    """The values of a series, or of all that have the name."""
    if "{" in name:
        return [float(number) for number in re.findall(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)]
    return [float(number) for number in re.findall(rf"^{name}\{{[^}}]*\}} (\S+)$", text, re.MULTILINE)]
