"""PNG plots of the answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.bench import label
from benchmarks.figures import Answer, Row, spread

#: Ours stands out, limits are grey, all others share the rest.
_OURS, _LIMIT = "#c1272d", ("#7f7f7f", "#b5b5b5")
_OTHERS = ("#1f4e79", "#5b9bd5", "#2e7d32", "#81c784", "#8e5ea2", "#e0a030", "#5d4037")


def draw(folder: Path, answers: Sequence[Answer]) -> None:
    """One PNG for each answer that has a plot."""
    makers: dict[str, Callable[[Answer], Figure]] = {
        "enqueue": _enqueue,
        "drain": _drain,
        "wait": _wait,
        "growth": _growth,
    }
    for answer in answers:
        if answer.question in makers and answer.rows:
            figure = makers[answer.question](answer)
            figure.suptitle(answer.title)
            figure.tight_layout()
            figure.savefig(folder / f"{answer.question}.png", dpi=110)
            plt.close(figure)


def _enqueue(answer: Answer) -> Figure:
    figure, axes = plt.subplots(figsize=(10, 4.5))
    _bars(axes, answer.rows, "threads", "callers", "items/s")
    return figure


def _drain(answer: Answer) -> Figure:
    dimensions = sorted({row.at["dimensions"] for row in answer.rows}, reverse=True)
    figure, all_axes = plt.subplots(len(dimensions), 1, figsize=(10, 4.5 * len(dimensions)), squeeze=False)
    for axes, each in zip(all_axes[:, 0], dimensions, strict=True):
        rows = [row for row in answer.rows if row.at["dimensions"] == each]
        _bars(axes, rows, "latency_ms", "API latency, ms", f"items/s, {each} dimensions")
        axes.set_yscale("log")
    return figure


def _wait(answer: Answer) -> Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5))
    rows = [row for row in answer.rows if row.at["think_ms"] == 0]
    _bars(left, rows, "handlers", "concurrent handlers", "p50 above the API, ms")
    calls = [Row(row.contender, row.at, row.unit, [row.more["calls_per_request"]]) for row in rows]
    _bars(right, calls, "handlers", "concurrent handlers", "API calls per request")
    left.get_legend().remove()
    return figure


def _growth(answer: Answer) -> Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5))
    for axes, unit in ((left, "enqueued/s"), (right, "drained/s")):
        for chars in sorted({row.at["chars"] for row in answer.rows}):
            rows = [row for row in answer.rows if row.unit == unit and row.at["chars"] == chars]
            axes.errorbar(
                [row.at["depth"] for row in rows],
                [row.median for row in rows],
                yerr=_whiskers(rows),
                marker="o",
                capsize=3,
                label=f"{chars} characters",
            )
        axes.set(xscale="log", xlabel="items that wait", ylabel=f"items {unit}")
        axes.set_ylim(bottom=0)
        axes.legend()
    return figure


def _bars(axes: Axes, rows: Sequence[Row], situation: str, x_label: str, y_label: str) -> None:
    groups = list(dict.fromkeys(row.at[situation] for row in rows))
    names = list(dict.fromkeys(row.contender for row in rows))
    width = 0.85 / len(names)
    for number, name in enumerate(names):
        mine = [row for row in rows if row.contender == name]
        places = [groups.index(row.at[situation]) + (number - (len(names) - 1) / 2) * width for row in mine]
        heights = [row.median for row in mine]
        axes.bar(places, heights, width, yerr=_whiskers(mine), color=_colour(name, names), label=label(name), capsize=1)
    axes.set_xticks(range(len(groups)), [str(group) for group in groups])
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.legend(fontsize=7, ncols=2)


def _whiskers(rows: Sequence[Row]) -> list[list[float]]:
    spreads = [spread(row.values) for row in rows]
    lows = [row.median - low for row, (low, _) in zip(rows, spreads, strict=True)]
    highs = [high - row.median for row, (_, high) in zip(rows, spreads, strict=True)]
    return [lows, highs]


def _colour(name: str, names: Sequence[str]) -> str:
    if name.startswith("embedqueue"):
        return _OURS
    limits = [each for each in names if each.startswith(("limit", "zadd"))]
    if name in limits:
        return _LIMIT[limits.index(name) % len(_LIMIT)]
    others = [each for each in names if each not in limits and not each.startswith("embedqueue")]
    return _OTHERS[others.index(name) % len(_OTHERS)]
