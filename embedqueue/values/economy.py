"""The options of batch jobs, read and validated. The fields stand in :class:`embedqueue.values.options.Options`."""

from __future__ import annotations

import math
from typing import Any

from .errors import OptionTypeError, OptionValueError

#: Seconds that any of them may be at most: a year.
LONGEST_SECONDS = 366 * 86_400.0
#: Texts of one job at most, whoever the provider is: a result of more is too large for any worker.
MOST_TEXTS = 50_000


def read_poll(value: Any) -> tuple[float, float]:
    """Two numbers of seconds, as a pair or as a string such as ``"15, 600"``.

    Raises:
        OptionTypeError: it is neither.
        OptionValueError: the first is not positive, or greater than the second.
    """
    parts = value.strip().strip("()[]").split(",") if isinstance(value, str) else value
    try:
        first, longest = (_seconds(part) for part in parts)
    except (TypeError, ValueError):
        words = f"must be two numbers of seconds, the first and the longest time between two looks, not {value!r}"
        raise OptionTypeError("economy_poll", words) from None
    if not 0 < first <= longest <= LONGEST_SECONDS:
        raise OptionValueError("economy_poll", f"must be two positive numbers, the shorter first, not {value!r}")
    return first, longest


def _seconds(part: Any) -> float:
    if isinstance(part, bool) or not isinstance(part, int | float | str):
        raise TypeError
    return float(part)


def check_economy(options: Any) -> None:
    """Refuse what cannot work.

    Args:
        options: those of a queue, :class:`embedqueue.values.options.Options`.

    Raises:
        OptionTypeError, OptionValueError: it names the option.
    """
    for name in ("economy", "economy_promote"):
        if not isinstance(getattr(options, name), bool):
            raise OptionTypeError(name, f"must be True or False, not {getattr(options, name)!r}")
    for name in ("economy_after", "economy_deadline", "economy_lag"):
        value = getattr(options, name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise OptionTypeError(name, f"must be a number of seconds, not {value!r}")
        if not (math.isfinite(value) and 0 <= value <= LONGEST_SECONDS):
            raise OptionValueError(name, "must be from 0 to a year")
    for name in ("economy_min_texts", "economy_max_texts"):
        count = getattr(options, name)
        if isinstance(count, bool) or not isinstance(count, int):
            raise OptionTypeError(name, f"must be a whole number, not {count!r}")
        if not 1 <= count <= MOST_TEXTS:
            raise OptionValueError(name, f"must be from 1 to {MOST_TEXTS}")
    if options.economy_min_texts > options.economy_max_texts:
        raise OptionValueError("economy_min_texts", "must not be greater than economy_max_texts")
    if options.economy and options.economy_deadline >= options.economy_after:
        raise OptionValueError("economy_deadline", "must be less than economy_after: else a job has no time at all")
