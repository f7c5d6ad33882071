"""The buckets of a queue's limits, as ``buckets.lua`` keeps them: which hash, and what the scripts are told of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from embedqueue.values.limits import LIMIT_NAMES, Cost, LimitLeft, Limits, Paid

#: What is before the name of limits that namespaces share, in the name of their hash.
SHARED_PREFIX = "embedqueue:limits:"
NOTHING = Cost()


@dataclass(frozen=True, slots=True)
class Said:
    """What a provider has told of its limits.

    Attributes:
        limits: by the limit's name in Redis, such as "requests".
        left: what it says is left of each.
        closed_seconds: for which it wants nothing at all; 0 where it does not say so.
    """

    limits: Mapping[str, int] = field(default_factory=dict)
    left: Mapping[str, int] = field(default_factory=dict)
    closed_seconds: float = 0.0

    @property
    def words(self) -> str:
        """As the scripts take it."""
        return json.dumps({"limits": dict(self.limits), "left": dict(self.left), "closed": self.closed_seconds})


class Buckets:
    """What the scripts are told of a queue's limits. Thread-safe, as the store.

    Args:
        namespace: of the queue.
        limits: the option.
        call: runs a script, see ``Scripts.call``.

    Attributes:
        key: of the hash that holds them.
        auto: whether what the provider says counts.
        counts_tokens: whether tokens may be limited.
    """

    def __init__(self, namespace: str, limits: Limits | Literal["auto"], call: Callable[..., Any]) -> None:
        name = None if limits == "auto" else limits.name
        self.key = f"{namespace}:limits" if name is None else f"{SHARED_PREFIX}{name}"
        self.auto = limits == "auto"
        self._limits = {} if limits == "auto" else limits.by_name
        self.counts_tokens = self.auto or "tokens" in self._limits
        self._call = call
        self._most = (1, 1)

    def fit(self, texts: int, tokens: int) -> None:
        """One call holds at most so many texts and estimated tokens from now on: so much fits into a bucket."""
        self._most = (texts, tokens)

    @property
    def spec(self) -> str:
        """The limits as ``buckets.open()`` takes them."""
        texts, tokens = self._most
        most = {"call_texts": texts, "call_tokens": tokens}
        return json.dumps(self._limits | most | ({"auto": 1} if self.auto else {}), separators=(",", ":"))

    def settle(self, more: Cost = NOTHING, back: Paid | None = None, said: Said | None = None) -> tuple[float, float]:
        """Settle what no claim could know, and tell what the provider has said.

        Args:
            more: what was not taken and is sent as soon as it is paid; the buckets may owe it.
            back: what was taken and will not be sent.
            said: with ``limits="auto"``.

        Returns:
            The seconds until nothing is owed, when it is to be sent; and the time under which it is counted, Unix time
            by the server's clock.

        Raises:
            redis.RedisError: nothing is known to have been settled.
        """
        debt = f"{more.requests} {more.texts} {more.tokens}" if any(more) else ""
        words = ("" if back is None else back.words, "" if said is None else said.words)
        seconds, at = self._call("settle", (self.key,), self.spec, debt, *words)
        return float(seconds), float(at)


def left_of(reply: Sequence[bytes | int]) -> tuple[LimitLeft, ...]:
    """What is left of each limit, from the answer of ``buckets.left()``."""
    lines = [[_text(value) for value in reply[at : at + 4]] for at in range(0, len(reply), 4)]
    return tuple(
        LimitLeft(LIMIT_NAMES[name], int(limit), int(left), float(seconds)) for name, limit, left, seconds in lines
    )


def paid_of(words: bytes) -> Paid | None:
    """What a claim has taken, from its answer; None where there are no limits."""
    if not words:
        return None
    at, *cost = words.split()
    return Paid(float(at), Cost(*map(int, cost)))


def _text(value: bytes | int) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
