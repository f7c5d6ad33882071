"""How a worker that is told to end by a signal learns of it, at whatever instruction the signal comes."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from types import FrameType
from typing import Self


class Ending:
    """Within the ``with``, the first SIGTERM or SIGINT is noted, and the second ends the process. For the main thread.

    An event will not do: a handler that sets it while the main thread is inside of its ``wait`` waits for itself, and a
    signal that comes just before the main thread blocks does not wake it. So we wait for the byte that Python writes as
    soon as a signal arrives, in whichever thread (``signal.set_wakeup_fd``).
    """

    def __init__(self) -> None:
        self.told = False

    def __enter__(self) -> Self:
        """Handle the signals."""
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._wakeup_before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, self._end) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        """Handle them as before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._read)
        os.close(self._write)

    def _end(self, number: int, frame: FrameType | None) -> None:
        if self.told:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
            os._exit(128 + number)  # process 1 of a container is not ended by a signal that nobody handles
        self.told = True

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the first signal, for so many seconds at most or without end; returns whether it has come."""
        while not self.told:
            arrived, _, _ = select.select([self._read], [], [], seconds)
            with contextlib.suppress(BlockingIOError):
                os.read(self._read, 4096)  # also of signals that are not ours
            if not arrived or seconds is not None:
                break
        return self.told
