"""How things stand, in lines for people and JSON for scripts."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from embedqueue.values.stats import DeadLetter, QueueStats
from embedqueue.values.words import printable


def stats_as_json(stats: QueueStats) -> str:
    """How the queue stands in Redis, for a script. What this very process has done is left out: nothing.

    ``paused`` tells whether nothing is claimed now; ``paused_until`` is null as well where that has no end.
    """
    names = ("waiting", "in_flight", "dead", "oldest_age", "paused_until", "pause_reason")
    facts = {name: getattr(stats, name) for name in names}
    facts["paused"] = stats.paused_until is not None
    if stats.paused_until == math.inf:
        facts["paused_until"] = None
    facts["limits"] = [asdict(limit) for limit in stats.limits]
    return json.dumps(facts)


def describe(stats: QueueStats) -> Iterator[str]:
    """How the queue stands, as lines for a person."""
    yield f"waiting    {stats.waiting}"
    yield f"in flight  {stats.in_flight}"
    yield f"dead       {stats.dead}"
    if stats.oldest_age is not None:
        yield f"oldest     {stats.oldest_age:.0f} s"
    if stats.paused_until is not None:
        seconds = max(0.0, stats.paused_until - time.time())
        until = "until somebody resumes" if seconds == math.inf else f"for {seconds:.0f} s"
        yield f"paused     {until}: {printable(stats.pause_reason or '')}"
    for limit in stats.limits:
        yield f"limit      {limit.words}"


def lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """Facts by name as lines for a person."""
    for name, value in facts.items():
        yield f"{name:<16} {printable(str(value))}"


def describe_dead(letters: Iterator[DeadLetter]) -> Iterator[str]:
    """Dead letters as lines for a person. No text of users."""
    for letter in letters:
        yield printable(f"{_when(letter.died_at)}  {letter.redis_key or '(not ours)'}  {letter.reason}")


def dead_as_json(letter: DeadLetter) -> str:
    """A dead letter for a script; what is no UTF-8 in it is replaced."""
    return json.dumps(asdict(letter) | {"member": letter.member.decode("utf-8", "replace")})


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
