"""One connection to one node of a cluster: commands on single keys are sent in one go, and their answers read."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import redis
from redis.exceptions import NoPermissionError, ResponseError

from embedqueue.store.clients import ask_for_more, release_connection, take_connection
from embedqueue.store.replicas import Replicas
from embedqueue.values.errors import EmbedQueueError

from .scripts import hash_script

#: No answer so far.
UNANSWERED: Any = object()


@dataclass(slots=True)
class Order:
    """One command on one key.

    Attributes:
        key: which its slot goes by.
        words: the command, the key included; of a script, the arguments.
        script: name of the script that is run at the key; "": it is a command.
        deadline_mono: by our monotonic clock, when it must have been done; the script is told by its node's clock, in
            its last argument. None: it has none.
    """

    key: bytes
    words: Sequence[bytes]
    script: str = ""
    deadline_mono: float | None = None


def command(name: bytes, key: str | bytes, *words: str | bytes) -> Order:
    """An order of a plain command."""
    name_of = _bytes(key)
    return Order(name_of, (name, name_of, *map(_bytes, words)))


def script(name: str, key: str | bytes, *words: str | bytes, deadline_mono: float | None = None) -> Order:
    """An order of a script, one of ``scripts.OF_HASH``."""
    return Order(_bytes(key), tuple(map(_bytes, words)), name, deadline_mono)


_Asked = tuple[Order, bool, bool]


class Line:
    """A connection to one node. Used by one thread at a time.

    Args:
        client: of the node, with a pool of its own.
        timeout_seconds: for which an answer is waited for.

    Attributes:
        connection: as ``clients.take_connection`` gives it.
        ahead: seconds that have to be added to our monotonic clock for this node's; None: not known.
    """

    def __init__(self, client: redis.Redis, timeout_seconds: float) -> None:
        self._client = client
        self._timeout_seconds = timeout_seconds
        self.connection = take_connection(client)
        self.ahead: float | None = None
        self._orders: Sequence[_Asked] = ()  # sent, or to be sent when it has told its time
        self._replicas: Replicas | None = None
        self._tells_time = False

    def send(self, orders: Sequence[_Asked], replicas: Replicas | None) -> None:
        """Send orders, each with whether it is asked for by a redirection, and whether its script is sent as text."""
        self._orders, self._replicas = orders, replicas
        self._tells_time = self.ahead is None and any(order.deadline_mono is not None for order, *_ in orders)
        if self._tells_time:
            self.connection.send_packed_command([b"*1\r\n$4\r\nTIME\r\n"])
        else:
            self._send()

    def _send(self) -> None:
        pieces: list[bytes] = []
        for order, asking, as_text in self._orders:
            if asking:
                pieces.append(b"*1\r\n$6\r\nASKING\r\n")
            words = list(order.words)
            if order.script:
                sha, text = hash_script(order.script)
                words = [b"EVAL" if as_text else b"EVALSHA", text if as_text else sha, b"1", order.key, *words]
            if order.deadline_mono is not None:
                words.append(b"%.6f" % (order.deadline_mono + (self.ahead or 0.0)))
            pieces += _packed(words)
        if self._replicas is not None:
            least, patience = self._replicas.least, self._replicas.patience_seconds
            pieces += _packed((b"WAIT", b"%d" % least, b"%d" % max(1, int(patience * 1000))))
        self.connection.send_packed_command([b"".join(pieces)])

    def begins(self, seconds: float) -> bool:
        """Whether the node begins to answer, each time that it has to speak within so many seconds."""
        if self._tells_time and self.connection.can_read(seconds):
            now, micros = self.connection.read_response(disable_decoding=True)
            # The answer was under way for some time, so this is less than it is: a deadline comes rather too early.
            self.ahead, self._tells_time = int(now) + int(micros) / 1e6 - time.monotonic(), False
            self._send()
        return not self._tells_time and bool(self.connection.can_read(seconds))

    def answers(self) -> list[Any]:
        """Read the answer of each order; ``UNANSWERED`` where it came late, perhaps by a clock that was set.

        An error of the command itself is returned, not raised.
        """
        return [self._answer(order, asking) for order, asking, _ in self._orders]

    def _answer(self, order: Order, asking: bool) -> Any:
        refusal = self._read() if asking else None
        answer = self._read()  # there is one, whatever that was: left unread, it would be taken for the next order's
        if isinstance(answer, ResponseError):
            return refusal if isinstance(refusal, ResponseError) else answer
        if order.deadline_mono is not None and answer.startswith(b"late "):
            self.ahead = float(answer[5:]) - time.monotonic()
            return UNANSWERED  # it is sent again, unless its time has passed
        return answer

    def _read(self) -> Any:
        try:
            return self.connection.read_response(disable_decoding=True)
        except ResponseError as error:
            return error

    def read_replicas(self, replicas: Replicas) -> int:
        """How many replicas have what was written; -1 where this node is no master any more."""
        try:
            return int(ask_for_more(self.connection, replicas.patience_seconds + self._timeout_seconds))
        except ResponseError as error:
            if isinstance(error, NoPermissionError) or "unknown command" in str(error):
                raise EmbedQueueError(f"min_replicas needs the command WAIT, and Redis refuses it: {error}") from None
            return -1

    def end(self) -> None:
        """Disconnect, for good."""
        self.connection.disconnect()
        release_connection(self._client, self.connection)


def _packed(words: Iterable[bytes]) -> list[bytes]:
    parts = list(words)
    pieces = [b"*%d\r\n" % len(parts)]
    for part in parts:
        pieces += (b"$%d\r\n" % len(part), part, b"\r\n")
    return pieces


def _bytes(word: str | bytes) -> bytes:
    return word if isinstance(word, bytes) else word.encode()
