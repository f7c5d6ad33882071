"""A budget across processes, of which one is killed in the midst of its calls."""

from __future__ import annotations

from tests.parts import PATIENCE_SECONDS, eventually

#: Seconds.
LEASE = 0.9
#: At this price for a million tokens, a token costs a dollar; a text of these has ten, by estimate and by the answer.
BUDGET = {"usd_per_day": 200, "usd_per_million_tokens": 1e6}
TEXTS = [[f"doc:{i}", f"{'x' * 33}{i:03}"] for i in range(40)]


def test_a_killed_worker_overruns_nothing(make_peer, provider, redis_client):
    """What it has sent may be charged, so it counts; the others spend what is left, and no more."""
    provider.settings.tokens_per_text = 10
    options = {"budget": BUDGET, "lease_seconds": LEASE, "api_batch_limit": 2}
    victim = make_peer(**options)
    provider.hold()
    victim.run(f"queue.enqueue_many({TEXTS!r}); queue.flush_now()")
    assert provider.wait_for_calls(1, PATIENCE_SECONDS)
    victim.kill()
    provider.release()
    for _ in range(2):
        make_peer(**options)
    eventually(lambda: (redis_client.get("embed_queue:pause") or b"").startswith(b"budget"), "parked")
    paid = 10 * sum(provider.sent.values())
    assert 0 < paid <= BUDGET["usd_per_day"]
    assert redis_client.zcard("embed_queue:pending") > 0
    assert redis_client.zcard("embed_queue:inflight") == redis_client.zcard("embed_queue:dead") == 0
