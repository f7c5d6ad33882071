"""How things stand, in lines for people and JSON for scripts."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from embedqueue.values.stats import DeadLetter, LiveWorker, QueueStats
from embedqueue.values.words import printable

#: Facts that are Unix times, and those that a person sees in the age beside such a time.
_TIMES = ("pending_since", "in_flight_until", "died_at", "written_at")
_SAID_BY_AN_AGE = ("waiting_s", "lease_ends_in_s")
#: Units of an age in seconds; a unit is used from two of it on.
_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"))
#: What is said where no worker has announced itself.
NOBODY = "no worker is running: what waits is embedded once one is started (embedqueue worker)"


def stats_as_json(stats: QueueStats) -> str:
    """How the queue stands in Redis, for a script. What this very process has done is left out: nothing.

    ``paused`` tells whether nothing is claimed now; ``paused_until`` is null as well where that has no end. ``workers``
    is null where Redis does not let us know.
    """
    names = (
        "waiting",
        "in_flight",
        "dead",
        "oldest_age",
        "paused_until",
        "pause_reason",
        "workers",
        "for_jobs",
        "outsourced",
    )
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
    if stats.for_jobs or stats.outsourced:
        yield f"batch jobs {stats.outsourced} in jobs; {stats.for_jobs} of the waiting are meant for one"
    yield f"dead       {stats.dead}"
    yield f"workers    {'not known' if stats.workers is None else stats.workers or NOBODY}"
    if stats.oldest_age is not None:
        yield f"oldest     {stats.oldest_age:.0f} s"
    if stats.paused_until is not None:
        seconds = max(0.0, stats.paused_until - time.time())
        until = "until somebody resumes" if seconds == math.inf else f"for {seconds:.0f} s"
        yield f"paused     {until}: {printable(stats.pause_reason or '')}"
    for limit in stats.limits:
        yield f"limit      {limit.words}"


def describe_workers(workers: Sequence[LiveWorker]) -> Iterator[str]:
    """Workers as lines for a person."""
    for one in workers:
        since = f"since {_when(one.since)}, heard of {one.heard_age:.0f} s ago"
        yield printable(f"{one.host}  pid {one.pid}  {one.doing}  {one.space}  {since}  embedqueue {one.version}")
    if not workers:
        yield NOBODY


def lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """Facts by name as lines for a person."""
    for name, value in facts.items():
        if name in _TIMES and value is not None:
            value = _when(value, aged=True)
        if name not in _SAID_BY_AN_AGE:
            yield f"{name:<16} {'not known' if value is None else printable(str(value))}"


def describe_dead(letters: Iterator[DeadLetter]) -> Iterator[str]:
    """Dead letters as lines for a person. No text of users."""
    for letter in letters:
        yield printable(f"{_when(letter.died_at)}  {letter.redis_key or '(not ours)'}  {letter.reason}")


def dead_as_json(letter: DeadLetter) -> str:
    """A dead letter for a script; what is no UTF-8 in it is replaced."""
    return json.dumps(asdict(letter) | {"member": letter.member.decode("utf-8", "replace")})


def _when(seconds: float, *, aged: bool = False) -> str:
    """A Unix time as a date here, with the zone, and how long ago that was."""
    try:
        date = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(seconds))
    except (ValueError, OverflowError, OSError):  # another program may have written any number
        return str(seconds)
    return f"{date}, {_ago(time.time() - seconds)}" if aged else date


def _ago(seconds: float) -> str:
    """How long ago it was, or how soon it will be where that is negative."""
    length = abs(seconds)
    if length < 1:
        return "now"
    size, unit = next((one for one in _UNITS if length >= 2 * one[0]), (1, "s"))
    return f"{length // size:.0f} {unit} ago" if seconds > 0 else f"in {length // size:.0f} {unit}"
