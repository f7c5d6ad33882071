"""Vectors of another space in whose place ours were written: two queues may write to one field."""

from __future__ import annotations

import threading

from embedqueue.values.log import Log
from embedqueue.values.options import Options


class Replaced:
    """Counts the vectors of other spaces that ours have replaced. Thread-safe.

    Args:
        options: of the queue.
        log: told of the first.

    Attributes:
        count: how many there were.
    """

    def __init__(self, options: Options, log: Log) -> None:
        self.count = 0
        self._options = options
        self._log = log
        self._lock = threading.Lock()

    def __call__(self, other: str, ours: str) -> None:
        """A vector of another space was there, and one of ours is now."""
        with self._lock:
            self.count += 1
            first = self.count == 1
        if first:
            self._log.warning(
                "embedqueue: a vector of %s was written in place of one of %s. If nobody has changed model, dimensions "
                "or role, another queue writes to the field %s as well: give each its own, for such vectors cannot be "
                "compared. stats().replaced counts them; this is said once",
                ours,
                other,
                self._options.embedding_field,
            )
