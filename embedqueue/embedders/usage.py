"""The tokens that a provider says it has charged: found in its answer, kept for whoever has asked in this thread."""

from __future__ import annotations

import threading
from typing import Any

#: More tokens than any call can hold: what is beyond says nothing.
MOST_TOKENS = 10**12


class Usage:
    """What calls of each thread were charged. Thread-safe: no thread sees what another one was charged."""

    def __init__(self) -> None:
        self._local = threading.local()

    def add(self, tokens: int | None) -> None:
        """A call of this thread was charged so many tokens; None: nobody has said how many."""
        if tokens is not None:
            self._local.tokens = getattr(self._local, "tokens", 0) + tokens

    def take(self) -> int | None:
        """The tokens since this thread asked last; None where nobody has said how many."""
        tokens: int | None = self._local.__dict__.pop("tokens", None)
        return tokens


def charged(usage: Any, *names: str) -> int | None:
    """The tokens that a part of an answer tells.

    Args:
        usage: the part, whatever it is; some servers leave it out.
        names: under which they may stand; the first that holds a whole number above 0 counts, for servers that do not
            count say 0.
    """
    if isinstance(usage, dict):
        for name in names:
            tokens = whole(usage.get(name))
            if tokens:
                return tokens
    return None


def whole(tokens: Any) -> int | None:
    """A number of tokens that can be one; else None."""
    fits = isinstance(tokens, int) and not isinstance(tokens, bool) and 0 <= tokens <= MOST_TOKENS
    return tokens if fits else None
