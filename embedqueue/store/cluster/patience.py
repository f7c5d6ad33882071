"""How long a cluster is waited for that moves slots, fails over or is down: with jitter, up to ``redis_patience``."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    ReadOnlyError,
    TryAgainError,
)
from redis.retry import Retry

from embedqueue.values.locks import Event

T = TypeVar("T")

#: Answers that say that a command was not done, because the slot is on its way, or has no master now.
NOT_DONE: Final = (AskError, TryAgainError, ClusterDownError, BusyLoadingError, ReadOnlyError)
#: What leaves open whether a command was done.
UNSURE: Final = (redis.ConnectionError, redis.TimeoutError)
#: Seconds before another try: at first and at most; doubled in between.
FIRST_SECONDS = 0.02
MOST_SECONDS = 0.5


class Waiting:
    """One wait for a cluster, which ends at its deadline or when the queue is closed.

    Args:
        seconds: for which to wait at most.
        closed: set when the queue is closed.
    """

    def __init__(self, seconds: float, closed: Event) -> None:
        self._end_mono = time.monotonic() + seconds
        self._closed = closed
        self._tries = 0

    def again(self) -> bool:
        """Rest before another try; returns whether there may be one."""
        left = self._end_mono - time.monotonic()
        if left <= 0 or self._closed.is_set():
            return False
        longest = min(MOST_SECONDS, FIRST_SECONDS * 2**self._tries, left)
        self._tries += 1
        return not self._closed.wait(random.uniform(0.0, longest))


class Patience(Retry):
    """Retries of redis-py for as long as there is patience.

    Args:
        seconds: of the patience.
        closed: set when the queue is closed.
        errors: after which to try again.
    """

    def __init__(self, seconds: float, closed: Event, errors: tuple[type[Exception], ...] = NOT_DONE) -> None:
        super().__init__(NoBackoff(), 0, errors)
        self._seconds, self._closed, self._errors = seconds, closed, errors

    def call_with_retry(self, do: Callable[[], T], fail: Callable[..., Any], *args: Any, **kwargs: Any) -> T:
        """See ``redis.retry.Retry``; how redis-py counts the failures does not matter here."""
        waiting = Waiting(self._seconds, self._closed)
        while True:
            try:
                return do()
            except self._errors as error:
                fail(error, 1) if kwargs.get("with_failure_count") else fail(error)
                if isinstance(error, AuthenticationError) or not waiting.again():
                    raise
