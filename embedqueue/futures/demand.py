"""Looks after those who wait for futures: makes their items urgent, and misses nothing that became of them.

One thread, while somebody waits. It spares user threads all speech with Redis: ``concurrent.futures.wait`` holds the
locks of its futures while it announces itself, so whatever a waiter causes there must neither block nor fail.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable

from redis.exceptions import RedisError

from embedqueue.values.backoff import backoff_seconds
from embedqueue.values.locks import Condition
from embedqueue.values.log import Log, logger

#: Seconds between looks at what became of the items that somebody waits for: the first, and the longest; one script
#: call each. It finds what a lost notice told, and whatever waits again after it was given back or superseded.
SWEEP_SECONDS = (2.0, 5.0)


class Demand:
    """What is wanted now.

    Args:
        ask: makes redis_keys urgent; called without any lock.
        sweep: asks Redis what became of the items that somebody waits for.
        wanted: whether somebody waits.
        name: of the thread.
    """

    def __init__(
        self,
        *,
        ask: Callable[[list[str]], None],
        sweep: Callable[[], None],
        wanted: Callable[[], bool],
        name: str,
        log: Log = logger,
    ) -> None:
        self._log = log
        self._ask = ask
        self._sweep = sweep
        self._wanted = wanted
        self._name = name
        self._condition = Condition(threading.Lock())
        self._keys: dict[str, None] = {}  # to ask for, in order; guarded by the condition, as is what follows
        self._running = False
        self._stopping = False

    def note(self, redis_keys: Iterable[str] = ()) -> None:
        """Somebody waits; ``redis_keys`` are to be asked for. Does no I/O."""
        with self._condition:
            self._keys.update(dict.fromkeys(redis_keys))
            if self._stopping:
                return
            if self._running:
                if self._keys:
                    self._condition.notify()
                return
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # no more threads: the next who waits tries again
                self._log.warning("embedqueue: nobody looks after those who wait: %s", error)
            else:
                self._running = True

    def stop(self) -> None:
        """End the thread, without waiting for it."""
        with self._condition:
            self._stopping = True
            self._condition.notify()

    def _run(self) -> None:
        sweeps = 1
        sweep_mono = time.monotonic() + backoff_seconds(sweeps, *SWEEP_SECONDS)
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._keys or self._stopping, max(0.0, sweep_mono - time.monotonic()))
                keys, self._keys = list(self._keys), {}
                if self._stopping or not (keys or self._wanted()):
                    self._running = False
                    return
            try:
                with contextlib.suppress(RedisError):  # the items are safe, and the next sweep asks again
                    if keys:
                        self._ask(keys)
                    if time.monotonic() >= sweep_mono:
                        self._sweep()
            except Exception:
                self._log.exception("embedqueue: could not look after those who wait, going on")
            if time.monotonic() >= sweep_mono:
                sweeps += 1
                sweep_mono = time.monotonic() + backoff_seconds(sweeps, *SWEEP_SECONDS)
