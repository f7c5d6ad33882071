"""How many calls may be in flight: played against providers that are numbers, without threads or clocks."""

from __future__ import annotations

import pytest

from embedqueue.calls.concurrency import MOST, Concurrency


def play(
    concurrency: Concurrency, *, allowed: int, rounds: int, seconds=lambda in_flight: 0.1
) -> tuple[int, int, list[int]]:
    """Rounds of as many calls as may be in flight against a provider that refuses what is above ``allowed``."""
    now, calls, refused, limits = 0.0, 0, 0, []
    for _ in range(rounds):
        in_flight = concurrency.limit
        limits.append(in_flight)
        began, now = now + 0.001, now + 0.001 + seconds(in_flight)
        for number in range(in_flight):
            calls += 1
            if number >= allowed:
                refused += 1
                concurrency.refused(began, began)
            else:
                concurrency.answered(began, now)
    return calls, refused, limits


def test_a_number_is_a_number():
    """A fixed limit stays, whatever happens."""
    fixed = Concurrency(7)
    play(fixed, allowed=2, rounds=50)
    assert fixed.limit == 7


@pytest.mark.parametrize("allowed", [1, 2, 6, 20])
def test_settles_just_below_what_the_provider_refuses(allowed):
    """With "auto", most rounds run near the provider's limit, and few calls are refused."""
    calls, refused, limits = play(Concurrency("auto"), allowed=allowed, rounds=600)
    settled = sorted(limits[100:])
    assert settled[len(settled) // 2] in (max(1, allowed - 1), allowed)
    assert refused / calls < 0.05


def test_grows_as_long_as_the_provider_answers_well():
    """Nobody refuses: the limit grows to its bound, and not beyond."""
    auto = Concurrency("auto")
    play(auto, allowed=1000, rounds=5000)
    assert auto.limit == MOST


def test_answers_that_slow_down_halve_the_limit():
    """A provider that queues instead of refusing is noticed by its answers' time."""
    auto = Concurrency("auto")
    _, _, limits = play(auto, allowed=1000, rounds=400, seconds=lambda in_flight: 0.1 * max(1.0, in_flight / 5))
    assert max(limits[50:]) <= 16


def test_a_provider_that_becomes_slower_for_good_is_no_crowd():
    """Answers that take ten times as long from now on, however few they are, do not hold the limit down."""
    auto = Concurrency("auto")
    play(auto, allowed=1000, rounds=200)
    began = 1_000_000.0
    for _ in range(2000):
        auto.answered(began, began + 1.0)
        began += 2.0
    assert auto.limit > 32


def test_one_crowd_is_punished_once():
    """Calls that began before the limit was halved do not halve it again."""
    auto = Concurrency("auto")
    for _ in range(4):
        auto.refused(1.0, 2.0)
    assert auto.limit == 2
