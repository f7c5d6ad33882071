"""The future of one enqueued item. Waiting for it makes the item urgent.

The one file that knows private names of ``concurrent.futures``: tests/futures/test_future.py has the contract.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures._base import CANCELLED, PENDING, RUNNING
from typing import Any

from embedqueue.values.errors import QueueStopped
from embedqueue.values.locks import Condition
from embedqueue.values.vectors import to_floats


class EmbeddingFuture(Future[list[float]]):
    """The future of one enqueued item: resolves with the vector that ended up in its hash.

    Waiting for it (``.result()``, ``.exception()``, ``concurrent.futures.wait`` and ``as_completed``,
    ``asyncio.wrap_future``) makes the item urgent.
    """

    def __init__(  # super().__init__() is left out: see _lazily
        self,
        redis_key: str = "",
        want: Callable[[str], None] | None = None,
        pin: Callable[[EmbeddingFuture], None] | None = None,
    ) -> None:
        self._state = PENDING
        self._exception = None
        self._redis_key = redis_key
        self._want = want
        self._pin = pin
        self._pid = os.getpid()

    def _lazily(self, name: str, make: Callable[[], Any]) -> Any:
        # What a future waits with is made when somebody first asks for it. Most are dropped before, and of ten thousand
        # that one call makes, all these objects would keep the garbage collector busier than Redis.
        try:
            return self.__dict__[name]
        except KeyError:  # setdefault is atomic: two threads get the same one
            return self.__dict__.setdefault(name, make())

    _outcome: Any = None

    @property
    def _result(self) -> Any:
        # Floats only for those who ask; the drain hands over bytes. Here and not in result(): from Python 3.14 on,
        # asyncio looks at the result without calling that (python/cpython#134173).
        if isinstance(self._outcome, bytes):
            self._outcome = to_floats(self._outcome)
        return self._outcome

    @_result.setter
    def _result(self, outcome: Any) -> None:
        self._outcome = outcome

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        return self._lazily("_made_condition", Condition)  # type: ignore[no-any-return]

    @property
    def _done_callbacks(self) -> list[Any]:
        return self._lazily("_made_callbacks", list)  # type: ignore[no-any-return]

    @property
    def _unfinished(self) -> bool:
        return self._state in (
            PENDING,
            RUNNING,
        )  # done() would take the lock, which somebody may hold who waits for ours

    def _demand(self) -> None:
        if self._unfinished and self._want is not None:
            self._check_process()
            self._want(self._redis_key)

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            raise QueueStopped("this future was made before a fork and belongs to the parent process")

    def result(self, timeout: float | None = None) -> list[float]:
        """The vector, waiting for it up to ``timeout`` seconds.

        Raises:
            TimeoutError: not ready in time; the item stays queued.
            concurrent.futures.CancelledError: cancelled, or the queue was stopped.
            BatchFailed: the provider failed; the item is still queued.
            ItemRejected: the item is a dead letter now.
        """
        self._demand()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The error that ended the item, or None; waits up to ``timeout`` seconds like :meth:`result`."""
        self._demand()
        return super().exception(timeout)

    def cancel(self) -> bool:
        """Wait no longer; the item is embedded all the same. Returns whether the future had not ended yet."""
        cancelled = super().cancel()
        with self._condition:
            if self._state == CANCELLED:  # nobody else would tell those who wait for it
                self.set_running_or_notify_cancel()
        return cancelled

    def add_done_callback(self, fn: Callable[[Future[list[float]]], object]) -> None:
        """Call ``fn(future)`` when this future ends. The queue holds the future until then.

        It runs in the thread that ends the future, with the context variables that are set now, as in asyncio: a
        request's id stands in what it logs.
        """
        if self._pin is not None and self._unfinished:
            self._check_process()
            self._pin(self)
        context = contextvars.copy_context()
        super().add_done_callback(lambda future: context.run(fn, future))
        if getattr(fn, "__module__", None) == "asyncio.futures":  # asyncio.wrap_future: somebody awaits
            self._demand()

    @property
    def _waiters(self) -> list[Any]:  # type: ignore[override]  # concurrent.futures never assigns it
        # concurrent.futures.wait() and as_completed() announce themselves by adding to this list.
        self._demand()
        return self._lazily("_watchers", list)  # type: ignore[no-any-return]
