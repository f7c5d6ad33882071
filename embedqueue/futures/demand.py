"""What the futures' room tells the worker of its process. ``work.agenda`` is what listens."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class Waker(Protocol):
    """Whoever claims in this process, or asks others to. Nothing here does I/O or raises."""

    @property
    def works(self) -> bool:
        """Whether this process claims."""

    def enqueued(self, waiting: int) -> None:
        """So many items wait now."""

    def demanded(self, redis_keys: Iterable[str]) -> None:
        """Somebody waits for these items, which nobody has claimed."""

    def flush(self) -> None:
        """Somebody wants a drain now."""

    def refresh(self) -> None:
        """Something has changed in Redis."""
