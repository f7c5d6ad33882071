"""Handlers of signals as users write them: they enqueue, look and stop in the midst of whatever the process does."""

from __future__ import annotations

import itertools
import random
import sys
from typing import TYPE_CHECKING, Any

import redis

from embedqueue import EmbeddingBatchQueue, EmbedQueueError
from tests.proof.torture.texts import text_of

if TYPE_CHECKING:
    from tests.proof.torture.actor import Journal

#: What the handler of SIGUSR2 does, at random; the last two end the process.
DEEDS = ("enqueue", "enqueue", "enqueue_many", "stats", "flush_now", "stop", "exit", "stop and exit")


class Handler:
    """The handler of a process' signals. Its keys are its own, for it may interrupt an enqueue of any other.

    Args:
        queue: the process' queue.
        journal: of the process.
        seed: of what it does.
        stopping: called when it has stopped the queue, and the process shall end.

    Attributes:
        kept: futures of what it has enqueued; all of them have to end with the queue.
    """

    def __init__(self, queue: EmbeddingBatchQueue, journal: Journal, seed: str, stopping: Any) -> None:
        self._queue = queue
        self._journal = journal
        self._rng = random.Random(seed)
        self._stopping = stopping
        self._numbers = itertools.count(1)
        self._leaving = False
        self.kept: list[Any] = []

    def term(self, *_: object) -> None:
        """Stop, and leave: as a server's handler of SIGTERM does."""
        self._do("stop and exit")

    def user(self, *_: object) -> None:
        """Do something."""
        self._do(self._rng.choice(DEEDS))

    def _do(self, deed: str) -> None:
        if self._leaving:  # the first sys.exit is under way, and everybody has had his turn
            return
        ends = deed.endswith(("stop", "exit"))
        self._journal.write("fault", kind="process" if ends else "signals", name=f"{deed} in a handler")
        try:
            if deed.startswith("enqueue"):
                self._enqueue(1 if deed == "enqueue" else 3)
            elif deed == "stats":
                self._queue.stats()
            elif deed == "flush_now":
                self._queue.flush_now()
        except (redis.RedisError, EmbedQueueError) as error:
            self._journal.write("refused", error=type(error).__name__)
        if ends:
            self._leave(deed)

    def _enqueue(self, count: int) -> None:
        named = {f"doc:{self._journal.name}:signal:{next(self._numbers)}": 1 for _ in range(count)}
        items = [(key, text_of(key, version)) for key, version in named.items()]
        self._journal.write("try", versions=named)
        self.kept += [self._queue.enqueue(*items[0])] if count == 1 else self._queue.enqueue_many(items)
        self._journal.write("accepted", versions=named)

    def _leave(self, deed: str) -> None:
        self._journal.write("leaving", deed=deed)
        self._leaving = True
        if deed.startswith("stop"):
            self._queue.stop()
        self._stopping()
        if deed.endswith("exit"):
            sys.exit(0)
