"""A few daemon threads that make API calls.

A ``concurrent.futures.ThreadPoolExecutor`` will not do: the interpreter waits for its threads at exit, and a call that
hangs must never keep a web server from stopping.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from embedqueue.values.locks import Condition
from embedqueue.values.log import Log, logger
from embedqueue.values.threads import start

#: Seconds after which an idle thread ends; the next burst starts it again.
IDLE_SECONDS = 30.0


class Pool:
    """Runs calls side by side, in threads that start when needed and end when idle. Thread-safe.

    A call is in flight until it has its answer, and unfinished until its vectors are written. The next one may start as
    soon as it has its answer. So there may be twice as many threads as calls in flight.

    Calls start in the order in which they were submitted, for who is waited for was claimed first. So it is the calls
    that stand in line: a thread takes one when its turn has come, and whichever thread is first takes the first.

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
        self._lock = threading.RLock()
        self._line: deque[Callable[[], None]] = deque()  # calls that wait for their turn; guarded by the lock
        self._threads = 0  # guarded by the lock
        self._unfinished = 0  # calls submitted and not back; guarded by the lock
        self._asking = 0  # those of them that were started and wait for an answer; guarded by the lock
        self._answered = 0  # those of them that have it; guarded by the lock
        self._closed = False  # guarded by the lock
        self._turn = Condition(self._lock)  # told, one thread for each, that the next call may have its turn
        self._moved = Condition(self._lock)  # told when a call is back
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
            call: handles its own errors; what it raises is logged. It is dropped after ``close()``.
        """
        with self._lock:
            if self._closed:
                return
            self._unfinished += 1
            hire = self._threads < min(2 * self._size() + 1, self._unfinished)
            if hire:
                self._threads += 1
            self._line.append(call)  # under the lock: a thread that is about to end must see it
            self._turn.notify()
        if hire:
            self._hire()

    def close(self) -> None:
        """Start no more calls. Those that wait for their turn are dropped, and idle threads end."""
        with self._lock:
            none: deque[Callable[[], None]] = deque()
            left = self._unfinished - len(self._line)
            self._closed, self._line, self._unfinished = True, none, left  # in one step, for a handler's sake
            self._turn.notify_all()
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
        with self._lock:
            asking = self._turns.get(thread, False)
            if asking:
                self._turns[thread] = False
                self._asking -= 1
                self._answered += 1
                self._turn.notify()
        if asking:
            self._finished()

    def give_up(self, thread: int) -> None:
        """Wait no longer for the call of a thread, which hangs: another one may start in its place.

        Args:
            thread: what ``threading.get_ident()`` returns in it. It ends when its call is back.
        """
        with self._lock:
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
        self._turn.notify()
        self._moved.notify_all()
        return True

    def _hire(self) -> None:
        try:
            start(threading.Thread(target=self._work, args=(IDLE_SECONDS,), name=self._name, daemon=True))
        except RuntimeError as error:  # no more threads: those that we have will do it
            with self._lock:
                alone = self._threads == 1
                if not alone:
                    self._threads -= 1
            if alone:
                self._log.warning("embedqueue: a call is made without a thread of its own: %s", error)
                self._work(0.0)

    def _work(self, idle_seconds: float) -> None:
        """Make calls in this thread, until none may be made for so long."""
        while (call := self._take(idle_seconds)) is not None:
            self._make(call)
            with self._lock:
                counted = self._end_turn(threading.get_ident())
            self._finished()
            if not counted:  # it was given up: another thread stands in for this one
                return
            del call  # an idle thread holds no texts

    def _take(self, idle_seconds: float) -> Callable[[], None] | None:
        """Wait for the first call's turn, and begin it. None: this thread is counted no more, and has to end."""
        with self._lock:
            while not self._closed and not self._is_next():
                if not self._turn.wait(idle_seconds) and not (self._line and idle_seconds):
                    break
            if self._closed or not self._is_next():
                self._threads -= 1
                return None
            call = self._line.popleft()
            self._asking += 1
            self._turns[threading.get_ident()] = True
            if self._is_next():  # more may be asked at a time than before
                self._turn.notify()
            return call

    def _is_next(self) -> bool:
        """Whether a call may have its turn. Under the lock."""
        return bool(self._line) and self._asking < self._size()

    def _make(self, call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException:
            self._log.exception("embedqueue: a call ended in a way that it should not")
