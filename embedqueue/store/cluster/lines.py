"""Commands on single keys anywhere in a cluster: packed for each node, sent to all, and followed where slots move."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import redis
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterDownError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    RedisError,
    ResponseError,
)

from embedqueue.store.clients import ask, ask_for_more, release_connection, take_connection
from embedqueue.store.replicas import Replicas
from embedqueue.values.errors import EmbedQueueError

from .lazy import Address
from .nodes import Nodes
from .patience import NOT_DONE
from .scripts import hash_script

#: The answer of an order whose deadline has passed: whether it was done is not known.
LATE = b"late"
_UNANSWERED: Any = object()


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


class _Line:
    """A connection to one node. Used by one thread at a time."""

    def __init__(self, client: redis.Redis, timeout_seconds: float) -> None:
        self._client = client
        self._timeout_seconds = timeout_seconds
        self.connection = take_connection(client)
        self.ahead: float | None = None  # what has to be added to our monotonic clock for this node's

    def send(self, orders: Sequence[tuple[Order, bool, bool]], replicas: Replicas | None) -> None:
        """Send orders, each with whether it is asked for by a redirection, and whether its script is sent as text."""
        if self.ahead is None and any(order.deadline_mono is not None for order, *_ in orders):
            seconds, micros = ask(self.connection, b"*1\r\n$4\r\nTIME", lambda: b"\r\n")
            # The answer was under way for some time, so this is less than it is: a deadline comes rather too early.
            self.ahead = int(seconds) + int(micros) / 1e6 - time.monotonic()
        pieces: list[bytes] = []
        for order, asking, as_text in orders:
            if asking:
                pieces.append(b"*1\r\n$6\r\nASKING\r\n")
            words = list(order.words)
            if order.script:
                sha, text = hash_script(order.script)
                words = [b"EVAL" if as_text else b"EVALSHA", text if as_text else sha, b"1", order.key, *words]
            if order.deadline_mono is not None:
                words.append(b"%.6f" % (order.deadline_mono + (self.ahead or 0.0)))
            pieces += _packed(words)
        if replicas is not None:
            pieces += _packed((b"WAIT", b"%d" % replicas.least, b"%d" % max(1, int(replicas.patience_seconds * 1000))))
        self.connection.send_packed_command([b"".join(pieces)])

    def read(self, order: Order, asking: bool) -> Any:
        """The answer of the next order; ``_UNANSWERED`` where it came late, perhaps by a clock that was set.

        An error of the command itself is returned, not raised.
        """
        try:
            if asking:
                self.connection.read_response(disable_decoding=True)
            answer = self.connection.read_response(disable_decoding=True)
        except ResponseError as error:
            return error
        if order.deadline_mono is not None and answer.startswith(b"late "):
            self.ahead = float(answer[5:]) - time.monotonic()
            return _UNANSWERED  # it is sent again, unless its time has passed
        return answer

    def read_replicas(self, replicas: Replicas) -> int:
        """How many replicas have what was written; -1 where this node is no master any more."""
        try:
            return int(ask_for_more(self.connection, replicas.patience_seconds + self._timeout_seconds))
        except ResponseError as error:
            if isinstance(error, NoPermissionError) or "unknown command" in str(error):
                raise EmbedQueueError(f"min_replicas needs the command WAIT, and Redis refuses it: {error}") from None
            return -1

    def drop(self) -> None:
        self.connection.disconnect()
        self.ahead = None

    def end(self) -> None:
        self.drop()
        release_connection(self._client, self.connection)


class Lines:
    """Gives orders to the nodes of a cluster. Thread-safe.

    Args:
        nodes: of the cluster.
        timeout_seconds: for which one answer is waited for.
    """

    def __init__(self, nodes: Nodes, timeout_seconds: float) -> None:
        self._nodes = nodes
        self._timeout_seconds = timeout_seconds
        self._free: dict[Address, list[_Line]] = {}  # each list is changed in single steps

    def run(self, orders: Sequence[Order], replicas: Replicas | None = None) -> tuple[list[Any], int]:
        """Give orders, and follow them while slots move or have no master, as long as there is patience.

        Args:
            orders: each may be done twice, where an answer is lost.
            replicas: that are waited for on each node.

        Returns:
            An answer for each: bytes, integers, None, lists of these, or the ``redis.ResponseError`` of the command
            itself; ``LATE`` after its deadline. And how many replicas have all that was written, 0 where none are
            waited for.

        Raises:
            redis.RedisError: not all have been answered.
        """
        run = _Run(orders, replicas)
        waiting = self._nodes.waiting()
        while run.left():
            if not self._round(run) and not waiting.again():
                if run.expire():
                    break
                raise run.fault or redis.ConnectionError("closed")
        return run.answers, run.replicated

    def all_of(self, keys: Iterable[str | bytes], name: bytes, *words: str) -> list[Any]:
        """The answers of one command for each key; what Redis refuses counts as None."""
        return self.each_of(list(keys), [(name, *words)])[0]

    def each_of(
        self, keys: Sequence[str | bytes], commands: Sequence[tuple[bytes, *tuple[str, ...]]]
    ) -> list[list[Any]]:
        """The answers of several commands for each key, in one round; a list for each command, as ``all_of`` has it."""
        orders = [command(name, key, *words) for name, *words in commands for key in keys]
        answers = [None if isinstance(answer, ResponseError) else answer for answer in self.run(orders)[0]]
        return [answers[at * len(keys) : (at + 1) * len(keys)] for at in range(len(commands))]

    def _round(self, run: _Run) -> bool:
        """Send all that is left once; returns whether what then is left can be sent at once."""
        groups: dict[Address, list[int]] = {}
        at_once = True
        for index in run.left():
            try:
                where = run.asked.get(index) or self._nodes.address(key_slot(run.orders[index].key))
            except (OSError, RedisError) as error:  # of this slot alone
                at_once = run.failed(error)
                continue
            groups.setdefault(where, []).append(index)
        sent: list[tuple[Address, _Line, list[int]]] = []
        for address, indexes in groups.items():
            line = None
            try:
                line = self._take(address)
                line.send([(run.orders[i], i in run.asked, i in run.as_text) for i in indexes], run.wanted)
                sent.append((address, line, indexes))
            except (OSError, RedisError) as error:
                at_once = self._lost(run, line, error)
        for address, line, indexes in sent:
            try:
                at_once = self._read(run, address, line, indexes) and at_once
                self._put_back(address, line)
            except (OSError, RedisError) as error:
                at_once = self._lost(run, line, error)
            except BaseException:
                line.end()
                raise
        return at_once

    def _read(self, run: _Run, address: Address, line: _Line, indexes: Sequence[int]) -> bool:
        at_once, answers = True, []
        for index in indexes:
            answers.append((index, line.read(run.orders[index], run.asked.pop(index, None) is not None)))
        replicated = 0 if run.wanted is None else line.read_replicas(run.wanted)
        if replicated >= 0:
            run.replicated = replicated if run.first else min(run.replicated, replicated)
            run.first = False
        for index, answer in answers:
            if isinstance(answer, MovedError):
                self._nodes.moved(answer)
                at_once = run.failed(answer) or run.follow()
            elif isinstance(answer, AskError):
                run.asked[index] = self._nodes.redirected(answer, address)
                at_once = at_once and run.follow()
            elif isinstance(answer, NoScriptError):
                run.as_text.add(index)
            elif isinstance(answer, NOT_DONE):
                if isinstance(answer, ClusterDownError):
                    self._nodes.doubt()
                at_once = run.failed(answer)
            elif replicated >= 0:
                run.answers[index] = answer
            else:  # what it has written is lost, as likely as not
                at_once = run.failed(redis.ConnectionError("Redis has ended a WAIT"))
        return at_once

    def _lost(self, run: _Run, line: _Line | None, error: Exception) -> bool:
        if line is not None:
            line.end()
        self._nodes.doubt()
        for index in list(run.asked):
            del run.asked[index]
        if isinstance(error, AuthenticationError):
            raise error
        return run.failed(error)

    # -- connections ---------------------------------------------------------------------------------------------

    def _take(self, address: Address) -> _Line:
        try:
            return self._free[address].pop()
        except (KeyError, IndexError):
            client = self._nodes.client_of(address, socket_timeout=self._timeout_seconds)
            return _Line(client, self._timeout_seconds)

    def _put_back(self, address: Address, line: _Line) -> None:
        self._free.setdefault(address, []).append(line)
        if self._nodes.closed.is_set():
            self.close()

    def close(self) -> None:
        """Close the connections that nobody uses; the others are closed when they are put back."""
        for lines in self._free.values():
            while lines:
                try:
                    lines.pop().end()
                except IndexError:  # another thread was faster
                    break


class _Run:
    """What is known of some orders while they are given."""

    def __init__(self, orders: Sequence[Order], replicas: Replicas | None) -> None:
        self.orders = orders
        self.wanted = replicas
        self.answers: list[Any] = [_UNANSWERED] * len(orders)
        self.replicated, self.first = 0, True
        self.asked: dict[int, Address] = {}  # where a redirection asks for this order alone
        self.as_text: set[int] = set()  # whose script the node does not know
        self.fault: Exception | None = None
        self._followed = 0

    def left(self) -> list[int]:
        """The orders that have no answer; those whose time has passed get one."""
        now = time.monotonic()
        for index, order in enumerate(self.orders):
            late = order.deadline_mono is not None and now >= order.deadline_mono
            if late and self.answers[index] is _UNANSWERED:
                self.answers[index] = LATE
        return [index for index, answer in enumerate(self.answers) if answer is _UNANSWERED]

    def failed(self, error: Exception) -> bool:
        """Not done now; returns that a rest is due."""
        self.fault = error
        return False

    def follow(self) -> bool:
        """A redirection; returns whether it can be followed at once: not for ever."""
        self._followed += 1
        return self._followed <= len(self.orders) + 5

    def expire(self) -> bool:
        """Patience has ended: what has a deadline is late. Returns whether everything has an answer then."""
        for index in self.left():
            if self.orders[index].deadline_mono is not None:
                self.answers[index] = LATE
        return not self.left()


def _packed(words: Iterable[bytes]) -> list[bytes]:
    parts = list(words)
    pieces = [b"*%d\r\n" % len(parts)]
    for part in parts:
        pieces += (b"$%d\r\n" % len(part), part, b"\r\n")
    return pieces


def _bytes(word: str | bytes) -> bytes:
    return word if isinstance(word, bytes) else word.encode()
