"""Figures from measured values: medians, spreads, ratios, targets, tables. Pure functions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median, quantiles
from typing import Any, Literal


@dataclass
class Row:
    """What was measured of one contender in one situation.

    Attributes:
        contender: short name.
        at: the situation, such as {"latency_ms": 100}.
        unit: of the values.
        values: one a repetition, in order.
        more: further figures of the same runs, medians.
    """

    contender: str
    at: dict[str, Any]
    unit: str
    values: list[float]
    more: dict[str, float] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """The figure."""
        return median(self.values)

    def as_json(self) -> dict[str, Any]:
        """For the file of figures."""
        low, high = spread(self.values)
        return asdict(self) | {"median": self.median, "low": low, "high": high}


@dataclass(frozen=True)
class Target:
    """A ratio that was promised, and what came out.

    Attributes:
        what: in words.
        measured: the median, and its spread in ``low`` and ``high``.
        wanted: the bound.
        sense: whether the figure must be at least or at most the bound.
    """

    what: str
    measured: float
    low: float
    high: float
    wanted: float
    sense: Literal["at least", "at most"] = "at least"

    @property
    def reached(self) -> bool:
        """Whether the promise is kept."""
        return self.measured >= self.wanted if self.sense == "at least" else self.measured <= self.wanted


@dataclass
class Answer:
    """All that one question brought.

    Attributes:
        about: the machine and the run, if not that of the others.
    """

    question: str
    title: str
    rows: list[Row] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)

    def find(self, contender: str, **at: Any) -> Row | None:
        """The row of a contender in a situation."""
        return next((row for row in self.rows if row.contender == contender and row.at == at), None)


def spread(values: Sequence[float]) -> tuple[float, float]:
    """The middle half of the values; of fewer than four, all of them."""
    if len(values) < 4:
        return min(values), max(values)
    low, _, high = quantiles(values, n=4, method="inclusive")
    return low, high


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Ratios of values that were measured one right after the other: what slows both does not count."""
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least ``percent`` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def settled(busy: Sequence[Sequence[float]]) -> float:
    """Calls in flight on average over the second half of the time, from (time, calls) whenever they changed."""
    middle = (busy[0][0] + busy[-1][0]) / 2
    parts = ((calls, max(begin, middle), max(end, middle)) for (begin, calls), (end, _) in itertools.pairwise(busy))
    return sum(calls * (end - begin) for calls, begin, end in parts) / (busy[-1][0] - middle)


def target(
    what: str, values: Sequence[float], wanted: float, sense: Literal["at least", "at most"] = "at least"
) -> Target:
    """A target with the median of repeated values."""
    low, high = spread(values)
    return Target(what, median(values), low, high, wanted, sense)


def ratio_target(what: str, ours: Row | None, theirs: Row | None, wanted: float) -> list[Target]:
    """How our row stands to another; nothing where one of them was not measured."""
    if ours is None or theirs is None:
        return []
    return [target(what, ratios(ours.values, theirs.values), wanted)]


def shown(value: float) -> str:
    """A figure with three digits that count."""
    if value != value:
        return "-"
    if abs(value) >= 1000:
        return f"{round(value, -max(0, len(str(int(abs(value)))) - 3)):,.0f}"
    if value == 0:
        return "0"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def target_table(targets: Sequence[Target]) -> str:
    """Targets as markdown."""
    lines = ["| target | wanted | measured | spread | |", "|---|---|---|---|---|"]
    for each in targets:
        wanted, between = f"{each.sense} {shown(each.wanted)}", f"{shown(each.low)} to {shown(each.high)}"
        reached = "reached" if each.reached else "**not reached**"
        lines.append(_line([each.what, wanted, shown(each.measured), between, reached]))
    return "\n".join(lines)


def row_table(rows: Sequence[Row], label: Callable[[str], str], names: Mapping[str, str]) -> str:
    """Rows as markdown: situations, median and spread, and the further figures."""
    ats = list(dict.fromkeys(name for row in rows for name in row.at))
    mores = list(dict.fromkeys(name for row in rows for name in row.more))
    head = ["", *(names.get(name, name) for name in ats), rows[0].unit, "spread", *(names.get(m, m) for m in mores)]
    lines = [_line(head), _line(["---"] * len(head))]
    for row in rows:
        low, high = spread(row.values)
        cells = [label(row.contender), *(_cell(row.at.get(name)) for name in ats)]
        cells += [shown(row.median), f"{shown(low)} to {shown(high)}"]
        cells += [shown(row.more[name]) if name in row.more else "" for name in mores]
        lines.append(_line(cells))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)
