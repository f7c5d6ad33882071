"""Named runs, in lines for a person."""

from __future__ import annotations

from dataclasses import replace

from embedqueue.operating.runs import describe_runs
from embedqueue.values.runs import Run

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
