"""Says why an item is not embedded yet, to whoever has waited for it in vain.

That is worth a moment and no more: Redis is asked in a thread of its own, and after a few hundred milliseconds nobody
waits for its answer. Nothing is asked while results come in time.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable

from redis.exceptions import RedisError

from embedqueue.store.records import Asked, Status, Terms
from embedqueue.store.store import Store
from embedqueue.values.threads import start
from embedqueue.values.words import printable

from .demand import Waker

#: Whoever waits for less, in seconds, is told nothing of Redis: it may be somebody who looks again and again.
LEAST_TIMEOUT_SECONDS = 1.0
#: Seconds beyond the timeout that Redis' answer is waited for at most.
LOOK_SECONDS = 0.3
#: Threads of one process that ask at a time: where Redis does not answer, each may hang until its connection gives up.
LOOKS = 8
#: Seconds between looks at whether one of them is free.
TURN_SECONDS = 0.01
#: A pause that lasts longer, in seconds, ends on a day and not at a time only.
HOURS_SECONDS = 12 * 3600.0
#: Characters of a reason that are told.
REASON_CHARS = 300


class Lateness:
    """Finds the words of a ``TimeoutError``. Thread-safe.

    Args:
        store: Redis.
        terms: returns on which terms this process writes.
        waker: knows whether this process works.
        name: under which this process claims; it ends with a colon.
        thread_name: of the threads that ask.
    """

    def __init__(self, store: Store, terms: Callable[[], Terms], waker: Waker, *, name: str, thread_name: str) -> None:
        self._store = store
        self._terms = terms
        self._waker = waker
        self._name = name.removesuffix(":")
        self._thread_name = thread_name
        self._turns = deque([None] * LOOKS)  # not a semaphore: a signal's handler may wait for an item as well

    def words(self, redis_key: str, timeout: float) -> str:
        """What to tell somebody who has waited for ``timeout`` seconds. Returns ``LOOK_SECONDS`` later at most."""
        words = f"{printable(redis_key)} was not embedded within {timeout:g} s"
        if timeout < LEAST_TIMEOUT_SECONDS:
            return f"{words}; it stays queued"
        return f"{words}: {self._look_for(redis_key) or 'it stays queued, and Redis does not tell more in time'}"

    def _look_for(self, redis_key: str) -> str | None:
        end_mono = time.monotonic() + LOOK_SECONDS
        while True:
            try:
                self._turns.pop()
                break
            except IndexError:
                if time.monotonic() > end_mono:
                    return None
                time.sleep(TURN_SECONDS)
        found: list[str] = []
        look = threading.Thread(target=self._look_in_turn, args=(redis_key, found), name=self._thread_name, daemon=True)
        try:
            start(look)
        except RuntimeError:  # no more threads, or the interpreter ends
            self._turns.append(None)
            return None
        look.join(max(0.0, end_mono - time.monotonic()))
        return found[0] if found else None

    def _look_in_turn(self, redis_key: str, found: list[str]) -> None:
        try:
            with contextlib.suppress(RedisError, OSError, ValueError):  # ValueError: closed under us
                found.append(self._look(redis_key))
        finally:
            self._turns.append(None)

    def _look(self, redis_key: str) -> str:
        [(word, place)] = self._store.look([Asked(redis_key)], self._terms())
        if word != "live":
            return "just now it has ended"
        if place == b"in flight":
            return self._claimed(redis_key)
        if place == b"in a job":
            return "it is in one of the provider's batch jobs (economy)"
        return waiting(self._store.status(workers=True), works=self._waker.works)

    def _claimed(self, redis_key: str) -> str:
        holder = self._store.holder(redis_key)
        if holder == self._name:
            return "this process has claimed it, and its call is under way"
        for worker in self._store.workers.all():
            if worker.name == holder:
                who = printable(f"a worker (pid {worker.pid} on {worker.host}, heard of {worker.heard_age:.0f} s ago)")
                return f"{who} has claimed it, and its call is under way"
        return (
            "a worker has claimed it that is not heard of; if it has died, another takes the item when the lease ends"
        )


def waiting(status: Status, *, works: bool) -> str:
    """Why an item waits.

    Args:
        status: how the queue stands, workers counted.
        works: whether this process works, whatever it has announced.
    """
    words = f"it waits with {status.waiting - 1:,} others" if status.waiting > 1 else "it waits"
    hindered = hindrance(status, works=works)
    if status.probing:
        return f"it waits while {hindered}"
    if status.pause_seconds is not None:
        return hindered
    count = _count(status, works)
    if count:
        hindered = "one worker is running" if count == 1 else f"{count:,} workers are running"
    return f"{words}; {hindered}" if hindered else words


def hindrance(status: Status, *, works: bool) -> str:
    """What keeps all items of a queue from being embedded; "" where nothing does.

    Args:
        status: how the queue stands, workers counted.
        works: whether this process works, whatever it has announced.
    """
    found = [_paused(status), "no worker is running" if _count(status, works) == 0 else ""]
    return "; ".join(filter(None, found))


def _count(status: Status, works: bool) -> int | None:
    return None if status.workers is None else max(status.workers, int(works))


def _paused(status: Status) -> str:
    if status.probing:
        return "one call tests the provider, which has failed"
    if status.pause_seconds is None:
        return ""
    reason = printable(status.pause_reason)[:REASON_CHARS]
    return f"the queue is paused {_until(status.pause_seconds)}, because {reason}"


def _until(seconds: float) -> str:
    if seconds > threading.TIMEOUT_MAX:
        return "until somebody resumes"
    form = "until %H:%M:%S" if seconds < HOURS_SECONDS else "until %Y-%m-%d %H:%M"
    return time.strftime(form, time.localtime(time.time() + seconds))
