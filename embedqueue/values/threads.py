"""How threads start: what a signal's handler raises meanwhile is not taken for a lack of threads."""

from __future__ import annotations

import threading

#: What Python says where a handler has raised just as ``Thread.start`` began to wait: the lock of its event is free
#: already, and is freed once more. Waits of ours rest on ``locks.Condition``, which knows no such moment.
UNLOCKED = "release unlocked lock"


def start(thread: threading.Thread) -> None:
    """Start a thread.

    Args:
        thread: a new one.

    Raises:
        RuntimeError: there are no more threads, or the interpreter ends.
        BaseException: what a signal's handler has raised meanwhile. The thread may run or not.
    """
    try:
        thread.start()
    except RuntimeError as error:
        raised = error.__context__
        if raised is None or str(error) != UNLOCKED:
            raise
    else:
        return
    raise raised
