"""What may be spent, and what is, in lines for people and JSON for scripts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from embedqueue.money.cost import usd
from embedqueue.money.prices import budget_price
from embedqueue.settings.settings import Settings
from embedqueue.store.budget import BudgetState
from embedqueue.values.budget import LEAST_DOLLARS, MOST_DOLLARS
from embedqueue.values.errors import EmbedQueueError
from embedqueue.values.options import Options
from embedqueue.values.words import printable

from .control import open_store


def budget_facts(settings: Settings) -> dict[str, Any]:
    """What may be spent by these settings, and what all processes have spent, in dollars; None: no limit."""
    with open_store(settings) as store:
        state = store.budget.state()
    return facts_of(Options(model=settings.model, **settings.options), state)


def facts_of(options: Options, state: BudgetState) -> dict[str, Any]:
    """The same, of the options of a queue and of what is spent."""
    budget = options.budget
    facts: dict[str, Any] = {"model": options.model, "usd_per_million_tokens": None}
    if budget is not None:
        facts["usd_per_million_tokens"] = budget_price(options)
    for name, spent, raised in (("day", state.day, state.day_raised), ("month", state.month, state.month_raised)):
        limit = None if budget is None else getattr(budget, f"usd_per_{name}")
        facts |= {f"usd_per_{name}": limit, f"{name}_raised": raised, f"{name}_spent": round(spent, 6)}
        facts[f"{name}_left"] = None if limit is None else round(max(0.0, limit + raised - spent), 6)
    return facts | {"in_flight": round(state.held, 6), "parked": state.parked or None}


def budget_as_json(settings: Settings) -> str:
    """The same, for a script."""
    return json.dumps(budget_facts(settings))


def describe_budget(settings: Settings) -> Iterator[str]:
    """The same, as lines for a person."""
    facts = budget_facts(settings)
    if facts["usd_per_day"] is None and facts["usd_per_month"] is None:
        yield f"These settings have no budget: set {settings.spelled('BUDGET')}, such as usd_per_day=5."
    for name in ("day", "month"):
        spent, limit, raised = facts[f"{name}_spent"], facts[f"usd_per_{name}"], facts[f"{name}_raised"]
        if limit is not None:
            more = f" (raised by {usd(raised)})" if raised else ""
            yield f"this {name:<6} {usd(spent)} of {usd(limit + raised)}{more}, {usd(facts[f'{name}_left'])} are left"
        elif spent:
            yield f"this {name:<6} {usd(spent)}"
    if facts["in_flight"]:
        yield f"in flight   {usd(facts['in_flight'])} of it, by estimate"
    if facts["parked"]:
        yield printable(f"parked      {facts['parked']}")


def raise_budget(settings: Settings, dollars: float) -> str:
    """Let so much more be spent today. Returns a sentence.

    Raises:
        EmbedQueueError: these settings have no budget, or no budget has so many dollars.
    """
    if not LEAST_DOLLARS <= dollars <= MOST_DOLLARS:
        raise EmbedQueueError(f"give dollars from {LEAST_DOLLARS:g} to {MOST_DOLLARS:g}, not {dollars:g}")
    if settings.options.get("budget") is None:
        raise EmbedQueueError(f"these settings have no budget to raise: set {settings.spelled('BUDGET')}")
    with open_store(settings) as store:
        store.budget.raise_(dollars)
    return f"{usd(dollars)} more may be spent today (UTC), and so in this month."
