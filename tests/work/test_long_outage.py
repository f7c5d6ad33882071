"""Half an hour of 503, then health. The test owns the clock: it ends each pause, and counts it as long as it was."""

from __future__ import annotations

import pytest
import tenacity

from embedqueue import BatchFailed, OpenAIEmbedder
from tests.inside import FIRST_PAUSE_SECONDS
from tests.parts import PATIENCE_SECONDS, eventually, expected, stored
from tests.provider import fail

DIMENSIONS = 16
OUTAGE_SECONDS = 1800.0
SHORTEST_SECONDS = 8.0
ITEMS = {f"doc:{i}": f"text {i}" for i in range(120)}


@pytest.fixture
def make_worker(redis_client, provider, make_queue, monkeypatch):
    monkeypatch.setattr(*FIRST_PAUSE_SECONDS, SHORTEST_SECONDS)  # longer than a busy machine needs to look at it

    def make():
        embedder = OpenAIEmbedder("test-key", provider.openai_url, dimensions=DIMENSIONS)
        retry = tenacity.Retrying(stop=tenacity.stop_after_attempt(2), wait=tenacity.wait_none())
        return make_queue(redis_client, embedder=embedder, retry=retry, model="any", max_concurrency=1)

    return make


def _pause_seconds(client):
    """Wait for a failed call; says how long nobody will make another one."""
    eventually(lambda: (client.get("embed_queue:pause") or b"").startswith(b"the provider failed"), "a pause")
    return client.pttl("embed_queue:pause") / 1000


def _let_it_pass(client):
    # A call of another worker that failed only after this would count as one more failure in a row.
    eventually(lambda: client.zcard("embed_queue:inflight") == 0, "nothing is under way")
    client.delete("embed_queue:pause")
    client.xadd("embed_queue:events", {"kind": "wake", "by": "", "body": ""})


def test_half_an_hour_of_503_costs_two_calls_a_pause_and_nothing_else(redis_client, provider, make_worker):
    """Three queues' workers share the probes; no item is lost or dead; with health, each is sent once more."""
    provider.rule = lambda texts: fail(503)
    first, *others = [make_worker() for _ in range(3)]
    futures = first.enqueue_many(ITEMS.items())
    first.flush_now()
    pauses = [_pause_seconds(redis_client)]
    while sum(pauses) < OUTAGE_SECONDS:
        waits = others[len(pauses) % 2].enqueue("doc:0", ITEMS["doc:0"])
        _let_it_pass(redis_client)
        assert isinstance(waits.exception(PATIENCE_SECONDS), BatchFailed), "nobody is left without an answer"
        pauses.append(_pause_seconds(redis_client))
    doubled = [min(300.0, SHORTEST_SECONDS * 2.0**n) for n in range(len(pauses))]
    # What was left of each when we looked: less than half of it would be the next shorter one.
    assert all(full / 2 < left <= full for left, full in zip(pauses, doubled)), pauses
    # A probe each, and the canary that asks whether its texts are at fault; before, each worker's first call, twice.
    assert len(provider.calls) <= 2 * len(pauses) + 3 * 3
    eventually(lambda: first.stats().waiting == len(ITEMS), "what the last probe took is back")
    assert first.stats().dead == 0
    provider.rule = None
    _let_it_pass(redis_client)
    eventually(lambda: first.stats().waiting + first.stats().in_flight == 0, "everything is embedded")
    assert all(redis_client.hget(key, "embedding") == stored(text, DIMENSIONS) for key, text in ITEMS.items())
    assert set(provider.answered.values()) == {1}
    assert (first.dead_letters(), first.stats().pause_reason) == ([], None)
    assert all(future.done() for future in futures)
    assert first.enqueue("doc:1", "after").result(PATIENCE_SECONDS) == expected("after", DIMENSIONS)
