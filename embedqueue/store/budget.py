"""What is spent of a budget, as it stands in Redis: a HASH of sums by day and month, and what claims have reserved."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from embedqueue.values.budget import Budget

from .change import FINISHING
from .figures import DAY_SECONDS
from .keys import Keys
from .scripts import Scripts

#: What the scripts count in: millionths of a dollar. So a price for a million tokens is that of a token.
MICRO = 1e6


@dataclass(frozen=True, slots=True)
class BudgetTerms:
    """On which terms a claim reserves.

    Attributes:
        budget: what may be spent.
        price: dollars for a million tokens.
        texts: that one call holds.
        tokens: that one call holds, estimated.
    """

    budget: Budget
    price: float
    texts: int
    tokens: int

    @property
    def text(self) -> str:
        """As budget.lua reads it."""
        return f"{self.price!r} {' '.join(_limits(self.budget))} {self.texts} {self.tokens}"


def _limits(budget: Budget | None) -> list[str]:
    limits = (None, None) if budget is None else (budget.usd_per_day, budget.usd_per_month)
    return ["-" if limit is None else f"{limit * MICRO:.6f}" for limit in limits]


@dataclass(frozen=True, slots=True)
class BudgetState:
    """What is spent, in dollars; what is in flight is in it, by estimate.

    Attributes:
        day: spent on this day.
        month: spent in this month.
        day_raised: what more may be spent on this day than the settings say.
        month_raised: the same in this month.
        held: what is in flight of it.
        parked: the words of the pause, where the budget is spent; "" where it is not.
        known: whether anything was ever reserved.
    """

    day: float = 0.0
    month: float = 0.0
    day_raised: float = 0.0
    month_raised: float = 0.0
    held: float = 0.0
    parked: str = ""
    known: bool = False


class BudgetBook:
    """Settles, raises and tells what is spent. Thread-safe.

    Every method raises ``redis.RedisError`` where Redis does not answer or refuses.

    Args:
        scripts: of the queue.
        keys: of the queue.
    """

    def __init__(self, scripts: Scripts, keys: Keys) -> None:
        self._call = scripts.call
        self._background: Any = scripts.background
        self._keys = keys

    def reserve(self, owner: str, tokens: int, terms: BudgetTerms) -> tuple[float, str, bool]:
        """Reserve what a call may cost that no claim has brought; ``settle`` settles it.

        Args:
            owner: a name for the call, which no other has.
            tokens: of its texts, by estimate.
            terms: on which it reserves.

        Returns:
            The seconds after which it is worth asking again, because what others have in flight must be settled first,
            or 0; why there is a pause, or ""; and whether that has begun by this. Without either, it is reserved.
        """
        ms, words, begun = self._call("reserve_budget", (self._keys.budget,), terms.text, owner, tokens, FINISHING)
        return ms / 1000, words.decode("utf-8", "replace"), bool(begun)

    def settle(self, owner: str, dollars: float) -> bool:
        """All items of a claim have ended, and so much was used; what it has reserved beyond that is free again.

        Args:
            owner: the name of the claim, or of a batch job.
            dollars: that its calls have cost.

        Returns:
            Whether anything was reserved under this name; of a batch job, whether it was not settled before.
        """
        return bool(self._call("settle_budget", (self._keys.budget,), owner, f"{dollars * MICRO:.6f}"))

    def raise_(self, dollars: float) -> None:
        """Let so much more be spent today, and so in this month; a queue that is parked looks again."""
        self._call("raise_budget", (self._keys.budget,), f"{dollars * MICRO:.6f}")

    def parked(self) -> str:
        """The words of the pause, where the budget is spent; "" where it is not. One round trip."""
        with self._background.pipeline(transaction=False) as pipeline:
            pipeline.get(self._keys.pause)
            pipeline.hget(self._keys.budget, "parked")
            words, parked = pipeline.execute()
        return _words(words, parked)

    def state(self) -> BudgetState:
        """What is spent. One round trip."""
        with self._background.pipeline(transaction=False) as pipeline:
            pipeline.time()
            pipeline.hgetall(self._keys.budget)
            pipeline.get(self._keys.pause)
            (seconds, _), kept, words = pipeline.execute()
        return state_of(int(seconds), kept, words)


def state_of(now: int, kept: dict[bytes, bytes], pause: bytes | None) -> BudgetState:
    """What is spent, by what Redis keeps.

    Args:
        now: Unix time, by the server's clock.
        kept: the fields of the budget's HASH.
        pause: why nobody claims; None, or empty, where there is no pause.
    """
    today = time.gmtime(now)
    of_day = _number(kept, "day") == now // DAY_SECONDS
    of_month = _number(kept, "month") == 12 * today.tm_year + today.tm_mon - 3
    return BudgetState(
        day=of_day * _number(kept, "day:spent") / MICRO,
        month=of_month * _number(kept, "month:spent") / MICRO,
        day_raised=of_day * _number(kept, "day:raised") / MICRO,
        month_raised=of_month * _number(kept, "month:raised") / MICRO,
        held=of_day * _number(kept, "held") / MICRO,
        parked=_words(pause, kept.get(b"parked")),
        known=bool(kept),
    )


def _words(pause: bytes | None, parked: bytes | None) -> str:
    """The words of a pause, if it was begun because the budget is spent."""
    words = (parked or b"").partition(b" ")[2]
    return words.decode("utf-8", "replace") if words and words == pause else ""


def _number(kept: dict[bytes, bytes], name: str) -> float:
    try:
        return float(kept.get(name.encode(), 0))
    except ValueError:  # somebody else has written it
        return 0.0
