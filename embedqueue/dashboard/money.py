"""What is spent and saved, what the budget still lets be spent, and what the limits still let be sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embedqueue.money.cost import costs_by
from embedqueue.money.prices import price_of
from embedqueue.operating.budget import facts_of
from embedqueue.operating.cost import SAVERS
from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.store.budget import BudgetState
from embedqueue.values.options import Options

#: Days that are read; so many of them, those on which anything was done, are listed.
DAYS, LISTED_DAYS = 30, 14


@dataclass(frozen=True, slots=True)
class Spent:
    """What is spent of a day's or a month's budget, in dollars."""

    period: str
    spent: float
    limit: float
    raised: float

    @property
    def share(self) -> float:
        """Of what may be spent, from 0 to 1."""
        return min(1.0, self.spent / self.limit) if self.limit > 0 else 1.0


def budget_of(options: Options, state: BudgetState) -> dict[str, Any]:
    """The budget, as far as there is one: what is spent of it, what is in flight, and whether the queue is parked."""
    facts = facts_of(options, state)
    rows = [
        Spent(name, facts[f"{name}_spent"], facts[f"usd_per_{name}"] + facts[f"{name}_raised"], facts[f"{name}_raised"])
        for name in ("day", "month")
        if facts[f"usd_per_{name}"] is not None
    ]
    return {"rows": rows, "in_flight": facts["in_flight"], "parked": facts["parked"]}


def spent(queue: EmbeddingBatchQueue, prices: Mapping[str, float]) -> dict[str, Any]:
    """What the page needs. Five round trips.

    Args:
        queue: to look at.
        prices: dollars for a million tokens by model; for others the queue's own hold, and the list's.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    options = queue.options
    stats, history, known = queue.stats(), queue.history(1, DAYS), {**(options.prices or {}), **prices}
    days, total = costs_by(history.days, known, "day")
    models, _ = costs_by(history.days, known, "model")
    used = {model: price_of(model, known) for one in history.days for model in one.tokens}
    return {
        "stats": stats,
        "budget": budget_of(options, queue._engine.store.budget.state()),
        "days": days[:LISTED_DAYS],
        "models": models,
        "most_tokens": max((one.tokens for one in days), default=0) or 1,
        "cost": total,
        "saved": {SAVERS.get(name, name): texts for name, texts in sorted(total.saved_texts.items()) if texts},
        "prices": {model: price for model, price in sorted(used.items()) if price is not None},
        "days_read": len(history.days),
    }
