"""Counts what ends, for those who flush."""

from __future__ import annotations

from collections.abc import Callable

from embedqueue.values.locks import Condition


class Progress:
    """A count to wait on. Thread-safe.

    Args:
        check: called before each wait; raises where this thread must not wait.
    """

    def __init__(self, check: Callable[[], None] = lambda: None) -> None:
        self.finished = 0  # guarded by the condition
        self._check = check
        self._changed = Condition()

    def count(self) -> None:
        """Something has ended, or waits again."""
        with self._changed:
            self.finished += 1
            self._changed.notify_all()

    def wait_beyond(self, seen: int, timeout: float) -> None:
        """Wait until something ends after ``finished`` was ``seen``, for ``timeout`` seconds at most.

        Raises:
            RuntimeError: in an observer, see ``Observers.check_wait``.
        """
        self._check()
        with self._changed:
            self._changed.wait_for(lambda: self.finished != seen, timeout)
