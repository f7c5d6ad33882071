"""What the claims of this process have cost, where there is a budget: each claim is settled once, when it has ended."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from redis.exceptions import RedisError

from embedqueue.calls.batching import Limits
from embedqueue.store.budget import BudgetTerms
from embedqueue.values.budget import Budget
from embedqueue.values.item import Item
from embedqueue.values.log import Log
from embedqueue.values.tokens import estimated_tokens


@dataclass(slots=True)
class _Open:
    """A claim that has reserved of the budget and is not settled."""

    items: set[bytes] = field(default_factory=set)  # members that have not ended
    calls: int = 0  # of it that are under way
    tokens: int = 0  # that its calls have cost
    reserved: int = 0  # tokens of its items, estimated


class Purse:
    """Knows what claims have cost, and settles what they have reserved. Thread-safe.

    A claim is settled when none of its items is in our hands and none of its calls is under way. Items that end by a
    call of another claim cost their own nothing. What Redis does not take is settled with what comes next; if it never
    is, the estimate counts as spent.

    Args:
        settle: tells Redis that a claim, by its owner's name, has cost so many dollars; may raise ``RedisError``.
        budget: what may be spent.
        price: dollars for a million tokens.
        limits: returns what one call holds.
        log: takes the records.
    """

    def __init__(
        self,
        settle: Callable[[str, float], object],
        budget: Budget,
        price: float,
        limits: Callable[[], Limits],
        log: Log,
    ) -> None:
        self._settle = settle
        self._budget = budget
        self._price = price
        self._limits = limits
        self._log = log
        self._lock = threading.Lock()
        self._open: dict[str, _Open] = {}  # by owner; guarded by the lock, as is the next
        self._owed: dict[str, int] = {}  # tokens by owner, that Redis has yet to be told of

    def terms(self) -> BudgetTerms:
        """On which terms a claim reserves now."""
        limits = self._limits()
        return BudgetTerms(self._budget, self._price, limits.texts, limits.tokens)

    def begin(self, owner: str, items: Iterable[Item]) -> None:
        """A claim has brought these items."""
        found = list(items)
        with self._lock:
            claim = self._open.setdefault(owner, _Open())
            claim.items.update(item.member for item in found)
            claim.reserved += sum(estimated_tokens(item.text) for item in found)
        self._settle_if_over([owner])

    def enter(self, owner: str) -> None:
        """A call of this claim is made."""
        with self._lock:
            self._open.setdefault(owner, _Open()).calls += 1

    def leave(self, owner: str, tokens: int) -> None:
        """It is over, and has cost so many tokens."""
        with self._lock:
            claim = self._open.setdefault(owner, _Open(calls=1))
            claim.calls -= 1
            claim.tokens += tokens
        self._settle_if_over([owner])

    def ended(self, items: Iterable[Item]) -> None:
        """These items are in our hands no longer."""
        owners = set()
        with self._lock:
            for item in items:
                if item.owner in self._open:
                    self._open[item.owner].items.discard(item.member)
                    owners.add(item.owner)
        self._settle_if_over(owners)

    def drop(self, owner: str) -> None:
        """What this claim held was released, whatever it was: perhaps nobody here has ever heard of it."""
        with self._lock:
            self._open.setdefault(owner, _Open()).items.clear()
        self._settle_if_over([owner])

    def close(self) -> None:
        """All that is in our hands was released. Calls that are left behind may be paid: their estimates are spent."""
        with self._lock:
            for claim in self._open.values():
                claim.items.clear()
                if claim.calls:
                    claim.tokens, claim.calls = max(claim.tokens, claim.reserved), 0
            owners = list(self._open)
        self._settle_if_over(owners)

    def _settle_if_over(self, owners: Iterable[str]) -> None:
        with self._lock:
            for owner in owners:
                claim = self._open.get(owner)
                if claim is not None and not claim.items and not claim.calls:
                    self._owed[owner] = self._open.pop(owner).tokens
            owed, self._owed = self._owed, {}
        while owed:
            owner, tokens = owed.popitem()
            try:
                self._settle(owner, tokens * self._price / 1e6)
            except RedisError as error:
                self._log.debug("embedqueue: what a claim has cost could not be told: %s", error)
                with self._lock:
                    self._owed |= {**owed, owner: tokens}
                return
