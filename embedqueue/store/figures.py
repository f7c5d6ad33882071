"""What was done lately, as it stands in Redis: a HASH of numbers for each minute and each day (UTC), which expire."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import redis
from redis.exceptions import ResponseError

from .keys import Keys

#: Seconds for which the figures of a minute and of a day are kept.
MINUTE_KEPT_SECONDS = 2 * 3600
DAY_KEPT_SECONDS = 400 * 86_400

MINUTE_SECONDS = 60
DAY_SECONDS = 86_400

#: Digits of the largest figure that counts: a float still holds every whole number of them.
MOST_DIGITS = 15


class Figures:
    """Adds figures up over all processes. Times are the server's. Thread-safe.

    Args:
        client: a client of our own; see ``clients.private_client``.
        keys: of the queue.
    """

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client: Any = client
        self._prefix = keys.history_prefix

    def add(self, figures: Mapping[str, int]) -> None:
        """Add figures to those of this minute and of this day, in one round trip.

        Args:
            figures: numbers by name. Names are few: a key stays small.

        Raises:
            redis.RedisError: nothing is known to have been added.
        """
        now = self.now()
        with self._client.pipeline(transaction=False) as pipeline:
            for key, kept_seconds in ((self._minute(now), MINUTE_KEPT_SECONDS), (self._day(now), DAY_KEPT_SECONDS)):
                for name, more in figures.items():
                    if more:
                        pipeline.hincrby(key, name, more)
                pipeline.pexpire(key, kept_seconds * 1000)
            pipeline.execute()

    def minutes(self, now: float, count: int) -> list[tuple[float, dict[str, int]]]:
        """The figures of the last ``count`` minutes, the oldest first: the start of each, Unix time, and its numbers.

        Of more than are kept, nothing is told.

        Raises:
            redis.RedisError: Redis does not answer.
        """
        return self._read(now, count, MINUTE_SECONDS, MINUTE_KEPT_SECONDS, self._minute)

    def days(self, now: float, count: int) -> list[tuple[float, dict[str, int]]]:
        """The same of the last ``count`` days."""
        return self._read(now, count, DAY_SECONDS, DAY_KEPT_SECONDS, self._day)

    def now(self) -> float:
        """Unix time, by the server's clock."""
        seconds, micros = self._client.time()
        return float(seconds) + float(micros) / 1e6

    def _read(
        self, now: float, count: int, seconds: int, kept_seconds: int, key: Callable[[float], str]
    ) -> list[tuple[float, dict[str, int]]]:
        """The figures of the last ``count`` spans of so many seconds."""
        after = int(now) // seconds + 1
        starts = [float(span * seconds) for span in range(after - min(count, kept_seconds // seconds), after)]
        pipeline = self._client.pipeline(transaction=False)
        for start in starts:
            pipeline.hgetall(key(start))
        found = pipeline.execute(raise_on_error=False)
        return [(start, _numbers(fields)) for start, fields in zip(starts, found, strict=True)]

    def _minute(self, now: float) -> str:
        return f"{self._prefix}m:{int(now) // MINUTE_SECONDS}"

    def _day(self, now: float) -> str:
        return f"{self._prefix}d:{time.strftime('%Y-%m-%d', time.gmtime(now))}"


def _numbers(fields: Any) -> dict[str, int]:
    """The fields of a hash that are numbers; what somebody else has put there counts as nothing."""
    if isinstance(fields, ResponseError) and str(fields).startswith("WRONGTYPE"):
        return {}
    if isinstance(fields, Exception):
        raise fields
    found = {}
    for name, value in fields.items():
        if value.isdigit() and len(value) <= MOST_DIGITS:
            found[name.decode("utf-8", "replace")] = int(value)
    return found
