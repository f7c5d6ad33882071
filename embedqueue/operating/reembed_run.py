"""A reembed at work: passes over the texts until nothing is missing, through outages, told as a named run."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import redis
from redis.exceptions import ReadOnlyError

from embedqueue.backlog.inspection import RIGHT, WAITING
from embedqueue.money.prices import dollars_of, price_by
from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.values.errors import BatchFailed

from .reembed import Plan, Reembedding
from .runs import NamedRun, age

#: Seconds between two looks at a queue that is full enough, or whose last items are awaited.
POLL_SECONDS = 0.5
#: Seconds for which Redis may be away before the run ends; the same command goes on then.
OUTAGE_SECONDS = 600.0
Answer = TypeVar("Answer")
#: Passes in a row that find something missing and put nothing in.
IDLE_PASSES = 3


@dataclass(slots=True)
class Work:
    """What it takes to fill the second field.

    Attributes:
        reembedding: looks and puts in.
        plan: what there was to do.
        run: tells everybody.
        queue: that works the second queue in this process; None: others do.
        within: seconds in which what is put in is to be embedded.
        max_waiting: go on only while fewer items wait.
        say: told how it stands, a line now and then.
        say_seconds: between two lines.
    """

    reembedding: Reembedding
    plan: Plan
    run: NamedRun
    queue: EmbeddingBatchQueue | None
    within: float
    max_waiting: int
    say: Callable[[str], None]
    say_seconds: float
    _put: int = 0
    _tokens: int = 0
    _said_mono: float = field(default_factory=time.monotonic)

    def until_all_is_in(self) -> None:
        """Put in what is missing, once through all texts; what is in may still have to be embedded."""
        self._through_outages(partial(self._pass, dead_too=True))
        if self.queue is not None:
            self.queue.flush_now()

    def until_complete(self) -> int:
        """Put in what is missing, and wait until it is embedded. Returns how many texts lack it in the end.

        Raises:
            BatchFailed: the provider refuses everything from the beginning.
            Stopped: somebody wants it to stop.
            redis.RedisError: Redis was away for too long.
        """
        idle, dead_too = 0, True
        while True:
            put, kinds = self._through_outages(partial(self._pass, dead_too=dead_too))
            self._through_outages(self._drain)
            left = kinds.total() - kinds[RIGHT]
            idle = idle + 1 if put == 0 and not kinds[WAITING] else 0
            if not left or idle >= IDLE_PASSES:
                return int(left)
            dead_too = False

    def _pass(self, *, dead_too: bool) -> tuple[int, Counter[str]]:
        kinds, count = Counter[str](), 0
        filling = self.reembedding.fill(
            within=self.within, max_waiting=self.max_waiting, check=self.run.check, rest=self._rest, dead_too=dead_too
        )
        for put, tokens, some in filling:
            kinds += some
            count, self._put, self._tokens = count + put, self._put + put, self._tokens + tokens
            self._tell()
        return count, kinds

    def _drain(self) -> None:
        """Wait for what is live now, and not for what others go on to write."""
        flush = f"reembed:{uuid.uuid4().hex}"
        try:
            while self.reembedding.unfinished(flush):
                self.run.check()
                self._rest()
        finally:
            with contextlib.suppress(redis.RedisError):  # it ends by itself then
                self.reembedding.other.end_flush(flush)

    def _rest(self) -> None:
        if self.queue is not None:
            self.queue.flush_now()
        else:
            self.reembedding.other.events.tell("flush", "")
        self._tell()
        time.sleep(POLL_SECONDS)

    def _tell(self) -> None:
        status = self.reembedding.other.status()
        live = status.waiting + status.in_flight + status.outsourced
        enqueued = self.plan.done + self.plan.waiting + self._put
        total = max(self.plan.total, enqueued)
        done = min(total, max(0, enqueued - live - status.dead))
        dollars = dollars_of(self._tokens, price_by(self.reembedding.second_options))
        facts = {"texts": self._put, "tokens": self._tokens, "usd": dollars, "words": status.pause_reason}
        self.run.report(done=done, total=total, failed=status.dead, **facts)
        if status.failing and self.queue is not None and not self.queue.stats().embedded and status.pause_reason:
            raise BatchFailed(f"{status.pause_reason}; what is enqueued stays, and the same command goes on")
        if time.monotonic() - self._said_mono >= self.say_seconds:
            self._said_mono = time.monotonic()
            self.say(self.run.line())

    def _through_outages(self, work: Callable[[], Answer]) -> Answer:
        away_mono: float | None = None
        while True:
            try:
                return work()
            except (redis.ConnectionError, redis.TimeoutError, ReadOnlyError) as error:
                now_mono = time.monotonic()
                away_mono = away_mono or now_mono
                if isinstance(error, redis.AuthenticationError) or now_mono - away_mono > OUTAGE_SECONDS:
                    raise
                self.say(f"Redis does not answer, for {age(now_mono - away_mono)} now: {type(error).__name__}")
                time.sleep(2 * POLL_SECONDS)
                self.run.check()
