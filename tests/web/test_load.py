"""The load test, short: workers are killed and reloaded, no note is lost. The long run measures what it costs."""

from __future__ import annotations

import pytest

from embedqueue.demo.localredis import find_search_module, find_server

pytest.importorskip("gunicorn", reason="gunicorn is not installed: pip install gunicorn")
pytest.importorskip("flask", reason="Flask is not installed: make setup")
pytest.importorskip("wordllama", reason="the offline model is not installed: make setup")

from tests.web import load  # noqa: E402


@pytest.mark.skipif(find_server() is None, reason="no redis-server: make setup")
@pytest.mark.skipif(find_search_module() is None, reason="no search for Redis: make setup")
def test_no_note_is_lost_while_workers_are_killed_and_reloaded():
    """Ten seconds of ``python -m tests.web.load``, with half as many posts."""
    found = load.run(seconds=10, rate=50, processes=1)
    report = "\n".join(found.report())
    assert found.kills >= 1, report
    assert found.reloads >= 1, report
    assert len(found.acknowledged) > 20, report  # some 250, but on a machine that is very busy
    assert set(found.statuses) == {303}, f"{report}\n{found.output}"
    assert found.lost == [], report
