"""What was spent and saved, from the history: by day, by model, and in all. Pure."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from embedqueue.observers.history import Period

from .prices import batch_part, dollars_of, price_of

By = Literal["day", "model"]
#: Dollars beyond which people are asked before they are spent.
ASK_DOLLARS = 1.0


@dataclass(slots=True, kw_only=True)
class Cost:
    """What was spent and saved in a day, with a model, or in all.

    Attributes:
        name: the day as YYYY-MM-DD, the model's name, or "total".
        start: Unix time of the day; 0 where it is not of a day.
        texts: in answered calls.
        measured: tokens that the provider says it has charged.
        estimated: tokens of the calls of which it has not said.
        dollars: what the tokens cost of which the price is known.
        saved_texts: how many need not be sent, by reason: "duplicate", "cache", "unchanged"; "" where it is not known.
        saved_tokens: their tokens, estimated.
        saved_dollars: what these would have cost, as far as prices are known.
        batch_texts: of the texts, those that went in batch jobs.
        batch_saved_dollars: how much less these cost than calls.
        maybe_twice: items that have left batch jobs for the live lane: their texts may be paid for twice.
        unpriced: models whose price nobody has said: what they cost is in no sum of dollars.
    """

    name: str
    start: float = 0.0
    texts: int = 0
    measured: int = 0
    estimated: int = 0
    dollars: float = 0.0
    saved_texts: dict[str, int] = field(default_factory=dict)
    saved_tokens: int = 0
    saved_dollars: float = 0.0
    batch_texts: int = 0
    batch_saved_dollars: float = 0.0
    maybe_twice: int = 0
    unpriced: set[str] = field(default_factory=set)

    @property
    def tokens(self) -> int:
        """All that are paid for."""
        return self.measured + self.estimated

    @property
    def known_dollars(self) -> float | None:
        """The dollars, or None where nothing is known of them. Where ``unpriced`` has names, they are not all."""
        return None if self.unpriced and not self.dollars else self.dollars

    def add(self, period: Period, prices: Mapping[str, float], model: str | None = None) -> None:
        """Add what was done in a period, by one model or by all."""
        for sent in period.sent:
            if model in (None, sent.model):
                self.texts += sent.texts
                self.measured += sent.measured
                self.estimated += sent.estimated
                full = dollars_of(sent.tokens, price_of(sent.model, prices))
                part = batch_part(sent.model) if sent.lane == "batch" else 1.0
                dollars = None if full is None else full * part
                self.dollars += dollars or 0.0
                if part < 1.0:
                    self.batch_texts += sent.texts
                    self.batch_saved_dollars += (full or 0.0) - (dollars or 0.0)
                if dollars is None and sent.tokens:
                    self.unpriced.add(sent.model)
        if model is None:
            self.maybe_twice += period.maybe_twice
        for saved in period.saved:
            if model in (None, saved.model):
                self.saved_texts[saved.by] = self.saved_texts.get(saved.by, 0) + saved.texts
                self.saved_tokens += saved.tokens
                self.saved_dollars += dollars_of(saved.tokens, price_of(saved.model, prices)) or 0.0

    def facts(self) -> dict[str, Any]:
        """All of it, for a script."""
        return {
            "name": self.name,
            "texts": self.texts,
            "tokens_measured": self.measured,
            "tokens_estimated": self.estimated,
            "usd": None if self.known_dollars is None else round(self.known_dollars, 8),
            "unpriced_models": sorted(self.unpriced),
            "saved_texts": {by or "other": texts for by, texts in sorted(self.saved_texts.items())},
            "saved_tokens": self.saved_tokens,
            "saved_usd": round(self.saved_dollars, 8),
            "batch_texts": self.batch_texts,
            "batch_saved_usd": round(self.batch_saved_dollars, 8),
            "maybe_paid_twice": self.maybe_twice,
        }


def costs_by(periods: Sequence[Period], prices: Mapping[str, float], by: By) -> tuple[list[Cost], Cost]:
    """What was spent and saved.

    Args:
        periods: days, the oldest first.
        prices: that were set, by model; they come before the list prices.
        by: one row for each day on which anything was sent or saved, the latest first; or for each model.

    Returns:
        The rows, and the total of all days.
    """
    if by == "day":
        rows = [_cost(day(period.start), [period], prices, start=period.start) for period in reversed(periods)]
    else:
        sent = [one.model for period in periods for one in period.sent]
        names = dict.fromkeys([*sent, *(one.model for period in periods for one in period.saved)])
        rows = [_cost(name, periods, prices, model=name) for name in names]
    return [row for row in rows if row.tokens or row.texts or row.saved_tokens], _cost("total", periods, prices)


def _cost(
    name: str, periods: Iterable[Period], prices: Mapping[str, float], *, model: str | None = None, start: float = 0.0
) -> Cost:
    cost = Cost(name=name, start=start)
    for period in periods:
        cost.add(period, prices, model)
    return cost


def day(unix: float) -> str:
    """The day of a Unix time, in UTC."""
    return time.strftime("%Y-%m-%d", time.gmtime(unix))


def usd(dollars: float) -> str:
    """Dollars as people read them: two digits that count below a cent, cents above."""
    if dollars == 0:
        return "$0.00"
    if dollars < 0.01:
        decimals = min(8, 1 - math.floor(math.log10(dollars)))
        return f"${dollars:.{decimals}f}"
    return f"${dollars:,.2f}"


def tokens_and_dollars(texts: int, tokens: float, dollars: float | None, model: str = "") -> str:
    """What something will cost, as words for a question; ``model``: whose price it is, where that may not be known."""
    price = f" (nobody has said what {model} costs)" if dollars is None else f", about {usd(dollars)}"
    return f"{texts:,} texts of about {tokens:,.0f} tokens{price}"
