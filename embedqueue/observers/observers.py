"""Tells the observers of a queue what happens, and keeps what they raise from doing harm."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import redis

from embedqueue.values.log import Log, is_of_a_signal, logger
from embedqueue.values.observer import BatchReport, CallReport, Observer, RedisReport
from embedqueue.values.stats import DeadLetter

#: Events that are told by threads which do the work.
OF_WORK = {
    "call_ended",
    "job_ended",
    "maybe_paid_twice",
    "written",
    "saved",
    "released",
    "died",
    "leases_ended",
    "redis_failed",
}


class Functions(Observer):
    """An observer made of the queue's options ``on_batch``, ``on_error`` and ``on_dead``."""

    def __init__(
        self,
        on_batch: Callable[[BatchReport], object] | None,
        on_error: Callable[[CallReport | RedisReport], object] | None,
        on_dead: Callable[[DeadLetter], object] | None,
    ) -> None:
        self._on_batch = on_batch
        self._on_error = on_error
        self._on_dead = on_dead

    def written(self, report: BatchReport) -> None:
        """Tell ``on_batch``."""
        if self._on_batch is not None:
            self._on_batch(report)

    def call_ended(self, report: CallReport) -> None:
        """Tell ``on_error`` of a call that failed."""
        if self._on_error is not None and report.outcome != "ok":
            self._on_error(report)

    def redis_failed(self, report: RedisReport) -> None:
        """Tell ``on_error``."""
        if self._on_error is not None:
            self._on_error(report)

    def died(self, letter: DeadLetter) -> None:
        """Tell ``on_dead``."""
        if self._on_dead is not None:
            self._on_dead(letter)


class Observers:
    """Tells all observers of a queue. False where there is none: then nothing need be measured for them.

    Args:
        observers: whom to tell, in order.
        log: takes the record of one that raises; each observer has one for each kind of event.
    """

    def __init__(self, observers: Iterable[Observer] = (), log: Log = logger) -> None:
        self._observers = tuple(observers)
        self._log = log
        self._failed: set[tuple[int, str]] = set()  # observers by position, and events; adding to a set is atomic
        self._mine = threading.local()  # whether this thread is telling of work

    def bind(self, namespace: str, client: redis.Redis | redis.RedisCluster) -> Observers:
        """The same for one queue."""
        bound = []
        for at, observer in enumerate(self._observers):
            found = self._call(at, observer, "bind", (namespace, client))
            bound.append(found if isinstance(found, Observer) else observer)
        return Observers(bound, self._log)

    def joined_by(self, observer: Observer) -> Observers:
        """The same, and one more, which is bound already."""
        return Observers([*self._observers, observer], self._log)

    def __bool__(self) -> bool:
        """Whether there is anybody to tell."""
        return bool(self._observers)

    def tell(self, event: str, *facts: Any) -> None:
        """Call the method of this name of each observer. Raises nothing but what a signal raises in the main thread."""
        for at, observer in enumerate(self._observers):
            self._call(at, observer, event, facts)

    def check_wait(self) -> None:
        """Called by whoever is about to wait for an item of the queue.

        Raises:
            RuntimeError: in an observer that is being told of work: the thread that tells it would wait for itself.
        """
        if getattr(self._mine, "works", False):
            raise RuntimeError("an observer must not wait for its queue: the thread that tells it has work to do there")

    def redis_failed(self, error: BaseException) -> None:
        """Tell of an error of redis-py."""
        self.tell("redis_failed", RedisReport(error=str(error)))

    def _call(self, at: int, observer: Observer, event: str, facts: tuple[Any, ...]) -> Any:
        before = getattr(self._mine, "works", False)
        try:
            # The main thread does no work, and a signal there might keep us from taking this back.
            self._mine.works = event in OF_WORK and threading.current_thread() is not threading.main_thread()
            return getattr(observer, event)(*facts)
        except BaseException as error:
            if is_of_a_signal(error):
                raise
            if (at, event) not in self._failed:
                self._failed.add((at, event))
                self._log.exception(
                    "embedqueue: %s of an observer failed, and is not spoken of again: %s", event, observer
                )
            return None
        finally:
            self._mine.works = before
