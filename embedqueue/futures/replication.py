"""What becomes of an enqueue that too few replicas have: its callers, a counter and the log are told."""

from __future__ import annotations

import threading

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
        vectors_missed: the same of vectors, on a cluster.
    """

    def __init__(self, options: Options, log: Log) -> None:
        self.missed = 0
        self._least = options.min_replicas or 0
        self._patience_seconds = options.replica_patience
        self._log = log
        self._missing = False
        self.vectors_missed = 0
        self._vectors_missing = False
        self._lock = threading.Lock()

    def note_vectors(self, replicas: int, items: int) -> None:
        """The same for vectors that a node of a cluster has, and that are acknowledged all the same. Thread-safe."""
        missing = replicas < self._least
        with self._lock:
            self.vectors_missed += items if missing else 0
            before, self._vectors_missing = self._vectors_missing, missing
        if missing and not before:
            self._log.warning(
                "embedqueue: %d replicas have a vector that was written %g s ago, and min_replicas is %d: it is "
                "acknowledged all the same, and a failover may lose it: then embedqueue verify --fix finds it missing",
                replicas,
                self._patience_seconds,
                self._least,
            )

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
