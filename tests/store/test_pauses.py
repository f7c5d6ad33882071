"""How long nobody claims, whatever Redis' clock does: it is moved as in ``tests/work/test_clock.py``."""

from __future__ import annotations

import pytest

from embedqueue.values.item import encode_member
from tests.proof.moves import Queue

HOUR_MS = 3_600_000


def fail(queue: Queue) -> None:
    """A call fails, and nobody claims for 20 s."""
    queue.enqueue([("doc:1", "a")])
    owner = queue.claim("w1:")
    times = {"first_seconds": 20, "most_seconds": 300, "least_seconds": 0}
    queue.store.fail(owner, [(owner, encode_member("doc:1", "a"))], reason="down", **times)


@pytest.mark.parametrize("ahead_ms", [0, HOUR_MS], ids=["as ever", "clock set back"])
def test_a_pause_of_a_failure_goes_on_to_its_end_whoever_asks(queue, ahead_ms):
    """To ask makes it no longer; and where the clock was set back it is put right for good."""
    fail(queue)
    for name in (queue.names.pause, queue.names.pause_ours):
        queue.client.pexpire(name, 15_000 + ahead_ms)
    assert queue.store.status().pause_seconds == pytest.approx(20 if ahead_ms else 15, abs=5)
    assert 9_000 < queue.client.pttl(queue.names.pause) <= (20_000 if ahead_ms else 15_000)


def test_a_probe_is_put_right_for_good_as_well(queue):
    """Its worker is gone, and will not renew it."""
    queue.client.set(queue.names.pause_probe, "w1:1/10.000:", px=HOUR_MS)
    assert queue.store.status().pause_seconds == pytest.approx(10, abs=5)
    assert 5_000 < queue.client.pttl(queue.names.pause_probe) <= 10_000


@pytest.mark.parametrize("seconds", [None, 60.0], ids=["without an end", "longer"])
def test_what_people_have_stopped_stays_so_beside_a_probe(queue, seconds):
    """Its answer, which may come at any moment, changes nothing of that."""
    queue.client.set(queue.names.pause_probe, "w1:1/10.000:", px=10_000)
    queue.store.hold(seconds, "maintenance")
    assert queue.store.status().pause_seconds == pytest.approx(seconds or float("inf"), abs=5)
