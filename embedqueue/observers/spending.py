"""What was sent and what was saved in a minute or a day, by model, and the names under which it stands in Redis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

#: Longest name of a model that is kept.
NAME_CHARS = 100
#: What an earlier release has written: estimated tokens by model, and what was saved, of whichever model.
_EARLIER_TOKENS: Final = "tokens "
_EARLIER_SAVED: Final = ("saved_texts", "saved_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What of one model was sent on one way.

    Attributes:
        model: as its users write it.
        lane: "live": in calls that are answered at once; "batch": in the provider's batch jobs; "query": to search.
        texts: in answered calls.
        measured: tokens that the provider says it has charged.
        estimated: tokens of the calls of which it has not said.
    """

    model: str
    lane: str = "live"
    texts: int = 0
    measured: int = 0
    estimated: int = 0

    @property
    def tokens(self) -> int:
        """Both together: what is paid for."""
        return self.measured + self.estimated


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """What of one model need not be sent.

    Attributes:
        model: as its users write it; "" where that is not known.
        by: "duplicate", "cache" or "unchanged", as in a ``SavingReport``; "" where that is not known.
        texts: how many.
        tokens: of these, estimated.
    """

    model: str
    by: str
    texts: int = 0
    tokens: int = 0


def figures_of_sent(model: str, lane: str, texts: int, tokens: int, *, measured: bool) -> dict[str, int]:
    """What is to be added for a call: numbers by name."""
    name = f"{lane} {model[:NAME_CHARS]}"
    return {f"sent:{name}": texts, f"{'measured' if measured else 'estimated'}:{name}": tokens}


def figures_of_saved(model: str, by: str, texts: int, tokens: int) -> dict[str, int]:
    """What is to be added for texts that need not be sent: numbers by name."""
    name = f"{by} {model[:NAME_CHARS]}"
    return {f"saved:{name}": texts, f"saved_tokens:{name}": tokens}


def sent_of(figures: Mapping[str, int]) -> tuple[Sent, ...]:
    """What the numbers of a period say was sent."""
    found: dict[tuple[str, str], dict[str, int]] = {}
    for kind, lane, model, number in _parted(figures):
        if kind in ("sent", "measured", "estimated"):
            found.setdefault((model, lane), {})["texts" if kind == "sent" else kind] = number
    for name, number in figures.items():
        if name.startswith(_EARLIER_TOKENS):
            one = found.setdefault((name.removeprefix(_EARLIER_TOKENS), "live"), {})
            one["estimated"] = one.get("estimated", 0) + number
    return tuple(Sent(model=model, lane=lane, **numbers) for (model, lane), numbers in found.items())


def saved_of(figures: Mapping[str, int]) -> tuple[Saved, ...]:
    """What the numbers of a period say was saved."""
    found: dict[tuple[str, str], dict[str, int]] = {}
    for kind, by, model, number in _parted(figures):
        if kind in ("saved", "saved_tokens"):
            found.setdefault((model, by), {})["texts" if kind == "saved" else "tokens"] = number
    texts, tokens = (figures.get(name, 0) for name in _EARLIER_SAVED)
    if texts or tokens:
        found["", ""] = {"texts": texts, "tokens": tokens}
    return tuple(Saved(model=model, by=by, **numbers) for (model, by), numbers in found.items())


def _parted(figures: Mapping[str, int]) -> Iterator[tuple[str, str, str, int]]:
    """Names of the form "KIND:WORD MODEL" in parts, with their numbers."""
    for name, number in figures.items():
        kind, colon, rest = name.partition(":")
        word, blank, model = rest.partition(" ")
        if colon and blank:
            yield kind, word, model, number
