"""How long to rest after failures in a row."""

from __future__ import annotations


def backoff_seconds(failures: int, first: float, most: float) -> float:
    """Seconds to rest after so many failures in a row (at least 1): doubled each time, up to ``most``."""
    return min(most, first * 2.0 ** min(failures - 1, 30))
