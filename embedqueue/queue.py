"""The queue as its users see it.

Read next: ``engine`` (which parts there are), ``futures/intake`` (how an item comes in), ``work/worker``,
``work/agenda`` and ``work/plan`` (when something is done), ``work/dispatch`` and ``work/settle`` (what is done),
``store/store`` and ``store/lua`` (how it stands in Redis). docs/glossary.md defines the words.
"""

from __future__ import annotations

import contextlib
import numbers
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, Unpack, get_args

import redis
from redis.exceptions import RedisError, ResponseError

from .backlog.filler import Filler, Verified, to_fix, verified
from .backlog.inspection import Text, hashes_with_text
from .embedders.batch_jobs import batch_jobs_of, require_batch_jobs
from .embedders.protocol import Embedder
from .embedders.text_limits import text_limit
from .flushing import Flush
from .futures.future import EmbeddingFuture
from .futures.intake import Pair, in_parts
from .lifetime import remember, stop_with_process, take_down, weakly
from .money.prices import budget_price
from .observers.history import History, read_history
from .observers.observers import Functions, Observers
from .search import SearchHit, define
from .store.change import index_of
from .store.clients import refused_as_such
from .store.door import refuse_node
from .store.durability import dangers
from .store.jobs import told
from .store.records import Filled, due_seconds
from .store.usable import check_client
from .values.errors import BatchFailed, EmbedQueueError, QueueStopped
from .values.item import check_pair, check_query, checked_member, is_blank
from .values.log import QueueLog
from .values.observer import Observer
from .values.options import (
    DEFAULT_FLUSH_INTERVAL,
    DEFAULT_MAX_BATCH_SIZE,
    DEFAULT_MODEL,
    LONGEST_WITHIN,
    Options,
    QueueOptions,
    spelled_out,
)
from .values.provenance import digest
from .values.runs import WANTED, Run, Wanted
from .values.sink import RemovingSink
from .values.stats import PROBING, BatchJob, DeadLetter, LiveWorker, QueueStats
from .values.successor import Successor
from .values.vectors import to_floats
from .work.durations import BARRED_SECONDS, NEVER, OUTAGE_GRACE_SECONDS

if TYPE_CHECKING:
    from .engine import Engine

T = TypeVar("T")

#: Seconds in which a worker that no start() has started claims nothing but what it has to.
QUIET_SECONDS = 2.0
#: Seconds between looks at whether the queue was stopped, for the thread that wants to start it.
LOCK_SECONDS = 0.05
#: What a flush does about batch jobs.
Outsourced = Literal["leave", "wait", "pull"]


class EmbeddingBatchQueue:
    """The durable embedding queue. Thread-safe.

    A signal's handler, and a ``__del__``, may do with it what waits for no worker: enqueue, stop, ``flush_now``, look.
    Not :meth:`flush`, ``stop(drain=True)`` or a future's ``.result()``: what it waits for may need what it has
    interrupted. Then ``.result()`` raises ``RuntimeError``.

    Args:
        embedder: turns texts into vectors; see :class:`embedqueue.Embedder`.
        redis: any synchronous redis-py client, also ``redis.RedisCluster``. It is never changed and never closed;
            private connections are made with its settings.
        model: name of the model, as its users write it; by default the embedder's ``default_model`` where it has one.
        flush_interval: seconds that an item may wait before a drain starts.
        max_batch_size: items that, waiting together, start a drain at once.
        embedding_field: field of the users' hashes that receives the vector.
        provenance_field: field beside it that receives what the vector is of, as docs/design.md tells; "" for the name
            of ``embedding_field`` and "_of"; None: nothing is written of that.
        vector_type: "float32", or "float16" for half of the memory: what the vectors' numbers are in Redis. All workers
            of a namespace must agree in it, and an index over the hashes must have that type.
        namespace: prefix of the queue's keys.
        api_batch_limit: most texts in one API call.
        api_batch_tokens: most estimated tokens in one API call; a longer text travels alone.
        max_concurrency: most API calls in flight from this process; "auto" follows what the provider bears, halving on
            429 or slow answers and growing while it answers well.
        lease_seconds: seconds that a claim holds without a sign of life; renewed while a call runs.
        max_deliveries: how often an item's lease may run out (its worker died) before it is a dead letter.
        max_pending: most items that may wait, or None; ``enqueue`` raises ``QueueFull`` beyond.
        flush_on_wait: whether ``.result()`` makes an item urgent.
        wait_linger: seconds that the drain of such an item waits for others at most, so that concurrent handlers share
            one call. It starts once nobody has come for a quarter of that.
        worker: False: this process only enqueues and waits.
        retry: a tenacity policy for tries in place, such as ``tenacity.Retrying(...)``; None for ours.
        cache_ttl: seconds for which vectors are kept by text, or None for no cache.
        if_missing: "create" the hash if it is gone when its vector arrives, or "skip" it.
        max_text_chars: longest text in characters, or None; ``enqueue`` raises ``ValueError`` beyond.
        on_long: what to do with a text of more tokens than the model takes, as far as that is known: "reject" it, so
            that it becomes a dead letter, or "truncate" it to a beginning that fits. None rejects it if the provider
            would cut it without a word, and else leaves it to the provider, which refuses it. docs/providers.md has the
            limits, and what is estimated.
        min_replicas: how many replicas have to have what is enqueued before ``enqueue``, ``enqueue_many`` and
            ``forget`` return, by Redis' WAIT, in the same round trip; else they raise :class:`NotReplicated`. 0, None:
            none.
        replica_patience: seconds for which the replicas are waited for, whatever the client's own time limit. On a
            cluster so long does a vector wait for them, before its item is acknowledged all the same.
        redis_patience: seconds for which a Redis Cluster is waited for that moves slots, fails over or is down, before
            redis-py's own error is raised. A single Redis is asked as the client's own retry policy says.
        limits: how much all workers together may send, :class:`embedqueue.Limits`; "auto" for what the provider says;
            None for no limit. What may not be sent yet waits in Redis. Every worker of the namespace needs the same.
        budget: how many dollars may be spent on embedding a day or a month, or None; see :class:`embedqueue.Budget`.
            Every process that works the queue needs it.
        prices: dollars for a million tokens by model, where the list prices do not know better.
        sink: an object with ``write(rows)`` that takes the vectors in as well, before their items are acknowledged; see
            :class:`embedqueue.Sink`. Every process that works the queue needs it. None: the hashes alone.
        economy: put what may wait for long into the provider's batch jobs, at a half or a third less; see
            docs/half-price.md. The embedder has to know them.
        economy_after: seconds; what is due later than in so many goes into jobs.
        economy_min_texts: fewer texts make no job; they wait until the first of them comes within ``economy_after`` of
            the time at which it is due, and is embedded as any other item.
        economy_max_texts: most texts in one job.
        economy_deadline: seconds before it is due at which an item leaves its job, to be embedded as any other.
        economy_poll: seconds between two looks at a job, at first and at most.
        economy_lag: seconds for which a job that may have been created is looked for in the provider's list, before
            its items go back.
        economy_promote: whether an item leaves its job when somebody waits for its future. It may be paid twice then.
        successor: the queue of the field to which the model is being changed, or None: searches and ``embed_query`` go
            to it from the moment on at which somebody cuts over; it is started and stopped with this one. See
            docs/changing-models.md.
        history: whether this process writes down how much it does, for ``history()`` and the dashboard.
        observers: told what happens; see :class:`embedqueue.Observer`. What they raise is logged once.
        on_batch: called with a :class:`BatchReport` when vectors were written; it is an observer of one function, as
            are the next two.
        on_error: called with a :class:`CallReport` when an API call failed, with a :class:`RedisReport` when Redis did.
        on_dead: called with a :class:`DeadLetter` when an item was given up.

    Raises:
        TypeError: an option of the wrong type, an embedder without ``dimensions`` and ``embed_batch``, or a client that
            a queue cannot work with: of asyncio, or one that changes keys.
        ValueError: an option out of range.
    """

    @spelled_out
    def __init__(
        self,
        embedder: Embedder,
        redis: redis.Redis | redis.RedisCluster,
        model: str = DEFAULT_MODEL,
        flush_interval: float = DEFAULT_FLUSH_INTERVAL,
        max_batch_size: int = DEFAULT_MAX_BATCH_SIZE,
        **options: Unpack[QueueOptions],
    ) -> None:
        if not callable(getattr(embedder, "embed_batch", None)) or not hasattr(embedder, "dimensions"):
            raise TypeError("embedder must have dimensions and embed_batch(texts, model)")
        check_client(redis)
        own_model = getattr(embedder, "default_model", None)
        if model == DEFAULT_MODEL and isinstance(own_model, str):
            model = own_model
        self._options = Options(model=model, flush_interval=flush_interval, max_batch_size=max_batch_size, **options)
        if callable(meet := getattr(embedder, "meet", None)):
            meet(model)
        if self._options.economy:
            require_batch_jobs(embedder, model)
        if self._options.budget is not None:
            budget_price(self._options)  # raises where it is not known
        self._log = QueueLog(self._options.namespace)
        if self._options.on_long is not None and text_limit(embedder, model) is None:
            words = (
                "embedqueue: on_long does nothing, for it is not known what %s takes: give the embedder max_text_tokens"
            )
            self._log.warning(words, model)
        self._embedder = embedder
        self._redis = redis
        self._lock = threading.RLock()  # reentrant: a signal's handler may call stop() while start() or stop() holds it
        self._closed = False  # whether stop() was called; guarded by the lock, as are the next three
        self._shut = False  # whether it has come to its end
        self._shutting = False  # whether it is under way
        self._started = False
        self._quiet_seconds = QUIET_SECONDS  # until somebody says start()
        self._warned_not_started = False
        self._checked_durability = False
        self._observers = _observers(self._options, self._log).bind(self._options.namespace, redis)
        # What takes down the engine of a queue that nobody holds any more: nothing yet.
        self._dropped: Any = weakref.finalize(self, int)
        self._engine = self._new_engine()
        remember(self, self._forked, self._stop_at_exit)

    # -- life --------------------------------------------------------------------------------------------------

    def start(self, *, quietly: bool = False) -> Self:
        """Start the worker thread, and drain what an earlier run left. Idempotent.

        A queue that was stopped starts anew. With ``worker=False`` there is no thread to start.

        Args:
            quietly: for a start because of some use. This process may end at once, as after one job, and must not take
                along what others would embed: for two seconds it claims only what somebody waits for or asks for, and
                what is enough for a drain by its number. A later ``start()`` ends that.

        Returns:
            The queue itself.

        Raises:
            RuntimeError: there are no more threads.
        """
        if self._options.successor is not None:
            self._options.successor.start(quietly=quietly)
        with self._lock:
            if not quietly:
                self._quiet_seconds = 0.0
            if self._closed:
                self._engine = self._new_engine()
                self._closed = False
            self._start_open()
        return self

    def _start_waited_for(self) -> None:
        """Start in the worker's thread, because somebody waits: never in the way of a stop(), which waits for us."""
        while not self._lock.acquire(timeout=LOCK_SECONDS):
            if self._closed:
                return
        try:
            self._start_open()
        finally:
            self._lock.release()

    def _start_open(self) -> None:
        """Start, unless the queue is stopped."""
        with self._lock:
            if self._closed:
                return
            if not self._started:
                self._started = True
                self._warn_of_data_loss()
            self._start_worker()

    def _start_worker(self) -> None:
        stop_with_process(os.getpid())
        if self._options.worker:
            # What others ask for before this instant is of items that the worker finds left; later requests are heard.
            from .engine import is_work_horse

            began_mono = time.monotonic()
            self._engine.worker.start(NEVER if is_work_horse() else self._quiet_seconds)
            self._engine.listener.ensure(began_mono)

    def _ready(self) -> Engine:
        """The parts of this process, for a method that needs a queue that is not stopped."""
        if self._closed:
            raise QueueStopped("the queue is stopped")
        engine = self._engine
        if self._started and self._options.worker and not engine.agenda.acts:
            self._start_worker()  # the first use after a fork
        return engine

    def _new_engine(self) -> Engine:
        from .engine import Engine  # half of all there is to import, and many processes make no queue

        self._dropped.detach()
        engine = Engine(
            self._embedder,
            self._redis,
            self._options,
            self._observers,
            wanted=weakref.WeakMethod(self._wanted),
            start_queue=weakly(self, EmbeddingBatchQueue._start_waited_for),
        )
        self._dropped = weakref.finalize(self, take_down, engine, self._log)
        self._dropped.atexit = False  # at the end of the process, all queues are stopped anyway
        return engine

    def _forked(self) -> None:
        self._lock = threading.RLock()
        self._shutting = False  # another thread of the parent's may have been in stop()
        self._engine = self._new_engine()

    def stop(self, timeout: float | None = None, drain: bool = False) -> None:
        """Stop. Items stay in Redis. What this process has claimed is released, and its futures are cancelled.

        Args:
            timeout: seconds. Without ``drain``, for API calls under way; None grants twice as long as calls took of
                late at most, but no less than a second and no more than ten, and three as long as none was answered.
                With it, for all there is to do; None waits until it is done or the provider fails. No further call is
                begun. One that takes longer is left behind, and its texts are sent again.
            drain: flush first. What is not done in time stays queued, and the log says so.

        Raises:
            TypeError, ValueError: no number of seconds; nothing was stopped.
        """
        timeout = _timeout(timeout)
        deadline_mono = time.monotonic() + (timeout or 0.0)
        try:
            if drain and not self._closed:
                self._flush_before_stop(timeout)
        finally:
            with self._lock:
                # A signal's handler may interrupt stop() and call it again: that one must return, for it would wait for
                # what the interrupted one holds. If the handler raises, the interrupted one does not come to its end:
                # the next stop() does the rest, at the latest the one at the end of the process.
                if not (self._closed and self._shut) and not self._shutting:
                    self._closed = self._shutting = True
                    self._started = self._shut = False
                    try:
                        self._engine.stop(None if timeout is None else max(0.0, deadline_mono - time.monotonic()))
                        self._shut = True
                        self._dropped.detach()
                    finally:
                        self._shutting = False
            if self._options.successor is not None:
                self._options.successor.stop(timeout)

    def _stop_at_exit(self) -> None:
        """Stop at the end of the process. If a signal comes meanwhile, go on without grace: items must be released."""
        for timeout in (None, 0.0, 0.0):
            try:
                self.stop(timeout)
                return
            except (SystemExit, KeyboardInterrupt):  # raised by a signal's handler; the process is ending already
                continue

    def _flush_before_stop(self, timeout: float | None) -> None:
        try:
            self.flush(timeout)
        except (TimeoutError, BatchFailed, QueueStopped, RedisError) as error:
            self._log.warning("embedqueue: stopping before everything was embedded: %s", error)

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop; what was not embedded stays queued."""
        self.stop()

    @property
    def options(self) -> Options:
        """The options of the queue, defaults included. They cannot be changed."""
        return self._options

    @property
    def closed(self) -> bool:
        """Whether the queue is stopped."""
        return self._closed

    def __repr__(self) -> str:
        """The queue's name and state, without any secret."""
        state = "closed" if self._closed else "started" if self._started else "not started"
        return f"<EmbeddingBatchQueue {self._options.namespace!r} model={self._options.model!r} {state}>"

    # -- enqueuing ---------------------------------------------------------------------------------------------

    def enqueue(
        self, redis_key: str, text: str, *, within: float | None = None, if_changed: bool = False
    ) -> EmbeddingFuture:
        """Take an item in, in one round trip to Redis. It is durable when this returns.

        The newest text of a key wins: all unfinished futures of the key resolve with the vector that ends up in its
        hash. A blank text is not embedded: its future holds the zero vector, nothing is stored, and an older text of
        the key that still waits is dropped.

        Args:
            redis_key: the hash that receives the vector.
            text: what to embed.
            within: seconds in which it shall be embedded, as far as that depends on the queue: by then a drain starts.
                What may wait for long stands behind what may not, and ages to the front. None: ``flush_interval``.
            if_changed: where the hash has the vector of this very text already, by this model, and nothing of the key
                is unfinished, queue nothing: the future has ended with that vector. Needs ``provenance_field``.

        Returns:
            A future of the vector, ``dimensions`` floats. If the same text of the key is unfinished, it is the same
            future again.

        Raises:
            TypeError, ValueError: bad arguments, or ``if_changed`` without ``provenance_field``; nothing was written.
            QueueFull: ``max_pending`` items wait.
            NotReplicated: with ``min_replicas``: too few replicas had it in time; it is queued all the same.
            QueueStopped: the queue is stopped.
            redis.RedisError: Redis cannot be reached; nothing is known to have been accepted.
        """
        return self._submit([self._pair(redis_key, text)], self._digests([text], if_changed), _seconds(within))[0]

    def enqueue_many(
        self, items: Iterable[tuple[str, str]], *, within: float | None = None, if_changed: bool = False
    ) -> list[EmbeddingFuture]:
        """Take many items in, in one round trip. All of them reach Redis, or none does.

        More than 10,000 pairs, or 8 MB of them, go in parts of that size, of which each is all or nothing: Redis serves
        nobody else while it takes a part in. A Redis that refuses commands of that size gets smaller parts.

        Args:
            items: (redis_key, text) pairs, as :meth:`enqueue` takes them. Of several texts of a key, the last one wins.
            within: as with :meth:`enqueue`, of each.
            if_changed: as with :meth:`enqueue`. The vectors that are there already are read afterwards, in slices.

        Returns:
            Futures, in order.

        Raises:
            TypeError, ValueError: a bad pair; nothing was written.
            QueueFull, QueueStopped, redis.RedisError: as with :meth:`enqueue`. If parts before were taken, a note of it
                (``__notes__``) says how many pairs those are.
            NotReplicated: as with :meth:`enqueue`, of the pairs of one part; further parts are not enqueued.
        """
        seconds = _seconds(within)
        texts = [_two(item) for item in items]
        pairs = [self._pair(*item) for item in texts]
        digests = self._digests((text for _, text in texts), if_changed)
        futures: list[EmbeddingFuture] = []

        def put(part: Sequence[Pair]) -> list[EmbeddingFuture]:
            at = len(futures)
            return self._submit(part, digests and digests[at : at + len(part)], seconds)

        for some in _in_parts(pairs, put):
            futures += some
        return futures

    def _pair(self, redis_key: str, text: str) -> Pair:
        member = checked_member(redis_key, text, self._options.namespace, self._options.max_text_chars)
        return redis_key, b"" if is_blank(text) else member

    def _digests(self, texts: Iterable[str], if_changed: bool) -> list[str] | None:
        if not if_changed:
            return None
        if self._options.provenance_field is None:
            raise ValueError("if_changed needs a provenance_field: nothing else tells what a vector is of")
        return ["" if is_blank(text) else digest(text) for text in texts]

    def _fill_in(self, texts: Sequence[Text], newest: Sequence[int] | None, within: float | None) -> Iterator[Filled]:
        """Enqueue texts that were found somewhere, but those of keys that have got newer ones since, part by part.

        Args:
            texts: of several texts of a key, the last one counts.
            newest: of each, the stamp of the newest item of its key that was known then; None: all are enqueued.
            within: as with :meth:`enqueue`.
        """
        known = None if newest is None else dict(zip((redis_key for redis_key, _ in texts), newest, strict=True))

        def put(part: Sequence[Pair]) -> Filled:
            fill_in = self._ready().intake.fill_in
            stamps = None if known is None else [known[redis_key] for redis_key, _ in part]
            return self._put(part, lambda: fill_in(part, stamps, within))

        return _in_parts([self._pair(*text) for text in dict(texts).items()], put)

    def _submit(
        self, pairs: Sequence[Pair], digests: Sequence[str] | None = None, within: float | None = None
    ) -> list[EmbeddingFuture]:
        submit = self._ready().intake.submit
        return self._put(pairs, lambda: submit(pairs, digests, within))

    def _put(self, pairs: Sequence[Pair], put: Callable[[], T]) -> T:
        """Let pairs be put in, and tell whoever wants to know of it."""
        engine = self._engine
        try:
            done = self._watched(pairs, put) if self._observers else put()
        except RedisError as error:
            engine.observers.redis_failed(error)
            raise
        if not self._options.worker:
            engine.listener.ensure()
        elif not (self._started or self._closed or self._warned_not_started):
            self._warned_not_started = True
            self._log.warning("embedqueue: enqueuing on a queue that was not started; its items wait in Redis")
        return done

    def _watched(self, pairs: Sequence[Pair], put: Callable[[], T]) -> T:
        observers, redis_keys = self._observers, [redis_key for redis_key, _ in pairs]
        observers.tell("enqueuing", redis_keys)
        try:
            done = put()
        except BaseException as error:
            observers.tell("not_enqueued", redis_keys, error)
            raise
        observers.tell("enqueued", redis_keys)
        return done

    def forget(self, redis_key: str, vector: bool = False) -> None:
        """Drop all that there is of a key, as its document is deleted.

        Afterwards nothing of it waits, is in flight or is a dead letter, and no vector of it is written any more,
        whoever holds it; until it is enqueued again. Who waits for it gets :class:`ItemRejected`. What another program
        has put into ``pending`` is not found only where it has taken as many members out, and no claim came since.

        Args:
            redis_key: the hash that would receive the vector.
            vector: take the vector, and what it is of, out of the hash and the sink as well. Without
                ``provenance_field`` that of a text may go which somebody enqueues meanwhile, if its vector is quicker.

        Raises:
            TypeError, ValueError: no possible key.
            NotReplicated: with ``min_replicas``: too few replicas had heard of it in time, and the vector was left
                where it is: call again.
            QueueStopped: the queue is stopped.
            redis.RedisError: Redis cannot be reached; or, ``redis.ResponseError``, the vector is to go and there is no
                hash at the key, but something else.
            Exception: what the sink raises, last of all: call again.
        """
        check_pair(redis_key, "", self._options.namespace, None)
        engine = self._ready()
        stamp, second_stamp = engine.intake.forget(redis_key)
        if self._adopt():  # another program may have left a text of the key
            stamp, second_stamp = engine.intake.forget(redis_key)
        if vector:
            self._erase(redis_key, stamp)
            terms = engine.terms().where(engine.store.agreed())
            if terms.field != engine.terms().field:  # a reembed has ended, which this process may know nothing of
                engine.store.hashes.erase(redis_key, terms, stamp)
            second = engine.store.change.second() if second_stamp else None
            if second is not None:
                engine.store.hashes.erase_second(redis_key, second, second_stamp)

    def _adopt(self) -> bool:
        """Put in order what another program has left; returns whether there was anything."""
        left = self._engine.store.status().strays != 0  # less than 0: more has been taken out than put in
        if left:
            for _ in self._engine.worker.put_in_order():
                pass
        return left

    def _erase(self, redis_key: str, stamp: int) -> bool:
        """Take the vector of an item that is older than this stamp out of the hash and the sink.

        Returns whether the hash has none now.
        """
        engine = self._ready()
        taken = engine.store.hashes.erase(redis_key, engine.terms(), stamp)
        if isinstance(self._options.sink, RemovingSink):
            self._options.sink.remove([redis_key], stamp)
        return taken or not engine.store.hashes.look([redis_key], engine.terms())[0].vector_bytes

    def _wanted(self, redis_key: str) -> None:
        """Somebody waits in ``.result()``, so the item is urgent. Does no I/O: the caller may hold a future's lock."""
        if self._closed:
            return
        engine = self._engine
        engine.observers.check_wait()
        if engine.entered():  # who would end the future needs what this thread holds
            raise RuntimeError(
                "this signal handler, or __del__, has interrupted embedqueue, and would wait for ever here"
            )
        member = engine.waiters.mark_wanted(redis_key)
        engine.worker.demanded([] if engine.settle.holds(redis_key, member) else [redis_key])

    # -- searching ---------------------------------------------------------------------------------------------

    def embed_query(self, text: str, timeout: float | None = None) -> list[float]:
        """The vector of a search query, in the model's role of queries. Nothing is enqueued, and no hash is written.

        The call is made by this process at once, also with ``worker=False`` and without a ``start()``, beside the
        ``max_concurrency`` calls of documents. Callers who come together share it, and equal texts are sent once. With
        ``cache_ttl``, vectors of queries are kept as well, apart from those of documents.

        Args:
            text: what is looked for.
            timeout: seconds to wait at most; None waits until the provider has answered or failed.

        Returns:
            ``dimensions`` floats.

        Raises:
            TypeError: the text is no str.
            ValueError: it is blank, so that nothing is near it; or longer than ``max_text_chars``; or no UTF-8.
            TimeoutError: there is no vector in time.
            BatchFailed: the queue is paused, or the provider failed; ``__cause__`` is what the embedder raised.
            InputRejected: the provider refuses this text.
            QueueStopped: the queue is stopped.
            redis.RedisError: Redis cannot be reached, so that nobody knows whether there is a pause.
        """
        check_query(text, self._options.max_text_chars)
        timeout = _timeout(timeout)
        self._ready()
        successor, _ = self._read_from()
        return self._embed_query(text, timeout) if successor is None else successor.embed_query(text, timeout)

    def _embed_query(self, text: str, timeout: float | None) -> list[float]:
        """By this queue's own model, whatever is read; the text is checked."""
        engine = self._ready()
        engine.observers.check_wait()
        return to_floats(engine.queries.ask(text, timeout))

    def search(
        self,
        text: str,
        k: int = 10,
        *,
        index: str,
        filter: str | None = None,  # noqa: A002 - as Redis calls it
        return_fields: Iterable[str] | None = None,
        timeout: float | None = None,
    ) -> list[SearchHit]:
        """The hashes whose vectors are nearest to a query's, the nearest first.

        Args:
            text: what is looked for.
            k: how many at most.
            index: its name; :meth:`create_index` makes one, and any other over ``embedding_field`` will do.
            filter: which hashes may be found, in the language of Redis' search, such as ``"@lang:{en}"``.
            return_fields: which fields of the hashes come along; None for all but the vector.
            timeout: seconds to wait for the query's vector at most; see :meth:`embed_query`.

        Raises:
            TypeError, ValueError, TimeoutError, BatchFailed, InputRejected, QueueStopped: as :meth:`embed_query`.
            EmbedQueueError: there is no such index, or Redis cannot search.
            redis.RedisError: Redis cannot be reached, or cannot read the filter.
        """
        check_query(text, self._options.max_text_chars)
        if not isinstance(k, int) or isinstance(k, bool) or k < 1:
            raise ValueError(f"k must be a whole number from 1 on, not {k!r}")
        if isinstance(return_fields, str):
            raise TypeError("return_fields must be a list of names, not one str")
        if not isinstance(index, str | bytes):
            raise TypeError(f"index must be the name of an index, not {index!r}")
        wanted, timeout = None if return_fields is None else list(return_fields), _timeout(timeout)
        engine = self._ready()
        successor, reading = self._read_from()
        if successor is not None:
            named = index_of(reading, index, second=True)
            return successor.search(text, k, index=named, filter=filter, return_fields=wanted, timeout=timeout)
        vector = self._embed_query(text, timeout)
        try:
            return engine.search.find(index, vector, k, filter, wanted)
        except (EmbedQueueError, ResponseError):
            # Somebody may have led the index's alias to another model's vectors, which this process does not know; and
            # back again since.
            first = index_of(engine.store.change.reading(), index, second=False)
            return engine.search.find(first, vector, k, filter, wanted)

    def _read_from(self) -> tuple[Successor | None, Mapping[str, Any]]:
        """The queue of the second field, once somebody has cut over to that; and what Redis says of it."""
        successor = self._options.successor
        reading = {} if successor is None else self._engine.store.change.reading()
        chosen = successor is not None and reading.get("field") == successor.options.embedding_field
        return (successor if chosen else None), reading

    def create_index(
        self,
        name: str,
        prefix: str | Iterable[str],
        *,
        algorithm: str = "HNSW",
        distance: str = "COSINE",
        fields: Mapping[str, str | Sequence[str]] | None = None,
        provenance: bool = False,
    ) -> None:
        """Create an index over the vectors, unless an equal one is there. Redis keeps it up to date from then on.

        Args:
            name: of the index.
            prefix: what the hashes' keys begin with, or several of those.
            algorithm: "HNSW" (fast, finds nearly all) or "FLAT" (compares every vector).
            distance: "COSINE", "L2" or "IP".
            fields: other fields to filter by, and their types: ``{"lang": "TAG", "price": "NUMERIC"}``, or more words
                of their schema: ``"TAG SEPARATOR ;"``. If the index is there, the types are compared.
            provenance: hold ``provenance_field`` as well, as tags: space, digest and stamp.

        Raises:
            TypeError, ValueError: what cannot be.
            EmbedQueueError: another index of this name is there; Redis cannot search; or the length of the vectors is
                not known yet.
            QueueStopped: the queue is stopped.
            redis.RedisError: Redis cannot be reached.
        """
        if not isinstance(fields, Mapping | None):
            raise TypeError(f"fields must be a dict, such as {{'lang': 'TAG'}}, not {type(fields).__name__}")
        engine, more = self._ready(), dict(fields or {})
        if provenance:
            if self._options.provenance_field is None:
                raise ValueError("this queue has no provenance_field, so there is nothing to hold")
            more[self._options.provenance_field] = ("TAG", "SEPARATOR", " ", "CASESENSITIVE")
        definition = define(
            prefix,
            vector_field=self._options.embedding_field,
            dimensions=engine.dimensions(),
            algorithm=algorithm,
            distance=distance,
            fields=more,
            vector_type=self._options.vector_type,
        )
        engine.search.create(name, definition)

    # -- draining ----------------------------------------------------------------------------------------------

    def flush_now(self) -> None:
        """Start a drain now, and do not wait for it. With ``worker=False``, the workers of other processes are asked.

        Raises:
            QueueStopped: the queue is stopped.
            redis.RedisError: Redis cannot be reached (only with ``worker=False``).
        """
        engine = self._ready()
        if self._options.worker:
            if not self._started:
                self._start_open()
            engine.agenda.flush()
        else:
            engine.store.events.tell("flush", engine.name)

    def flush(self, timeout: float | None = None, *, outsourced: Outsourced = "leave") -> None:
        """Start a drain now, and wait until everything is finished that was enqueued before, by any process.

        Args:
            timeout: seconds to wait at most; None waits until it is finished, or until the provider fails.
            outsourced: what becomes of items that are in batch jobs, or wait for one (``economy``). "leave" leaves
                them there, and does not wait for them. "wait" waits for them, as long as that takes. "pull" embeds
                them now, at the full price; what was in a job may be paid for twice.

        Raises:
            TypeError, ValueError: another word, or no number of seconds.
            TimeoutError: not finished in time.
            BatchFailed: without a timeout only: the provider failed, or somebody has paused the queue, so that waiting
                might never end.
            QueueStopped: the queue is stopped.
            redis.RedisError: Redis cannot be reached.
        """
        if outsourced not in get_args(Outsourced):
            raise ValueError(f'outsourced must be "leave", "wait" or "pull", not {outsourced!r}')
        timeout = _timeout(timeout)
        flush = Flush(self._ready(), self.flush_now, self._log)
        if outsourced == "pull":
            flush.pull()
        flush.run(timeout, all_lanes=outsourced != "leave")

    # -- looking -----------------------------------------------------------------------------------------------

    def pending_count(self) -> int:
        """How many items wait in Redis, whichever process has enqueued them.

        Raises:
            redis.RedisError: Redis cannot be reached.
        """
        return self._engine.store.pending_count()

    def stats(self) -> QueueStats:
        """How the queue stands, in one round trip to Redis.

        Raises:
            redis.RedisError: Redis cannot be reached.
        """
        engine = self._engine
        status, counters, tally = engine.store.status(workers=True), engine.settle.counters, engine.tally
        callers = engine.caller, engine.queries.caller
        barred = engine.worker.barred
        pause_seconds = BARRED_SECONDS if barred and status.pause_seconds is None else status.pause_seconds
        return QueueStats(
            waiting=status.waiting + status.meant,
            in_flight=status.in_flight,
            dead=status.dead,
            oldest_age=status.oldest_age_seconds,
            paused_until=None if pause_seconds is None else time.time() + pause_seconds,
            pause_reason=PROBING if status.probing else status.pause_reason or barred or None,
            enqueued=engine.intake.accepted,
            embedded=counters.embedded,
            rejected=counters.rejected,
            released=counters.released,
            calls=sum(caller.calls for caller in callers),
            failed_calls=sum(caller.failed_calls for caller in callers),
            texts_sent=sum(caller.texts_sent for caller in callers),
            calls_under_way=engine.pool.unfinished,
            last_progress=counters.last_progress,
            truncated=counters.truncated,
            due_in=due_seconds(status.score_age_seconds, status.base_seconds, self._options.flush_interval),
            workers=status.workers,
            not_replicated=engine.replication.missed,
            vectors_not_replicated=engine.replication.vectors_missed,
            replaced=engine.replaced.count,
            limits=status.limits,
            for_jobs=status.meant,
            outsourced=status.outsourced,
            used_tokens=tally.used_tokens,
            estimated_tokens=tally.estimated_tokens,
            saved_texts=tally.saved_texts,
            saved_tokens=tally.saved_tokens,
            unanswered_texts=tally.unanswered_texts,
        )

    def workers(self) -> list[LiveWorker]:
        """The workers of the queue, in whatever process, that have announced themselves: by host and pid.

        Raises:
            redis.RedisError: Redis cannot be reached, or does not let us know.
        """
        return self._engine.store.workers.all()

    def runs(self) -> list[Run]:
        """The backfills, verifies and reembeds that commands do or have done, the latest first; see :class:`Run`.

        Raises:
            redis.RedisError: Redis cannot be reached.
        """
        return self._engine.store.runs.all()

    def ask_run(self, name: str, wanted: Wanted) -> Run | None:
        """Have a run stand still, go on, or stop; it does within some seconds.

        Args:
            name: of the run.
            wanted: "pause", "resume" or "stop".

        Returns:
            How it stood when it was asked; only one that is running or paused hears of it. None: there is no such run.

        Raises:
            ValueError: it wants something else.
            redis.RedisError: Redis cannot be reached.
        """
        if wanted not in WANTED:
            raise ValueError(f"a run can be asked to {', '.join(WANTED)}, not {wanted!r}")
        return self._engine.store.runs.ask(name, wanted)

    def jobs(self) -> list[BatchJob]:
        """The provider's batch jobs of the queue, the latest first, with those of late that are over (``economy``).

        Raises:
            redis.RedisError: Redis cannot be reached.
        """
        return [told(job) for job in reversed(self._engine.store.jobs.look().jobs)]

    def cancel_job(self, name: str) -> int:
        """Send all items of a batch job to the live lane, and have the provider cancel it. They may be paid for twice.

        Args:
            name: of the job, as :meth:`jobs` tells it.

        Returns:
            How many items it still held.

        Raises:
            KeyError: there is no such job, or it is over.
            redis.RedisError: Redis cannot be reached.
        """
        engine = self._engine
        job = next((job for job in engine.store.jobs.look().jobs if job.name == name and job.active), None)
        if job is None:
            raise KeyError(name)
        back = engine.store.jobs.give_back(name, list(engine.store.jobs.lines(name)))
        if back:
            engine.observers.tell("maybe_paid_twice", back)
        batches = batch_jobs_of(self._embedder, self._options.model)
        if batches is not None and job.provider_id:
            try:
                batches.cancel(job.provider_id)
            except EmbedQueueError as error:  # whoever looks after the jobs finds that it holds nothing, and cancels it
                self._log.warning("embedqueue: the provider has not cancelled batch job %s yet: %s", name, error)
        return back

    def history(self, minutes: int = 60, days: int = 30) -> History:
        """What all processes did lately, if they have the option ``history``.

        Args:
            minutes: how many of the last minutes, up to 120: more are not kept, and not told.
            days: how many of the last days (of UTC), up to 400: likewise.

        Raises:
            ValueError: either is less than one.
            redis.RedisError: Redis cannot be reached.
        """
        if minutes < 1 or days < 1:
            raise ValueError("minutes and days must be at least 1")
        return read_history(self._engine.store.figures, minutes, days)

    # -- vectors that are there ---------------------------------------------------------------------------------

    def verify(
        self,
        items: Iterable[tuple[str, str]] | None = None,
        *,
        match: str | None = None,
        text_field: str | None = None,
        fix: bool = False,
        relabel: bool = False,
        within: float | None = None,
    ) -> Verified:
        """Look whether hashes have the vectors of their texts, of this model; and put right those that have not.

        No vector is moved, and nothing is paid for but what is enqueued. May be stopped and started again. Where
        somebody else enqueues a text of a key meanwhile, that key is left alone: the text may be newer.

        Args:
            items: (redis_key, text) pairs. Or else, with the next two, the texts that stand in the hashes themselves:
            match: of the hashes' keys, a pattern as SCAN takes it.
            text_field: the field that holds the text.
            fix: enqueue what is missing or wrong; of a blank text, take the vector out of its hash.
            relabel: enqueue also where a vector of the right length is there and nothing says what it is of, as one
                that an earlier release has written. Else such vectors are left alone.
            within: seconds in which what is enqueued shall be embedded; None: ``flush_interval``.

        Returns:
            How many there are of each kind; see :class:`Verified`.

        Raises:
            TypeError: neither items nor both of the others; or what is no pair of strings.
            QueueFull, NotReplicated: with ``fix``; what went before is enqueued.
            EmbedQueueError: with ``fix``, where the workers write otherwise than this process would: what is wrong
                would stay so.
            QueueStopped: the queue is stopped.
            redis.RedisError: Redis cannot be reached.
        """
        if items is None:
            if match is None or text_field is None:
                raise TypeError("verify takes items, or both match and text_field")
            items = self._texts(match, text_field)
        else:
            items = map(_two, items)
        kinds = to_fix(relabel=relabel) if fix else ()
        return verified(self._filler(kinds, within=_seconds(within)).fill(items))

    def _filler(
        self,
        kinds: Collection[str] | None,
        max_waiting: int | None = None,
        full: Callable[[int], None] | None = None,
        *,
        within: float | None = None,
        before: Callable[[Sequence[Text]], None] | None = None,
        check: Callable[[], None] | None = None,
    ) -> Filler:
        """What looks at many texts and enqueues those of these kinds; for the commands, too."""
        engine = self._ready()

        def unfit(text: Text, error: ValueError) -> None:
            self._log.warning("embedqueue: %s cannot be enqueued and is left out: %s", text[0], error)

        return Filler(
            self,
            self._fill_in,
            engine.store,
            engine.terms,
            kinds,
            unfit=unfit,
            erase=self._erase,
            max_waiting=max_waiting,
            within=within,
            full=full,
            before=before,
            check=check,
        )

    def _texts(self, match: str, text_field: str) -> Iterator[Text]:
        """The texts that stand in hashes."""
        return hashes_with_text(self._ready().store, match, text_field)

    # -- dead letters ------------------------------------------------------------------------------------------

    def dead_letters(self, limit: int = 100, offset: int = 0, *, max_bytes: int | None = None) -> list[DeadLetter]:
        """The items that were given up, the latest first.

        Args:
            limit: how many at most.
            offset: how many of the latest to leave out.
            max_bytes: None gives all of them whole. If you only show them, give a limit: long ones are then given
                whole while they fit into so many bytes together. Of the others you get the first 4,096 bytes of text
                and reason, cut in Redis, and no ``member``. A letter that is not our JSON is never cut: the list ends
                before one that does not fit, unless it would be empty.

        Raises:
            ValueError: a negative limit, offset or max_bytes.
            redis.RedisError: Redis cannot be reached.
        """
        if limit < 0 or offset < 0 or (max_bytes or 0) < 0:
            raise ValueError("limit, offset and max_bytes must not be negative")
        return self._engine.store.dead.page(limit, offset, max_bytes)

    def retry_dead(self, redis_keys: str | bytes | Iterable[str | bytes] | None = None) -> int:
        """Put dead letters back, at the end of the queue.

        Args:
            redis_keys: of the letters, one or many; for a letter that has no redis_key, its ``member``; None for all.

        Returns:
            How many were put back.

        Raises:
            TypeError: what names no letter; nothing was put back.
            redis.RedisError: Redis cannot be reached; some may have been put back.
        """
        names = self._dead_names(redis_keys)
        self._adopt()  # a newer text of a key, which another program has left, keeps its letter out
        return self._engine.store.dead.retry(names)

    def discard_dead(self, redis_keys: str | bytes | Iterable[str | bytes] | None = None) -> int:
        """Drop dead letters for good.

        Args:
            redis_keys: as with :meth:`retry_dead`.

        Returns:
            How many were dropped.

        Raises:
            TypeError: what names no letter; nothing was dropped.
            redis.RedisError: Redis cannot be reached; some may have been dropped.
        """
        return self._engine.store.dead.discard(self._dead_names(redis_keys))

    def _dead_names(self, redis_keys: str | bytes | Iterable[str | bytes] | None) -> list[str | bytes]:
        if redis_keys is None:
            return list(self._engine.store.dead.names())
        names = [redis_keys] if isinstance(redis_keys, str | bytes) else list(redis_keys)
        for name in names:  # Redis would be asked for the str() of a letter, or of None, and say that there is none
            if not isinstance(name, str | bytes):
                raise TypeError(f"a dead letter is named by its redis_key, or its member, not by {type(name).__name__}")
        return names

    def _warn_of_data_loss(self) -> None:
        """Warn, once, if Redis is set up so that it may lose what was durable."""
        if not self._checked_durability:
            self._checked_durability = True
            info = self._engine.store.info()
            refuse_node(info, self._redis)
            if info.get("uptime_in_seconds", OUTAGE_GRACE_SECONDS) < OUTAGE_GRACE_SECONDS:
                with contextlib.suppress(RedisError):
                    if self._engine.store.in_flight_count():
                        self._engine.worker.be_patient()
            found = [danger.words for danger in dangers(info, self._options.min_replicas or 0)]
            if found:
                self._log.warning("embedqueue: Redis may lose items: %s", "; ".join(found))


def _seconds(within: float | None) -> float | None:
    if within is None:
        return None
    _refuse_no_number("within", within)
    if not 0.0 <= within <= LONGEST_WITHIN:
        raise ValueError(f"within must be a number of seconds from 0 to {LONGEST_WITHIN:.0f}, not {within!r}")
    return float(within)


def _timeout(timeout: float | None) -> float | None:
    """Seconds for which a thread can wait; one that is to wait for ever waits as long as it can."""
    if timeout is None:
        return None
    _refuse_no_number("timeout", timeout)
    if timeout != timeout:
        raise ValueError("timeout must be a number of seconds, not nan")
    return max(0, min(timeout, LONGEST_WITHIN))


def _refuse_no_number(name: str, value: object) -> None:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")


def _in_parts(pairs: Sequence[Pair], put: Callable[[Sequence[Pair]], T]) -> Iterator[T]:
    """Put pairs in, part by part, in as many round trips as that takes."""
    done, parts = 0, deque(in_parts(pairs))
    try:
        while parts:
            part = parts.popleft()
            try:
                some = put(part)
            except ResponseError as error:
                if len(part) == 1 or not refused_as_such(error):
                    raise
                parts.extendleft((part[len(part) // 2 :], part[: len(part) // 2]))
            else:
                done += len(part)
                yield some
    except Exception as error:
        if done:
            error.add_note(f"embedqueue: the first {done} of {len(pairs)} pairs are enqueued")
        raise


def _two(item: tuple[str, str]) -> tuple[str, str]:
    try:
        if isinstance(item, str | bytes):  # a string of two letters is no pair
            raise TypeError
        redis_key, text = item
    except (TypeError, ValueError):
        raise TypeError(f"items must be (redis_key, text) pairs, not {type(item).__name__}") from None
    return redis_key, text


def _observers(options: Options, log: QueueLog) -> Observers:
    """The observers of the options, and one made of the functions ``on_batch``, ``on_error`` and ``on_dead``."""
    functions = (options.on_batch, options.on_error, options.on_dead)
    own: list[Observer] = [Functions(*functions)] if functions != (None, None, None) else []
    return Observers([*options.observers, *own], log)
