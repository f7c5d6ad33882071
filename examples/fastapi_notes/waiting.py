"""Handlers that await vectors: so many at a time, for so long, and none of them in the way of the server's end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from embedqueue import EmbeddingFuture


class Waiting:
    """Waits for futures on an event loop.

    A request that waits costs a socket, a task and what its client is still hoping for, so their number is bounded. The
    item itself is in Redis since ``enqueue`` returned: who does not wait loses nothing but the answer at once.

    Args:
        most: how many handlers may wait at a time.
        seconds: for which each waits at most.
    """

    def __init__(self, most: int, seconds: float) -> None:
        self._free = most
        self._seconds = seconds
        self._ending = asyncio.Event()

    def end(self) -> None:
        """The server is about to end: whoever waits is answered now, and nobody waits any more."""
        self._ending.set()

    async def vector(self, future: EmbeddingFuture) -> list[float] | None:
        """The vector of a future; None where it takes longer, too many wait already, or the server ends.

        Raises:
            ItemRejected, BatchFailed: as the future's ``result()``.
        """
        if self._free <= 0 or self._ending.is_set():
            return None
        self._free -= 1
        waiting = asyncio.wrap_future(future)  # this makes the item urgent; handlers that await together share a call
        waiting.add_done_callback(_seen)
        ending = asyncio.create_task(self._ending.wait())
        try:
            await asyncio.wait({waiting, ending}, timeout=self._seconds, return_when=asyncio.FIRST_COMPLETED)
            return waiting.result() if waiting.done() else None
        finally:
            ending.cancel()
            self._free += 1


def _seen(waiting: asyncio.Future[Any]) -> None:
    """Nobody may be there any more who looks at an error."""
    if not waiting.cancelled():
        waiting.exception()


@contextlib.contextmanager
def told_of_the_end(call: Callable[[], None]) -> Iterator[None]:
    """Have a function called on this event loop when the process is told to end, before the server acts on it.

    Servers wait for the handlers that are under way before they end an application's lifespan. So what shortens these
    handlers has to hear of the signal itself.
    """
    if threading.current_thread() is not threading.main_thread():  # of a test: nobody sends us signals
        yield
        return
    loop = asyncio.get_running_loop()
    before: dict[int, Any] = {}

    def heard(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(call)
        if callable(before[number]):
            before[number](number, frame)

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.getsignal(number)
        signal.signal(number, heard)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
