"""A budget as its user sets it."""

from __future__ import annotations

import pickle

import pytest

from embedqueue import Budget
from embedqueue.settings.settings import SettingsError, read


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({}, ValueError, "needs usd_per_day or usd_per_month"),
        ({"usd_per_million_tokens": 1}, ValueError, "needs usd_per_day or usd_per_month"),
        ({"usd_per_day": 0}, ValueError, "usd_per_day must be from"),
        ({"usd_per_day": -1}, ValueError, "must not be negative"),
        ({"usd_per_day": float("nan")}, ValueError, "usd_per_day"),
        ({"usd_per_month": float("inf")}, ValueError, "usd_per_month"),
        ({"usd_per_day": "5"}, TypeError, "number of dollars"),
        ({"usd_per_day": True}, TypeError, "number of dollars"),
        ({"usd_per_day": 5, "usd_per_million_tokens": -0.1}, ValueError, "must not be negative"),
    ],
)
def test_refused(given, error, said):
    """What cannot work is refused at once, by the option's name."""
    with pytest.raises(error, match=said) as refusal:
        Budget(**given)
    assert str(refusal.value).startswith("budget ")


def test_plain_value():
    """It can be compared, sent around, and cannot be changed."""
    budget = Budget(5, usd_per_million_tokens=0)
    assert budget == Budget(usd_per_day=5.0, usd_per_million_tokens=0.0) == pickle.loads(pickle.dumps(budget))
    with pytest.raises(AttributeError):
        budget.usd_per_day = 6.0


@pytest.mark.parametrize(
    "given", [Budget(5, 100), {"usd_per_day": 5, "usd_per_month": 100}, " usd_per_day=5, usd_per_month=100 "], ids=repr
)
def test_from_settings(given):
    """As an object, a dictionary, or a line of the environment."""
    assert read({"BUDGET": given}).options["budget"] == Budget(5, 100)
    for nothing in (None, "", {}):
        assert read({"BUDGET": nothing}).options["budget"] is None


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("BUDGET", "5", "E_BUDGET must be NAME=DOLLARS"),
        ("BUDGET", "usd_per_week=5", "E_BUDGET has usd_per_day, usd_per_month"),
        ("BUDGET", "usd_per_day=-5", "E_BUDGET usd_per_day must not be negative"),
        ("BUDGET", 5, "E_BUDGET must be a dictionary"),
        ("PRICES", "mine", "E_PRICES must be NAME=DOLLARS"),
        ("PRICES", {"mine": "5"}, "E_PRICES the price of mine must be a number"),
    ],
)
def test_wrong_settings_are_told(name, given, said):
    """With the name as its user writes it, and what to write instead."""
    with pytest.raises(SettingsError, match=said):
        read({f"E_{name}": given}, "E_")


def test_a_setting_without_a_price_is_told():
    """Before the first claim."""
    with pytest.raises(SettingsError, match="BUDGET needs the price of own/model"):
        read({"MODEL": "own/model", "BUDGET": "usd_per_day=5"})
    read({"MODEL": "own/model", "BUDGET": "usd_per_day=5", "PRICES": "own/model=0.01"})
