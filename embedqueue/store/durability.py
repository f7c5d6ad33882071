"""What in the way Redis is set up may lose items that were durable a moment ago."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Danger:
    """One way to lose items.

    Attributes:
        about: "eviction", "persistence" or "replication".
        words: what may happen.
        advice: what to set.
    """

    about: str
    words: str
    advice: str


def dangers(info: Mapping[str, Any], min_replicas: int = 0) -> Iterator[Danger]:
    """Look for dangers in what Redis tells of itself.

    Args:
        info: the answer of INFO; what is not in it is no danger.
        min_replicas: how many replicas have to have what is enqueued.
    """
    policy = str(info.get("maxmemory_policy", ""))
    if policy.startswith("allkeys"):
        yield Danger("eviction", f"maxmemory-policy {policy} may evict the queue's keys", "maxmemory-policy noeviction")
    if not info.get("aof_enabled", 1):
        words = "the append-only file is off, so a crash of Redis loses what came after its last snapshot"
        yield Danger("persistence", words, "appendonly yes")
    replicas = int(info.get("connected_slaves", min_replicas))
    if replicas < min_replicas:
        words = f"{replicas} replicas are connected and min_replicas is {min_replicas}, so enqueue raises NotReplicated"
        yield Danger(
            "replication", words, "start the replicas (their log says why they are away), or lower min_replicas"
        )
