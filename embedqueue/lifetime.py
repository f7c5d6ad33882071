"""The queues of this process: at a fork the child gets parts of its own, and all are stopped at the process' end."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import weakref
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from embedqueue.values.threads import start

from .values.log import QueueLog

if TYPE_CHECKING:
    from .engine import Engine

#: What each is to be told of a fork and of the end, in the order in which they were made. The references are weak, so
#: that nobody is kept alive by this.
_QUEUES: dict[weakref.ref[Any], tuple[weakref.WeakMethod[Any], weakref.WeakMethod[Any]]] = {}


def remember(queue: object, forked: Callable[[], None], stop: Callable[[], None]) -> None:
    """Tell a queue of what becomes of the process, as long as somebody holds it.

    Args:
        queue: which.
        forked: its method that is called in each child of a fork.
        stop: its method that is called at the end of the process, if any queue was started.
    """
    _QUEUES[weakref.ref(queue, _QUEUES.pop)] = weakref.WeakMethod(forked), weakref.WeakMethod(stop)


@cache
def stop_with_process(pid: int) -> None:
    """Have all queues stopped at the end of the process that has this id; the first start asks for it."""
    from .engine import stop_with_child

    atexit.register(_stop_all)
    stop_with_child(_stop_all)


def _stop_all() -> None:
    _call_all(1)


def _all_forked() -> None:
    _call_all(0)


def _call_all(which: int) -> None:
    with contextlib.ExitStack() as calls:  # the last one first; and all of them, whatever one raises
        for methods in list(_QUEUES.values()):
            if (method := methods[which]()) is not None:
                calls.callback(method)


os.register_at_fork(after_in_child=_all_forked)  # once: nobody can take it back


def take_down(engine: Engine, log: QueueLog) -> None:
    """Stop what a dropped queue has left at work: in a thread, for garbage is collected at any instruction."""
    if engine.agenda.acts or engine.listener.running:
        log.info("embedqueue: a queue was dropped, so it stops: hold it for as long as it shall work")
        with contextlib.suppress(RuntimeError):  # no more threads, or the interpreter ends
            start(threading.Thread(target=engine.stop, args=(None,), name="embedqueue-stop", daemon=False))


def weakly(queue: object, method: Any) -> Any:
    """A function that calls a method of the queue, if the queue still lives; it does not keep it alive."""
    reference = weakref.ref(queue)

    def call(*args: Any) -> Any:
        queue = reference()
        return None if queue is None else method(queue, *args)

    return call
