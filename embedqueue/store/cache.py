"""Vectors by text, as they stand in Redis for as long as ``cache_ttl`` says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .keys import Keys
from .scripts import Scripts

#: Reservations that one script renews: while it runs, Redis serves nobody else.
HOLD_AT_ONCE = 500


class CachedVectors:
    """Looks vectors up, reserves what is missing, keeps what is new. Thread-safe.

    Every method raises ``redis.RedisError`` where Redis does not answer or refuses. A digest stands for a text and for
    all else that decides its vector.

    Args:
        scripts: of the queue.
        keys: of the queue.
    """

    def __init__(self, scripts: Scripts, keys: Keys) -> None:
        self._call = scripts.call
        self._background = scripts.background
        self._prefix = keys.cache_prefix

    def take(self, digests: Sequence[str], owner: str, hold_seconds: float) -> list[bytes]:
        """Look vectors up in the cache, and reserve those that are missing.

        Args:
            digests: of the texts.
            owner: the name of the claim.
            hold_seconds: how long a reservation lasts, should its holder die.

        Returns:
            For each digest the vector; b"": it is reserved for the caller now; b"busy": another worker fills it; or
            b"paused": nobody does, and the caller may not either, because the queue is paused.
        """
        keys = [self._prefix + digest for digest in digests]
        return list(self._call("take_cached", keys, owner, int(hold_seconds * 1000)))

    def get(self, digests: Sequence[str]) -> list[bytes | None]:
        """Look vectors up that nobody reserves; None for each that is missing."""
        found: Any = self._background.mget([self._prefix + digest for digest in digests])
        return list(found)

    def put(self, vectors: Iterable[tuple[str, bytes]], ttl_seconds: float) -> None:
        """Put vectors into the cache, by digest, for ``ttl_seconds``."""
        pipeline = self._background.pipeline(transaction=False)
        for digest, vector in vectors:
            pipeline.set(self._prefix + digest, vector, px=int(ttl_seconds * 1000))
        pipeline.execute()

    def hold(self, owners: Mapping[str, str], hold_seconds: float) -> None:
        """Let reservations last for some time from now on. What is another's by now is left alone, and so is a vector.

        Args:
            owners: by digest, the name of the claim that has reserved it.
            hold_seconds: how long.
        """
        reserved = list(owners.items())
        for at in range(0, len(reserved), HOLD_AT_ONCE):
            part = reserved[at : at + HOLD_AT_ONCE]
            keys = [self._prefix + digest for digest, _ in part]
            self._call("hold_cached", keys, int(hold_seconds * 1000), *(owner for _, owner in part))

    def release(self, owners: Mapping[str, str]) -> None:
        """End reservations that will not be filled; ``owners`` as for :meth:`hold`."""
        self.hold(owners, 0)
