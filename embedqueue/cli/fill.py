"""Commands that put items in: from a file, or from hashes that lack a vector."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from typing import Any, TextIO

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from embedqueue.operate import DEFAULT_MAX_WAITING, Pairs, enqueue_lacking, hashes_with_text

from .commands import Context, cli, command


@command(cli, "enqueue", "embedqueue enqueue texts.jsonl --resume")
@click.argument("file", type=click.File("r", encoding="utf-8"))
@click.option("--resume", is_flag=True, help="Skip what has a vector of the right length, or waits already.")
@click.option("--max-waiting", type=click.IntRange(1), default=DEFAULT_MAX_WAITING, show_default=True)
def enqueue(context: Context, file: TextIO, resume: bool, max_waiting: int) -> None:
    """Enqueue a file ("-" is standard input): JSONL, or CSV with a header, each with redis_key and text."""
    _fill(context, _pairs(file), _lines(file), everything=not resume, max_waiting=max_waiting)


@command(cli, "backfill", "embedqueue backfill --match 'doc:*' --text-field body")
@click.option("--match", required=True, help="Pattern of the hashes' keys, as SCAN takes it.")
@click.option("--text-field", required=True, help="Field that holds the text.")
@click.option("--max-waiting", type=click.IntRange(1), default=DEFAULT_MAX_WAITING, show_default=True)
def backfill(context: Context, match: str, text_field: str, max_waiting: int) -> None:
    """Enqueue hashes that lack a vector, or have one of another length. May be stopped and started again."""
    pairs = hashes_with_text(context.settings(), match, text_field)
    _fill(context, pairs, None, everything=False, max_waiting=max_waiting)


class RateColumn(ProgressColumn):
    """Items a second."""

    def render(self, task: Task) -> Text:
        """What stands in the bar."""
        return Text(f"{task.speed:,.0f}/s" if task.speed else "")


def _lines(file: TextIO) -> int | None:
    """About how many items a file holds, where it can be read twice."""
    if not file.seekable():
        return None
    count = sum(1 for _ in file)
    file.seek(0)
    return count


def _fill(context: Context, pairs: Pairs, total: int | None, *, everything: bool, max_waiting: int) -> None:
    settings = context.settings()
    count = seen = 0
    columns = (BarColumn(), MofNCompleteColumn(), RateColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total)
        for taken, looked_at in enqueue_lacking(settings, pairs, everything=everything, max_waiting=max_waiting):
            count, seen = count + taken, seen + looked_at
            progress.update(task, completed=seen)
    click.echo(f"{count} enqueued, {seen - count} left as they are")


def _pairs(file: TextIO) -> Iterator[tuple[str, str]]:
    """Pairs of a file; what its first character is tells the format."""
    first = file.readline()
    if first.lstrip().startswith("{"):
        yield from _of_json(first, file)
        return
    columns = next(csv.reader([first]), [])
    if not {"redis_key", "text"} <= set(columns):
        raise ValueError("the file is neither JSONL nor CSV with the columns redis_key and text")
    for number, row in enumerate(csv.DictReader(file, columns), 2):
        yield _pair(row, number)


def _of_json(first: str, file: TextIO) -> Iterator[tuple[str, str]]:
    for number, line in enumerate((line for part in ([first], file) for line in part), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError:
                raise ValueError(f"line {number} is no JSON") from None
            yield _pair(row, number)


def _pair(row: Any, number: int) -> tuple[str, str]:
    redis_key, text = (row.get("redis_key"), row.get("text")) if isinstance(row, dict) else (None, None)
    if not isinstance(redis_key, str) or not isinstance(text, str) or not redis_key:
        raise ValueError(f"line {number} needs redis_key and text, both strings")
    return redis_key, text
