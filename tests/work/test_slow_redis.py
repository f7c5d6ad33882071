"""A Redis that takes longer for many items than a client waits: fewer are asked of it at a time, and all goes on."""

from __future__ import annotations

import pytest
import redis

from tests.inside import inside
from tests.parts import ONE_TRY, PATIENCE_SECONDS, eventually, expected, in_flight

COUNT = 200
FEW = 30  # items of which the answer comes in time


@pytest.fixture
def slow(monkeypatch):
    """Makes a move of a queue's store late for more than a few items; returns how many it was asked for each time."""

    def make(queue, move, count):
        asked, store = [], inside(queue).store
        real = getattr(store, move)

        def late(*args, **kwargs):
            answer = real(*args, **kwargs)
            asked.append(count(answer, args))
            if asked[-1] > FEW:
                raise redis.TimeoutError("late")
            return answer

        monkeypatch.setattr(store, move, late)
        return asked

    return make


def test_claims(make_queue, embedder, slow):
    """What a late claim took is given back and not charged; the size that works is found, and tried to be exceeded."""
    queue = make_queue(start=False)
    asked = slow(queue, "claim", lambda claim, _: len(claim.members))
    futures = queue.enqueue_many((f"doc:{place}", f"text {place}") for place in range(COUNT))
    queue.start()
    assert [future.result(PATIENCE_SECONDS) for future in futures] == [expected(f"text {i}") for i in range(COUNT)]
    assert set(embedder.sent.values()) == {1}
    assert asked[:5] == [200, 100, 50, 25, 29]
    assert queue.stats().dead == 0


@pytest.mark.parametrize(
    ("move", "count"),
    [("complete", lambda words, _: len(words)), ("fail", lambda _, args: len(args[1]))],
)
def test_ends_of_items(make_queue, embedder, redis_client, slow, move, count):
    """The vectors of a large call are written, and the items of one that failed are given back."""
    queue = make_queue(start=False, api_batch_limit=COUNT, max_concurrency=1, retry=ONE_TRY)
    asked = slow(queue, move, count)
    if move == "fail":
        embedder.fail_with(PermissionError("no"), times=99)
    futures = queue.enqueue_many((f"doc:{place}", f"text {place}") for place in range(COUNT))
    queue.start()
    if move == "fail":
        eventually(lambda: asked[:4] == [200, 100, 50, 25], "fewer at a time")
        eventually(lambda: in_flight(redis_client) == 0, "the others are released after that")
    if move == "complete":
        eventually(lambda: asked[:11] == [200, 100, 50, *[25] * 8], "all of them, fewer at a time")
        assert futures[-1].result(PATIENCE_SECONDS) == expected(f"text {COUNT - 1}")
        assert in_flight(redis_client) == 0


def test_renewals(make_queue, embedder, redis_client, slow):
    """Leases are renewed in time, whatever they were made of."""
    queue = make_queue(start=False, api_batch_limit=COUNT, lease_seconds=1.2)
    asked = slow(queue, "extend", lambda _, args: len(args[2]))
    embedder.hold()
    queue.enqueue_many((f"doc:{place}", f"text {place}") for place in range(COUNT))
    queue.start()
    embedder.wait_for_calls(1)
    eventually(lambda: len(asked) > 11, "the leases are renewed")
    assert asked[:12] == [200, 100, 50, *[25] * 8, 29]
    assert queue.stats().in_flight == COUNT
