"""What batch jobs cost, and how much of them a budget has room for."""

from __future__ import annotations

import math

from embedqueue.store.budget import BudgetBook
from embedqueue.values.options import Options

from .prices import batch_part, budget_price


def _dollars(options: Options, tokens: int) -> float:
    return tokens * budget_price(options) * batch_part(options.model) / 1e6


def affordable(book: BudgetBook, options: Options) -> int | None:
    """How many tokens of jobs fit into what may still be spent; None where nothing bounds them."""
    budget, price = options.budget, _dollars(options, 1) if options.budget else 0.0
    if budget is None or not price:
        return None
    state = book.state()
    of_day = math.inf if budget.usd_per_day is None else budget.usd_per_day + state.day_raised - state.day
    of_month = math.inf if budget.usd_per_month is None else budget.usd_per_month + state.month_raised - state.month
    return math.floor(min(of_day, of_month) / price)


def charge(book: BudgetBook, options: Options, job: str, tokens: int) -> None:
    """Book what a job has cost; without a budget, nothing."""
    if options.budget is not None:
        book.settle(f"job:{job}", _dollars(options, tokens))
