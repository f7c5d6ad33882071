"""Tokens times price, by day and by model; what is not known is said, and never free."""

from __future__ import annotations

import pytest

from embedqueue.money.cost import costs_by, tokens_and_dollars, usd
from embedqueue.observers.history import Period
from embedqueue.observers.spending import Saved, Sent

DAY = 86_400
GEMINI, MINE = "google/gemini-embedding-001", "mine"
PERIODS = [
    Period(start=0, seconds=DAY),
    Period(start=DAY, seconds=DAY, sent=[Sent(model=GEMINI, texts=3, measured=1_500_000, estimated=500_000)]),
    Period(
        start=2 * DAY,
        seconds=DAY,
        sent=[Sent(model=GEMINI, texts=1, measured=1_000_000), Sent(model=MINE, texts=1, estimated=1_000_000)],
        saved=[
            Saved(model=GEMINI, by="cache", texts=4, tokens=2_000_000),
            Saved(model=GEMINI, by="unchanged", texts=2, tokens=1_000_000),
            Saved(model=MINE, by="cache", texts=1, tokens=10),
        ],
    ),
]


def test_by_day_the_latest_first_without_days_of_nothing():
    """A model without a price makes the day's dollars incomplete, never cheap."""
    (latest, earlier), total = costs_by(PERIODS, {}, "day")
    assert (earlier.name, earlier.measured, earlier.estimated) == ("1970-01-02", 1_500_000, 500_000)
    assert (earlier.known_dollars, earlier.unpriced) == (pytest.approx(0.30), set())
    assert (latest.known_dollars, latest.unpriced) == (pytest.approx(0.15), {MINE})
    assert (total.texts, total.tokens, total.known_dollars) == (5, 4_000_000, pytest.approx(0.45))
    assert total.saved_texts == {"cache": 5, "unchanged": 2}
    assert total.saved_dollars == pytest.approx(0.45)


def test_by_model_and_with_prices_of_ones_own():
    """What was set comes before the list; where all is known, the sum is whole."""
    rows, total = costs_by(PERIODS, {MINE: 1.0, "gemini-embedding-001": 0.30}, "model")
    assert {row.name: row.known_dollars for row in rows} == {GEMINI: pytest.approx(0.90), MINE: pytest.approx(1.0)}
    assert (total.known_dollars, total.unpriced) == (pytest.approx(1.90), set())


def test_a_model_without_a_price_has_none_in_json_as_well():
    """Not 0."""
    (_, mine), total = costs_by(PERIODS, {}, "model")
    assert mine.facts()["usd"] is None
    assert mine.facts()["unpriced_models"] == [MINE]
    assert total.facts()["usd"] == pytest.approx(0.45)
    assert costs_by(PERIODS[:1], {}, "day")[1].facts()["usd"] == 0.0
    free, _ = costs_by(PERIODS, {MINE: 0.0, GEMINI: 0.0}, "model")
    assert [row.facts()["usd"] for row in free] == [0.0, 0.0]


def test_dollars_in_words():
    """Less than a cent is told as well as a thousand."""
    assert [usd(number) for number in (0, 0.0000123, 0.005, 0.01, 1234.5)] == [
        "$0.00", "$0.000012", "$0.0050", "$0.01", "$1,234.50",
    ]  # fmt: skip
    assert tokens_and_dollars(2, 1e6, 0.15) == "2 texts of about 1,000,000 tokens, about $0.15"


def test_batch_jobs_at_their_price():
    """Half of the list price, two thirds of Voyage's, and no less of a price that is one of batch jobs."""
    sent = [Sent(model=model, lane="batch", texts=1, measured=1_000_000) for model in (GEMINI, "voyage-4")]
    routed = Sent(model="google/gemini-embedding-2:batch", lane="batch", texts=1, measured=1_000_000)
    [row], total = costs_by([Period(start=DAY, seconds=DAY, sent=[*sent, routed], maybe_twice=2)], {}, "day")
    assert row.known_dollars == pytest.approx(0.075 + 0.04 + 0.10)
    assert (total.batch_texts, total.batch_saved_dollars, total.maybe_twice) == (2, pytest.approx(0.095), 2)
