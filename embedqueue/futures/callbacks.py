"""The thread in which users' callbacks run: none of those that do the work, so that a callback may wait for work."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from embedqueue.values.locks import Event
from embedqueue.values.log import Log, logger
from embedqueue.values.threads import start

#: Seconds after which the idle thread ends; the next callback starts it again.
IDLE_SECONDS = 30.0
#: How often, and for how many seconds each, a stop waits for callbacks that have not run yet.
LAST_WAITS, LAST_WAIT_SECONDS = 20, 0.1


class Callbacks:
    """Runs callbacks one after another. Thread-safe.

    Its thread starts when needed. If there can be no more threads, a callback runs in the thread that hands it over.

    Args:
        name: of the thread.
        log: takes the records.
    """

    def __init__(self, name: str, log: Log = logger) -> None:
        self._name = name
        self._log = log
        self._calls: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._lock = threading.RLock()  # a signal's handler may stop the queue, and so call back, while we hold it
        self._thread: threading.Thread | None = None  # guarded by the lock
        self._idle_seconds = IDLE_SECONDS

    def later(self, call: Callable[[], object]) -> None:
        """Run ``call()`` after all that were handed over before. What it raises is logged."""
        with self._lock:
            taken = self._thread is not None or self._started()
            if taken:
                self._calls.put(call)  # under the lock: a thread that is about to end must see it
        if not taken:
            self._guarded(call)

    def stop(self) -> None:
        """Wait until all have run, two seconds at most; then the thread ends. A callback may call it."""
        self._idle_seconds = 0.0
        if self._thread is None or self._thread is threading.current_thread():
            return
        ended = Event()
        self.later(ended.set)
        for _ in range(LAST_WAITS):  # many short ones: time for which the whole process was halted must not count
            if ended.wait(LAST_WAIT_SECONDS):
                return
        self._log.warning("embedqueue: stopped, though a callback of a future has not come to its end")

    def _started(self) -> bool:
        """Start the thread. Under the lock. Returns whether it runs."""
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        try:
            start(thread)
        except RuntimeError:  # no more threads, or the interpreter ends
            return False
        self._thread = thread
        return True

    def _run(self) -> None:
        while True:
            try:
                call = self._calls.get(timeout=self._idle_seconds)
            except queue.Empty:
                with self._lock:
                    if self._calls.empty():
                        self._thread = None
                        return
                continue
            self._guarded(call)
            del call  # an idle thread holds no future

    def _guarded(self, call: Callable[[], object]) -> None:
        try:
            call()
        except BaseException:  # what concurrent.futures does not log
            if threading.current_thread() is threading.main_thread():  # of a signal
                raise
            self._log.exception("embedqueue: a callback of a future ended in a way that it should not")
