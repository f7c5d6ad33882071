"""What a test may command the provider to answer, and what is known of a call."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Manner = Literal["whole", "drop", "truncate", "trickle", "hang"]


@dataclass(frozen=True)
class Answer:
    """What to answer instead of vectors, and in what manner.

    Attributes:
        status: HTTP status.
        body: bytes and str go as they are, all else as JSON; None: the vectors (below 400) or a usual error.
        headers: more headers; they replace ours; an empty value leaves one out.
        manner: "drop" closes at once, "truncate" in the middle of the body, "trickle" sends a byte each ``interval``
            seconds, "hang" waits for ``release()`` and then answers.
        interval: seconds.
        from_head: trickle the headers as well.
    """

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    manner: Manner = "whole"
    interval: float = 0.02
    from_head: bool = False


def fail(status: int, body: Any = None, **headers: str) -> Answer:
    """An error; ``retry_after="1"`` becomes the header ``retry-after``."""
    return Answer(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


def raw(body: bytes | str | Any, status: int = 200, **headers: str) -> Answer:
    """This very body."""
    return fail(status, body, **headers)


def drop() -> Answer:
    """Close the connection instead of answering."""
    return Answer(manner="drop")


def truncate() -> Answer:
    """Promise a whole body, send half of it, close."""
    return Answer(manner="truncate")


def trickle(interval: float = 0.02, *, from_head: bool = False) -> Answer:
    """Send a byte at a time."""
    return Answer(manner="trickle", interval=interval, from_head=from_head)


def hang() -> Answer:
    """Keep silent until ``release()``; only this call."""
    return Answer(manner="hang")


def poison(needle: str, status: int = 400, body: Any = None) -> Callable[[Sequence[str]], Answer | None]:
    """A rule: every call with a text that contains ``needle`` fails as a whole."""
    return contains(needle, fail(status, body))


def contains(needle: str, answer: Answer) -> Callable[[Sequence[str]], Answer | None]:
    """A rule: every call with a text that contains ``needle`` gets this answer."""
    return lambda texts: answer if any(needle in text for text in texts) else None


@dataclass
class Call:
    """One call to an embedding endpoint. ``status`` is 0 until it is answered, or when it was dropped.

    ``answer`` is what the test has commanded instead of vectors.
    """

    path: str
    model: str
    texts: list[str]
    document: dict[str, Any]
    headers: dict[str, str]
    peer: tuple[str, int]
    started: float = field(default_factory=time.time)
    ended: float | None = None
    status: int = 0
    answer: Answer | None = None
    query: str = ""
