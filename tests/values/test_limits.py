"""Limits as users write them, and what is reckoned with."""

from __future__ import annotations

import pytest

from embedqueue import LimitLeft, Limits
from embedqueue.values.limits import Cost, read_limits


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [
        ({}, ValueError, "limits must set one of requests_per_minute"),
        ({"name": "openai"}, ValueError, "limits must set one of"),
        ({"requests_per_minute": 0}, ValueError, "at least 1 of requests_per_minute"),
        ({"requests_per_minute": 1.5}, TypeError, "a whole number of requests_per_minute, not 1.5"),
        ({"tokens_per_minute": True}, TypeError, "a whole number of tokens_per_minute"),
        ({"tokens_per_minute": 1, "name": ""}, ValueError, "a name without blanks"),
        ({"tokens_per_minute": 1, "name": "{a}"}, ValueError, "a name without blanks and braces"),
        ({"tokens_per_minute": 1, "name": 7}, TypeError, "a str as name"),
    ],
)
def test_what_cannot_work_is_refused_at_once(values, error, words):
    with pytest.raises(error, match=words):
        Limits(**values)


def test_words_of_an_environment():
    assert read_limits("requests_per_minute=600,texts_per_minute=3_000 name=a") == Limits(600, 3000, name="a")


def test_costs():
    assert Cost(1, 2, 3).plus(Cost(1, 1, 1)) == Cost(2, 3, 4)
    assert Cost(1, 2, 3).without(Cost(0, 3, 1)) == Cost(1, 0, 2)


@pytest.mark.parametrize(("seconds", "soon"), [(0.0, "now"), (0.04, "now"), (0.25, "in 0.2 s"), (12.3, "in 12 s")])
def test_what_is_left_in_words(seconds, soon):
    words = LimitLeft("requests_per_minute", 6000, 1234, seconds).words
    assert words == f"requests_per_minute: 1,234 of 6,000 left, the next full call may go {soon}"
