"""What a look at one thing brought."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """What a look at one thing brought.

    Attributes:
        level: "ok", "warning" (it works, and may hurt some day) or "problem" (it does not work).
        about: the thing.
        words: a sentence; for all but "ok" it says what to do.
    """

    level: Literal["ok", "warning", "problem"]
    about: str
    words: str
