"""What claims cost, told to Redis when they are over; also of such as this process has hardly known."""

from __future__ import annotations

import logging

import pytest

from embedqueue import Budget
from embedqueue.values.item import Item, encode_member
from embedqueue.work.purse import Purse


@pytest.fixture
def told():
    return {}


@pytest.fixture
def purse(told):
    return Purse(told.__setitem__, Budget(usd_per_day=1.0), 1.0, lambda: None, logging.getLogger("embedqueue"))


def item(owner: str, key: str = "doc:1") -> Item:
    return Item(key, "text", encode_member(key, "text"), owner=owner)


def test_a_claim_is_settled_when_its_last_item_and_its_last_call_are_over(purse, told):
    purse.begin("w:1", [item("w:1"), item("w:1", "doc:2")])
    purse.enter("w:1")
    purse.ended([item("w:1"), item("w:0"), item("w:1", "doc:2")])  # of w:0, all was over before
    assert told == {}
    purse.leave("w:1", 1_000_000)
    assert told == {"w:1": 1.0}


def test_a_claim_whose_answer_was_lost_is_settled_when_its_items_are_released(purse, told):
    """Redis has reserved for it, and nothing was sent."""
    purse.drop("w:1")
    assert told == {"w:1": 0.0}
