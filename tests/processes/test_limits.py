"""Limits that hold across processes, by the count of a provider that keeps them itself."""

from __future__ import annotations

import time

import pytest

from tests.parts import PATIENCE_SECONDS, eventually
from tests.provider import Answer

#: Of the provider: so many calls a second, and as many at once.
CALLS_A_SECOND = 10.0
SECONDS = 5.0


class Quota:
    """The rule of a provider that allows 600 calls a minute, refilled steadily, twenty of them at once."""

    def __init__(self, *, tells: bool = False) -> None:
        self._tells = tells
        self._left, self._since = CALLS_A_SECOND, time.monotonic()
        self.arrivals: list[float] = []
        self.refused: list[float] = []

    def __call__(self, texts):  # under the provider's lock
        now = time.monotonic()
        self._left = min(2 * CALLS_A_SECOND, self._left + (now - self._since) * CALLS_A_SECOND)
        self._since = now
        self.arrivals.append(now)
        served = self._left >= 1
        self._left -= served
        headers = {"x-ratelimit-limit-requests": "600", "x-ratelimit-remaining-requests": f"{590 + self._left:.0f}"}
        if not served:
            self.refused.append(now)
        return Answer(200 if served else 429, headers=headers if self._tells else {})

    def between(self, begin: float, end: float) -> int:
        return sum(begin < at <= end for at in self.arrivals) - sum(begin < at <= end for at in self.refused)


@pytest.mark.parametrize("limits", [{"requests_per_minute": 600}, "auto"], ids=["set", "auto"])
def test_three_workers_send_what_is_allowed_and_no_more(make_peer, provider, redis_client, limits):
    """One of them is killed on the way. Nothing is refused to speak of, and most of the limit is used.

    That nearly all of it is used is shown by a clock of its own, in tests/store/test_buckets.py.
    What the provider tells is learned by then: before, nobody knew.
    """
    quota = provider.rule = Quota(tells=limits == "auto")
    options = {"limits": limits, "api_batch_limit": 2, "lease_seconds": 1.0, "history": False}
    peers = [make_peer(**options) for _ in range(3)]
    peers[0].run("queue.enqueue_many([(f'doc:{i}', f'text {i}') for i in range(1000)]); queue.flush_now()")
    for peer in peers[1:]:
        peer.run("queue.flush_now()")
    eventually(lambda: len(quota.arrivals) >= 25)
    begin = time.monotonic()
    peers[0].kill()
    before = len(quota.arrivals)
    eventually(lambda: len(quota.arrivals) >= before + CALLS_A_SECOND * SECONDS, "most of the limit is used")
    end = time.monotonic()
    assert sum(at > begin for at in quota.refused) <= 3  # the provider saves up two seconds' worth, and no more
    assert quota.between(begin, end) <= CALLS_A_SECOND * (end - begin + 2)
    assert redis_client.hexists("embed_queue:limits", "requests")


def test_who_waits_in_one_process_goes_before_the_backlog_of_another(make_peer, provider):
    provider.rule = Quota()
    options = {"limits": {"requests_per_minute": 600}, "api_batch_limit": 1, "history": False}
    backlog, waiter = make_peer(**options), make_peer(**options)
    backlog.run("queue.enqueue_many([(f'doc:{i}', f'text {i}') for i in range(1500)]); queue.flush_now()")
    assert provider.wait_for_calls(3, PATIENCE_SECONDS)
    for place in range(3):
        waited = waiter.get(
            f"[time := __import__('time'), began := time.monotonic(),"
            f" queue.enqueue('now:{place}', 'text').result({PATIENCE_SECONDS}), time.monotonic() - began][3]"
        )
        assert waited < PATIENCE_SECONDS  # 150 seconds of backlog stand before it; a busy machine takes its time
