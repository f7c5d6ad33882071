"""The names of a queue's keys in Redis."""

from __future__ import annotations


class Keys:
    """The names of a queue's keys, in the order in which every script declares them."""

    def __init__(self, namespace: str) -> None:
        self.pending = f"{namespace}:pending"
        self.inflight = f"{namespace}:inflight"
        self.latest = f"{namespace}:latest"
        self.claims = f"{namespace}:claims"
        self.dead = f"{namespace}:dead"
        self.dead_info = f"{namespace}:dead:info"
        self.events = f"{namespace}:events"
        self.pause = f"{namespace}:pause"
        self.pause_level = f"{namespace}:pause:level"
        self.pause_probe = f"{namespace}:pause:probe"
        self.pause_ours = f"{namespace}:pause:ours"
        self.cache_prefix = f"{namespace}:cache:"
        self.history_prefix = f"{namespace}:history:"
        self.pauses = (self.pause, self.pause_level, self.pause_probe, self.pause_ours)
        self.all = (
            self.pending, self.inflight, self.latest, self.claims, self.dead,
            self.dead_info, self.events, *self.pauses,
        )  # fmt: skip
