"""Wires the parts of a queue together, once a process."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Callable

import redis

from .calls.batching import Limits
from .calls.caller import Caller
from .calls.concurrency import Concurrency
from .embedders.protocol import Embedder
from .futures.demand import Demand
from .futures.intake import Intake
from .futures.notices import Listener, named_keys, named_reason
from .futures.outcomes import Outcomes
from .futures.waiters import Waiters
from .observers.history import Recorder
from .observers.observers import Observers
from .store.records import Notice
from .store.store import Store
from .values.errors import BatchFailed
from .values.locks import Condition, Event
from .values.log import QueueLog
from .values.options import Options
from .values.vectors import zero_vector
from .work.dispatch import Drain
from .work.worker import Worker


class Process:
    """Everything that belongs to one process: a forked child gets a new one instead of a repaired one."""

    def __init__(
        self,
        embedder: Embedder,
        client: redis.Redis,
        options: Options,
        observers: Observers,
        *,
        wanted: Callable[[], Callable[[str], None] | None],
        start: Callable[[], None],
    ) -> None:
        log = QueueLog(options.namespace)
        self.stopping = Event()
        self.enqueued = 0
        self.finished = 0  # counts what ended or was given back, for those who flush; guarded by the condition
        self._progress = Condition()
        self._embedder = embedder
        self._options = options
        self._start = start
        self.name = f"{uuid.uuid4().hex[:12]}:"
        self.store = Store(client, options.namespace)
        self.waiters = Waiters(wanted)
        self.recorder = Recorder(self.store.figures.add, options.model, f"embedqueue-history-{options.namespace}", log)
        self.observers = observers.joined_by(self.recorder) if options.history else observers
        limits = Limits(
            min(options.api_batch_limit, getattr(embedder, "max_texts", None) or options.api_batch_limit),
            min(options.api_batch_tokens, getattr(embedder, "max_tokens", None) or options.api_batch_tokens),
        )
        concurrency = Concurrency(options.max_concurrency)
        self.caller = Caller(
            embedder, options.model, options.retry, limits, concurrency, self.stopping, log, self.observers
        )
        self.outcomes = Outcomes(
            self.store,
            self.waiters,
            options.embedding_field,
            dimensions=lambda: self.caller.dimensions,
            demand=self.want,
        )
        self.drain = Drain(
            self.store,
            self.caller,
            options,
            self.waiters,
            stopping=self.stopping,
            worker=self.name,
            task=str(getattr(embedder, "task_type", None) or ""),
            outcomes=self.outcomes,
            progressed=self._progressed,
            paused=lambda seconds: self.worker.paused(seconds),
            log=log,
            observers=self.observers,
        )
        self.worker = Worker(
            self.store,
            self.drain,
            options,
            name=self.name,
            call_limit=lambda: self.caller.limits.texts,
            log=log,
            observers=self.observers,
        )
        self.listener = Listener(
            self.store,
            heed=self._heed,
            sweep=self._sweep,
            needed=lambda: self.worker.running or len(self.waiters) > 0,
            wanted=self.waiters.any_wanted,
            name=f"embedqueue-listener-{options.namespace}",
            log=log,
            observers=self.observers,
        )
        self.demand = Demand(
            ask=self._ask,
            sweep=lambda: self.outcomes.look(None, wanted=True),
            wanted=self.waiters.any_wanted,
            name=f"embedqueue-demand-{options.namespace}",
            log=log,
        )
        self.intake = Intake(
            self.store,
            self.waiters,
            max_pending=options.max_pending,
            tell_at=options.max_batch_size,
            tell_first=not options.worker,
            zero=self._zero,
            enqueued=self._enqueued,
        )

    def _enqueued(self, waiting: int, count: int) -> None:
        """So many items wait now, and so many more were taken. One thread at a time is told: the leader of a group."""
        self.enqueued += count
        self.worker.enqueued(waiting)
        if self._options.history:
            self.recorder.count_enqueued(count)

    def _zero(self) -> bytes:
        """The vector of a blank text."""
        return zero_vector(self._embedder.dimensions)

    def _sweep(self) -> None:
        """Ask for what no notice may have told."""
        self.worker.refresh()
        self.outcomes.look(None)

    def want(self, redis_keys: list[str]) -> None:
        """Make items urgent. Does no I/O."""
        urgent = redis_keys if self._options.flush_on_wait else []
        if not self._options.worker:
            self.demand.note(urgent)
            return
        for redis_key in urgent:
            self.worker.demanded(redis_key)
        self.demand.note(() if self.worker.running else redis_keys)

    def _ask(self, redis_keys: list[str]) -> None:
        """Ask the workers elsewhere; one of our own has heard already, but may have to be started."""
        if self._options.worker:
            self._start()
        else:
            self.store.tell("urgent", self.name, json.dumps(redis_keys))

    def _progressed(self) -> None:
        self.worker.progressed()
        self._count()

    def _count(self) -> None:
        with self._progress:
            self.finished += 1
            self._progress.notify_all()

    def wait_beyond(self, seen: int, timeout: float) -> None:
        """Wait until something ends after ``finished`` was ``seen``, for ``timeout`` seconds at most."""
        with self._progress:
            self._progress.wait_for(lambda: self.finished != seen, timeout)

    def _heed(self, notice: Notice) -> bool:
        """Act on what another process says; what this one said, it knows. Returns whether it was another."""
        if notice.by.startswith(self.name):
            return False
        if notice.kind in ("done", "stale", "failed"):
            self.outcomes.look(named_keys(notice.body))
            self._count()
        elif notice.kind == "blank":
            self.outcomes.look(named_keys(notice.body), blank=True)
        elif notice.kind in ("unserved", "paused"):
            # Read late, it may be old news: of who has enqueued since the provider is well again, nothing has failed.
            status = self.store.status()
            if status.failing or status.pause_seconds is not None:
                waiting = self.waiters.snapshot(named_keys(notice.body) if notice.kind == "unserved" else None)
                self.waiters.fail(waiting, BatchFailed(f"{named_reason(notice.body)}; the item is still queued"))
        elif notice.kind == "urgent":
            for redis_key in named_keys(notice.body):
                self.worker.demanded(redis_key)
        elif notice.kind == "flush":
            self.worker.flush()
        elif notice.kind == "wake":
            self.worker.refresh()
        return True


def stop_with_child(stop: Callable[[], object]) -> None:
    """Have ``stop`` called at the end of this process if it is a child of multiprocessing.

    Such children end by ``os._exit``: they run multiprocessing's own finalizers, but not what stands in ``atexit``.

    Args:
        stop: without arguments.
    """
    process = sys.modules.get("multiprocessing.process")  # where it was not imported, nobody is its child
    if process is not None and process.parent_process() is not None:
        from multiprocessing.util import Finalize

        Finalize(None, stop, exitpriority=10)
