"""The future of one enqueued item. Waiting for it makes the item urgent.

This is the only file that knows private names of ``concurrent.futures``. Which ones, and what we take for granted about
them, stands in test_future.py: when a new Python changes them, that test fails and says what has changed.
"""

from __future__ import annotations

import contextvars
import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures._base import CANCELLED, PENDING, RUNNING
from typing import TYPE_CHECKING, Any

from embedqueue.values.errors import QueueStopped, twin
from embedqueue.values.locks import Condition
from embedqueue.values.log import logger
from embedqueue.values.vectors import VectorType, to_floats


class EmbeddingFuture(Future[list[float]]):
    """The future of one enqueued item: resolves with the vector that ended up in its hash.

    Waiting for it makes the item urgent: with ``.result()`` or ``.exception()``, with ``concurrent.futures.wait`` or
    ``as_completed``, or with ``asyncio.wrap_future``.

    Args:
        redis_key: of the item.
        want: called with the redis_key, in the thread of whoever begins to wait. It may be called while locks of other
            futures are held, so it must not do I/O. None: waiting tells nobody.
        pin: called with the future when it gets a callback, so that it is kept until it ends. None: nobody keeps it.
        later: called with a function, which runs a callback, when the future has ended; it has the function called in a
            thread that does no work, and returns at once. None: callbacks run in the thread that ends the future.
        late: called with the redis_key and the seconds for which somebody has waited in vain; returns why it takes
            longer. None: nobody is told why.
        vector_type: of the bytes with which it ends.

    Attributes:
        entry: where it stands in :class:`Waiters`, which alone looks at this.
    """

    entry: Any = None

    # super().__init__() is not called. It makes a condition and two lists, which most futures never need, because they
    # are dropped before anybody waits. One enqueue_many() may make ten thousand futures, and these objects would keep
    # the garbage collector busier than Redis. So each is made when somebody first asks for it: see _lazily.
    def __init__(
        self,
        redis_key: str = "",
        want: Callable[[str], None] | None = None,
        pin: Callable[[EmbeddingFuture], None] | None = None,
        later: Callable[[Callable[[], object]], None] | None = None,
        late: Callable[[str, float], str] | None = None,
        vector_type: VectorType = "float32",
    ) -> None:
        self._state = PENDING
        self._redis_key = redis_key
        self._want = want
        self._pin = pin
        self._later = later
        self._late = late
        self._vector_type = vector_type
        self._pid = os.getpid()

    # -- fields of concurrent.futures.Future, made late --------------------------------------------------------

    def _lazily(self, name: str, make: Callable[[], Any]) -> Any:
        try:
            return self.__dict__[name]
        except KeyError:  # setdefault is atomic: two threads get the same one
            return self.__dict__.setdefault(name, make())

    if not TYPE_CHECKING:  # these stand for attributes of Future, which is what type checkers see

        @property
        def _condition(self) -> Condition:
            return self._lazily("_made_condition", Condition)

        @property
        def _done_callbacks(self) -> list[Any]:
            return self._lazily("_made_callbacks", list)

        @property
        def _waiters(self) -> list[Any]:  # concurrent.futures never assigns it
            # concurrent.futures.wait() and as_completed() add themselves to this list: so reading it means to wait.
            self._demand()
            return self._lazily("_made_waiters", list)

    _outcome: Any = None

    @property
    def _result(self) -> Any:
        # The worker hands over bytes; floats are made for those who ask. They are made here and not in result(), since
        # asyncio reads this field without calling result() from Python 3.14 on (python/cpython#134173).
        if isinstance(self._outcome, bytes):
            self._outcome = to_floats(self._outcome, self._vector_type)
        return self._outcome

    @_result.setter
    def _result(self, outcome: Any) -> None:
        self._outcome = outcome

    _error: BaseException | None = None

    if not TYPE_CHECKING:

        @property
        def _exception(self) -> BaseException | None:
            # Each who asks gets an object of his own. Raising adds to an object's traceback: of one that all share, it
            # would grow with everybody who waits, and show the variables of one request in the report of another.
            return None if self._error is None else twin(self._error)

        @_exception.setter
        def _exception(self, error: BaseException | None) -> None:
            self._error = error

    # -- waiting -----------------------------------------------------------------------------------------------

    @property
    def _unfinished(self) -> bool:
        # done() would take the future's lock, and whoever holds that may wait for a lock of ours.
        return self._state in (PENDING, RUNNING)

    def _demand(self) -> None:
        if self._unfinished and self._want is not None:
            self._check_process()
            self._want(self._redis_key)

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            raise QueueStopped("this future was made before a fork and belongs to the parent process")

    def result(self, timeout: float | None = None) -> list[float]:
        """The vector; waits for it if need be.

        Args:
            timeout: seconds to wait at most; None waits without end.

        Returns:
            ``dimensions`` floats.

        Raises:
            TimeoutError: not ready in time; the item stays queued. With a timeout of a second or more, it tells where
                the item stands and why; for that it may come up to 0.3 s later.
            concurrent.futures.CancelledError: cancelled, or the queue was stopped.
            BatchFailed: the provider failed; the item is still queued.
            ItemRejected: the item is a dead letter now.
        """
        self._demand()
        try:
            return super().result(timeout)
        except TimeoutError as error:
            late = self._told_why(error, timeout)
        raise late

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The error with which the item ended, or None if it has a vector; waits if need be.

        Args:
            timeout: seconds to wait at most; None waits without end.

        Raises:
            TimeoutError: as with :meth:`result`.
            concurrent.futures.CancelledError: cancelled, or the queue was stopped.
        """
        self._demand()
        try:
            return super().exception(timeout)
        except TimeoutError as error:
            late = self._told_why(error, timeout)
        raise late

    def _told_why(self, error: TimeoutError, timeout: float | None) -> TimeoutError:
        """The error of whoever has waited in vain, with its reason; or the error itself, if the future has ended."""
        if timeout is None or self._late is None or not self._unfinished:
            return error
        return TimeoutError(self._late(self._redis_key, timeout))

    def cancel(self) -> bool:
        """Wait no longer; the item is embedded all the same.

        A future that several callers have, for they have enqueued the same text of the key, goes on for the others.

        Returns:
            Whether the future is cancelled: it had not ended yet, and nobody else has it.
        """
        if self.__dict__.setdefault("_fate", "cancelled") == "shared":
            return self.cancelled()
        return self._cancel()

    def share(self) -> bool:
        """Let one more caller have it, and nobody cancel it any more. Returns False if it has ended."""
        # In one step, as setdefault is atomic: whoever comes first decides, the one who cancels or the one who shares.
        return self.__dict__.setdefault("_fate", "shared") == "shared" and self._unfinished

    def _cancel(self) -> bool:
        cancelled = super().cancel()
        with self._condition:
            if self._state == CANCELLED:  # tell those who wait for it: an executor would, but there is none
                self.set_running_or_notify_cancel()
        return cancelled

    def add_done_callback(self, fn: Callable[[Future[list[float]]], object]) -> None:
        """Call ``fn(future)`` when this future ends. The queue holds the future until then.

        Args:
            fn: runs in a thread that the queue has for callbacks, after those who wait in ``.result()`` were woken and
                after the callbacks of what ended before; or here and now if the future has ended. It may do to the
                queue whatever a thread of yours may, but what takes long holds up other callbacks. It sees the context
                variables as they are set now, as in asyncio: so a request's id stands in what it logs.
        """
        if self._pin is not None and self._unfinished:
            self._check_process()
            self._pin(self)
        call = functools.partial(_call_back, contextvars.copy_context(), fn)
        awaited = getattr(fn, "__module__", None) == "asyncio.futures"  # of asyncio.wrap_future()
        with self._condition:  # reentrant; the future cannot end meanwhile
            later = self._unfinished and not awaited  # an event loop is told at once, whatever other callbacks do
            if later:
                super().add_done_callback(functools.partial(EmbeddingFuture._hand_over, call=call))
        if not later:
            super().add_done_callback(call)
        if awaited:
            self._demand()

    def _hand_over(self, call: Callable[[Future[list[float]]], object]) -> None:
        add = functools.partial(super().add_done_callback, call)  # which calls it at once, for the future has ended
        if self._later is None:
            add()
        else:
            self._later(add)


def _call_back(context: contextvars.Context, fn: Callable[[Future[Any]], object], future: Future[Any]) -> None:
    """As concurrent.futures does. But a log that raises fails neither who adds a callback nor who ends a future."""
    try:
        context.run(fn, future)
    except Exception:
        logger.exception("embedqueue: a callback of %r has raised", future)


def end_future(future: EmbeddingFuture, outcome: bytes | BaseException | None) -> None:
    """Give a future its end, unless it was cancelled: wake those who wait, then hand its callbacks over.

    Call it once for each future: whoever has removed its entry from :class:`Waiters` does.

    Args:
        future: not ended, or cancelled by its user.
        outcome: the vector, as the bytes that are stored; or the error, of which each who waits gets a copy; None
            cancels.

    Raises:
        BaseException: of a callback that runs in this thread (but no Exception, which ``concurrent.futures`` logs), in
            the main thread only: there it is Ctrl-C or another signal's. In other threads it is logged.
    """
    try:
        if outcome is None:
            future._cancel()
            return
        with future._condition:
            if future.cancelled():
                return
            future.set_running_or_notify_cancel()
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)  # type: ignore[arg-type]  # see _result
    except BaseException:  # of a callback; the future itself has ended
        if threading.current_thread() is threading.main_thread():
            raise
        logger.exception("embedqueue: a callback of %s ended in a way that it should not", future._redis_key)


def finished_future(vector: bytes, vector_type: VectorType = "float32") -> EmbeddingFuture:
    """A future that has ended already.

    Args:
        vector: its outcome, as the bytes that are stored.
        vector_type: of these.
    """
    future = EmbeddingFuture(vector_type=vector_type)
    future.set_result(vector)  # type: ignore[arg-type]  # see _result
    return future
