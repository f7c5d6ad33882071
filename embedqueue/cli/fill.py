"""Commands that put items in: from a file, or from hashes that lack a vector."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from typing import Any, BinaryIO

import click

from embedqueue.operating.backlog import DEFAULT_MAX_WAITING, Filler, Pairs, hashes_with_text
from embedqueue.values.item import check_pair, encode_member
from embedqueue.values.words import printable

from .context import Source, cli, command
from .pairs import BadLine, Pair, read_pairs

#: Seconds between two lines of progress where there is no terminal.
LINE_SECONDS = 10.0
#: Bad records of a file that are told each by itself; of more, only how many lines they have.
TOLD_LINES = 20

Done = Callable[[], float]


class _File(click.File):
    """A file, or standard input, which may be closed (``<&-``): click has no sentence for that."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except RuntimeError as error:
            self.fail(str(error), param, ctx)


@command(cli, "enqueue", "embedqueue enqueue texts.jsonl --resume")
@click.argument("file", type=_File("rb"))
@click.option(
    "--key-column", default="redis_key", show_default=True, metavar="NAME", help="Of a CSV file, or a member of JSONL."
)
@click.option("--text-column", default="text", show_default=True, metavar="NAME", help="The one that holds the texts.")
@click.option("--skip-bad", is_flag=True, help="Leave lines out that cannot be enqueued, and tell which.")
@click.option("--resume", is_flag=True, help="Skip what has a vector of the model's length, or waits already.")
@click.option("--max-waiting", type=click.IntRange(1), metavar="COUNT", help="Go on only while fewer items wait.")
def enqueue(
    source: Source,
    file: BinaryIO,
    key_column: str,
    text_column: str,
    skip_bad: bool,
    resume: bool,
    max_waiting: int | None,
) -> None:
    """Enqueue a file ("-" is standard input): JSONL, or CSV with a header, each with redis_key and text."""
    total, position = _size(file)
    settings = source.settings()
    check = partial(_check, namespace=settings.option("namespace"), max_chars=settings.option("max_text_chars"))
    with closing(read_pairs(file, key_column, text_column, check)) as found:
        sieve = _Sieve(found, skip_bad)
        count = _fill(source, sieve, total, position, everything=not resume, max_waiting=max_waiting)
    if sieve.bad_lines and not skip_bad:
        raise click.ClickException(
            f"{sieve.told[0]}. What stands before it is in ({count} enqueued). Mend it and run this again (--resume "
            "skips what has a vector or waits), or leave such lines out with --skip-bad."
        )
    for words in sieve.told:
        click.echo(f"left out: {words}", err=True)
    if sieve.bad_lines:
        click.echo(f"{sieve.bad_lines} bad lines left out")


def _check(redis_key: str, text: str, *, namespace: str, max_chars: int | None) -> None:
    check_pair(redis_key, text, namespace, max_chars)
    try:
        encode_member(redis_key, text)
    except UnicodeEncodeError:
        raise ValueError("it has half a surrogate pair, which is no text") from None


class _Sieve:
    """The good pairs of a file: all of them, or those before the first bad line.

    Args:
        found: in the file.
        skip_bad: go on after a bad line.

    Attributes:
        bad_lines: how many there were.
        told: sentences about the first of them.
    """

    def __init__(self, found: Iterable[Pair | BadLine], skip_bad: bool) -> None:
        self._found = found
        self._skip_bad = skip_bad
        self.bad_lines = 0
        self.told: list[str] = []

    def __iter__(self) -> Iterator[Pair]:
        """Read the file."""
        for one in self._found:
            if not isinstance(one, BadLine):
                yield one
                continue
            self.bad_lines += one.last - one.first + 1
            if len(self.told) < TOLD_LINES:
                self.told.append(printable(str(one)))
            if not self._skip_bad:
                return


@command(cli, "backfill", "embedqueue backfill --match 'doc:*' --text-field body")
@click.option("--match", required=True, metavar="PATTERN", help="Of the hashes' keys, as SCAN takes it.")
@click.option("--text-field", required=True, metavar="NAME", help="Field that holds the text.")
@click.option("--all", "everything", is_flag=True, help="Also hashes that have a vector of the model's length.")
@click.option(
    "--max-waiting", type=click.IntRange(1), default=DEFAULT_MAX_WAITING, show_default=True, metavar="COUNT",
    help="Go on only while fewer items wait.",
)  # fmt: skip
def backfill(source: Source, match: str, text_field: str, everything: bool, max_waiting: int) -> None:
    """Enqueue hashes that lack a vector, or have one of another length. May be stopped and started again."""
    pairs = hashes_with_text(source.settings(), match, text_field)
    _fill(source, pairs, None, lambda: 0.0, everything=everything, max_waiting=max_waiting)


def _size(file: BinaryIO) -> tuple[int | None, Done]:
    """Bytes of a file and how many of them are read; None where that cannot be known."""
    try:
        state = os.fstat(file.fileno())
    except OSError:
        return None, lambda: 0.0
    return (state.st_size, file.tell) if stat.S_ISREG(state.st_mode) else (None, lambda: 0.0)


def _fill(
    source: Source, pairs: Pairs, total: int | None, position: Done, *, everything: bool, max_waiting: int | None
) -> int:
    """Enqueue, and tell how much; returns how many were enqueued."""
    count = seen = 0
    with Meter(total) as meter:
        settings = source.settings()
        filler = Filler(
            settings,
            source.look(),
            settings.client(),
            everything=everything,
            max_waiting=max_waiting,
            full=meter.tell_full,
        )
        for taken, looked_at in filler.fill(pairs):
            count, seen = count + taken, seen + looked_at
            meter.show(position(), count, seen)
    click.echo(f"{count} enqueued, {seen - count} left as they are")
    return count


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
            BarColumn(), words, *known, TimeElapsedColumn(), console=self._console, transient=True,
            disable=not self._console.is_terminal,
        )  # fmt: skip
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
