"""Reads the events stream, so that this process learns what others did with its items.

One thread. In a process that works it listens always (others may ask for a drain); in one that only enqueues it
runs while somebody holds an unfinished future. Whoever misses a notice is found by a sweep: here by one of all
futures, and long before by the worker's looks where somebody waits.
"""

from __future__ import annotations

import json
import re
import threading
import time
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

from .demand import Waker
from .outcomes import Outcomes
from .progress import Progress
from .waiters import Waiters

_SURROGATE = re.compile("[\ud800-\udfff]")
#: Seconds between sweeps for all futures.
SWEEP_SECONDS = 60.0
#: Seconds to let our own notices gather while nobody else speaks: a busy worker need not read each of its calls.
OWN_NOTICES_SECONDS = 0.02
#: Characters of a notice that is read: those of a hundred thousand keys. Of a longer one, the sweep finds the futures.
LONGEST_BODY = 1 << 24
#: Notices that ask for something. To heed one twice does no harm.
REQUESTS = ("flush", "urgent")
#: Seconds of them that are read again after a break: none must be missed.
OVERLAP_SECONDS = 0.05
#: Seconds to rest when Redis does not answer: the first time, and at most.
RECONNECT_SECONDS = (0.05, 5.0)


def _parsed(body: str) -> Any:
    try:
        return json.loads(body) if len(body) <= LONGEST_BODY else None
    except (ValueError, RecursionError):  # anybody may write into the stream
        return None


def named_keys(body: str) -> list[str]:
    """The redis_keys that a notice names; what can be none is left out, for it would stop whoever asks Redis for it.

    Args:
        body: a JSON list of them, or an object that has such a list as its ``keys``.
    """
    found = _parsed(body)
    names = found.get("keys") if isinstance(found, dict) else found
    if not isinstance(names, list):
        return []
    return [name for name in names if isinstance(name, str) and not _SURROGATE.search(name)]


def named_reason(body: str) -> str:
    """Why the items of a notice were not served."""
    found = _parsed(body)
    reason = found.get("reason") if isinstance(found, dict) else None
    return reason[:REASON_CHARS] if isinstance(reason, str) else ""


class Listener:
    """The reader of notices.

    Args:
        store: Redis.
        waiters: futures of this process.
        outcomes: finds out what became of items.
        waker: told what other processes ask for.
        progress: counts what ended elsewhere.
        name: under which this process claims; what it said itself, it knows.
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
        self._lock = threading.Lock()
        self._running = False  # guarded by the lock
        self._stopping = Event()
        self._position: bytes | None = None  # of this thread alone, as is what follows
        self._swept_mono = 0.0
        self._heard_mono = 0.0  # until when everything was heard; set by ensure() before the thread starts

    def ensure(self) -> None:
        """Listen from now on, as long as it is needed. Does no I/O."""
        with self._lock:  # always: without it, a thread that is about to end would be taken for one that listens
            if self._running or self._stopping.is_set():
                return
            self._heard_mono = time.monotonic()
            thread = threading.Thread(target=self._run, name=self._thread_name, daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # no more threads: the next enqueue tries again
                self._log.warning("embedqueue: nobody listens to other processes: %s", error)
            else:
                self._running = True

    def stop(self) -> None:
        """Stop listening. The thread ends by itself when its connection is closed."""
        self._stopping.set()

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
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
            with self._lock:
                if not (self._waker.works or len(self._waiters)):  # nobody to listen for
                    self._running = False
                    self._position = None
                    return
        with self._lock:
            self._running = False

    def _listen_once(self) -> None:
        position = self._position or self._catch_up()
        self._sweep_if_due()
        self._position, notices = self._store.events.listen(position, LISTEN_SECONDS)
        self._heard_mono = time.monotonic()
        heeded = [self._heed(notice) for notice in notices if not self._stopping.is_set()]
        if heeded and not any(heeded) and not self._waiters.any_wanted():
            self._stopping.wait(OWN_NOTICES_SECONDS)

    def _catch_up(self) -> bytes:
        """Begin at the end: what became of items is found by asking, but not what was asked for since we last heard."""
        unheard_seconds = time.monotonic() - self._heard_mono
        position, missed = self._store.events.since(unheard_seconds + OVERLAP_SECONDS)
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
        """Act on what another process says; what this one said, it knows. Returns whether it was another."""
        if notice.by.startswith(self._name):
            return False
        if notice.kind in ("done", "stale", "failed"):
            self._outcomes.find_out(named_keys(notice.body))
            self._progress.count()
        elif notice.kind == "blank":
            self._outcomes.find_out(named_keys(notice.body), blank=True)
        elif notice.kind in ("unserved", "paused"):
            # Read late, it may be old news: of who has enqueued since the provider is well again, nothing has failed.
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
