"""What is wanted now is not forgotten by a claim that takes fewer items than are urgent, or that meets a pause."""

from __future__ import annotations

import concurrent.futures
import threading

import pytest

from tests.inside import inside
from tests.parts import PATIENCE_SECONDS, eventually, start_held


@pytest.mark.parametrize("worker", [True, False])
def test_all_who_wait_come_before_a_backlog(make_queue, embedder, worker):
    """Also where each claim takes one item only, and where they wait in a process without a worker."""
    queue = start_held(make_queue, embedder, [f"backlog {place}" for place in range(200)])
    eventually(lambda: inside(queue).held == 2, "one is claimed ahead")
    waiter = queue if worker else make_queue(worker=False)
    wanted = [f"wanted {place}" for place in range(30)]
    futures = waiter.enqueue_many((text, text) for text in wanted)
    concurrent.futures.wait(futures, 0)
    eventually(lambda: set(inside(queue).urgent) == set(wanted), "the worker knows of them all")
    embedder.release()
    assert not concurrent.futures.wait(futures, PATIENCE_SECONDS).not_done
    assert set(wanted) <= set(embedder.texts[: 2 + len(wanted)])  # two of the backlog were claimed before
    eventually(lambda: inside(queue).urgent == [], "it finds that none of them waits")  # who waits may ask once more


def test_a_flush_that_meets_a_pause_is_made_after_it(make_queue, redis_client, monkeypatch):
    """A person's pause of which the worker has not heard: resumed, it drains, though the timer is an hour away."""
    queue, paused = make_queue(), threading.Event()
    queue.enqueue("doc:1", "one")
    eventually(lambda: inside(queue).knows_of == 1, "it does not look again for a while")
    place = inside(queue).place("begin")
    begin = getattr(*place)
    monkeypatch.setattr(*place, lambda claim: (begin(claim), claim.status == "paused" and paused.set()))
    inside(queue).store.hold(None, "by hand")
    queue.flush_now()
    assert paused.wait(PATIENCE_SECONDS)
    inside(queue).store.unhold()
    eventually(lambda: redis_client.hexists("doc:1", "embedding"), "it is embedded")


def test_who_waits_for_very_many_asks_in_few_words(make_queue, redis_client):
    """Every few seconds, while nobody embeds them: the stream keeps thousands of notices, and Redis must not fill."""
    waiter = make_queue(worker=False)
    futures = waiter.enqueue_many((f"doc:{place}", f"text {place}") for place in range(3000))
    concurrent.futures.wait(futures, 0)

    def asked(kind: bytes) -> list[bytes]:
        return [fields[b"body"] for _, fields in redis_client.xrange("embed_queue:events") if fields[b"kind"] == kind]

    eventually(lambda: max(map(len, [b"", *asked(b"urgent")])) > 10_000, "it asks for many")
    assert max(map(len, asked(b"urgent"))) <= 16_000
    make_queue()
    assert not concurrent.futures.wait(futures, PATIENCE_SECONDS).not_done
