"""From the history to what the page shows. Pure: no Flask, no Redis, no clock."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from embedqueue.observers.history import LATENCY_SECONDS, Period

from . import words

#: Minutes over which "a minute" is averaged; the one that is not over is left out.
RATE_MINUTES = 5
#: How high the charts are, in units of their own; a minute is one unit wide.
CHART_HEIGHT = 100.0

#: Round numbers below ten.
AXIS_STEPS: Final = (1, 1.5, 2, 3, 4, 5, 6, 8, 10)

#: What the outcome of a failed call means for its items.
MEANINGS: Final[Mapping[str, str]] = {
    "transient": "tried again",
    "partial": "some vectors unusable",
    "rejected": "a text was refused",
    "too_large": "the call was cut",
    "configuration": "somebody must act",
}
CAUSES: Final[Mapping[str, str]] = {
    "": "No status",
    "timeout": "No answer in time",
    "connection": "Connection failed",
    "529": "529 Overloaded",
}


@dataclass(frozen=True, slots=True)
class Bar:
    """One minute of a chart, or one row of a list: a place, a size and what it says."""

    x: float
    y: float
    height: float
    label: str


@dataclass(frozen=True, slots=True)
class Row:
    """A row with a bar behind it: a name, what it means, a number and its share of the largest one (0 to 1)."""

    name: str
    meaning: str
    count: int
    share: float


def a_minute(minutes: Sequence[Period], figure: Callable[[Period], float]) -> float:
    """How many a minute, lately."""
    over = minutes[:-1][-RATE_MINUTES:]
    return sum(map(figure, over)) / len(over) if over else 0.0


def quantile(latencies: Sequence[int], part: float) -> float | None:
    """The latency that ``part`` of the calls stayed below, in seconds; within its class, by proportion.

    Args:
        latencies: calls by class, as a period has them.
        part: 0 to 1.

    Returns:
        None without any call. Of the class without an end, its beginning.
    """
    wanted = part * sum(latencies)
    if not wanted:
        return None
    below = 0.0
    for at, calls in enumerate(latencies):
        if calls and below + calls >= wanted:
            least = LATENCY_SECONDS[at - 1] if at else 0.0
            most = LATENCY_SECONDS[at] if at < len(LATENCY_SECONDS) else least
            return least + (most - least) * (wanted - below) / calls
        below += calls
    return LATENCY_SECONDS[-1]


def nice(largest: float) -> float:
    """The end of an axis: a round number, not far above the largest value."""
    power = 10.0 ** max(0, math.floor(math.log10(max(largest, 1.0))))
    return next(step * power for step in AXIS_STEPS if step * power >= largest)


def bars(minutes: Sequence[Period], figure: Callable[[Period], float], end: float, name: str) -> list[Bar]:
    """A bar for each minute that has anything."""
    found = []
    for at, minute in enumerate(minutes):
        value = figure(minute)
        if value:
            height = max(1.0, CHART_HEIGHT * value / end)
            label = f"{words.clock(minute.start)} UTC: {words.count(value)} {name}"
            found.append(Bar(at, CHART_HEIGHT - height, height, label))
    return found


def line(values: Sequence[float | None], end: float) -> list[str]:
    """Points of one polyline for each run of minutes that have a value; a lone one is drawn a minute wide."""
    runs: list[list[tuple[float, float]]] = []
    before: float | None = None
    for at, value in enumerate(values):
        if value is not None:
            if before is None:
                runs.append([])
            runs[-1].append((at + 0.5, CHART_HEIGHT * (1 - min(1.0, value / end))))
        before = value
    lines = []
    for run in runs:
        if len(run) == 1:
            (x, y) = run[0]
            run = [(x - 0.5, y), (x + 0.5, y)]
        lines.append(" ".join(f"{x:g},{y:.2f}" for x, y in run))
    return lines


def summed(periods: Sequence[Period]) -> tuple[int, ...]:
    """Latencies of all of them."""
    return tuple(map(sum, zip(*(period.latencies for period in periods), strict=True)))


def latency_rows(latencies: Sequence[int]) -> list[Row]:
    """Calls by duration, from the first class that has any to the last."""
    used = [at for at, calls in enumerate(latencies) if calls]
    if not used:
        return []
    most = max(latencies)
    rows = []
    for at in range(used[0], used[-1] + 1):
        if at == len(LATENCY_SECONDS):
            name = f"over {words.duration(LATENCY_SECONDS[-1])}"
        else:
            name = f"up to {words.duration(LATENCY_SECONDS[at])}"
        rows.append(Row(name, "", latencies[at], latencies[at] / most))
    return rows


def failure_rows(minutes: Sequence[Period]) -> list[Row]:
    """Failed calls by cause, the most frequent first."""
    sums: dict[str, int] = {}
    for minute in minutes:
        for cause, calls in minute.failures.items():
            sums[cause] = sums.get(cause, 0) + calls
    most = max(sums.values(), default=0)
    rows = []
    for name, calls in sorted(sums.items(), key=lambda pair: -pair[1]):
        outcome, _, cause = name.partition(" ")
        rows.append(Row(_cause(cause), MEANINGS.get(outcome, outcome), calls, calls / most))
    return rows


def _cause(cause: str) -> str:
    if cause in CAUSES:
        return CAUSES[cause]
    try:
        return f"{cause} {HTTPStatus(int(cause)).phrase}"
    except ValueError:
        return cause
