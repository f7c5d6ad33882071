"""Vectors by text, as they stand in Redis for as long as ``cache_ttl`` says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .keys import Keys
from .scripts import Scripts


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
            For each digest the vector; b"": it is reserved for the caller now; or b"busy": another worker fills it.
        """
        keys = [self._prefix + digest for digest in digests]
        return list(self._call("take_cached", keys, owner, int(hold_seconds * 1000)))

    def put(self, vectors: Iterable[tuple[str, bytes]], ttl_seconds: float) -> None:
        """Put vectors into the cache, by digest, for ``ttl_seconds``."""
        pipeline = self._background.pipeline(transaction=False)
        for digest, vector in vectors:
            pipeline.set(self._prefix + digest, vector, px=int(ttl_seconds * 1000))
        pipeline.execute()

    def hold(self, digests: Iterable[str], hold_seconds: float) -> None:
        """Let reservations last for ``hold_seconds`` from now on; a vector that is there by now is left alone."""
        self._call("hold_cached", [self._prefix + digest for digest in digests], int(hold_seconds * 1000))

    def release(self, digests: Iterable[str]) -> None:
        """End reservations that will not be filled."""
        self.hold(digests, 0)
