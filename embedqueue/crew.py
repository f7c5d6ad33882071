"""A few daemon threads that make API calls.

``concurrent.futures.ThreadPoolExecutor`` will not do: the interpreter waits for its threads at exit, and a call
that hangs must never keep a web server from stopping.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

logger = logging.getLogger("embedqueue")

#: Seconds after which an idle thread ends; the next burst starts it again.
IDLE_SECONDS = 30.0


class Crew:
    """Runs calls side by side, on threads that start when needed and end when idle.

    Args:
        size: tells how many calls may run at a time.
        name: what the threads are called.
        finished: called in the crew's thread after each call.
    """

    def __init__(self, size: Callable[[], int], name: str, finished: Callable[[], None]) -> None:
        self._size = size
        self._name = name
        self._finished = finished
        self._lock = threading.Lock()
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._threads = 0  # guarded by the lock
        self._unfinished = 0  # calls submitted and not back; guarded by the lock
        self._all_back = threading.Condition(self._lock)

    @property
    def unfinished(self) -> int:
        """Calls that were submitted and are not back."""
        return self._unfinished

    @property
    def free(self) -> int:
        """Calls that may start at once."""
        return max(0, self._size() - self._unfinished)

    def submit(self, call: Callable[[], None]) -> None:
        """Run ``call`` as soon as a thread is free. It handles its own errors."""
        with self._lock:
            self._unfinished += 1
            hire = self._threads < min(self._size(), self._unfinished)
            if hire:
                self._threads += 1
        self._calls.put(call)
        if hire:
            self._hire()

    def wait(self, timeout: float) -> bool:
        """Wait until every call is back; returns whether that is so."""
        with self._all_back:
            return self._all_back.wait_for(lambda: self._unfinished == 0, timeout)

    def _hire(self) -> None:
        try:
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        except RuntimeError as error:  # no more threads: those that we have will do it
            with self._lock:
                self._threads -= 1
                alone = self._threads == 0
            if alone:
                logger.warning("embedqueue: a call is made without a thread of its own: %s", error)
                self._serve(self._calls.get())

    def _work(self) -> None:
        while True:
            try:
                call = self._calls.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if self._calls.empty():
                        self._threads -= 1
                        return
                continue
            self._serve(call)
            del call  # an idle thread holds no texts

    def _serve(self, call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException:
            logger.exception("embedqueue: a call ended in a way that it should not")
        with self._all_back:
            self._unfinished -= 1
            self._all_back.notify_all()
        self._finished()
