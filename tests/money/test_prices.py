"""What a million tokens cost, by the names under which users know their models."""

from __future__ import annotations

import re

import pytest

from embedqueue.money.prices import LIST_PRICES, price_of, read_price
from embedqueue.values.budget import read_prices
from embedqueue.values.provenance import model_name


def test_prices_by_full_and_by_short_name():
    """What was set comes before the list; the full name before the short one; what nobody has said is not nothing."""
    assert price_of("openai/text-embedding-3-small", {}) == 0.02
    assert price_of("openai/text-embedding-3-small", {"text-embedding-3-small": 1.0}) == 1.0
    assert price_of("models/gemini-embedding-001") == price_of("google/gemini-embedding-001") == 0.15
    assert price_of("a/b", {"a/b": 2.0, "b": 3.0}) == 2.0
    assert price_of("b") is None
    assert price_of("BAAI/text-embedding-3-small") is None  # somebody else's of the same name


def test_what_a_router_sells_otherwise_has_a_price_of_its_own():
    """A suffix is the same model at another price, so the price of the model itself says nothing of it."""
    assert price_of("google/gemini-embedding-2:batch") == 0.10
    assert price_of("google/gemini-embedding-001:free") is None
    assert price_of("google/gemini-embedding-001:free", {"google/gemini-embedding-001:free": 0.0}) == 0.0


def test_every_list_price_has_a_date_and_a_source_and_can_be_found():
    """The table is by the names by which it is looked at."""
    for name, price in LIST_PRICES.items():
        assert re.fullmatch(r"20\d\d-[01]\d", price.date) and price.source
        assert price_of(name) == price.dollars >= 0
        assert model_name(name) == name.removesuffix(":batch")


@pytest.mark.parametrize(
    "wrong", [{"b": "3"}, {"b": True}, {"b": -1.0}, {"b": float("nan")}, {1: 1.0}, 7, "b", "b=x", "=1"]
)
def test_wrong_prices_are_refused(wrong):
    """They are numbers of dollars by name."""
    with pytest.raises((TypeError, ValueError), match="prices"):
        read_prices(wrong)


def test_prices_as_one_line():
    """As the environment holds them, and as a command's option does."""
    assert read_prices("google/m=0.15, own = 0 ,") == {"google/m": 0.15, "own": 0.0}
    assert read_prices(None) == read_prices("") == {}
    assert read_price("a=b=0.5") == ("a=b", 0.5)
    for wrong in ("mine", "=1", "mine=x"):
        with pytest.raises(ValueError, match="MODEL=DOLLARS"):
            read_price(wrong)
