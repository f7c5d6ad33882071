"""Reads the events stream, so that this process learns what others did with its items, and what they ask for.

There is one thread. In a process that works, it always listens, for others may ask for a drain. In one that only
enqueues, it listens while somebody holds an unfinished future. A notice may be missed: then the worker's next check
finds what became of items that somebody waits for, and a sweep, once a minute, what became of all others.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from typing import Any

from redis.exceptions import RedisError

from embedqueue.observers.observers import Observers
from embedqueue.store.clients import LISTEN_SECONDS
from embedqueue.store.records import Notice
from embedqueue.store.store import REASON_CHARS, Store
from embedqueue.values.backoff import backoff_seconds
from embedqueue.values.errors import BatchFailed
from embedqueue.values.locks import Event
from embedqueue.values.log import Log
from embedqueue.values.threads import start

from .demand import Waker
from .outcomes import Outcomes
from .progress import Progress
from .waiters import Waiters

_SURROGATE = re.compile("[\ud800-\udfff]")
#: Seconds between sweeps. A sweep finds out what became of all futures of this process.
SWEEP_SECONDS = 60.0
#: Seconds for which we let our own notices gather if no others came: a busy worker need not wake for each of its calls.
OWN_NOTICES_SECONDS = 0.02
#: Characters of the longest notice that is read: it may name a hundred thousand keys. A sweep makes up for longer ones.
LONGEST_BODY = 1 << 24
#: Notices that ask for something. To obey one twice does no harm.
REQUESTS = ("flush", "urgent")
#: Seconds before a break whose requests are read again after it, so that none is missed.
OVERLAP_SECONDS = 0.05
#: Seconds that the end of the thread is waited for.
ENDING_SECONDS = 0.3
#: Seconds to rest when Redis does not answer: at first, and at most; doubled in between.
RECONNECT_SECONDS = (0.05, 5.0)


def _parsed(body: str) -> Any:
    try:
        return json.loads(body) if len(body) <= LONGEST_BODY else None
    except (ValueError, RecursionError):  # anybody may write into the stream
        return None


def named_keys(body: str) -> list[str]:
    """The redis_keys that a notice names.

    Args:
        body: a JSON list of them, or an object that has such a list as its ``keys``; anything else names none.

    Returns:
        All but those that have no form in UTF-8: to ask Redis for one would raise.
    """
    found = _parsed(body)
    names = found.get("keys") if isinstance(found, dict) else found
    if not isinstance(names, list):
        return []
    return [name for name in names if isinstance(name, str) and not _SURROGATE.search(name)]


def named_reason(body: str) -> str:
    """Why the items of a notice were not served; empty if it does not say.

    Args:
        body: a JSON object with a ``reason``.
    """
    found = _parsed(body)
    reason = found.get("reason") if isinstance(found, dict) else None
    return reason[:REASON_CHARS] if isinstance(reason, str) else ""


class Listener:
    """The reader of notices, and its thread. Thread-safe.

    Args:
        store: Redis.
        waiters: the unfinished futures of this process.
        outcomes: finds out what became of items.
        waker: told what other processes ask for.
        progress: counts what ended elsewhere.
        name: under which this process claims; its own notices are left out.
        namespace: of the queue; names the thread.
        log: takes the records.
        observers: told when Redis does not answer.
    """

    def __init__(
        self,
        store: Store,
        waiters: Waiters,
        outcomes: Outcomes,
        waker: Waker,
        progress: Progress,
        *,
        name: str,
        namespace: str,
        log: Log,
        observers: Observers,
    ) -> None:
        self._log = log
        self._observers = observers
        self._store = store
        self._waiters = waiters
        self._outcomes = outcomes
        self._waker = waker
        self._progress = progress
        self._name = name
        self._thread_name = f"embedqueue-listener-{namespace}"
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None  # the one that listens; guarded by the lock
        self._stopping = Event()
        self._position: bytes | None = None  # id of the last notice; only the thread touches this and what follows
        self._swept_mono = 0.0
        self._heard_mono = 0.0  # all notices until then were read; ensure() sets it before the thread starts

    @property
    def running(self) -> bool:
        """Whether somebody listens."""
        return self._thread is not None and self._thread.is_alive()

    def ensure(self, since_mono: float | None = None) -> None:
        """Start the thread, unless it runs. It ends when nobody needs it. Does no I/O.

        Args:
            since_mono: from when on requests of other processes are to be heard; None: from now on.
        """
        with self._lock:  # even to ask whether it runs: a thread that is about to end does not listen
            if self.running or self._stopping.is_set():
                return
            self._heard_mono = time.monotonic() if since_mono is None else since_mono
            # If a signal's handler comes before it runs, the next one who asks starts another, and this one ends.
            self._thread = threading.Thread(target=self._run, name=self._thread_name, daemon=True)
            try:
                start(self._thread)
            except RuntimeError as error:  # no more threads: the next enqueue tries again
                self._log.warning("embedqueue: nobody listens to other processes: %s", error)

    def stop(self) -> None:
        """Heed nothing more. Does not wait for the thread."""
        self._stopping.set()

    def end(self, disconnect: Callable[[], None]) -> None:
        """Have the thread end, which is stopped, and wait a moment for it.

        Args:
            disconnect: closes the connections on which it reads; called twice, for it may have been about to make one.
        """
        thread = self._thread
        disconnect()
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            thread.join(ENDING_SECONDS)
            disconnect()

    def _run(self) -> None:
        failures = 0
        while self._thread is threading.current_thread() and not self._stopping.is_set():
            try:
                self._listen_once()
                failures = 0
            except (RedisError, OSError, ValueError) as error:  # ValueError: the connection was closed under us
                failures += 1
                self._position = None
                self._log.debug("embedqueue: cannot read notices: %s", error)
                if not self._stopping.is_set():
                    self._observers.redis_failed(error)
                self._stopping.wait(backoff_seconds(failures, *RECONNECT_SECONDS))
            except Exception:
                if self._stopping.is_set():
                    break  # the connection was closed at a moment when redis-py takes it for a fault of another kind
                failures += 1
                self._log.exception("embedqueue: a notice could not be handled")
                self._stopping.wait(backoff_seconds(failures, *RECONNECT_SECONDS))
            len(self._waiters)  # forgets those that nobody holds any more
            with self._lock:
                if not self._waker.works and self._waiters.empty:  # nobody to listen for
                    self._thread = None
                    self._position = None
                    return

    def _listen_once(self) -> None:
        position = self._position or self._catch_up()
        self._sweep_if_due()
        if self._stopping.is_set():  # this may have taken long, and nobody would wake us any more
            return
        asked_mono = time.monotonic()
        self._position, notices = self._store.events.listen(position, LISTEN_SECONDS)
        self._heard_mono = asked_mono  # what came to Redis behind its answer, a break would take from us
        heeded = [self._heed(notice) for notice in notices if not self._stopping.is_set()]
        if heeded and not any(heeded) and not self._waiters.any_wanted():
            self._stopping.wait(OWN_NOTICES_SECONDS)

    def _catch_up(self) -> bytes:
        """Begin at the end of the stream, after a break or at the start.

        A sweep finds out what became of items meanwhile. What others asked for meanwhile, no sweep would find: so these
        notices are read again.

        Returns:
            The id of the last notice.
        """
        position, missed = self._store.events.since(self._heard_mono - OVERLAP_SECONDS)
        for notice in missed:
            if notice.kind in REQUESTS:
                self._heed(notice)
        self._swept_mono = -SWEEP_SECONDS
        return position

    def _sweep_if_due(self) -> None:
        now = time.monotonic()
        if now - self._swept_mono >= SWEEP_SECONDS:
            self._swept_mono = now
            self._waker.refresh()
            self._outcomes.find_out(None)

    def _heed(self, notice: Notice) -> bool:
        """Act on a notice of another process. Returns whether it was one, rather than our own."""
        if notice.by.startswith(self._name):
            return False
        if notice.kind in ("done", "stale", "failed"):
            keys = None if notice.body == "[]" else named_keys(notice.body)
            self._outcomes.find_out(keys, done=notice.kind == "done" and keys is not None)
            self._progress.count()
        elif notice.kind == "blank":
            self._outcomes.find_out(named_keys(notice.body), blank_ms=notice.ms)
        elif notice.kind == "forgotten":
            self._outcomes.find_out(named_keys(notice.body))
        elif notice.kind in ("unserved", "paused"):
            # It may be old news, if we read it late. Once the provider is well again, it must not fail the futures of
            # those who have enqueued since.
            status = self._store.status()
            if status.failing or status.pause_seconds is not None:
                waiting = self._waiters.snapshot(named_keys(notice.body) if notice.kind == "unserved" else None)
                self._waiters.fail(waiting, BatchFailed(f"{named_reason(notice.body)}; the item is still queued"))
        elif notice.kind == "urgent" and self._waker.works:
            self._waker.demanded(named_keys(notice.body))
        elif notice.kind == "flush":
            self._waker.flush()
        elif notice.kind == "wake":
            self._waker.refresh()
        return True
