"""How a question is measured: situations in turn, many times over, with a progress bar."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from rich.progress import Progress

from benchmarks import contenders
from benchmarks.children import Producer, Worker
from benchmarks.figures import Row
from benchmarks.settings import Settings
from benchmarks.world import World

#: One measured value, and further figures of the same run.
Measured = tuple[float, dict[str, float]]


@dataclass(frozen=True)
class Cell:
    """A contender in a situation."""

    contender: str
    at: tuple[tuple[str, Any], ...]

    @property
    def situation(self) -> dict[str, Any]:
        """The situation by name."""
        return dict(self.at)


class Bench:
    """What the questions have in common.

    Args:
        world: Redis and the API.
        progress: where to show how far it is.
        quick: fewer repetitions, smaller backlogs.
        absent: contenders whose package is missing.
        items: that wait where a question is about very many; 0: as many as it asks for.
    """

    def __init__(self, world: World, progress: Progress, *, quick: bool, absent: Sequence[str], items: int = 0) -> None:
        self.world = world
        self.quick = quick
        self.items = items
        self.repetitions = 3 if quick else 5
        self._progress = progress
        self._absent = absent
        self._random = random.Random(1)

    def present(self, *names: str) -> list[str]:
        """Those contenders that can run here."""
        return [name for name in names if name not in self._absent]

    def cells(self, names: Sequence[str], **situations: Sequence[Any]) -> list[Cell]:
        """Every contender in every combination of situations."""
        found: list[tuple[tuple[str, Any], ...]] = [()]
        for name, values in situations.items():
            found = [(*at, (name, value)) for at in found for value in values]
        return [Cell(contender, at) for at in found for contender in names]

    def interleave(
        self, title: str, unit: str, cells: Sequence[Cell], measure: Callable[[Cell, int], Measured]
    ) -> list[Row]:
        """Measure every cell once, then again, and so on; contenders of one situation close together in time."""
        found: dict[Cell, list[Measured]] = {cell: [] for cell in cells}
        situations = list(dict.fromkeys(cell.at for cell in cells))
        task = self._progress.add_task(title, total=len(cells) * self.repetitions)
        for turn in range(self.repetitions):
            for at in situations:
                group = [cell for cell in cells if cell.at == at]
                self._random.shuffle(group)
                for cell in group:
                    self._progress.update(task, description=f"{title}: {cell.contender} {_words(cell)}")
                    found[cell].append(measure(cell, turn))
                    self._progress.advance(task)
        self._progress.update(task, description=title)
        return [self._row(cell, unit, measured) for cell, measured in found.items()]

    def _row(self, cell: Cell, unit: str, measured: list[Measured]) -> Row:
        more = {name: median(figures[name] for _, figures in measured) for name in measured[0][1]}
        return Row(cell.contender, cell.situation, unit, [value for value, _ in measured], more)

    def step(self, title: str, total: int) -> Callable[[], None]:
        """For what is not interleaved: a bar, and how to advance it."""
        task = self._progress.add_task(title, total=total)
        return lambda: self._progress.advance(task)

    @contextlib.contextmanager
    def producers(self, names: Sequence[str], dimensions: int, **more: Any) -> Iterator[dict[str, Producer]]:
        """A producer process for each contender."""
        made = {name: Producer(name, self.world.settings(name, dimensions, **more)) for name in names}
        try:
            yield made
        finally:
            for producer in made.values():
                producer.close()

    @contextlib.contextmanager
    def workers(self, settings: dict[str, Settings]) -> Iterator[dict[str, Worker]]:
        """A worker for each contender, to be warmed up by its first use."""
        made = {name: Worker(name, each) for name, each in settings.items()}
        try:
            yield made
        finally:
            for worker in made.values():
                worker.kill()

    def empty(self, name: str) -> None:
        """Drop what a contender has left in its database, but for what Celery's transport believes to be there."""
        client = self.world.client(name)
        keys = [key for key in client.scan_iter(count=5000) if not key.startswith(b"_kombu")]
        for at in range(0, len(keys), 5000):
            client.unlink(*keys[at : at + 5000])


def label(name: str) -> str:
    """A contender's name as people read it."""
    try:
        return str(contenders.load(name).LABEL)
    except (ImportError, KeyError):
        return name


def _words(cell: Cell) -> str:
    return " ".join(f"{name}={value}" for name, value in cell.at)
