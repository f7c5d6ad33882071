"""What is spent, in lines for a person."""

from __future__ import annotations

from embedqueue.operating import budget as module
from embedqueue.operating.budget import describe_budget, facts_of
from embedqueue.settings.settings import read
from embedqueue.store.budget import BudgetState
from embedqueue.values.options import Options


def test_what_is_spent_without_a_limit_is_told(monkeypatch):
    """Others may have the budget; and what is under way is an estimate."""
    state = BudgetState(day=1.5, held=0.25)
    monkeypatch.setattr(module, "budget_facts", lambda settings: facts_of(Options(), state))
    first, *lines = describe_budget(read({}))
    assert "no budget" in first
    assert lines == ["this day    $1.50", "in flight   $0.25 of it, by estimate"]
