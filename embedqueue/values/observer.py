"""What a queue tells those who watch it: metrics, tracing, a dashboard, a user's own functions.

An :class:`Observer` is told after something has happened, in the thread in which it happened, while no lock is held.
Whatever it raises is logged once and goes no further. Nothing that is told quotes a user's text, except for a dead
letter, which is shown whole.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import redis

from .errors import Cause
from .stats import DeadLetter

#: How a call ended: all of its vectors came; some of them cannot be used; it may work later; a text will never work;
#: it was too large, and is cut; nothing works until somebody acts.
Outcome = Literal["ok", "partial", "transient", "rejected", "too_large", "configuration"]
#: On which way texts are sent: in calls that are answered at once, in the provider's batch jobs, as search queries.
Lane = Literal["live", "batch", "query"]
#: Why a text was not sent: an equal one was, the cache had its vector, its hash had it (``if_changed``).
SavedBy = Literal["duplicate", "cache", "unchanged"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallReport:
    """One API call, be it a try in place, a probe or a canary.

    Attributes:
        texts: how many were sent.
        tokens: how many they have, estimated.
        seconds: from its start to its answer.
        outcome: how it ended.
        status: the HTTP status of a failure, where there is one.
        cause: "timeout" or "connection" of a failure without a status, where the embedder says so.
        error: what failed, or None. What a provider says of a text it refuses stays out: it may quote it.
        model: what was asked for, as the queue has it.
        provider: whose API it is, by OpenTelemetry's name where there is one ("openai", "gcp.gemini"); that of the
            embedder's class where it says nothing of it.
        server: host and port that the embedder calls, or None.
        time: Unix time of its end.
        used_tokens: how many the provider says that it has charged; None where it has not said, as for most calls that
            failed.
        lane: on which way the texts were sent.
        maybe_paid: whether it failed after it was sent, so that the provider may have charged it; its texts
            are sent again.
    """

    texts: int
    tokens: int
    seconds: float
    outcome: Outcome
    status: int | None = None
    error: str | None = None
    cause: Cause | None = None
    model: str = ""
    provider: str = ""
    server: tuple[str, int] | None = None
    time: float = field(default_factory=time.time)
    used_tokens: int | None = None
    lane: Lane = "live"
    maybe_paid: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchReport:
    """Items that were served together, and whose vectors are in their hashes now.

    Attributes:
        redis_keys: of the items, in no particular order.
        texts: distinct texts among them.
        seconds: from the claim of the items to the end of their write.
        waited_seconds: how long the oldest item of that claim had waited by then, since its enqueue.
        truncated: items of which only a beginning was embedded, because their text was too long (``on_long``).
        time: Unix time of the write's end.
    """

    redis_keys: tuple[str, ...]
    texts: int
    seconds: float
    waited_seconds: float
    truncated: int = 0
    time: float = field(default_factory=time.time)

    @property
    def items(self) -> int:
        """How many items were embedded."""
        return len(self.redis_keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseReport:
    """Items released because the provider failed; they will be tried again.

    Attributes:
        redis_keys: of the items.
        reason: what failed.
        pause_seconds: for how long nobody claims.
        time: Unix time.
    """

    redis_keys: tuple[str, ...]
    reason: str
    pause_seconds: float
    time: float = field(default_factory=time.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class SavingReport:
    """Texts that need not be sent.

    Attributes:
        texts: how many.
        tokens: how many they have, estimated.
        by: "duplicate": an equal text was sent with them, is under way or has just come back; "cache"; "unchanged":
            with ``if_changed``, their hashes have their vectors.
        time: Unix time.
    """

    texts: int
    tokens: int
    by: SavedBy
    time: float = field(default_factory=time.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisReport:
    """Redis did not answer, or refused a command. While that lasts there is one for each try.

    Attributes:
        error: redis-py's words.
        outcome: "redis", so that it can be told from a :class:`CallReport`.
        time: Unix time.
    """

    error: str
    outcome: Literal["redis"] = "redis"
    time: float = field(default_factory=time.time)


class Observer:
    """Does nothing; override what you want to know. Its methods are called from several threads.

    They run in the threads that do the work: whatever takes long there holds it up, and I/O belongs in a thread of the
    observer's own. They may enqueue. To wait there for an item of the queue, by ``.result()`` or ``flush()``, raises
    ``RuntimeError``, for it would be waiting for oneself; a callback of the future may.
    """

    def bind(self, namespace: str, client: redis.Redis | redis.RedisCluster) -> Observer:
        """Whom a queue will tell: this observer, or one made for that queue. Called once, when the queue is made.

        Args:
            namespace: of the queue.
            client: the user's; it is not to be changed or closed.
        """
        return self

    def enqueuing(self, redis_keys: Sequence[str]) -> None:
        """Items are about to be written, by this thread; ``enqueued`` or ``not_enqueued`` follows in it."""

    def enqueued(self, redis_keys: Sequence[str]) -> None:
        """Items are durable."""

    def not_enqueued(self, redis_keys: Sequence[str], error: BaseException) -> None:
        """Nothing of it is known to be accepted: the queue is full, Redis failed, or Ctrl-C came.

        Where the error is ``NotReplicated``, the items are queued all the same.
        """

    def accepted(self, count: int) -> None:
        """So many items are queued: told once for each write, which concurrent callers share, by one thread at a time.

        Only an enqueue in a signal's handler, or in a ``__del__``, may be told of meanwhile.

        Who only counts needs neither ``enqueuing`` nor ``enqueued``, which every caller has to tell.
        """

    def call_ended(self, report: CallReport) -> None:
        """An API call came back."""

    def job_ended(self, report: CallReport) -> None:
        """One of the provider's batch jobs has ended: ``report.lane`` is "batch", and it tells what was charged."""

    def maybe_paid_twice(self, items: int) -> None:
        """So many items have left batch jobs for the live lane: somebody waits for them, or they are nearly due."""

    def written(self, report: BatchReport) -> None:
        """Vectors are in their hashes, and the futures of their items have ended."""

    def saved(self, report: SavingReport) -> None:
        """Texts need not be sent."""

    def released(self, report: ReleaseReport) -> None:
        """The provider failed: items wait again."""

    def died(self, letter: DeadLetter) -> None:
        """An item was given up."""

    def leases_ended(self, count: int) -> None:
        """So many claims had run out, because their workers died or lost Redis; their items wait again, or are dead."""

    def redis_failed(self, report: RedisReport) -> None:
        """Redis did not answer, or refused a command."""
