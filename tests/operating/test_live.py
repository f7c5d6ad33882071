"""The pulse of a queue: which looks are compared, and what is still told of what has passed."""

from __future__ import annotations

import pytest

from embedqueue.operating import live
from embedqueue.operating.live import Watch
from embedqueue.testing import FakeEmbedder, eager_queue


@pytest.fixture
def queue():
    with eager_queue(FakeEmbedder()) as made:
        yield made


@pytest.mark.parametrize(
    ("before", "now", "compared"),
    [
        ([], 100.0, None),
        ([98.0], 100.0, 98.0),
        ([70.0, 80.0, 95.0], 100.0, 80.0),
        ([20.0], 100.0, None),
        ([200.0], 100.0, None),
    ],
)
def test_a_look_is_compared_with_one_of_ten_seconds_ago(queue, before, now, compared):
    """Or the first after it; but with none of more than a minute ago, and none of a clock that was set back since."""
    watch = Watch(queue)
    for at in before:
        watch._looks.append(live._Look(at, 0, 0))
    found = watch._compared(live._Look(now, 0, 0))
    assert (found and found.at) == compared


def test_what_has_passed_is_told_no_more(queue, monkeypatch):
    watch = Watch(queue)
    queue.enqueue("doc:1", "one")
    assert watch.look().embedded_per_second > 0
    monkeypatch.setattr(live, "ERROR_SECONDS", -1.0)  # so much later
    assert watch.look().embedded_per_second == 0


def test_where_many_notices_came_rates_are_of_the_time_that_was_read(queue, monkeypatch):
    """The first look reads no more than it has to: what was before is not known, and not 0."""
    monkeypatch.setattr(live, "FIRST_NOTICES", 2)
    for number in range(4):
        queue.enqueue(f"doc:{number}", f"text {number}")
    pulse = Watch(queue).look()
    assert pulse.embedded_per_second >= 1.0
