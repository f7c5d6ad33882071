"""What batch jobs cost, and whether a budget has room for one."""

from __future__ import annotations

from embedqueue.store.budget import BudgetBook
from embedqueue.values.options import Options

from .prices import batch_part, budget_price


def _dollars(options: Options, tokens: int) -> float:
    return tokens * budget_price(options) * batch_part(options.model) / 1e6


def affordable(book: BudgetBook, options: Options, tokens: int) -> bool:
    """Whether a job of so many tokens fits into what may be spent; without a budget, it does."""
    budget = options.budget
    if budget is None:
        return True
    state, cost = book.state(), _dollars(options, tokens)
    if budget.usd_per_day is not None and state.day + cost > budget.usd_per_day + state.day_raised:
        return False
    return budget.usd_per_month is None or state.month + cost <= budget.usd_per_month + state.month_raised


def charge(book: BudgetBook, options: Options, job: str, tokens: int) -> None:
    """Book what a job has cost; without a budget, nothing."""
    if options.budget is not None:
        book.settle(f"job:{job}", _dollars(options, tokens))
