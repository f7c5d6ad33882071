"""How much may be sent to a provider: what a user sets, what is taken for a call, and what is left."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

from .errors import OptionTypeError, OptionValueError

#: The name of each limit in Redis, and its field in :class:`Limits`.
LIMIT_NAMES = {
    "requests": "requests_per_minute",
    "texts": "texts_per_minute",
    "tokens": "tokens_per_minute",
    "day": "requests_per_day",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """How much all workers together may send. None of a kind: no such limit.

    Args:
        requests_per_minute: API calls in any 60 seconds, tries, probes and canaries included.
        texts_per_minute: texts in these. Gemini counts each text of a call as a request.
        tokens_per_minute: tokens in these: estimated when a call is made, and put right by its answer where that tells.
        requests_per_day: API calls in any 24 hours.
        name: of limits that queues of several namespaces share, on one Redis; None: they are the namespace's own.

    Raises:
        TypeError: a value of the wrong type.
        ValueError: a limit below 1, an empty name, or no limit at all.
    """

    requests_per_minute: int | None = None
    texts_per_minute: int | None = None
    tokens_per_minute: int | None = None
    requests_per_day: int | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        for name in LIMIT_NAMES.values():
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
                raise OptionTypeError("limits", f"must have a whole number of {name}, not {value!r}")
            if value is not None and value < 1:
                raise OptionValueError("limits", f"must allow at least 1 of {name}")
        if self.name is not None and not isinstance(self.name, str):
            raise OptionTypeError("limits", f"must have a str as name, not {self.name!r}")
        if self.name is not None and (not self.name or set("{} ") & set(self.name)):
            raise OptionValueError("limits", "must have a name without blanks and braces, and not an empty one")
        if not self.by_name:
            raise OptionValueError("limits", f"must set one of {', '.join(LIMIT_NAMES.values())}")

    @property
    def by_name(self) -> dict[str, int]:
        """Those that are set, by their names in Redis."""
        found = {short: getattr(self, name) for short, name in LIMIT_NAMES.items()}
        return {short: value for short, value in found.items() if value is not None}


def read_limits(words: str) -> Limits:
    """Limits as they stand in an environment variable: ``requests_per_minute=600, tokens_per_minute=1000000``.

    Args:
        words: the fields of :class:`Limits`, each with ``=`` and its value, between commas or blanks.

    Raises:
        TypeError, ValueError: they cannot work.
    """
    values: dict[str, int | str] = {}
    known = [field.name for field in fields(Limits)]
    for word in words.replace(",", " ").split():
        name, _, value = word.partition("=")
        if name not in known or not value:
            raise OptionValueError("limits", f"must be NAME=NUMBER, ... with names of {', '.join(known)}, not {word!r}")
        digits = value.replace("_", "")
        values[name] = value if name == "name" else int(digits) if digits.isdecimal() else value
    return Limits(**values)  # type: ignore[arg-type]


class Cost(NamedTuple):
    """What is taken from the limits for something to be sent.

    Attributes:
        requests: API calls.
        texts: distinct texts in them.
        tokens: estimated.
    """

    requests: int = 0
    texts: int = 0
    tokens: int = 0

    def plus(self, other: Cost) -> Cost:
        """Both together."""
        return Cost(*(a + b for a, b in zip(self, other, strict=True)))

    def without(self, other: Cost) -> Cost:
        """What is more here than there, of each kind."""
        return Cost(*(max(0, a - b) for a, b in zip(self, other, strict=True)))


class Paid(NamedTuple):
    """A cost that was taken from the limits.

    Attributes:
        at: when, Unix time by the server's clock; 0 where no limit counted it.
        cost: how much.
    """

    at: float
    cost: Cost

    @property
    def words(self) -> str:
        """As the scripts take it."""
        return f"{self.at:.6f} {self.cost.requests} {self.cost.texts} {self.cost.tokens}"


@dataclass(frozen=True, slots=True)
class LimitLeft:
    """How much of a limit is left.

    Attributes:
        name: the field of :class:`Limits`, such as "requests_per_minute".
        limit: as set, or as the provider has told.
        left: how much of it may still be sent within its minute or day; below 0 it is owed.
        seconds: until the next full call may go; 0 for now.
    """

    name: str
    limit: int
    left: int
    seconds: float

    @property
    def words(self) -> str:
        """A few words for people."""
        soon = (
            "now"
            if self.seconds < 0.05
            else f"in {self.seconds:.1f} s"
            if self.seconds < 10
            else f"in {self.seconds:.0f} s"
        )
        return f"{self.name}: {self.left:,} of {self.limit:,} left, the next full call may go {soon}"
