"""Vectors by text, on a cluster: each entry stands in its own slot, so that the cache is spread over all nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from redis.exceptions import ResponseError

from embedqueue.store.cache import CachedVectors
from embedqueue.store.keys import Keys

from .line import Order, command, script
from .lines import LATE, Lines
from .scripts import ClusterScripts

#: Seconds for which entries are waited for.
CACHE_SECONDS = 2.0


class ClusterCache(CachedVectors):
    """The cache of a cluster. Thread-safe; see :class:`CachedVectors`.

    Entries on a node that does not answer count as missing, and are not kept: no text waits for a cache.

    Args:
        scripts: of the queue.
        keys: of the queue.
        lines: to all entries.
        prefix: of their names; it has no hash tag.
    """

    def __init__(self, scripts: ClusterScripts, keys: Keys, lines: Lines, prefix: str) -> None:
        super().__init__(scripts, keys)
        self._lines = lines
        self._prefix = prefix

    def take(self, digests: Sequence[str], owner: str, hold_seconds: float) -> list[bytes]:
        """See :meth:`CachedVectors.take`."""
        barred, ms = str(self._call("barred", (), owner)), str(int(hold_seconds * 1000))
        answers = self._run(script("take_one", self._prefix + digest, owner, ms, barred) for digest in digests)
        missing = b"paused" if barred == "1" else b""
        return [missing if answer is LATE else answer for answer in answers]

    def get(self, digests: Sequence[str]) -> list[bytes | None]:
        """See :meth:`CachedVectors.get`."""
        keys = [self._prefix + digest for digest in digests]
        return self._lines.all_of(keys, b"GET", seconds=CACHE_SECONDS)

    def put(self, vectors: Iterable[tuple[str, bytes]], ttl_seconds: float) -> None:
        """See :meth:`CachedVectors.put`."""
        ms = str(int(ttl_seconds * 1000))
        self._run(command(b"SET", self._prefix + digest, vector, "PX", ms) for digest, vector in vectors)

    def hold(self, owners: Mapping[str, str], hold_seconds: float) -> None:
        """See :meth:`CachedVectors.hold`."""
        ms = str(int(hold_seconds * 1000))
        self._run(script("hold_one", self._prefix + digest, ms, owner) for digest, owner in owners.items())

    def _run(self, orders: Iterable[Order]) -> list[bytes]:
        answers, _ = self._lines.run(list(orders), seconds=CACHE_SECONDS)
        for answer in answers:
            if isinstance(answer, ResponseError):
                raise answer
        return answers
