"""What a million tokens cost, in US dollars: list prices of the synchronous calls, as of May 2026."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: By the model's name without what stands before its last slash.
LIST_PRICES: Final[Mapping[str, float]] = {
    "gemini-embedding-001": 0.15,
    "gemini-embedding-2": 0.20,
    "text-embedding-3-small": 0.02,
    "text-embedding-3-large": 0.13,
    "text-embedding-ada-002": 0.10,
    "wordllama": 0.0,  # runs in this process
}


def price_of(model: str, prices: Mapping[str, float]) -> float | None:
    """Dollars for a million tokens, or None where nobody has said.

    Args:
        model: as its users write it.
        prices: what was set, by a model's full or short name; it comes before the list prices.
    """
    short = model.rpartition("/")[2]
    for known in (prices, LIST_PRICES):
        for name in (model, short):
            if name in known:
                return known[name]
    return None


def check_prices(prices: Mapping[str, float]) -> dict[str, float]:
    """A copy of what was set.

    Raises:
        TypeError: not a number by name.
        ValueError: a negative one.
    """
    for model, price in prices.items():
        if not isinstance(model, str) or isinstance(price, bool) or not isinstance(price, int | float):
            raise TypeError(f"prices must be dollars for a million tokens by model, not {model!r}: {price!r}")
        if not 0 <= price < float("inf"):
            raise ValueError(f"the price of {model} must not be negative: {price!r}")
    return dict(prices)
