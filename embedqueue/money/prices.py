"""What a million tokens cost, in US dollars. The only place where prices stand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from embedqueue.values.errors import OptionValueError
from embedqueue.values.options import Options
from embedqueue.values.provenance import SUFFIXES, model_name


class Price(NamedTuple):
    """A list price.

    Attributes:
        dollars: for a million tokens, in calls that are answered at once.
        date: until when it is known to have held, as YYYY-MM.
        source: who says so.
    """

    dollars: float
    date: str
    source: str


_GOOGLE, _OPENAI, _VOYAGE = "ai.google.dev/gemini-api/docs/pricing", "openai.com/api/pricing", "docs.voyageai.com"
#: By the model's name as ``values.provenance.model_name`` tells it, with what a router has put behind it.
LIST_PRICES: Final[Mapping[str, Price]] = {
    "gemini-embedding-001": Price(0.15, "2026-11", _GOOGLE),
    "gemini-embedding-2": Price(0.20, "2026-11", _GOOGLE),
    "gemini-embedding-2:batch": Price(0.10, "2026-11", "openrouter.ai/models"),
    "text-embedding-3-small": Price(0.02, "2026-11", _OPENAI),
    "text-embedding-3-large": Price(0.13, "2026-11", _OPENAI),
    "text-embedding-ada-002": Price(0.10, "2026-11", _OPENAI),
    "voyage-4-large": Price(0.12, "2026-11", _VOYAGE),
    "voyage-4": Price(0.06, "2026-11", _VOYAGE),
    "voyage-4-lite": Price(0.02, "2026-11", _VOYAGE),
    "wordllama": Price(0.0, "2026-11", "it runs in this process"),
}


def price_of(model: str, prices: Mapping[str, float] | None = None) -> float | None:
    """Dollars for a million tokens, or None where nobody has said: that is not nothing.

    Args:
        model: as its users write it.
        prices: what was set, by a model's full or short name; it comes before the list prices.
    """
    sold = model_name(model) + next((suffix for suffix in SUFFIXES if model.strip().endswith(suffix)), "")
    for name in (model, sold, model.rpartition("/")[2]):
        if prices and name in prices:
            return prices[name]
    listed = LIST_PRICES.get(sold)
    return None if listed is None else listed.dollars


#: What is paid in batch jobs, as a part of the list price, where it is no half: by how a model's short name begins.
BATCH_PARTS: Final[Mapping[str, float]] = {"voyage-": 2 / 3}


def batch_part(model: str) -> float:
    """What batch jobs cost, as a part of the price of calls. A price of batch jobs themselves is no part less."""
    if model.strip().endswith(":batch"):
        return 1.0
    name = model_name(model)
    return next((part for start, part in BATCH_PARTS.items() if name.startswith(start)), 0.5)


def dollars_of(tokens: float, price: float | None) -> float | None:
    """What tokens cost at a price for a million of them; None where that is not known."""
    return None if price is None else tokens * price / 1e6


def read_price(pair: str) -> tuple[str, float]:
    """An option of a command: ``MODEL=DOLLARS``.

    Raises:
        ValueError: with a sentence.
    """
    model, _, dollars = pair.rpartition("=")
    try:
        if model:
            return model.strip(), float(dollars)
    except ValueError:
        pass
    raise ValueError(f"--price takes MODEL=DOLLARS, such as my-model=0.05, not {pair!r}")


def price_by(options: Options) -> float | None:
    """Dollars for a million tokens of a queue's model, by its budget, its prices or the list; None where none says."""
    if options.budget is not None and options.budget.usd_per_million_tokens is not None:
        return options.budget.usd_per_million_tokens
    return price_of(options.model, options.prices)


def budget_price(options: Options) -> float:
    """The price by which a queue with a budget counts.

    Raises:
        OptionValueError: nobody has said what its model costs.
    """
    price = price_by(options)
    if price is None:
        raise OptionValueError(
            "budget", f"needs the price of {options.model}: give it usd_per_million_tokens, or set prices"
        )
    return price
