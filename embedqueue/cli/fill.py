"""Commands that put items in: from a file, or from hashes that lack their vectors; and one that only looks."""

from __future__ import annotations

import csv
import json
import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import asdict
from typing import Any, TextIO

import click

from embedqueue.backlog.filler import DEFAULT_MAX_WAITING, to_fix, verified
from embedqueue.backlog.inspection import Text
from embedqueue.operating.describe import lines
from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.values.item import is_blank

from .context import Source, as_json, cli, command

#: Seconds between two lines of progress where there is no terminal.
LINE_SECONDS = 10.0
#: Characters that a line, or a field of a CSV file, may have; Python's own limit of a field is 128 KiB.
LINE_CHARS = 1 << 26

Done = Callable[[], float]

relabel_option = click.option(
    "--relabel", is_flag=True, help="Also those with a vector of the right length of which nothing says what it is of."
)
max_waiting_option = click.option(
    "--max-waiting", type=click.IntRange(1), default=DEFAULT_MAX_WAITING, show_default=True, metavar="COUNT",
    help="Go on only while fewer items wait.",
)  # fmt: skip


@command(cli, "enqueue", "embedqueue enqueue texts.jsonl --resume")
@click.argument("file", type=click.File("r", encoding="utf-8-sig"))
@click.option("--resume", is_flag=True, help="Skip what has its vector, or one of which nothing says what it is of.")
@relabel_option
@click.option("--max-waiting", type=click.IntRange(1), metavar="COUNT", help="Go on only while fewer items wait.")
def enqueue(source: Source, file: TextIO, resume: bool, relabel: bool, max_waiting: int | None) -> None:
    """Enqueue a file ("-" is standard input): JSONL, or CSV with a header, each with redis_key and text."""
    total, position = _size(file)
    kinds = to_fix(relabel=relabel) if resume else None
    _tell(*_fill(source, lambda queue: _pairs(file), kinds, max_waiting, total, position))


@command(cli, "backfill", "embedqueue backfill --match 'doc:*' --text-field body")
@click.option("--match", required=True, metavar="PATTERN", help="Of the hashes' keys, as SCAN takes it.")
@click.option("--text-field", required=True, metavar="NAME", help="Field that holds the text.")
@click.option("--all", "everything", is_flag=True, help="Also hashes that have the vector of their text.")
@relabel_option
@max_waiting_option
def backfill(source: Source, match: str, text_field: str, everything: bool, relabel: bool, max_waiting: int) -> None:
    """Enqueue hashes that lack the vector of their text by this model. May be stopped and started again."""
    kinds = None if everything else to_fix(relabel=relabel)
    _tell(*_fill(source, lambda queue: _not_blank(queue._texts(match, text_field)), kinds, max_waiting))


@command(cli, "verify", "embedqueue verify --match 'doc:*' --text-field body --fix")
@click.option("--match", required=True, metavar="PATTERN", help="Of the hashes' keys, as SCAN takes it.")
@click.option("--text-field", required=True, metavar="NAME", help="Field that holds the text.")
@click.option("--fix", is_flag=True, help="Enqueue what is missing or wrong; empty hashes whose text is blank.")
@relabel_option
@max_waiting_option
@as_json
def verify(
    source: Source, match: str, text_field: str, fix: bool, relabel: bool, max_waiting: int, as_json: bool
) -> None:
    """Tell whether hashes have the vectors of their texts by this model. Exits with 1 where one has not."""
    kinds = to_fix(relabel=relabel) if fix else ()
    found = verified(_fill(source, lambda queue: queue._texts(match, text_field), kinds, max_waiting))
    if as_json:
        click.echo(json.dumps(asdict(found)))
    else:
        click.echo("\n".join(lines(asdict(found))))
    if found.faults:
        raise click.exceptions.Exit(1)


def _not_blank(texts: Iterable[Text]) -> Iterator[Text]:
    """A backfill takes no vector away."""
    return (text for text in texts if not is_blank(text[1]))


def _size(file: TextIO) -> tuple[int | None, Done]:
    """Bytes of a file and how many of them are read; None where that cannot be known."""
    raw = getattr(file, "buffer", None)
    try:
        state = os.fstat(file.fileno())
    except (OSError, AttributeError):
        return None, lambda: 0.0
    if raw is None or not stat.S_ISREG(state.st_mode):
        return None, lambda: 0.0
    return state.st_size, raw.tell


def _fill(
    source: Source,
    texts_of: Callable[[EmbeddingBatchQueue], Iterable[Text]],
    kinds: Collection[str] | None,
    max_waiting: int | None,
    total: int | None = None,
    position: Done = lambda: 0.0,
) -> Iterator[tuple[int, Counter[str]]]:
    """As ``Filler.fill``, with a meter."""
    count = seen = 0
    queue = source.look()
    with Meter(total) as meter:
        for taken, found in queue._filler(kinds, max_waiting, meter.tell_full).fill(texts_of(queue)):
            count, seen = count + taken, seen + found.total()
            meter.show(position(), count, seen)
            yield taken, found


def _tell(*parts: tuple[int, Counter[str]]) -> None:
    count, seen = sum(taken for taken, _ in parts), sum(found.total() for _, found in parts)
    click.echo(f"{count} enqueued, {seen - count} left as they are")


class Meter:
    """How far one has come, on standard error: a bar with rate and ETA, or a line now and then without a terminal.

    Args:
        total: what the position will be at the end, or None if that is not known.
    """

    def __init__(self, total: int | None) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._console = Console(stderr=True)
        words = TextColumn("{task.fields[words]}")
        known = () if total is None else (TaskProgressColumn(), TextColumn("ETA"), TimeRemainingColumn())
        self._progress = Progress(
            BarColumn(), words, *known, TimeElapsedColumn(), console=self._console, transient=True
        )
        self._task = self._progress.add_task("", total=total, words="")
        self._began_mono = self._said_mono = time.monotonic()

    def __enter__(self) -> Meter:
        """Begin."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the terminal as it was."""
        self._progress.stop()

    def show(self, position: float, count: int, seen: int) -> None:
        """So many were enqueued of those seen."""
        now_mono = time.monotonic()
        words = f"{count:,} enqueued, {seen - count:,} left, {seen / max(now_mono - self._began_mono, 1e-9):,.0f}/s"
        self._progress.update(self._task, completed=position, words=words)
        if not self._console.is_terminal and now_mono - self._said_mono >= LINE_SECONDS:
            self._said_mono = now_mono
            click.echo(words, err=True)

    def tell_full(self, waiting: int) -> None:
        """Nothing can be enqueued: say why."""
        self._console.print(
            f"{waiting} items wait, so nothing more is enqueued until some are embedded; "
            "if nobody works the queue: embedqueue worker",
            highlight=False,
        )


def _pairs(file: TextIO) -> Iterator[Text]:
    """Pairs of a file; what its first character is tells the format."""
    lines = _lines(file)
    first = next(lines, "")
    if not first:
        return
    if first.lstrip().startswith("{"):
        yield from _of_json(first, lines)
        return
    csv.field_size_limit(LINE_CHARS)
    columns = next(csv.reader([first]), [])
    if not {"redis_key", "text"} <= set(columns):
        raise ValueError("the file is neither JSONL nor CSV with the columns redis_key and text")
    reader = csv.DictReader(lines, columns)
    try:
        for row in reader:
            yield _pair(row, reader.line_num + 1)
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num + 1} is no CSV: {error}") from None


def _lines(file: TextIO) -> Iterator[str]:
    # readline() and not the file's own iterator: with that, nobody can ask for the position
    while line := file.readline(LINE_CHARS + 1):
        if len(line) > LINE_CHARS:
            raise ValueError(f"a line has more than {LINE_CHARS} characters")
        yield line


def _of_json(first: str, lines: Iterator[str]) -> Iterator[Text]:
    for number, line in enumerate((line for part in ([first], lines) for line in part), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                raise ValueError(f"line {number} is no JSON") from None
            yield _pair(row, number)


def _pair(row: Any, number: int) -> tuple[str, str]:
    redis_key, text = (row.get("redis_key"), row.get("text")) if isinstance(row, dict) else (None, None)
    if not isinstance(redis_key, str) or not isinstance(text, str) or not redis_key:
        raise ValueError(f"line {number} needs redis_key and text, both strings")
    return redis_key, text
