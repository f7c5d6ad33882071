"""A queue's pulse as seen from outside: what its notices tell of the last seconds, and who holds what."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

import redis

from embedqueue.futures.notices import named_keys, named_reason
from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.store.keys import Keys
from embedqueue.values.stats import LiveWorker, QueueStats

#: Seconds over which rates are taken.
RATE_SECONDS = 10.0
#: Seconds for which an error is shown.
ERROR_SECONDS = 60.0
#: Notices that one look reads at most; more than come in a second.
NOTICES = 5000
#: Items in flight up to which one asks who holds them.
HOLDERS = 5000


@dataclass(frozen=True, slots=True)
class Pulse:
    """One look.

    Attributes:
        stats: how things stand.
        embedded_per_second: over the last ten seconds.
        failed_per_second: the same for dead letters.
        change_per_second: by which the waiting grow.
        workers: those that work.
        held: items that each worker holds, by its name; also of workers that are gone.
        errors: what failed in the last minute, and how often.
    """

    stats: QueueStats
    embedded_per_second: float
    failed_per_second: float
    change_per_second: float
    workers: list[LiveWorker]
    held: dict[str, int]
    errors: dict[str, int]


class Watch:
    """Takes the pulse, look by look. Reads only.

    Args:
        queue: to look at.
        client: of the same Redis, with bytes for replies.
        namespace: of the queue.
    """

    def __init__(self, queue: EmbeddingBatchQueue, client: redis.Redis, namespace: str) -> None:
        self._queue = queue
        self._client: Any = client
        self._keys = Keys(namespace)
        self._after: bytes | None = None
        self._began_mono = time.monotonic()
        self._done: deque[tuple[float, int]] = deque()
        self._failed: deque[tuple[float, int]] = deque()
        self._errors: deque[tuple[float, str]] = deque()
        self._before: tuple[float, int] | None = None

    def look(self) -> Pulse:
        """How the queue does now.

        Raises:
            redis.RedisError: Redis cannot be reached.
        """
        stats = self._queue.stats()
        now_mono = time.monotonic()
        self._read(now_mono)
        for events, seconds in (
            (self._done, RATE_SECONDS),
            (self._failed, RATE_SECONDS),
            (self._errors, ERROR_SECONDS),
        ):
            while events and events[0][0] < now_mono - seconds:
                events.popleft()
        seconds = min(RATE_SECONDS, max(now_mono - self._began_mono, 0.5))
        change = 0.0
        if self._before is not None:
            change = (stats.waiting - self._before[1]) / max(now_mono - self._before[0], 1e-3)
        self._before = now_mono, stats.waiting
        return Pulse(
            stats=stats,
            embedded_per_second=sum(count for _, count in self._done) / seconds,
            failed_per_second=sum(count for _, count in self._failed) / seconds,
            change_per_second=change,
            workers=self._queue.workers() if stats.workers else [],
            held=self._holders() if stats.in_flight <= HOLDERS else {},
            errors=dict(Counter(words for _, words in self._errors)),
        )

    def _read(self, now_mono: float) -> None:
        """Notices since the last look; before the first one, only where the stream ends."""
        if self._after is None:
            last = self._client.xrevrange(self._keys.events, count=1)
            self._after = last[0][0] if last else b"0-0"
            return
        entries = self._client.xrange(self._keys.events, min=b"(" + self._after, count=NOTICES)
        for name, fields in entries:
            self._after = name
            kind, body = fields.get(b"kind"), fields.get(b"body", b"").decode("utf-8", "replace")
            if kind == b"done":
                self._done.append((now_mono, len(named_keys(body))))
            elif kind == b"failed":
                self._failed.append((now_mono, len(named_keys(body))))
            elif kind == b"unserved":
                self._errors.append((now_mono, named_reason(body)))

    def _holders(self) -> dict[str, int]:
        """Items in flight by worker; who has given an item back is no longer named in its claim."""
        claims = (claim.split() for claim in self._client.hvals(self._keys.claims))
        return dict(Counter(claim[2].partition(b":")[0].decode() for claim in claims if len(claim) > 2))
