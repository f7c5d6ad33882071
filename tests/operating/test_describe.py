"""How things stand, in lines for people."""

from __future__ import annotations

import time

import pytest

from embedqueue.operating.describe import describe_dead, lines
from embedqueue.values.item import dead_letter

NOON = 1_800_014_400.0  # 2027-01-15 12:00:00 UTC


@pytest.fixture(params=[("UTC", "2027-01-15 12:00:00 UTC"), ("EST5", "2027-01-15 07:00:00 EST")])
def noon(request, monkeypatch):
    """Noon in London, as it is written where we are."""
    zone, written = request.param
    with monkeypatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        yield written
    time.tzset()


@pytest.mark.parametrize(
    ("now", "age"),
    [
        (NOON + 0.9, "now"),
        (NOON - 0.9, "now"),
        (NOON + 1, "1 s ago"),
        (NOON + 119, "119 s ago"),
        (NOON + 3 * 60 + 59, "3 min ago"),
        (NOON + 3 * 3600, "3 h ago"),
        (NOON + 47 * 3600, "47 h ago"),
        (NOON + 1000 * 86_400, "1000 d ago"),
        (NOON - 50, "in 50 s"),
        (NOON - 3 * 60, "in 3 min"),
    ],
)
@pytest.mark.parametrize("name", ["pending_since", "in_flight_until", "died_at", "written_at"])
def test_a_time_is_a_date_with_its_zone_and_an_age(noon, monkeypatch, name, now, age):
    """Whoever is on call need not count seconds since 1970."""
    monkeypatch.setattr(time, "time", lambda: now)
    assert list(lines({name: NOON, "deliveries": 3})) == [f"{name:<16} {noon}, {age}", f"{'deliveries':<16} 3"]


def test_what_an_age_says_is_not_said_twice():
    facts = {"pending_since": NOON, "waiting_s": 1.0, "in_flight_until": NOON, "lease_ends_in_s": 1.0}
    assert [line.split()[0] for line in lines(facts)] == ["pending_since", "in_flight_until"]


@pytest.mark.parametrize("score", [1e300, float("inf"), float("nan"), -1e300])
def test_what_is_no_time_is_shown_as_it_stands(score):
    """Another program may have put it there; the rest must be seen all the same."""
    assert list(lines({"died_at": score, "written_at": None})) == [
        f"{'died_at':<16} {score}",
        f"{'written_at':<16} not known",
    ]
    letter = dead_letter(b'{"redis_key":"doc:1","text":"x"}', score, "why")
    assert list(describe_dead(iter([letter]))) == [f"{score}  doc:1  why"]


def test_the_list_of_dead_letters_has_the_zone(noon):
    letter = dead_letter(b'{"redis_key":"doc:1","text":"x"}', NOON, "why")
    assert list(describe_dead(iter([letter]))) == [f"{noon}  doc:1  why"]
