"""Replicas that have to have a write before its sender goes on (the command WAIT)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import redis
from redis.exceptions import NoPermissionError, ResponseError

from embedqueue.values.errors import EmbedQueueError

from .clients import ask, ask_for_more


@dataclass(frozen=True, slots=True)
class Replicas:
    """How many replicas have to have what is written, and for how long they are waited for.

    Attributes:
        least: how many; at least one.
        patience_seconds: for which Redis waits for them, whatever the time limit of the client's own.
    """

    least: int
    patience_seconds: float

    def ask(
        self, connection: Any, command: bytes, end: Callable[[], bytes], answer_seconds: float, drop: Callable[[], None]
    ) -> tuple[Any, int]:
        """Send a command that writes, with a WAIT behind it, and read both answers.

        WAIT counts what this connection has written, and the replicas take a master's writes in order: those that have
        it have all that anybody had written before.

        Args:
            connection: as ``clients.take_connection`` gives it.
            command: as ``clients.ask`` takes it.
            end: as ``clients.ask`` takes it.
            answer_seconds: that the answer of the WAIT may take beyond its patience.
            drop: called where the connection cannot be used again, if what is raised does not tell that.

        Returns:
            The answer of the command, and how many replicas have what it wrote.

        Raises:
            redis.ResponseError: Redis refused the command, and no replica is waited for.
            redis.RedisError: no answer, or another server is the master now; the connection must be disconnected.
            EmbedQueueError: Redis refuses the WAIT; the command was done.
        """
        numbers = b"%d" % self.least, b"%d" % max(1, int(self.patience_seconds * 1000))  # 0 would be for ever
        wait = b"*3\r\n$4\r\nWAIT\r\n" + b"".join(b"$%d\r\n%s\r\n" % (len(number), number) for number in numbers)
        try:
            answer = ask(connection, command, lambda: end() + wait)
        except ResponseError:
            # The WAIT is about what was written before, and has ended already if the replicas are well.
            if connection.can_read(0):
                with suppress(ResponseError):
                    ask_for_more(connection, answer_seconds)
            else:
                drop()
            raise
        try:
            return answer, ask_for_more(connection, self.patience_seconds + answer_seconds)
        except ResponseError as error:
            if isinstance(error, NoPermissionError) or "unknown command" in str(error):
                raise EmbedQueueError(f"min_replicas needs the command WAIT, and Redis refuses it: {error}") from None
            raise redis.ConnectionError(f"Redis has ended a WAIT: {error}") from None  # it is a replica from now on
