"""Locks that bear a signal's handler: what it raises (Ctrl-C, ``sys.exit``), and that it uses the queue itself.

Python runs handlers in the main thread: when a function begins, when a call into C is back, where a loop jumps back.
There, in any thread, the garbage collector may also run a ``__del__`` of the user's.

What they raise, a lock in a ``with`` bears, but for three traps. So where the main thread may come, conditions and
events are those of this module, and a loop with a branch under a lock stands in a method that is ``locked``.

If they use the queue, they must not wait for what their own thread holds. So all locks that an enqueue, a flush or a
stop takes are reentrant. What such a lock guards is either changed in one step (without a call or a jump back), or
only by who has asked :func:`held_here` before. And nobody who holds one waits for another: else the handler, whose
thread holds the other, would wait for him.
"""

from __future__ import annotations

import functools
import operator
import threading
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar


class _OfTheLock(property):
    """A method of a condition that is its lock's."""

    def __init__(self, name: str) -> None:
        super().__init__(operator.attrgetter(f"_lock.{name}"))

    def __call__(self, condition: threading.Condition, *error: Any) -> Any:
        """As a method of the class: so an ``ExitStack`` calls it."""
        return self.__get__(condition)(*error)


class Condition(threading.Condition):
    """A condition of a reentrant lock, which ``with`` enters and leaves in C, and a wait gives back in any case.

    Python's own has methods in Python for ``with``, which a handler may leave with the lock locked: before its ``with``
    has begun, or after it has ended. And a handler may leave its ``wait`` with the lock free: what it raises would be
    lost, for the ``with`` around it then frees the lock once more, which is an error.
    """

    __enter__: Any = _OfTheLock("__enter__")
    __exit__: Any = _OfTheLock("__exit__")

    def wait(self, timeout: float | None = None) -> bool:
        """As Python's."""
        try:
            return super().wait(timeout)
        except BaseException:
            if not held_here(self):
                self.acquire()
            raise


class Event(threading.Event):
    """An event whose lock is such a condition's."""

    def __init__(self) -> None:
        super().__init__()
        self._cond = Condition()


def held_here(lock: Any) -> bool:
    """Whether this thread holds a lock: where it would only now take it, we are a handler or a ``__del__`` in between.

    Args:
        lock: of ``threading.RLock``, or a condition of one.
    """
    held: bool = lock._is_owned()  # as threading.Condition asks its lock
    return held


class _Locked(Protocol):
    _lock: Any  # of threading.RLock


Owner = TypeVar("Owner", bound=_Locked)
Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")


def locked(method: Callable[Concatenate[Owner, Arguments], Answer]) -> Callable[Concatenate[Owner, Arguments], Answer]:
    """The method runs under ``self._lock``.

    So its loops do not stand in the function of the ``with``: in Python 3.12 and 3.13, what a handler raises where a
    loop jumps back from a branch escapes any ``with`` and ``try`` of the same function.
    """

    @functools.wraps(method)
    def under_lock(self: Owner, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Answer:
        with self._lock:
            return method(self, *args, **kwargs)

    return under_lock
