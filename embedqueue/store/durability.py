"""What in the way Redis is set up may lose items that were durable a moment ago."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Danger:
    """One way to lose items.

    Attributes:
        about: "eviction" or "persistence".
        words: what may happen.
        advice: what to set.
    """

    about: str
    words: str
    advice: str


def dangers(info: Mapping[str, Any]) -> Iterator[Danger]:
    """Look for dangers in what Redis tells of itself.

    Args:
        info: the answer of INFO; what is not in it is no danger.
    """
    policy = str(info.get("maxmemory_policy", ""))
    if policy.startswith("allkeys"):
        yield Danger("eviction", f"maxmemory-policy {policy} may evict the queue's keys", "maxmemory-policy noeviction")
    if not info.get("aof_enabled", 1):
        words = "the append-only file is off, so a crash of Redis loses what came after its last snapshot"
        yield Danger("persistence", words, "appendonly yes")
