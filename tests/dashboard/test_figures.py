"""From the history to what the dashboard shows: pure functions, by table."""

from __future__ import annotations

import pytest

pytest.importorskip("flask", reason='the dashboard is in the extra "embedqueue[dashboard]"')

from embedqueue.dashboard import figures, words
from embedqueue.dashboard.overview import state_of
from embedqueue.observers.history import LATENCY_SECONDS, Period
from embedqueue.values.limits import LimitLeft
from embedqueue.values.options import Options
from embedqueue.values.stats import PROBING, QueueStats

DAY = LimitLeft("requests_per_day", 100, 0, 7200.0)
CLASSES = len(LATENCY_SECONDS) + 1


def latencies(**calls: int) -> tuple[int, ...]:
    """Calls by class: c0=3 is three in the first."""
    return tuple(calls.get(f"c{at}", 0) for at in range(CLASSES))


@pytest.mark.parametrize(
    ("calls", "part", "seconds"),
    [
        ({}, 0.5, None),
        ({"c0": 10}, 0.5, 0.025),
        ({"c0": 1, "c2": 1}, 0.5, 0.05),
        ({"c0": 1, "c2": 1}, 0.95, 0.19),
        ({"c1": 100}, 1.0, 0.1),
        ({f"c{CLASSES - 1}": 4}, 0.95, LATENCY_SECONDS[-1]),  # of what is longer than all classes, its beginning
    ],
)
def test_quantiles(calls, part, seconds):
    """Within a class by proportion; nothing without calls."""
    found = figures.quantile(latencies(**calls), part)
    assert found == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("largest", "end"), [(0, 1), (1, 1), (1.2, 1.5), (7, 8), (9, 10), (10, 10), (11, 15), (590, 600)]
)
def test_an_axis_ends_at_a_round_number(largest, end):
    """Never below the largest value."""
    assert figures.nice(largest) == end


def test_a_line_breaks_where_there_is_nothing():
    """Minutes without a value part it; a lone minute is still drawn."""
    assert figures.line([1.0, None, 0.5, 0.5], 1.0) == ["0,0.00 1,0.00", "2.5,50.00 3.5,50.00"]
    assert figures.line([None, None], 1.0) == []


def test_rates_leave_out_the_minute_that_is_not_over():
    """Of the last five that are."""
    minutes = [Period(start=at * 60, seconds=60, embedded=count) for at, count in enumerate([99, 1, 2, 3, 4, 5, 1000])]
    assert figures.a_minute(minutes, lambda minute: minute.embedded) == 3.0
    assert figures.a_minute(minutes[-1:], lambda minute: minute.embedded) == 0.0


def test_failures_in_words_the_most_frequent_first():
    """A status has its phrase, what has none says what it is."""
    minutes = [
        Period(start=0, seconds=60, failures={"transient 503": 2, "configuration 401": 1}),
        Period(
            start=60, seconds=60, failures={"transient 503": 2, "transient timeout": 3, "transient": 1, "odd 999": 1}
        ),
    ]
    rows = [(row.name, row.meaning, row.count, row.share) for row in figures.failure_rows(minutes)]
    assert rows[0] == ("503 Service Unavailable", "tried again", 4, 1.0)
    assert rows[1][:3] == ("No answer in time", "tried again", 3)
    assert {row[:2] for row in rows[2:]} == {
        ("401 Unauthorized", "somebody must act"),
        ("No status", "tried again"),
        ("999", "odd"),
    }


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 ms"), (0.85, "850 ms"), (1, "1 s"), (3.24, "3.2 s"), (59.9, "1 min"), (7800, "2 h 10 min")],
)  # fmt: skip
def test_durations(seconds, said):
    """Two units at most."""
    assert words.duration(seconds) == said


@pytest.mark.parametrize(
    ("dollars", "said"), [(0, "$0.00"), (0.0000021, "$0.0000021"), (0.0042, "$0.0042"), (1234.5, "$1,234.50")]
)  # fmt: skip
def test_money(dollars, said):
    """Small sums keep their digits."""
    assert words.money(dollars) == said


def test_a_share_is_never_rounded_up_to_all():
    """99.99 % answered is not everything."""
    assert words.percent(9999, 10000) == "99.9 %"
    assert words.percent(1, 1) == "100 %"
    assert words.percent(0, 0) == ""


# -- state and guard -------------------------------------------------------------------------------------------------


def stats(**found) -> QueueStats:
    plain = dict.fromkeys(QueueStats.__slots__, 0)
    return QueueStats(
        **{
            **plain,
            "limits": (),
            "oldest_age": None,
            "paused_until": None,
            "pause_reason": None,
            "workers": 1,
            **found,
        }
    )


@pytest.mark.parametrize(
    ("found", "word", "part"),
    [
        ({}, "Idle", "Nothing waits"),
        ({"in_flight": 3, "waiting": 5}, "Working", ""),
        ({"waiting": 5, "oldest_age": 10.0}, "Waiting", "one for 1 h"),
        ({"waiting": 5, "oldest_age": 3700.0, "due_in": -100.0}, "Stalled", "Do the workers get on?"),
        ({"workers": 0}, "No worker", "Nothing waits, and no worker is running"),
        ({"workers": 0, "waiting": 5, "oldest_age": 10.0}, "Nobody works", "5 items wait, and no worker is running"),
        ({"workers": 0, "in_flight": 5}, "Nobody works", "Items are in flight"),
        ({"workers": None, "waiting": 5, "oldest_age": 10.0}, "Waiting", "one for 1 h"),
        ({"waiting": 5, "oldest_age": 3700.0, "due_in": -100.0, "limits": [DAY]}, "Held", "next full call go in 2 h"),
        ({"waiting": 5, "oldest_age": 10.0, "due_in": 10.0, "limits": [DAY]}, "Waiting", "one for 1 h"),
        ({"paused_until": 1012.0, "pause_reason": "the provider failed: 503"}, "Paused", "another 12 s: the provider"),
        ({"paused_until": 1012.0, "pause_reason": PROBING}, "Probing", "One call is testing it"),
    ],
)  # fmt: skip
def test_the_state_in_a_word_and_a_sentence(found, word, part):
    """The first of what is wrong."""
    state = state_of(stats(**found), Options(), 1000.0)
    assert state.word == word
    assert part in state.sentence
    assert "ab:1" not in state.sentence
