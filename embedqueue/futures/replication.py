"""What becomes of an enqueue that too few replicas have: its callers, a counter and the log are told."""

from __future__ import annotations

from embedqueue.values.errors import NotReplicated
from embedqueue.values.log import Log
from embedqueue.values.options import Options


class Replication:
    """Watches whether replicas have what is enqueued. One writer at a time, and those who write aside.

    Args:
        options: of the queue.
        log: told once when replicas are missing, until they are there again.

    Attributes:
        missed: items that were queued, and that too few replicas had in time.
    """

    def __init__(self, options: Options, log: Log) -> None:
        self.missed = 0
        self._least = options.min_replicas or 0
        self._patience_seconds = options.replica_patience
        self._log = log
        self._missing = False

    def error(self, replicas: int) -> NotReplicated | None:
        """What one caller gets whose items so many replicas have, an object of its own; None where these are enough."""
        return NotReplicated(self._least, replicas) if replicas < self._least else None

    def note(self, replicas: int, items: int) -> None:
        """Count and tell, once for each write: of so many items, which so many replicas have."""
        missing, before = replicas < self._least, self._missing
        self._missing = missing
        if missing:
            self.missed += items
        if missing and not before:
            self._log.warning(
                "embedqueue: %d replicas have what was enqueued after %g s, and min_replicas is %d: enqueue raises "
                "NotReplicated until they are back; what it takes in is queued, but a failover may lose it",
                replicas,
                self._patience_seconds,
                self._least,
            )
        elif before and not missing:
            self._log.info("embedqueue: the replicas are back")
