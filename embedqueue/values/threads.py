"""Threads that start and wait: what a signal's handler raises meanwhile is not taken for anything else."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

#: What Python says where a handler has raised between two steps of ``threading.Condition.wait``, on which
#: ``Event.wait`` and ``Thread.start`` rest: its lock is free already, and is freed once more.
UNLOCKED = "release unlocked lock"


@contextlib.contextmanager
def handlers_heard() -> Iterator[None]:
    """What a signal's handler raises in here gets out, and not Python's ``RuntimeError`` in its place."""
    try:
        yield
    except RuntimeError as error:
        raised = error.__context__
        if raised is None or str(error) != UNLOCKED:
            raise
    else:
        return
    raise raised


def start(thread: threading.Thread) -> None:
    """Start a thread.

    Args:
        thread: a new one.

    Raises:
        RuntimeError: there are no more threads, or the interpreter ends.
        BaseException: what a signal's handler has raised meanwhile. The thread may run or not.
    """
    with handlers_heard():
        thread.start()
