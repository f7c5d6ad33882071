"""What a queue may spend, and what models cost, as its user sets them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from .errors import OptionTypeError, OptionValueError

#: No budget and no price is larger, in dollars: beyond it, millionths would be lost.
MOST_DOLLARS = 1e9
#: The smallest budget: a millionth.
LEAST_DOLLARS = 1e-6


@dataclass(frozen=True, slots=True)
class Budget:
    """How much a queue may spend on embedding. It parks before it would spend more, and goes on by itself.

    All processes of a namespace count together. Days and months are of UTC, by the clock of Redis.

    Args:
        usd_per_day: dollars; None for no such limit.
        usd_per_month: dollars; None for no such limit.
        usd_per_million_tokens: what a million tokens cost; None: what ``prices`` or the list prices say.

    Raises:
        TypeError: something else than numbers.
        ValueError: a limit that is not above 0, a price below 0, or no limit at all.
    """

    usd_per_day: float | None = None
    usd_per_month: float | None = None
    usd_per_million_tokens: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        for one in fields(self):
            value = getattr(self, one.name)
            if value is not None:
                least = 0.0 if one.name == "usd_per_million_tokens" else LEAST_DOLLARS
                object.__setattr__(self, one.name, _dollars("budget", one.name, value, least=least))
        if self.usd_per_day is None and self.usd_per_month is None:
            raise OptionValueError("budget", "needs usd_per_day or usd_per_month")

    @classmethod
    def read(cls, value: Any) -> Self | None:
        """A budget as settings hold it: one, None, a dictionary, or ``usd_per_day=5,usd_per_month=100``.

        Raises:
            OptionTypeError, OptionValueError: something else.
        """
        if value is None or isinstance(value, cls):
            return value
        given = dict(_pairs("budget", value))
        known = [one.name for one in fields(cls)]
        for name in given:
            if name not in known:
                raise OptionValueError("budget", f"has {', '.join(known)}, not {name!r}")
        return cls(**given) if given else None


def _dollars(option: str, what: str, value: object, *, least: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise OptionTypeError(option, f"{what} must be a number of dollars, not {value!r}")
    if value < 0:
        raise OptionValueError(option, f"{what} must not be negative: {value!r}")
    if not least <= value <= MOST_DOLLARS:  # NaN is neither
        raise OptionValueError(option, f"{what} must be from {least:g} to {MOST_DOLLARS:g} dollars, not {value!r}")
    return float(value)


def read_prices(value: Any) -> dict[str, float]:
    """Dollars for a million tokens by model, from a dictionary or from ``my-model=0.05,other=0.1``.

    Raises:
        OptionTypeError: not a number by name.
        OptionValueError: a negative one.
    """
    return {
        model: _dollars("prices", f"the price of {model}", price, least=0.0)
        for model, price in _pairs("prices", {} if value is None else value)
    }


def _pairs(name: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise OptionTypeError(name, f"must have names for its keys, not {list(value)!r}")
        return list(value.items())
    if not isinstance(value, str):
        raise OptionTypeError(name, f"must be a dictionary or NAME=DOLLARS,..., not {value!r}")
    found: list[tuple[str, Any]] = []
    for part in filter(None, (part.strip() for part in value.split(","))):
        key, sign, number = part.rpartition("=")
        try:
            found.append((key.strip(), float(number)))
        except ValueError:
            sign = ""
        if not sign or not key.strip():
            raise OptionValueError(name, f"must be NAME=DOLLARS, and more of these after commas, not {part!r}")
    return found
