"""The only place where tests reach into private parts of a queue: a part that is renamed or moves is renamed here.

    inside(queue).store.claim(...)
    monkeypatch.setattr(*inside(queue).place("ask"), fail)
    monkeypatch.setattr(*RECENT_BYTES, 0)

Also for code that runs in child processes: ``from tests.inside import inside`` works in the root of the repository, and
a ``Peer`` has the name ``inside``. A unit test of one part, which makes that part itself, looks at it directly.
"""

from __future__ import annotations

import contextlib
import threading
import time
from contextlib import AbstractContextManager
from typing import Any

from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

import embedqueue.backlog.filler
import embedqueue.calls.caller
import embedqueue.calls.queries
import embedqueue.engine
import embedqueue.flushing
import embedqueue.futures.intake
import embedqueue.futures.lateness
import embedqueue.futures.waiters
import embedqueue.jobs.runner
import embedqueue.observers.history
import embedqueue.work.agenda
import embedqueue.work.dispatch
import embedqueue.work.plan
import embedqueue.work.settle
import embedqueue.work.worker
from embedqueue import EmbeddingBatchQueue
from embedqueue.store.clients import release_connection, take_connection
from embedqueue.store.store import Store
from embedqueue.values.item import encode_member

#: Limits that a test may shrink, as module and name: for ``monkeypatch.setattr(*RECENT_BYTES, 0)``.
RECENT_BYTES = embedqueue.work.dispatch, "RECENT_BYTES"
GROUP_LIMIT = embedqueue.futures.intake, "GROUP_LIMIT"
WRITE_ITEMS = embedqueue.work.settle, "WRITE_ITEMS"
WRITE_BYTES = embedqueue.work.settle, "WRITE_BYTES"
FIRST_PAUSE_SECONDS = embedqueue.work.settle, "FIRST_PAUSE_SECONDS"
CRASH_PAUSE_SECONDS = embedqueue.work.settle, "CRASH_PAUSE_SECONDS"
RESTART_SECONDS = embedqueue.calls.caller, "RESTART_SECONDS"
LATENESS_LOOK_SECONDS = embedqueue.futures.lateness, "LOOK_SECONDS"
REWRITE_SECONDS = embedqueue.work.settle, "REWRITE_SECONDS"
LONGEST_TRY_SECONDS = embedqueue.calls.caller, "LONGEST_TRY_SECONDS"
LONGEST_QUERY_SECONDS = embedqueue.calls.queries, "LONGEST_SECONDS"
CHECK_SECONDS = embedqueue.work.plan, "CHECK_SECONDS"
ASK_SECONDS = embedqueue.flushing, "ASK_SECONDS"
GRACE_SECONDS = embedqueue.engine, "GRACE_SECONDS"
REFRESH_SECONDS = embedqueue.work.agenda, "REFRESH_SECONDS"
FAILURE_SECONDS = embedqueue.jobs.runner, "FAILURE_SECONDS"
BARRED_SECONDS = embedqueue.work.worker, "BARRED_SECONDS"
HISTORY_WRITE_SECONDS = embedqueue.observers.history, "WRITE_SECONDS"
#: By which a backlog waits for room: its ``sleep``.
FILLER_TIME = embedqueue.backlog.filler, "time"
#: The function that ends a future: (future, outcome).
END_FUTURES = embedqueue.futures.waiters, "end_future"
#: Kinds of threads that one queue may have, as they stand in their names: embedqueue-KIND-NAMESPACE.
THREADS = {"worker", "call", "listener"}


class Inside:
    """What is inside of a queue, of this process and since its last start: a restart and a fork make new parts."""

    def __init__(self, queue: EmbeddingBatchQueue) -> None:
        self._queue = queue

    @property
    def _engine(self) -> Any:
        return self._queue._engine

    # -- whole parts: what they are asked here is public within the package -------------------------------------

    @property
    def store(self) -> Any:
        """Redis: ``claim``, ``complete``, ``reject``, ``release``, ``look``, ``status``, ``events``, ``dead``."""
        return self._engine.store

    @property
    def waiters(self) -> Any:
        """The futures of this process: ``any_wanted``, ``mark_wanted``, ``cancel_all``, ``len``."""
        return self._engine.waiters

    @property
    def outcomes(self) -> Any:
        """Who finds out what became of items: ``find_out``."""
        return self._engine.outcomes

    @property
    def agenda(self) -> Any:
        """What the worker is to do: ``works``."""
        return self._engine.agenda

    @property
    def sinking(self) -> Any:
        """Who hands vectors to the sink: ``write``."""
        return self._engine.settle.sinking

    @staticmethod
    def member(redis_key: str, text: str) -> bytes:
        """The member of a pair."""
        return encode_member(redis_key, text)

    @property
    def purse(self) -> Any:
        """Who knows what claims have cost."""
        return self._engine.purse

    @property
    def intake(self) -> Any:
        """Who takes items in: ``submit``."""
        return self._engine.intake

    @property
    def usual_seconds(self) -> float:
        """How long answered calls took of late."""
        return float(self._engine.caller.usual_seconds or 0.0)

    @usual_seconds.setter
    def usual_seconds(self, seconds: float) -> None:
        self._engine.caller.usual_seconds = seconds

    @property
    def verify(self) -> Any:
        """What embeds the texts by which batch jobs are verified."""
        return self._engine._verify

    @property
    def in_line(self) -> int:
        """How many callers of ``enqueue`` stand behind the one who writes."""
        return len(self.intake._followers)

    @property
    def embedder(self) -> Any:
        """What the queue was given."""
        return self._queue._embedder

    @property
    def client(self) -> Any:
        """What the queue was given."""
        return self._queue._redis

    # -- what may be replaced -----------------------------------------------------------------------------------

    def place(self, what: str) -> tuple[Any, str]:
        """Owner and name of something, for ``setattr`` and ``monkeypatch.setattr``.

        Args:
            what: "begin": serves a claim. "claim": makes one. "submit": has a call made in a thread of the pool.
                "call": calls the embedder, with tries, or raises. "want": makes redis_keys urgent. "ask": makes them
                urgent in a thread of ours, where it may speak to Redis. "write items": the intake's write to Redis.
                "exchange": sends one command of a user's thread over a connection. "patience": the longest wait for an
                answer to it, in seconds.
        """
        engine = self._engine
        return {
            "begin": lambda: (engine.dispatch, "begin"),
            "claim": lambda: (engine.store, "claim"),
            "submit": lambda: (engine.pool, "submit"),
            "call": lambda: (engine.caller, "call"),
            "want": lambda: (engine.worker, "demanded"),
            "listen": lambda: (engine.listener, "ensure"),
            "start": lambda: (engine.worker, "_start_queue"),
            "ask": lambda: (engine.store.events, "tell"),
            "write items": lambda: (engine.intake, "_write"),
            "exchange": lambda: (engine.store._scripts, "_run"),
            "patience": lambda: (engine.store._scripts, "_patience"),
        }[what]()

    # -- calls and items under way ------------------------------------------------------------------------------

    @property
    def calls(self) -> int:
        """Calls that are under way or wait for their turn."""
        return self._engine.pool.unfinished

    def wait_for_calls(self, timeout: float) -> bool:
        """Wait until every call is back, for ``timeout`` seconds at most; tells whether that is so."""
        return self._engine.pool.wait(timeout)

    @property
    def held(self) -> int:
        """Items that were claimed and are not finished."""
        return self._engine.dispatch.held

    def renew(self) -> bool:
        """Renew the leases of what is held; tells whether there is any."""
        return self._engine.dispatch.renew()

    # -- queries ------------------------------------------------------------------------------------------------

    @property
    def queries(self) -> Any:
        """Who embeds queries: ``ask``, ``stop``."""
        return self._engine.queries

    @property
    def waiting_queries(self) -> int:
        """Queries that no sender has taken."""
        return len(self._engine.queries._waiting)

    def age_queries(self, seconds: float) -> None:
        """As if the senders of queries had been hired so long before."""
        senders = self._engine.queries._senders
        senders.update({sender: began_mono - seconds for sender, began_mono in senders.items()})

    # -- the worker ---------------------------------------------------------------------------------------------

    @property
    def works(self) -> bool:
        """Whether the worker was started and is not told to stop."""
        return self._engine.agenda.works and not self._engine.stopping.is_set()

    @property
    def has_looked(self) -> bool:
        """Whether the worker that was started knows what was there before it."""
        return self.works and self._engine.agenda._plan.began_mono == 0.0

    @property
    def claims_no_more(self) -> bool:
        """Whether a stop has begun."""
        return self._engine.agenda._quit

    @property
    def worker_condition(self) -> Any:
        """What the worker waits on, and is notified by who wants something."""
        return self._engine.agenda._condition

    @property
    def looks_after_no_jobs(self) -> bool:
        """Whether it was told to leave the batch jobs to others."""
        return bool(self._engine.runner._quit)

    def join_worker(self, seconds: float) -> None:
        """Wait for the worker's thread, if it runs."""
        if self._engine.agenda.acts:
            self._engine.agenda._thread.join(seconds)

    def claim_nothing_more(self) -> None:
        """As if it were busy from now on."""
        self._engine.worker.stop(1)

    def refresh(self) -> None:
        """Have the worker look at Redis."""
        self._engine.agenda.refresh()

    def claim_now(self) -> None:
        """Claim as the worker's own thread does, whatever it knows."""
        self._engine.worker._claim()
        self._engine.agenda.progressed()

    def does(self) -> str:
        """What the worker would announce that it does."""
        return self._engine.worker._doing()

    @property
    def terms(self) -> Any:
        """Returns on which terms the process writes."""
        return self._engine.terms

    def claim_behind(self) -> None:
        """Claim an item although no call may start: its call waits for its turn."""
        engine = self._engine
        how = {"probe_limit": 1, "lease_seconds": 60.0, "max_deliveries": 5, "alone": False}
        engine.dispatch.begin(engine.store.claim(f"{engine.name}900000/60.000:", 1, **how))

    def room(self) -> int:
        """For how many calls the worker would claim now."""
        engine = self._engine
        return engine.agenda._plan.room(
            engine.pool.size, engine.pool.in_flight, engine.dispatch.held, engine.dispatch.call_limit
        )

    def pretend(self, *, waiting: int | None = None, calls: int | None = None, failing: bool | None = None) -> None:
        """Have the worker believe that so many items wait, or calls are under way, or that the provider fails."""
        if waiting is not None:
            self._engine.agenda._plan.waiting = waiting
        if calls is not None:
            self._engine.pool._unfinished = calls
        if failing is not None:
            self._engine.agenda._plan.failing = failing

    # -- other threads ------------------------------------------------------------------------------------------

    @property
    def listens(self) -> bool:
        """Whether the thread that listens to other processes runs."""
        return self._engine.listener.running

    def stop_listening(self) -> None:
        """Hear nothing more of other processes."""
        self._engine.listener.stop()

    def wait_for_stopped_listening(self, timeout: float) -> bool:
        """Wait until the listener is told to stop, for ``timeout`` seconds at most; tells whether it is."""
        return self._engine.listener._stopping.wait(timeout)

    @property
    def writes_history(self) -> bool:
        """Whether the thread that writes figures down runs."""
        return self._engine.recorder._thread is not None

    def check_on_waiters(self) -> None:
        """Have the worker find out what became of what somebody waits for, in the thread that it has for this."""
        self._engine.worker._check_on_waiters()

    @property
    def knows_of(self) -> int:
        """Items that the worker knows to wait, once it will not ask Redis again for a while; else 0."""
        plan = self._engine.agenda._plan
        return plan.waiting if plan.refresh_mono - time.monotonic() > 1 else 0

    @property
    def due_in(self) -> float:
        """Seconds until the worker drains because of the time, as far as it knows."""
        return float(self._engine.agenda._plan.due_mono - time.monotonic())

    @property
    def urgent(self) -> list[str]:
        """redis_keys that the worker will claim before all others."""
        return list(self._engine.agenda._plan.urgent)

    @property
    def checks(self) -> bool:
        """Whether such a thread runs."""
        checking = self._engine.worker._checking
        return checking is not None and checking.is_alive()

    def look_after(self, redis_keys: list[str]) -> None:
        """Have the thread that looks after those who wait make these urgent."""
        self._engine.worker.demanded(redis_keys)

    # -- the life of the queue ----------------------------------------------------------------------------------

    def start_unless_stopped(self) -> None:
        """What somebody in ``.result()`` does."""
        self._queue._start_open()

    def stop_at_exit(self) -> None:
        """What the end of the process does."""
        self._queue._stop_at_exit()

    def locks_of_users(self) -> dict[str, tuple[Any, str]]:
        """Locks that a user's thread takes, but for the queue's own, as owner and attribute."""
        engine = self._engine
        return {
            "intake": (engine.intake, "_lock"),
            "waiters": (engine.waiters, "_lock"),
            "listener": (engine.listener, "_lock"),
            "recorder": (engine.recorder, "_lock"),
            "agenda": (engine.agenda, "_condition"),
            "queries": (engine.queries, "_lock"),
        }

    def locks(self) -> list[AbstractContextManager[Any]]:
        """All locks that threads of this process may hold when another one forks, in the order to take them."""
        queue, engine = self._queue, self._engine
        return [
            queue._lock,
            engine.progress._changed._lock,
            engine.waiters._lock,
            engine.waiters.callbacks._lock,
            engine.intake._lock,
            engine.dispatch._lock,
            engine.settle._lock,
            engine.agenda._condition._lock,
            engine.listener._lock,
            engine.pool._lock,
            engine.caller._lock,
            engine.queries._lock,
            engine.queries.caller._lock,
        ]


def inside(queue: EmbeddingBatchQueue) -> Inside:
    """Reach into a queue."""
    return Inside(queue)


def worker_threads() -> int:
    """Threads of workers in this process: one for each queue that works, and for each other while somebody waits."""
    return sum("embedqueue-worker" in thread.name for thread in threading.enumerate())


def believe(store: Store, server_ahead: float) -> None:
    """Have whoever enqueues believe that the server's clock is so many seconds ahead of our monotonic one."""
    for sender in store._scripts._senders:
        sender.server_ahead = server_ahead


class Copies:
    """Copies of the commands of a store that must come once only, as a network may hold them back.

    Attributes:
        sent: the commands, in order.
        lost: whether those that are sent from now on do not arrive: whoever sends them hears nothing.
    """

    ONCE = ("enqueue", "enqueue_more", "enqueue_both", "claim", "release", "release_all", "reject", "fail", "erase")

    def __init__(self, store: Store) -> None:
        self.sent: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.lost = False
        self._scripts = store._scripts
        self._run = self._scripts._run
        self._scripts._run = self._record  # type: ignore[method-assign]

    def _record(self, connection: Any, name: str, *args: Any, **options: Any) -> Any:
        if name in self.ONCE:
            self.sent.append((name, args[:3], {"last": options.get("last")}))
            if self.lost:
                raise RedisTimeoutError
        return self._run(connection, name, *args, **options)

    def arrive(self, which: int) -> None:
        """A copy of a command arrives; its answer is read by nobody."""
        name, args, options = self.sent[which]
        connection = take_connection(self._scripts.background)
        with contextlib.suppress(ResponseError):
            self._run(connection, name, *args, **options)
        release_connection(self._scripts.background, connection)
