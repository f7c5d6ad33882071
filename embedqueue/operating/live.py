"""A queue's pulse as seen from outside: what its notices tell of the last seconds, and who holds what."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

from redis.exceptions import NoPermissionError

from embedqueue.futures.notices import named_keys, named_reason
from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.values.stats import LiveWorker, QueueStats

#: Seconds over which rates are taken.
RATE_SECONDS = 10.0
#: Seconds for which an error is shown, and for which a look is remembered to compare the next one with.
ERROR_SECONDS = 60.0
#: Notices that one look reads at most; more than come in a second. The first look reads less of what was before it.
NOTICES, FIRST_NOTICES = 5000, 500
#: Items in flight and in batch jobs up to which one asks who holds them.
HOLDERS = 5000


@dataclass(frozen=True, slots=True)
class Pulse:
    """One look.

    Attributes:
        stats: how things stand.
        now: Unix time, by the server's clock.
        embedded_per_second: over the last ten seconds.
        failed_per_second: the same for dead letters.
        change_per_second: by which the waiting grow, since an earlier look; 0 where there was none within a minute.
        enqueued_per_second: that have come in since that look, but for those whose place a newer text took; None where
            there was none.
        workers: those that work.
        held: items that each worker holds, by its name; also of workers that are gone.
        errors: what failed in the last minute, and how often.
    """

    stats: QueueStats
    now: float
    embedded_per_second: float
    failed_per_second: float
    change_per_second: float
    enqueued_per_second: float | None
    workers: list[LiveWorker]
    held: dict[str, int]
    errors: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Look:
    """What a later look is compared with."""

    at: float
    waiting: int
    claimed: int


class Watch:
    """Takes the pulse, look by look. Reads only. One thread at a time may look.

    Args:
        queue: to look at. It is not started, and its own connections are used.
    """

    def __init__(self, queue: EmbeddingBatchQueue) -> None:
        store = queue._engine.store
        self._queue = queue
        self._client: Any = store.client
        self._keys = store.keys
        self._after: bytes | None = None
        self._known_from = 0.0  # all notices from then on were read
        self._done: deque[tuple[float, int]] = deque()
        self._failed: deque[tuple[float, int]] = deque()
        self._errors: deque[tuple[float, str]] = deque()
        self._looks: deque[_Look] = deque()

    def look(self) -> Pulse:
        """How the queue does now. Two round trips, one more where somebody works, and one where something is in flight.

        Raises:
            redis.RedisError: Redis cannot be reached.
        """
        stats = self._queue.stats()
        now = self._read()
        seconds = min(RATE_SECONDS, max(now - self._known_from, 0.5))
        before = self._compared(_Look(now, stats.waiting, stats.in_flight + stats.outsourced))
        change, enqueued = 0.0, None
        if before is not None:
            passed = max(now - before.at, 1e-3)
            change = (stats.waiting - before.waiting) / passed
            left = self._count(self._done, before.at) + self._count(self._failed, before.at)
            claimed = stats.in_flight + stats.outsourced - before.claimed
            enqueued = max(0.0, change + (claimed + left) / passed)
        return Pulse(
            stats=stats,
            now=now,
            embedded_per_second=self._count(self._done, now - seconds) / seconds,
            failed_per_second=self._count(self._failed, now - seconds) / seconds,
            change_per_second=change,
            enqueued_per_second=enqueued,
            workers=self._queue.workers() if stats.workers else [],
            held=self._holders() if 0 < stats.in_flight <= HOLDERS - stats.outsourced else {},
            errors=dict(Counter(words for _, words in self._errors)),
        )

    def _compared(self, look: _Look) -> _Look | None:
        """The look that this one is compared with: the last that is ten seconds old, or else the first after it."""
        looks = self._looks
        while looks and (looks[0].at < look.at - ERROR_SECONDS or looks[0].at > look.at):
            looks.popleft()  # too old; or the server's clock was set back
        while len(looks) > 1 and looks[1].at <= look.at - RATE_SECONDS:
            looks.popleft()
        before = looks[0] if looks else None
        looks.append(look)
        return before

    @staticmethod
    def _count(events: deque[tuple[float, int]], since: float) -> int:
        return sum(count for at, count in events if at > since)

    def _read(self) -> float:
        """Read the notices since the last look, or those of the last while; the time, by the server's clock."""
        count, least = (FIRST_NOTICES, b"-") if self._after is None else (NOTICES, b"(" + self._after)
        with self._client.pipeline(transaction=False) as pipeline:
            pipeline.time()
            pipeline.xrevrange(self._keys.events, min=least, count=count)
            (whole, micros), entries = pipeline.execute()
        now = float(whole) + float(micros) / 1e6
        if len(entries) == count:
            self._known_from = _time_of(entries[-1][0])
        for name, fields in reversed(entries):
            self._after = name
            at = _time_of(name)
            if at >= now - ERROR_SECONDS:
                self._note(at, fields.get(b"kind"), fields.get(b"body", b"").decode("utf-8", "replace"))
        for events in (self._done, self._failed, self._errors):
            while events and events[0][0] < now - ERROR_SECONDS:
                events.popleft()
        self._after = self._after or b"0-0"
        return now

    def _note(self, at: float, kind: bytes | None, body: str) -> None:
        if kind == b"done":
            self._done.append((at, len(named_keys(body))))
        elif kind == b"failed":
            self._failed.append((at, len(named_keys(body))))
        elif kind == b"unserved":
            self._errors.append((at, named_reason(body)))

    def _holders(self) -> dict[str, int]:
        """Items in flight by worker; who has given an item back is no longer named in its claim."""
        try:
            values = self._client.hvals(self._keys.claims)
        except NoPermissionError:  # an ACL of before: who holds what is not known
            return {}
        claims = (claim.split() for claim in values)
        owned = (claim[2] for claim in claims if len(claim) > 2)
        owners = (owner.partition(b":")[0] for owner in owned if not owner.startswith(b"job:"))
        return dict(Counter(owner.decode("utf-8", "replace") for owner in owners))


def _time_of(name: bytes) -> float:
    """When a notice was told, by its name in the stream."""
    return int(name.partition(b"-")[0]) / 1000
