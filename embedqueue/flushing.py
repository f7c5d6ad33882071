"""One flush: a drain now, and a wait until everything is finished that was enqueued before, by any process."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from .futures.future import EmbeddingFuture
from .futures.lateness import hindrance
from .values.errors import BatchFailed, QueueStopped
from .values.log import QueueLog
from .work.durations import ADOPTIONS, NEVER

if TYPE_CHECKING:
    from .engine import Engine

#: Seconds after which a flush asks Redis again what is unfinished, at most. It also asks when a call is back.
POLL_SECONDS = 0.25
#: The same while the books are being put in order.
ADOPTION_POLL_SECONDS = 0.02
#: Seconds after which a flush asks for a drain again, if nothing is in flight.
ASK_SECONDS = 1.0
#: A score that no item has which stands in no batch job.
LARGEST_SCORE = 5e10


class Flush:
    """One flush.

    Args:
        engine: of the queue.
        ask: starts a drain, here or in other processes.
        log: takes the records.
    """

    def __init__(self, engine: Engine, ask: Callable[[], None], log: QueueLog) -> None:
        self._engine = engine
        self._log = log
        self._ask = ask
        self._futures = engine.waiters.futures()
        self._name = f"{engine.name}{time.monotonic_ns()}"

    def pull(self) -> None:
        """Put what is in batch jobs, or waits for one, into the live lane."""
        engine = self._engine
        in_jobs = engine.store.status().outsourced
        engine.store.jobs.pull()
        if in_jobs:
            self._log.warning("embedqueue: %d items leave batch jobs, and may be paid for twice", in_jobs)
            engine.observers.tell("maybe_paid_twice", in_jobs)

    def run(self, timeout: float | None, *, all_lanes: bool) -> None:
        """Do it. Raises as :meth:`EmbeddingBatchQueue.flush`.

        Args:
            timeout: seconds to wait at most; None waits until it is finished, or until the provider fails.
            all_lanes: wait for what is in batch jobs, or waits for one, as well.
        """
        store, live_lane_alone = self._engine.store, False
        if not all_lanes:
            status = store.status()
            if status.bound is not None or status.outsourced:  # what is above this score is left out of the count
                self._name += f"/{LARGEST_SCORE if status.bound is None else status.bound:.6f}"
                live_lane_alone = True
        try:
            idle = self._await_items(NEVER if timeout is None else time.monotonic() + timeout)
        finally:
            with contextlib.suppress(RedisError):  # it ends by itself then
                store.end_flush(self._name)
        # A future may wait for a batch job, for hours.
        self._await_ends(() if live_lane_alone else self._futures, self._engine.settle.in_hand() if idle else {})

    def _await_items(self, deadline_mono: float) -> bool:
        """Returns whether no worker has anything in its hands any more."""
        engine, name = self._engine, self._name
        asked_mono, passes = -ASK_SECONDS, 0
        adopting: Iterator[None] | None = None  # the books are being put in order
        while True:
            seen = engine.progress.finished
            now = time.monotonic()
            anyway = passes >= ADOPTIONS  # another program never rests: flush what is known
            status = engine.store.status(name, anyway=anyway, workers=True)
            if status.unfinished == 0 and (status.strays == 0 or anyway):
                return status.in_flight == 0
            if now - asked_mono >= ASK_SECONDS and (status.in_flight == 0 or asked_mono < 0):
                asked_mono = now
                self._ask()
            if now >= deadline_mono:
                why = engine.worker.barred or hindrance(status, works=engine.agenda.works)
                raise TimeoutError(f"{status.unfinished} items are not finished" + (f"; {why}" if why else ""))
            if deadline_mono == NEVER and engine.worker.barred:
                raise BatchFailed(f"{engine.worker.barred}; {status.unfinished} items are still queued")
            if deadline_mono == NEVER and not status.probing and status.pause_seconds is not None:
                raise BatchFailed(f"{status.pause_reason}; {status.unfinished} items are still queued")
            if status.strays and not anyway:
                engine.store.end_flush(name)  # it begins anew when the books are in order: its count may be wrong
                adopting = adopting or engine.worker.put_in_order()
                until_mono = min(deadline_mono, now + POLL_SECONDS)
                if all(time.monotonic() < until_mono for _ in adopting):
                    adopting, passes = None, passes + 1
            poll_seconds = ADOPTION_POLL_SECONDS if status.strays else POLL_SECONDS
            engine.progress.wait_beyond(seen, min(deadline_mono - now, poll_seconds))
            if engine.stopping.is_set():
                raise QueueStopped("the queue was stopped during a flush")

    def _await_ends(self, futures: Sequence[EmbeddingFuture], finished: Mapping[str, bytes]) -> None:
        """Wait, a second at most, for what comes after items that Redis calls finished: futures, and our counters.

        Args:
            futures: to wait for.
            finished: such members that are in our own hands still, by key.
        """
        engine = self._engine
        if futures or finished:
            engine.outcomes.find_out(None)
        deadline_mono = time.monotonic() + ASK_SECONDS
        while time.monotonic() < deadline_mono:
            seen = engine.progress.finished
            if all(future.done() for future in futures) and not any(
                engine.settle.holds(*one) for one in finished.items()
            ):
                return
            engine.progress.wait_beyond(seen, 0.01)  # another thread of ours is ending them
