"""The end of a process that skips ``atexit``."""

from __future__ import annotations

import sys
from collections.abc import Callable


def stop_with_child(stop: Callable[[], object]) -> None:
    """Have ``stop`` called at the end of this process if it is a child of multiprocessing.

    Such children end by ``os._exit``: they run multiprocessing's own finalizers, but not what stands in ``atexit``.

    Args:
        stop: without arguments.
    """
    process = sys.modules.get("multiprocessing.process")  # where it was not imported, nobody is its child
    if process is not None and process.parent_process() is not None:
        from multiprocessing.util import Finalize

        Finalize(None, stop, exitpriority=10)
