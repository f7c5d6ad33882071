"""Tells, in Redis, that this process works: so that somebody notices where nobody does."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable

from redis.exceptions import RedisError, ResponseError

from embedqueue.store.records import Terms
from embedqueue.store.workers import Workers
from embedqueue.values.log import Log
from embedqueue.values.options import Options

from .plan import BEAT_SECONDS

#: Seconds for which a worker counts as one that works if nothing more is heard of it: two heartbeats may be lost.
HEARD_SECONDS = 3 * BEAT_SECONDS


class Heartbeat:
    """The announcement of one worker. The worker's thread beats; whoever stops the worker has it leave.

    Args:
        workers: where it is announced.
        options: of the queue.
        terms: returns on which terms this process writes.
        name: under which this process claims; it ends with a colon.
        log: takes the record of a Redis that refuses the announcement.
    """

    def __init__(
        self,
        workers: Workers,
        options: Options,
        terms: Callable[[], Terms],
        *,
        name: str,
        log: Log,
    ) -> None:
        self._workers = workers
        self._options = options
        self._terms = terms
        self._name = name.removesuffix(":")
        self._log = log
        self._began_mono: float | None = None  # when it was first announced, or that was tried
        self._refused = False
        self._left = False

    def beat(self, doing: str) -> None:
        """Announce the worker for another minute. Where Redis refuses that, it works all the same, and the log says so.

        Args:
            doing: what the worker does, in a few words.

        Raises:
            redis.RedisError: Redis does not answer.
        """
        if self._left:
            return
        first = self._began_mono is None
        self._began_mono = time.monotonic() if self._began_mono is None else self._began_mono
        facts = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "version": sys.modules["embedqueue"].__version__,  # written down there alone
            "model": self._options.model,
            "space": self._terms().space,
            "doing": doing,
        }
        try:
            self._workers.announce(self._name, HEARD_SECONDS, time.monotonic() - self._began_mono, facts, tidy=first)
        except ResponseError as error:  # an ACL of before, or no memory left
            if not self._refused:
                self._refused = True
                self._log.warning("embedqueue: this worker cannot announce itself, and works all the same: %s", error)

    def leave(self) -> None:
        """Take the announcement back. Where Redis does not answer, it ends by itself."""
        self._left = True
        if self._began_mono is not None:
            try:
                self._workers.leave(self._name)
            except RedisError as error:
                self._log.debug("embedqueue: the announcement of this worker stays for a minute: %s", error)
