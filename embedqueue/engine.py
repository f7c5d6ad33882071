"""Builds the parts of a queue in one process, wires them together, and takes them down again."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable

import redis
from redis.exceptions import RedisError

from .calls.batching import Limits
from .calls.cache import Cache
from .calls.caller import Caller
from .calls.concurrency import Concurrency
from .calls.pool import Pool
from .embedders.protocol import Embedder
from .futures.intake import Intake
from .futures.notices import Listener
from .futures.outcomes import Outcomes
from .futures.progress import Progress
from .futures.waiters import Waiters
from .observers.history import Recorder
from .observers.observers import Observers
from .store.store import Store
from .values.locks import Event
from .values.log import QueueLog
from .values.options import Options
from .work.agenda import Agenda
from .work.dispatch import Dispatch
from .work.settle import Settle
from .work.worker import Worker


class Engine:
    """The parts of one queue in one process. A forked child gets a new one instead of a repaired one.

    From left to right, an item goes through: intake, store; worker, dispatch, caller, settle, store; and its future
    through: waiters, listener, outcomes.

    Args:
        embedder: turns texts into vectors.
        client: the user's; it is only read.
        options: of the queue.
        observers: told what happens.
        wanted: gives what a future calls with its key when somebody waits for it; see :class:`Waiters`.
        start_queue: starts a queue that was not started, once somebody waits.
    """

    def __init__(
        self,
        embedder: Embedder,
        client: redis.Redis,
        options: Options,
        observers: Observers,
        *,
        wanted: Callable[[], Callable[[str], None] | None],
        start_queue: Callable[[], None],
    ) -> None:
        self._log = log = QueueLog(options.namespace)
        self.name = f"{uuid.uuid4().hex[:12]}:"
        self.stopping = Event()
        self.store = Store(client, options.namespace)
        self.recorder = Recorder(self.store.figures.add, options.model, f"embedqueue-history-{options.namespace}", log)
        self.observers = observers.joined_by(self.recorder) if options.history else observers
        self.agenda = Agenda(options)
        self.progress = Progress()

        self.waiters = Waiters(wanted)
        self.outcomes = Outcomes(self.store, self.waiters, options.embedding_field, embedder, self.agenda)
        self.intake = Intake(self.store, self.waiters, embedder, self.agenda, self.observers, options)
        self.listener = Listener(
            self.store,
            self.waiters,
            self.outcomes,
            self.agenda,
            self.progress,
            name=self.name,
            namespace=options.namespace,
            log=log,
            observers=self.observers,
        )

        concurrency = Concurrency(options.max_concurrency)
        self.caller = Caller(
            embedder,
            options.model,
            options.retry,
            _limits(options, embedder),
            concurrency,
            self.stopping,
            log,
            self.observers,
        )
        self.pool = Pool(lambda: concurrency.limit, f"embedqueue-call-{options.namespace}", self.agenda.progressed, log)
        self.settle = Settle(
            self.store,
            self.waiters,
            self.outcomes,
            self.agenda,
            self.progress,
            options,
            worker=self.name,
            stopping=self.stopping,
            observers=self.observers,
            log=log,
        )
        self.dispatch = Dispatch(
            self.caller,
            self.pool,
            self.settle,
            _cache(self.store, self.settle, options, embedder, self.stopping),
            options,
            worker=self.name,
            observers=self.observers,
            log=log,
        )
        self.worker = Worker(
            self.store,
            self.agenda,
            self.dispatch,
            self.waiters,
            self.outcomes,
            options,
            name=self.name,
            start_queue=start_queue,
            log=log,
            observers=self.observers,
        )

    def stop(self, grace_seconds: float) -> None:
        """Take everything down. What this process has claimed waits again; its futures are cancelled.

        Args:
            grace_seconds: for calls under way. One that hangs is left behind.
        """
        end_mono = time.monotonic() + grace_seconds
        self.worker.stop(grace_seconds)
        self.dispatch.pool.close()
        self.dispatch.pool.wait(max(0.0, end_mono - time.monotonic()))
        self.stopping.set()
        self.listener.stop()
        if self.agenda.works:
            try:
                self.store.release(self.name)
            except RedisError as error:
                self._log.warning("embedqueue: stopped without giving items back, their leases will run out: %s", error)
        try:
            self.waiters.cancel_all()
        finally:
            self.recorder.stop()
            self.store.close()


def _limits(options: Options, embedder: Embedder) -> Limits:
    """What one call may hold: the least of what the user and the embedder say."""
    return Limits(
        min(options.api_batch_limit, getattr(embedder, "max_texts", None) or options.api_batch_limit),
        min(options.api_batch_tokens, getattr(embedder, "max_tokens", None) or options.api_batch_tokens),
    )


def _cache(store: Store, settle: Settle, options: Options, embedder: Embedder, stopping: Event) -> Cache | None:
    if options.cache_ttl is None:
        return None
    task = str(getattr(embedder, "task_type", None) or "")
    return Cache(
        store,
        ttl_seconds=options.cache_ttl,
        hold_seconds=options.lease_seconds,
        kind=lambda: f"{options.model}\0{embedder.dimensions}\0{task}",
        stopping=stopping,
        persist=settle.persist,
    )


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
