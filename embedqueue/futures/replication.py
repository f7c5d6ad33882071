"""What becomes of an enqueue that too few replicas have: its callers, a counter and the log are told."""

from __future__ import annotations

from embedqueue.store.records import Taken
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

    def error(self, taken: Taken) -> NotReplicated | None:
        """What one caller gets of whose items this write was, an object of its own; None where replicas have them."""
        return NotReplicated(self._least, taken.replicas or 0) if self._lacks(taken) else None

    def note(self, taken: Taken, items: int) -> None:
        """Count and tell, once for each write of so many items."""
        missing, before = self._lacks(taken), self._missing
        self._missing = missing
        if missing:
            self.missed += items
        if missing and not before:
            self._log.warning(
                "embedqueue: %d replicas have what was enqueued after %g s, and min_replicas is %d: enqueue raises "
                "NotReplicated until they are back; what it takes in is queued, but a failover may lose it",
                taken.replicas,
                self._patience_seconds,
                self._least,
            )
        elif before and not missing:
            self._log.info("embedqueue: the replicas are back")

    def _lacks(self, taken: Taken) -> bool:
        return taken.replicas is not None and taken.replicas < self._least
