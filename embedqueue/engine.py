"""Builds the parts of a queue in one process, wires them together, and takes them down again."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import redis

from .calls.batching import Limits
from .calls.cache import Cache
from .calls.caller import Caller
from .calls.concurrency import Concurrency
from .calls.fund import Fund
from .calls.lengths import Lengths
from .calls.pool import Pool
from .calls.queries import Queries
from .calls.tolls import Tolls
from .embedders.batch_jobs import batch_jobs_of
from .embedders.protocol import Embedder, QuerySide, learned_dimensions, role_of
from .embedders.text_limits import text_limit
from .futures.callbacks import Callbacks
from .futures.intake import Intake
from .futures.lateness import Lateness
from .futures.notices import Listener
from .futures.outcomes import Outcomes
from .futures.progress import Progress
from .futures.replication import Replication
from .futures.waiters import Waiters
from .jobs.desk import Desk
from .jobs.runner import Runner
from .money.batch import affordable, charge
from .money.prices import budget_price
from .observers.history import Recorder
from .observers.observers import Observers
from .observers.tally import Tally
from .search import Search
from .store.budget import BudgetTerms
from .store.door import open_store
from .store.jobs import Led
from .store.records import Terms, terms_of
from .store.replicas import Replicas
from .store.store import Store
from .values.errors import EmbedQueueError
from .values.locks import Event
from .values.log import QueueLog
from .values.options import Options
from .values.vectors import zero_vector
from .work.agenda import Agenda
from .work.dispatch import Dispatch
from .work.heartbeat import Heartbeat
from .work.purse import Purse
from .work.replaced import Replaced
from .work.settle import Settle
from .work.sinking import Sinking
from .work.worker import Worker

if TYPE_CHECKING:
    from .search.exact import ExactSearch

#: Seconds that stop() grants to API calls under way if it is given none: at least, if none was answered yet, at most.
GRACE_SECONDS = (1.0, 3.0, 10.0)


class Engine:
    """The parts of one queue in one process. A queue that was stopped, and a forked child, get a new one.

    An item goes through these parts: intake and store, when it is enqueued; worker (the agenda says when), dispatch,
    pool, caller, settle and store, when it is embedded. Its future stands in waiters. It is ended by settle; or by
    outcomes, if the listener hears that another process has embedded the item.

    Args:
        embedder: turns texts into vectors.
        client: the user's; it is only read.
        options: of the queue.
        observers: told what happens.
        wanted: returns what a future calls with its redis_key when somebody waits for it; see :class:`Waiters`.
        start_queue: starts the queue if it was not started; called when somebody waits.

    Attributes:
        terms: returns on which terms this process writes.
        name: under which this process claims and tells notices; it ends with a colon.
        closing: set when no further call may begin.
        stopping: set when the calls under way must end.
        store: Redis.
        search: finds hashes by their vectors.
        recorder: writes the history.
        tally: counts what was sent and saved.
        observers: told what happens, the tally included, and the recorder if the option ``history`` says so.
        agenda: knows what is due.
        progress: counts what ends, for those who flush.
        waiters: the unfinished futures.
        outcomes: finds out what became of items.
        intake: takes items in.
        listener: hears what other processes do and want.
        caller: calls the embedder.
        tolls: pays for its tries; None without limits.
        purse: knows what claims cost; None without a budget.
        replication: knows whether replicas have what is enqueued.
        replaced: counts vectors of other spaces in whose place ours were written.
        queries: embeds the queries of searches.
        pool: of call threads.
        settle: brings items to their end.
        cache: keeps vectors by text; None without the option ``cache_ttl``.
        dispatch: turns claimed items into calls.
        heartbeat: tells that this process works.
        runner: looks after the provider's batch jobs; None without the option ``economy``.
        worker: claims what is due.
    """

    def __init__(
        self,
        embedder: Embedder,
        client: redis.Redis | redis.RedisCluster,
        options: Options,
        observers: Observers,
        *,
        wanted: Callable[[], Callable[[str], None] | None],
        start_queue: Callable[[], None],
    ) -> None:
        self._log = QueueLog(options.namespace)
        self._client = client
        self._options = options
        self.name = f"{uuid.uuid4().hex[:12]}:"
        self.closing = Event()
        self.stopping = Event()
        self.replication = Replication(options, self._log)
        self.store = self._new_store(limited=True)
        self.replaced = self.store.replaced = Replaced(options, self._log)
        history = f"embedqueue-history-{options.namespace}"
        self.recorder = Recorder(self.store.figures.add, options.model, history, self._log)
        self.tally = Tally()
        self.observers = observers.joined_by(self.tally)
        if options.history:
            self.observers = self.observers.joined_by(self.recorder)
        self.agenda = Agenda(options)
        self.terms = partial(_terms, options, embedder)
        self.search: Search | ExactSearch = Search(self.store.searching, options.embedding_field)
        self.progress = Progress(self.observers.check_wait)
        self._make_parts_of_futures(embedder, wanted)
        self._make_parts_of_work(embedder, start_queue)

    def _new_store(self, *, limited: bool = False) -> Store:
        options = self._options
        replicas = Replicas(options.min_replicas, options.replica_patience) if options.min_replicas else None
        return open_store(
            self._client,
            options.namespace,
            replicas,
            options.limits if limited else None,
            patience_seconds=options.redis_patience,
            note=self.replication.note_vectors,
            jobs_for=(options.economy_after, options.flush_interval) if options.economy else None,
            promote=options.economy_promote,
        )

    def _make_parts_of_futures(self, embedder: Embedder, wanted: Callable[[], Callable[[str], None] | None]) -> None:
        options = self._options
        late = f"embedqueue-late-{options.namespace}"
        lateness = Lateness(self.store, self.terms, self.agenda, name=self.name, thread_name=late)
        callbacks = Callbacks(f"embedqueue-callbacks-{options.namespace}", self._log)
        self.waiters = Waiters(wanted, callbacks, lateness.words, options.vector_type)
        length = cache(partial(learned_dimensions, embedder, options.model))  # of one that never says it, asked once
        zero = partial(_zero, self.store, self.terms, options, length)
        self.outcomes = Outcomes(
            self.store,
            self.waiters,
            self.terms,
            zero,
            self.agenda,
            lambda redis_key: self.settle.works_at(redis_key),  # which is made later
            options.sink,
        )
        self.intake = Intake(
            self.store,
            self._new_store,
            self.waiters,
            zero,
            self.agenda,
            self.observers,
            options,
            self.outcomes.find_out,
            self.entered,
            self.terms,
            self.replication,
        )
        self.listener = Listener(
            self.store,
            self.waiters,
            self.outcomes,
            self.agenda,
            self.progress,
            name=self.name,
            namespace=options.namespace,
            log=self._log,
            observers=self.observers,
        )

    def _make_parts_of_work(self, embedder: Embedder, start_queue: Callable[[], None]) -> None:
        self._make_callers(embedder)
        self._make_parts_of_claims(embedder)
        self.runner = self._runner(embedder) if self._options.economy else None
        self.heartbeat = Heartbeat(self.store.workers, self._options, self.terms, name=self.name, log=self._log)
        self.worker = Worker(
            self.store,
            self.agenda,
            self.dispatch,
            self.waiters,
            self.outcomes,
            self._options,
            self.terms,
            self.heartbeat,
            purse=self.purse,
            runner=self.runner,
            name=self.name,
            start_queue=start_queue,
            log=self._log,
            observers=self.observers,
        )

    def _runner(self, embedder: Embedder) -> Runner:
        """Who looks after the provider's batch jobs."""
        options, log, cache = self._options, self._log, self.cache
        lengths = Lengths(text_limit(embedder, options.model), options.on_long, options.model)

        def desk() -> Desk | None:
            batches = batch_jobs_of(embedder, options.model)
            if batches is None:  # the queue has refused it, but an embedder may think again
                return None
            return Desk(
                store=self.store,
                batches=batches,
                options=options,
                terms=self.terms,
                fit=lengths.fit,
                embed=self._verify,
                affordable=partial(affordable, self.store.budget, options),
                known=(lambda texts: set()) if cache is None else cache.known,
                remember=(lambda vectors: None) if cache is None else cache.keep,
                charge=partial(charge, self.store.budget, options),
                wrote=self.settle.outsourced_written,
                offer=partial(self.settle.offer, patient=False),
                observers=self.observers,
                log=log,
                who=self.name.rstrip(":"),
                closing=self.closing,
                led=Led(False, 0.0, "", 0.0, []),
            )

        return Runner(desk, options, log)

    def _verify(self, texts: Sequence[str]) -> Any:
        """Embed what batch jobs are compared with."""
        try:
            return self.caller.call(texts, self.caller.once())
        finally:
            self.caller.returned()

    def _make_callers(self, embedder: Embedder) -> None:
        """Those that make calls."""
        options, log = self._options, self._log
        concurrency = Concurrency(options.max_concurrency)
        limits = _limits(options, embedder)
        self.tolls = None
        if self.store.buckets is not None:
            self.store.buckets.fit(limits.texts, limits.tokens)
            self.tolls = Tolls(self.store.buckets, embedder, log)
        alike = (options.model, options.retry, limits, concurrency, self.closing, log, self.observers)
        self.caller = Caller(embedder, *alike, options.vector_type, self.tolls)
        # Their own caller: what is learned of calls of documents need not hold for queries, nor the other way round.
        asker = Caller(QuerySide(embedder), *alike, tolls=self.tolls, lane="query")
        self.queries = Queries(
            asker,
            self.store,
            cache_kind=None if options.cache_ttl is None else lambda: f"{_kind(options, embedder)}\0query",
            cache_seconds=options.cache_ttl or 0.0,
            linger_seconds=options.wait_linger,
            name=f"embedqueue-query-{options.namespace}",
            log=log,
            observers=self.observers,
            fund=self._fund(asker),
        )

    def _fund(self, asker: Caller) -> Fund | None:
        budget = self._options.budget
        if budget is None:
            return None
        price = budget_price(self._options)
        terms = lambda: BudgetTerms(budget, price, asker.limits.texts, asker.limits.tokens)  # noqa: E731
        return Fund(self.store.budget, terms, asker, self.name, self._log)

    def _make_parts_of_claims(self, embedder: Embedder) -> None:
        """Those through which goes what was claimed."""
        options, log, observers = self._options, self._log, self.observers
        calls = f"embedqueue-call-{options.namespace}"
        self.purse = _purse(self.store, self.caller, options, log)
        self.pool = Pool(lambda: self.caller.concurrency.limit, calls, self.agenda.progressed, log)
        self.settle = Settle(
            self.store,
            self.waiters,
            self.outcomes,
            self.agenda,
            self.progress,
            options,
            self.terms,
            worker=self.name,
            stopping=self.stopping,
            purse=self.purse,
            log=log,
            observers=observers,
        )
        if options.sink is not None:
            self.settle.sinking = Sinking(
                options.sink,
                self.store.stalls,
                self.waiters,
                self.agenda,
                self.terms,
                options.vector_type,
                closing=self.closing,
                persist=self.settle.persist,
                log=log,
            )
        self.cache = _cache(self.store, self.settle, options, embedder, self.stopping)
        self.dispatch = Dispatch(
            self.caller,
            self.pool,
            self.settle,
            self.cache,
            Lengths(text_limit(embedder, options.model), options.on_long, options.model),
            options,
            self.tolls,
            worker=self.name,
            purse=self.purse,
            log=log,
            observers=observers,
        )

    def dimensions(self) -> int:
        """The length of the vectors, as the embedder tells it, or else as the first write has kept it in Redis.

        Raises:
            EmbedQueueError: neither tells.
        """
        known = self.terms().dimensions or int(self.store.agreed().get("dimensions", 0))
        if not known:
            raise EmbedQueueError("the length of the vectors is not known before the first one: embed a text first")
        return known

    def entered(self) -> bool:
        """Whether this thread holds a lock that others need to go on.

        Then it has been interrupted, by a signal's handler or a ``__del__`` of the user's, and that asks.
        """
        return self.waiters.entered or self.agenda.entered or self.recorder.entered

    def stop(self, grace_seconds: float | None) -> None:
        """Take everything down. What this process has claimed is released, and its futures are cancelled.

        The order matters: claim no more, let calls under way end and be written, and only then release what is left.

        Args:
            grace_seconds: how long to wait for calls under way. One that takes longer is left behind. None: as long as
                a call may be expected to take, for its texts would be paid for twice.
        """
        if grace_seconds is None:
            least, first, most = GRACE_SECONDS
            usual = self.caller.usual_seconds
            grace_seconds = first if usual is None else min(most, max(least, 2 * usual))
        self.closing.set()
        if self.runner is not None:
            self.runner.stop()
        self.queries.stop()
        end_mono = time.monotonic() + grace_seconds
        self.worker.stop(grace_seconds)
        self.dispatch.pool.close()
        self.dispatch.pool.wait(max(0.0, end_mono - time.monotonic()))
        self.stopping.set()
        self.listener.stop()
        if self.agenda.works:
            try:
                unsent = None if self.store.buckets is None else self.dispatch.unsent()
                self.store.release_all(self.name, unsent)
                self.heartbeat.leave()
                self.store.events.tell("wake", self.name)  # what is left here is for others, who may know nothing of it
            except Exception as error:  # what comes after it must be done all the same
                self._log.warning("embedqueue: stopped without releasing items, their leases will run out: %s", error)
            if self.purse is not None:
                self.purse.close()
        try:
            self.waiters.cancel_all()
        finally:
            self.recorder.stop()
            self.intake.close()
            self.listener.end(self.store.close)


def _limits(options: Options, embedder: Embedder) -> Limits:
    """What one call may hold: the lesser of what the options and the embedder say."""
    return Limits(
        min(options.api_batch_limit, getattr(embedder, "max_texts", None) or options.api_batch_limit),
        min(options.api_batch_tokens, getattr(embedder, "max_tokens", None) or options.api_batch_tokens),
    )


def _zero(store: Store, terms: Callable[[], Terms], options: Options, length: Callable[[], int]) -> bytes:
    """The vector of a blank text, as the bytes that would be stored. A provider is asked only where nobody knows it."""
    return zero_vector(store.learned(terms()).dimensions or length(), options.vector_type)


def _terms(options: Options, embedder: Embedder) -> Terms:
    """On which terms this process writes now; the length of the vectors may be learned late."""
    return terms_of(options, embedder.dimensions, role_of(embedder, options.model))


def _kind(options: Options, embedder: Embedder) -> str:
    """What decides the vector of a document beside its text."""
    role, variant = role_of(embedder, options.model) or "", getattr(embedder, "variant", "")
    return f"{options.model}\0{embedder.dimensions}\0{role}\0{variant}"


def _purse(store: Store, caller: Caller, options: Options, log: QueueLog) -> Purse | None:
    if options.budget is None:
        return None
    return Purse(store.budget.settle, options.budget, budget_price(options), lambda: caller.limits, log)


def _cache(store: Store, settle: Settle, options: Options, embedder: Embedder, stopping: Event) -> Cache | None:
    if options.cache_ttl is None:
        return None
    # Of float32 nothing is said, as it was before there was a choice: what is kept of then is still found.
    stored = "" if options.vector_type == "float32" else f"\0{options.vector_type}"
    return Cache(
        store,
        ttl_seconds=options.cache_ttl,
        hold_seconds=options.lease_seconds,
        kind=lambda: f"{_kind(options, embedder)}{stored}",
        name=f"embedqueue-cache-{options.namespace}",
        stopping=stopping,
        persist=settle.persist,
    )


def is_work_horse() -> bool:
    """Whether this thread does a job in RQ's child for it (``main_work_horse``), which ends with ``os._exit``."""
    # Not by sys._current_frames(), which would see the main thread from any other: while it walks, a garbage collection
    # stops the interpreter for ever (python/cpython#106883).
    frame = sys._getframe() if "rq" in sys.modules else None
    while frame is not None and frame.f_code.co_name != "main_work_horse":
        frame = frame.f_back
    return frame is not None


def stop_with_child(stop: Callable[[], object]) -> None:
    """Have ``stop`` called at the end of this process if it is a child of multiprocessing, or of Celery's pool.

    Such children end with ``os._exit``: they run multiprocessing's own finalizers, or Celery's handlers of
    ``worker_process_shutdown``, but no functions of ``atexit``.

    Args:
        stop: called without arguments.
    """
    process = sys.modules.get("multiprocessing.process")  # if nobody has imported it, this process is no child of it
    if process is not None and process.parent_process() is not None:
        from multiprocessing.util import Finalize

        Finalize(None, stop, exitpriority=10)
    if signals := sys.modules.get("celery.signals"):
        signals.worker_process_shutdown.connect(lambda **_: stop(), weak=False)
