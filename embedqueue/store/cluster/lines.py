"""Commands on single keys anywhere in a cluster: sent to all nodes that they are for, and followed where slots move."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Sequence
from typing import Any

import redis
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    RedisError,
    ResponseError,
)

from embedqueue.store.replicas import Replicas

from .lazy import Address
from .line import UNANSWERED, Line, Order, command
from .nodes import CONNECT_SECONDS, Nodes
from .patience import NOT_DONE

#: The answer of an order whose deadline has passed: whether it was done is not known.
LATE = b"late"
#: Seconds for which a node may keep those of others waiting that are to be read after its answers.
BRIEF_SECONDS = 0.25


class Lines:
    """Gives orders to the nodes of a cluster. Thread-safe.

    Args:
        nodes: of the cluster.
        timeout_seconds: for which one answer is waited for.
    """

    def __init__(self, nodes: Nodes, timeout_seconds: float) -> None:
        self._nodes = nodes
        self._timeout_seconds = timeout_seconds
        self._free: dict[Address, list[Line]] = {}  # each list is changed in single steps

    def run(
        self,
        orders: Sequence[Order],
        replicas: Replicas | None = None,
        *,
        seconds: float | None = None,
        repeated: set[int] | None = None,
    ) -> tuple[list[Any], int]:
        """Give orders, and follow them while slots move or have no master, as long as there is patience.

        A node that does not answer keeps those of others from nothing: theirs are sent and read first.

        Args:
            orders: each may be done twice, where an answer is lost.
            replicas: that are waited for on each node.
            seconds: for which answers are waited for, less than the patience; what has none then is ``LATE``.
            repeated: gets the places of those orders that were given once more: the first copy may still come.

        Returns:
            An answer for each: bytes, integers, None, lists of these, or the ``redis.ResponseError`` of the command
            itself; ``LATE`` after its deadline. And how many replicas have all that was written, 0 where none are
            waited for.

        Raises:
            redis.RedisError: not all have been answered.
        """
        run = _Run(orders, replicas, None if seconds is None else time.monotonic() + seconds)
        waiting = self._nodes.waiting()
        try:
            while run.left():
                if not self._round(run) and not waiting.again():
                    if run.expire():
                        break
                    raise run.fault or redis.ConnectionError("closed")
        finally:
            for _, line, _ in run.sent:
                line.end()
            if repeated is not None:
                repeated |= run.lost
        return run.answers, run.replicated

    def all_of(self, keys: Iterable[str | bytes], name: bytes, *words: str, seconds: float | None = None) -> list[Any]:
        """The answers of one command for each key; None where Redis refuses it, or has not answered in that time."""
        return self.each_of(list(keys), [(name, *words)], seconds=seconds)[0]

    def each_of(
        self,
        keys: Sequence[str | bytes],
        commands: Sequence[tuple[bytes, *tuple[str, ...]]],
        *,
        seconds: float | None = None,
    ) -> list[list[Any]]:
        """The answers of several commands for each key, in one round; a list for each command, as ``all_of`` has it."""
        orders = [command(name, key, *words) for name, *words in commands for key in keys]
        found, _ = self.run(orders, seconds=seconds)
        answers = [None if answer is LATE or isinstance(answer, ResponseError) else answer for answer in found]
        return [answers[at * len(keys) : (at + 1) * len(keys)] for at in range(len(commands))]

    def _round(self, run: _Run) -> bool:
        """Send all that is left once; returns whether what then is left can be sent at once."""
        groups: dict[Address, list[int]] = {}
        at_once = True
        sent = {index for _, _, indexes in run.sent for index in indexes}
        for index in run.left():
            if index in sent:
                continue
            try:
                where = run.asked.get(index) or self._nodes.address(key_slot(run.orders[index].key))
            except (OSError, RedisError) as error:  # of this slot alone
                at_once = run.failed(error)
                continue
            groups.setdefault(where, []).append(index)
        # Who has to be connected to comes last: that may take its time.
        for address, indexes in sorted(groups.items(), key=lambda group: not self._free.get(group[0])):
            line = None
            try:
                line = self._take(address)
                run.sent.append((address, line, indexes))
                line.send([(run.orders[i], i in run.asked, i in run.as_text) for i in indexes], run.wanted)
            except (OSError, RedisError) as error:
                at_once = self._lost(run, line, error)
        at_once = self._read_all(run, BRIEF_SECONDS) and at_once
        if not groups:  # there is nothing else to do
            at_once = self._read_all(run, None) and at_once
            for _, line, _ in list(run.sent):
                at_once = self._lost(run, line, redis.TimeoutError("a node of the cluster does not answer"))
        return at_once

    def _read_all(self, run: _Run, seconds: float | None) -> bool:
        """Read the answers of all nodes that begin within so many seconds; None: as long as there is time."""
        at_once = True
        for address, line, indexes in list(run.sent):
            try:
                if line.begins(run.seconds(indexes, self._timeout_seconds) if seconds is None else seconds):
                    at_once = self._read(run, address, line, indexes) and at_once
                    run.answered(line)
                    self._put_back(address, line)
            except (OSError, RedisError) as error:
                at_once = self._lost(run, line, error)
        return at_once

    def _read(self, run: _Run, address: Address, line: Line, indexes: Sequence[int]) -> bool:
        at_once, answers = True, list(zip(indexes, line.answers(), strict=True))
        for index in indexes:
            run.asked.pop(index, None)
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

    def _lost(self, run: _Run, line: Line | None, error: Exception) -> bool:
        if line is not None:
            run.lost |= {index for _, one, indexes in run.sent if one is line for index in indexes}
            run.answered(line)
            line.end()
        self._nodes.doubt()
        run.asked.clear()
        if isinstance(error, AuthenticationError):
            raise error
        return run.failed(error)

    # -- connections ---------------------------------------------------------------------------------------------

    def _take(self, address: Address) -> Line:
        try:
            return self._free[address].pop()
        except (KeyError, IndexError):
            client = self._nodes.client_of(address, socket_timeout=min(self._timeout_seconds, CONNECT_SECONDS))
            return Line(client, self._timeout_seconds)

    def _put_back(self, address: Address, line: Line) -> None:
        self._free.setdefault(address, []).append(line)
        if self._nodes.closed.is_set():
            self.close()

    def close(self) -> None:
        """Close the connections that nobody uses; the others are closed when they are put back."""
        for lines in list(self._free.values()):
            with contextlib.suppress(IndexError):  # another thread may take one, too
                while True:
                    lines.pop().end()


_Sent = tuple[Address, Line, list[int]]


class _Run:
    """What is known of some orders while they are given; ``end_mono``: when nobody waits for them any more."""

    def __init__(self, orders: Sequence[Order], replicas: Replicas | None, end_mono: float | None) -> None:
        self.orders = orders
        self._end_mono = end_mono
        self.wanted = replicas
        self.answers: list[Any] = [UNANSWERED] * len(orders)
        self.replicated, self.first = 0, True
        self.asked: dict[int, Address] = {}  # where a redirection asks for this order alone
        self.sent: list[_Sent] = []  # what is not answered yet
        self.lost: set[int] = set()  # what was sent, and its answer never came
        self.as_text: set[int] = set()  # whose script the node does not know
        self.fault: Exception | None = None
        self._followed = 0

    def answered(self, line: Line) -> None:
        """Nothing more comes on a line."""
        self.sent = [one for one in self.sent if one[1] is not line]

    def left(self) -> list[int]:
        """The orders that have no answer; those whose time has passed get one."""
        now = time.monotonic()
        for index, answer in enumerate(self.answers):
            if answer is UNANSWERED and now >= self._until(index, now + 1):
                self.answers[index] = LATE
        return [index for index, answer in enumerate(self.answers) if answer is UNANSWERED]

    def seconds(self, indexes: Iterable[int], most: float) -> float:
        """For which the answers to these orders are waited for."""
        now = time.monotonic()
        return max(0.0, max(self._until(index, now + most) for index in indexes) - now)

    def _until(self, index: int, latest_mono: float) -> float:
        ends = (latest_mono, self._end_mono, self.orders[index].deadline_mono)
        return min(end for end in ends if end is not None)

    def failed(self, error: Exception) -> bool:
        """Not done now; returns that a rest is due."""
        self.fault = error
        return False

    def follow(self) -> bool:
        """A redirection; returns whether it can be followed at once: not for ever."""
        self._followed += 1
        return self._followed <= len(self.orders) + 5

    def expire(self) -> bool:
        """Patience has ended: what has an end is late. Returns whether everything has an answer then."""
        for index in self.left():
            if self._end_mono is not None or self.orders[index].deadline_mono is not None:
                self.answers[index] = LATE
        return not self.left()
