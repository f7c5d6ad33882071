"""``embedqueue top``: on a terminal a view that stays in place, elsewhere a line a look."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from embedqueue.operating.live import Pulse, Watch
from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.values.stats import QueueStats
from embedqueue.values.words import printable

#: Looks that the small curve shows.
CURVE_LOOKS = 60
#: Columns that the text of an error may fill.
ERROR_COLUMNS = 100
_BARS = " ▁▂▃▄▅▆▇█"


def lines(queue: EmbeddingBatchQueue, count: int | None, interval: float) -> None:
    """A line a look, under one heading."""
    watch = Watch(queue)
    click.echo(
        f"{'waiting':>10} {'change/s':>10} {'in flight':>10} {'workers':>8} {'done/s':>9} {'dead':>8} "
        f"{'oldest, s':>10}  state"
    )
    for look in _looks(count, interval):
        pulse = watch.look()
        stats = pulse.stats
        change = "" if look == 0 else f"{pulse.change_per_second:+.0f}"
        click.echo(
            f"{stats.waiting:>10} {change:>10} {stats.in_flight:>10} {_count(stats):>8} "
            f"{pulse.embedded_per_second:>9.1f} {stats.dead:>8} {_age(stats):>10}  {_state(pulse)}"
        )


def screen(queue: EmbeddingBatchQueue, count: int | None, interval: float) -> None:
    """A view that stays in place."""
    watch = Watch(queue)
    rates: deque[float] = deque(maxlen=CURVE_LOOKS)
    title = f"embedqueue {queue.options.namespace}  {queue.options.model}"
    with Live(console=Console(), auto_refresh=False) as live:
        for _ in _looks(count, interval):
            pulse = watch.look()
            rates.append(pulse.embedded_per_second)
            live.update(Panel(view(pulse, rates), title=title, subtitle=time.strftime("%H:%M:%S")), refresh=True)


def view(pulse: Pulse, rates: deque[float]) -> RenderableType:
    """What the screen shows."""
    stats = pulse.stats
    numbers = Table.grid(padding=(0, 4))
    for _ in range(6):
        numbers.add_column(justify="right")
    numbers.add_row(
        *(Text(words, style="dim") for words in ("waiting", "oldest", "in flight", "workers", "done/s", "dead"))
    )
    numbers.add_row(
        f"{stats.waiting:,} ({pulse.change_per_second:+,.0f}/s)",
        _age(stats) and f"{_age(stats)} s",
        f"{stats.in_flight:,}",
        Text(_count(stats), style="bold red" if stats.workers == 0 else ""),
        Text(f"{pulse.embedded_per_second:,.1f}", style="bold green" if pulse.embedded_per_second else ""),
        Text(f"{stats.dead:,}", style="bold red" if stats.dead else ""),
    )
    parts: list[RenderableType] = [numbers, Text(curve(rates), style="green"), _state_text(pulse)]
    if pulse.workers or pulse.held:
        parts.append(_workers(pulse))
    if pulse.errors:
        errors = Table("times", "failed in the last minute", box=None, padding=(0, 2), header_style="dim")
        for words, times in sorted(pulse.errors.items(), key=lambda pair: -pair[1]):
            errors.add_row(f"{times}", Text(printable(words)[:ERROR_COLUMNS], style="red"))
        parts.append(errors)
    return Group(*parts)


def _workers(pulse: Pulse) -> Table:
    """Who works, and who holds what; whoever is gone and holds something still is named as its claims name it."""
    names = ("worker", "pid", "does", "items in flight", "vectors", "since")
    shown = Table(*names, box=None, padding=(0, 2), header_style="dim")
    gone = dict(pulse.held)
    for one in pulse.workers:
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(one.since))
        items = f"{gone.pop(one.name, 0):,}"
        shown.add_row(
            *(Text(printable(words)) for words in (one.host, str(one.pid), one.doing, items, one.space, since))
        )
    for name, held in sorted(gone.items()):
        shown.add_row(Text(printable(name)), "", "not heard of", f"{held:,}")
    return shown


def curve(rates: deque[float]) -> str:
    """Rates as bars of a line's height, the highest of them full."""
    most = max(rates, default=0.0)
    if most <= 0:
        return ""
    return "".join(_BARS[round(rate / most * (len(_BARS) - 1))] for rate in rates)


def _looks(count: int | None, interval: float) -> Iterator[int]:
    look = 0
    while True:
        yield look
        look += 1
        if look == count:
            return
        time.sleep(interval)


def _age(stats: QueueStats) -> str:
    return "" if stats.oldest_age is None else f"{stats.oldest_age:.0f}"


def _count(stats: QueueStats) -> str:
    return "" if stats.workers is None else f"{stats.workers}"


def _state(pulse: Pulse) -> str:
    stats = pulse.stats
    if stats.paused_until is not None:
        return f"paused: {printable(stats.pause_reason or '')}"
    if stats.workers == 0 and (stats.waiting or not stats.in_flight):
        return "no worker is running"
    if stats.in_flight or pulse.embedded_per_second:
        return "working"
    return "waiting" if stats.waiting else "empty"


def _state_text(pulse: Pulse) -> Text:
    state = _state(pulse)
    style = "bold yellow" if state.startswith("paused") else "bold red" if state.startswith("no ") else "bold"
    return Text(state, style=style)
