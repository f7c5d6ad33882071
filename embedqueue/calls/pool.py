"""A few daemon threads that make API calls.

A ``concurrent.futures.ThreadPoolExecutor`` will not do: the interpreter waits for its threads at exit, and a call that
hangs must never keep a web server from stopping.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from embedqueue.values.locks import Condition
from embedqueue.values.log import Log, logger

#: Seconds after which an idle thread ends; the next burst starts it again.
IDLE_SECONDS = 30.0


class Pool:
    """Runs calls side by side, in threads that start when needed and end when idle. Thread-safe.

    A call is in flight until it has its answer, and unfinished until its vectors are written. The next one may start as
    soon as it has its answer. So there may be twice as many threads as calls in flight.

    Args:
        size: returns how many calls may be in flight at a time.
        name: of the threads.
        finished: called in the call's thread when it has its answer, and again when it is back.
        log: takes the records.
    """

    def __init__(self, size: Callable[[], int], name: str, finished: Callable[[], None], log: Log = logger) -> None:
        self._log = log
        self._size = size
        self._name = name
        self._finished = finished
        self._lock = threading.Lock()
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._threads = 0  # guarded by the lock
        self._unfinished = 0  # calls submitted and not back; guarded by the lock
        self._asking = 0  # those of them that were started and wait for an answer; guarded by the lock
        self._answered = 0  # those of them that have it; guarded by the lock
        self._closed = False  # guarded by the lock
        self._moved = Condition(self._lock)
        # By thread: whether its call is asking; without those that were given up. Guarded by the lock.
        self._turns: dict[int, bool] = {}

    @property
    def size(self) -> int:
        """Calls that may be in flight at a time."""
        return self._size()

    @property
    def unfinished(self) -> int:
        """Calls that were submitted and are not back."""
        return self._unfinished

    @property
    def in_flight(self) -> int:
        """Calls that have no answer yet, those included that wait for their turn."""
        return self._unfinished - self._answered

    def room(self) -> int:
        """How many calls may start at once."""
        return max(0, self._size() - self.in_flight)

    def submit(self, call: Callable[[], None]) -> None:
        """Run a call in a thread, as soon as it may start.

        If there is no thread and none can be started, it runs in this one, before ``submit`` returns.

        Args:
            call: handles its own errors; what it raises is logged.
        """
        with self._lock:
            self._unfinished += 1
            hire = self._threads < min(2 * self._size() + 1, self._unfinished)
            if hire:
                self._threads += 1
            self._calls.put(call)  # under the lock: a thread that is about to end must see it
        if hire:
            self._hire()

    def close(self) -> None:
        """Start no more calls. Those that wait for their turn are dropped, and idle threads end."""
        with self._moved:
            self._closed = True
            for _ in range(self._threads):
                self._calls.put(_end)
            self._moved.notify_all()

    def wait(self, timeout: float) -> bool:
        """Wait until every call is back.

        Args:
            timeout: seconds to wait at most.

        Returns:
            Whether every call is back.
        """
        with self._moved:
            return self._moved.wait_for(lambda: self._unfinished == 0, timeout)

    def answered(self) -> None:
        """The call of this thread has its answer: the next one may start. A second time, it does nothing."""
        thread = threading.get_ident()
        with self._moved:
            asking = self._turns.get(thread, False)
            if asking:
                self._turns[thread] = False
                self._asking -= 1
                self._answered += 1
                self._moved.notify_all()
        if asking:
            self._finished()

    def give_up(self, thread: int) -> None:
        """Wait no longer for the call of a thread, which hangs: another one may start in its place.

        Args:
            thread: what ``threading.get_ident()`` returns in it. It ends when its call is back.
        """
        with self._moved:
            if self._end_turn(thread):
                self._threads -= 1

    def _end_turn(self, thread: int) -> bool:
        """The call of a thread counts no longer. Returns False if that was so before. Under the lock."""
        asking = self._turns.pop(thread, None)
        if asking is None:
            return False
        if asking:
            self._asking -= 1
        else:
            self._answered -= 1
        self._unfinished -= 1
        self._moved.notify_all()
        return True

    def _hire(self) -> None:
        try:
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        except RuntimeError as error:  # no more threads: those that we have will do it
            with self._lock:
                self._threads -= 1
                alone = self._threads == 0
            if alone:
                self._log.warning("embedqueue: a call is made without a thread of its own: %s", error)
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
            if call is _end:
                with self._lock:
                    self._threads -= 1
                return
            if not self._serve(call):
                return
            del call  # an idle thread holds no texts

    def _serve(self, call: Callable[[], None]) -> bool:
        """Make a call in this thread. Returns False if it was given up: another one may stand in for this."""
        thread = threading.get_ident()
        with self._moved:
            self._moved.wait_for(lambda: self._closed or self._asking < self._size())
            if self._closed:
                self._unfinished -= 1
                self._moved.notify_all()
                return True
            self._asking += 1
            outer = self._turns.get(thread)  # of an eager queue whose observer enqueues
            self._turns[thread] = True
        try:
            call()
        except BaseException:
            self._log.exception("embedqueue: a call ended in a way that it should not")
        with self._moved:
            counted = self._end_turn(thread)
            if outer is not None:
                self._turns[thread] = outer
        self._finished()
        return counted


def _end() -> None:
    """In the place of a call: the thread that takes it ends."""
