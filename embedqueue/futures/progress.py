"""Counts what ends, for those who flush."""

from __future__ import annotations

from embedqueue.values.locks import Condition


class Progress:
    """A count to wait on. Thread-safe."""

    def __init__(self) -> None:
        self.finished = 0  # guarded by the condition
        self._changed = Condition()

    def count(self) -> None:
        """Something has ended, or waits again."""
        with self._changed:
            self.finished += 1
            self._changed.notify_all()

    def wait_beyond(self, seen: int, timeout: float) -> None:
        """Wait until something ends after ``finished`` was ``seen``, for ``timeout`` seconds at most."""
        with self._changed:
            self._changed.wait_for(lambda: self.finished != seen, timeout)
