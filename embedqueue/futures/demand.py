"""What the parts around futures tell the worker of their process. ``work.agenda.Agenda`` is what listens.

With this protocol, futures need not know how work is done: ``work`` imports ``futures``, and not the other way round.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class Waker(Protocol):
    """Notes what is wanted of the worker, and wakes it if need be. Its methods do no I/O and raise nothing."""

    @property
    def works(self) -> bool:
        """Whether this process claims; else it can only ask others to."""

    def enqueuing(self) -> None:
        """This process is about to enqueue."""

    def enqueued(self, waiting: int, within: float | None = None) -> None:
        """This process has enqueued; ``waiting`` items wait in Redis now.

        Args:
            waiting: how many.
            within: seconds in which one of those that came is to be embedded; None where all may wait as long as any.
        """

    def demanded(self, redis_keys: Iterable[str]) -> None:
        """Somebody waits for these items, which nobody has claimed."""

    def flush(self) -> None:
        """Somebody asks for a drain."""

    def refresh(self) -> None:
        """Something has changed in Redis: read how things stand."""
