"""What was spent and saved, in lines for a person."""

from __future__ import annotations

from embedqueue.money.cost import costs_by
from embedqueue.observers.history import Period
from embedqueue.observers.spending import Sent
from embedqueue.operating.cost import describe_cost


def test_what_is_not_known_is_said():
    """A model without a price, and what may be paid for twice."""
    sent = [Sent(model="mine", texts=1, measured=1_000_000)]
    rows, total = costs_by([Period(start=0, seconds=86_400, sent=sent, maybe_twice=1200)], {}, "model")
    _, row, _, *more = describe_cost(rows, total, "model")
    assert row.split()[:2] == ["mine", "1"]
    assert "no price" in row
    assert more[0].startswith("1,200 items have left batch jobs")
    assert more[1].startswith("Nobody has said what mine costs")
