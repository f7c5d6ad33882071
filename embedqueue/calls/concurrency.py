"""How many API calls may be in flight: a fixed number, or one that follows what the provider bears.

Additive increase, multiplicative decrease (Chiu and Jain, 1989), with a memory: after a refusal the limit is halved,
comes back quickly to just below the one that was refused, and goes beyond that only now and then.
"""

from __future__ import annotations

import threading

#: Calls in flight at the start, when nothing is known of the provider.
FIRST_LIMIT = 4.0
#: Most calls in flight from one process, however well the provider answers.
MOST = 64.0
#: Before one call more than the ceiling is tried: so many good answers for each call of the limit.
PATIENCE_WINDOWS = 25
#: If a typical answer takes so many times as long as the best one did, the provider queues our calls.
SLOW_FACTOR = 2.5
#: Weight of the newest answer in the typical time.
NEWEST = 0.2


class Concurrency:
    """The limit of calls in flight. Thread-safe.

    Args:
        most: a fixed number of calls, or "auto".
    """

    def __init__(self, most: int | str) -> None:
        self._adaptive = most == "auto"
        self._lock = threading.Lock()
        self._limit = FIRST_LIMIT if most == "auto" else float(most)  # guarded by the lock, as is all below
        self._ceiling = MOST  # the largest limit that has not been refused
        self._good = 0  # good answers in a row at the ceiling
        self._cut_mono = 0.0  # when the limit was last halved
        self._best_seconds = float("inf")
        self._typical_seconds = 0.0

    @property
    def limit(self) -> int:
        """Calls that may be in flight."""
        return int(self._limit)

    def answered(self, began_mono: float, ended_mono: float) -> None:
        """A call was answered well.

        Args:
            began_mono: when it was sent, by the monotonic clock, in seconds.
            ended_mono: when its answer came.
        """
        if not self._adaptive:
            return
        seconds = ended_mono - began_mono
        with self._lock:
            if began_mono < self._cut_mono:
                return  # it ran under the limit before the last cut
            known = self._typical_seconds or seconds
            self._typical_seconds = (1 - NEWEST) * known + NEWEST * seconds
            if self._typical_seconds > SLOW_FACTOR * self._best_seconds:
                if self._limit > FIRST_LIMIT:
                    self._cut(began_mono, ended_mono)
                    return
                # So few calls do not slow a provider down: it has become slower itself, and what was known is void.
                self._best_seconds, self._ceiling = self._typical_seconds, MOST
            self._best_seconds = min(self._best_seconds, self._typical_seconds)
            if self._limit < self._ceiling:
                self._limit = min(self._ceiling, self._limit + 1 / self._limit)
                return
            self._good += 1
            if self._good > PATIENCE_WINDOWS * self._limit and self._limit < MOST:
                self._ceiling = self._limit = self._limit + 1
                self._good = 0

    def refused(self, began_mono: float, now_mono: float) -> None:
        """A call was refused because there were too many (429).

        Args:
            began_mono: when it was sent, by the monotonic clock, in seconds.
            now_mono: now.
        """
        if self._adaptive:
            with self._lock:
                self._cut(began_mono, now_mono)

    def _cut(self, began_mono: float, now_mono: float) -> None:
        if began_mono < self._cut_mono:
            return  # it ran under the limit before the last cut: calls that ran side by side cut it once
        self._ceiling = max(1.0, float(int(self._limit)) - 1)
        self._limit = max(1.0, self._limit / 2)
        self._cut_mono = now_mono
        self._good = 0
        self._typical_seconds = 0.0
