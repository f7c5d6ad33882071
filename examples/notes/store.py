"""Notes that live in Redis alone: their texts stand beside their vectors."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any


class RedisNotes:
    """Notes in a Redis.

    Args:
        client: of it.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def write(self, text: str, prefix: str = "note") -> str:
        """Write a note, the latest of all; its key."""
        key = f"{prefix}:{secrets.token_hex(8)}"
        self._client.pipeline().hset(key, "text", text).lpush("notes", key).execute()
        return key

    def latest(self, count: int) -> list[str]:
        """Keys of so many, the latest first."""
        return [key.decode() for key in self._client.lrange("notes", 0, count - 1)]

    def read(self, keys: Sequence[str]) -> dict[str, str]:
        """The texts of notes by key."""
        pipe = self._client.pipeline(transaction=False)
        for key in keys:
            pipe.hget(key, "text")
        return {key: text.decode() for key, text in zip(keys, pipe.execute(), strict=True) if text is not None}
