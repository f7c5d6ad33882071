"""Commands that put items in: from a file, or from hashes that lack their vectors; and one that only looks."""

from __future__ import annotations

import json
import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from functools import partial
from typing import Any, BinaryIO

import click

from embedqueue.backlog.filler import DEFAULT_MAX_WAITING, to_fix, verified
from embedqueue.backlog.inspection import EVERYTHING, UNFIT, Text
from embedqueue.operating.arguments import duration
from embedqueue.operating.describe import lines
from embedqueue.operating.runs import NamedRun
from embedqueue.operating.spending import Spending
from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.values.item import checked_member, is_blank
from embedqueue.values.runs import default_run_name
from embedqueue.values.words import printable

from .commands import flush_queue
from .context import Source, Table, as_json, cli, command, read
from .pairs import BadLine, Pair, read_pairs

#: Seconds between two lines of progress where there is no terminal.
LINE_SECONDS = 10.0
#: Bad records of a file that are told each by itself; of more, only how many lines they have.
TOLD_LINES = 20

#: Seconds within which what is put in by hand is to be embedded, unless told otherwise.
DAY_SECONDS = 86_400.0

Done = Callable[[], float]

relabel_option = click.option(
    "--relabel", is_flag=True, help="Also those with a vector of the right length of which nothing says what it is of."
)
within_option = click.option(
    "--within", callback=read(duration), default=DAY_SECONDS, show_default="a day", metavar="SECONDS",
    help="In which they are to be embedded: users' texts go first.",
)  # fmt: skip
run_name = click.option(
    "--name", metavar="NAME", help="Of the run, as `embedqueue runs` lists it; by default made of what it does."
)
yes_option = click.option("--yes", is_flag=True, help="Do not ask before more than a dollar is spent.")
max_waiting_option = click.option(
    "--max-waiting", type=click.IntRange(1), default=DEFAULT_MAX_WAITING, show_default=True, metavar="COUNT",
    help="Go on only while fewer items wait.",
)  # fmt: skip


def _where(function: Callable[..., None]) -> Callable[..., None]:
    """Options that say where texts are."""
    for option in reversed(
        (
            click.argument("models", nargs=-1, metavar="[MODEL]..."),
            click.option("--match", metavar="PATTERN", help="Of the hashes' keys, as SCAN takes it."),
            click.option("--text-field", metavar="NAME", help="Field of the hashes that holds the text."),
            click.option(
                "--database", metavar="ALIAS", help="Where the models' rows are, if not where they usually are."
            ),
        )
    ):
        function = option(function)
    return function


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
@click.option("--resume", is_flag=True, help="Skip what has its vector, or one of which nothing says what it is of.")
@relabel_option
@within_option
@click.option("--max-waiting", type=click.IntRange(1), metavar="COUNT", help="Go on only while fewer items wait.")
def enqueue(
    source: Source,
    file: BinaryIO,
    key_column: str,
    text_column: str,
    skip_bad: bool,
    resume: bool,
    relabel: bool,
    within: float,
    max_waiting: int | None,
) -> None:
    """Enqueue a file ("-" is standard input): JSONL, or CSV with a header, each with redis_key and text."""
    total, position = _size(file)
    settings = source.settings()
    kinds = to_fix(relabel=relabel) if resume else None
    check = partial(_check, namespace=settings.option("namespace"), max_chars=settings.option("max_text_chars"))
    with closing(read_pairs(file, key_column, text_column, check)) as found:
        sieve = _Sieve(found, skip_bad)
        texts: Iterable[Text] = _not_blank(sieve) if resume else sieve
        count = _tell(*_fill(source, lambda queue: texts, kinds, max_waiting, within, total, position))
    if sieve.bad_lines and not skip_bad:
        raise click.ClickException(
            f"{sieve.told[0]}. What stands before it is in ({count} enqueued). Mend it and run this again (--resume "
            "skips what has its vector or waits), or leave such lines out with --skip-bad."
        )
    for words in sieve.told:
        click.echo(f"left out: {words}", err=True)
    if sieve.bad_lines:
        click.echo(f"{sieve.bad_lines} bad lines left out")


def _check(redis_key: str, text: str, *, namespace: str, max_chars: int | None) -> None:
    try:
        checked_member(redis_key, text, namespace, max_chars)
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
@_where
@click.option("--all", "everything", is_flag=True, help="Also what has the vector of its text.")
@relabel_option
@within_option
@max_waiting_option
@click.option("--wait", is_flag=True, help="Return when all of it is embedded; where there is a key, work as well.")
@yes_option
@run_name
def backfill(
    source: Source,
    models: tuple[str, ...],
    match: str | None,
    text_field: str | None,
    database: str | None,
    everything: bool,
    relabel: bool,
    within: float,
    max_waiting: int,
    wait: bool,
    yes: bool,
    name: str | None,
) -> None:
    """Enqueue texts whose hashes lack their vectors by this model. May be stopped and started again.

    The texts stand in the hashes themselves (--match and --text-field), or in the rows of models. Before those that are
    enqueued cost more than a dollar, it asks, and again at each tenfold of that. What was enqueued before the question
    stays. Exits with 1 where a text cannot be enqueued, as one that is too long; the others are.
    """
    kinds, spending = EVERYTHING if everything else to_fix(relabel=relabel), Spending(yes=yes)
    counts, unfit = [], 0
    for table in (tables := _tables(source, models, match, text_field, database)):
        with _running("backfill", name, table, several=len(tables) > 1) as run:
            texts = lambda _, table=table: _not_blank(table.texts())  # noqa: E731
            parts = list(_fill(table.source, texts, kinds, max_waiting, within, spending=spending, run=run))
        if match is None:
            click.echo(f"{table.name}: ", nl=False)
        counts.append(_tell(*parts))
        unfit += sum(found[UNFIT] for _, found in parts)
        if counts[-1] and wait:
            flush_queue(table.source)
    if len(counts) > 1:
        click.echo(f"{sum(counts)} enqueued")
    if sum(counts):
        click.echo(spending.told())
    if unfit:
        raise click.ClickException(f"{unfit} texts cannot be enqueued: the log names their keys")


@command(cli, "verify", "embedqueue verify --match 'doc:*' --text-field body --fix")
@_where
@click.option("--fix", is_flag=True, help="Enqueue what is missing or wrong; empty hashes whose text is blank.")
@relabel_option
@within_option
@max_waiting_option
@yes_option
@run_name
@as_json
def verify(
    source: Source,
    models: tuple[str, ...],
    match: str | None,
    text_field: str | None,
    database: str | None,
    fix: bool,
    relabel: bool,
    within: float,
    max_waiting: int,
    yes: bool,
    name: str | None,
    as_json: bool,
) -> None:
    """Tell whether hashes have the vectors of their texts by this model. Exits with 1 where one has not, unfixed.

    The texts stand in the hashes themselves (--match and --text-field), or in the rows of models. With --fix, it asks
    before the texts that are enqueued cost more than a dollar, as backfill does.
    """
    kinds, spending = to_fix(relabel=relabel) if fix else (), Spending(yes=yes)
    parts: list[tuple[int, Counter[str]]] = []
    for table in (tables := _tables(source, models, match, text_field, database)):
        with ExitStack() as stack:
            run = stack.enter_context(_running("verify", name, table, several=len(tables) > 1)) if fix else None
            texts = lambda _, table=table: table.texts()  # noqa: E731
            parts += _fill(table.source, texts, kinds, max_waiting, within, spending=spending, run=run)
    found = verified(parts)
    if as_json:
        click.echo(json.dumps(asdict(found)))
    else:
        click.echo("\n".join(lines(asdict(found))))
    if found.faults + relabel * fix * found.unlabelled > found.fixed:
        raise click.exceptions.Exit(1)


def _tables(
    source: Source, models: Sequence[str], match: str | None, text_field: str | None, database: str | None
) -> Sequence[Table]:
    """Where the texts are: in hashes, or in the rows of models."""
    if match is None and text_field is None:
        return source.tables(models, database)
    if match is None or text_field is None or models or database is not None:
        raise click.UsageError("give --match and --text-field for texts in hashes, or else models")
    queue = source.look()
    count = partial(_count, queue, match)
    return [Table(f"{match}:{text_field}", source, partial(queue._texts, match, text_field), count)]


def _count(queue: EmbeddingBatchQueue, match: str) -> int:
    return sum(1 for _ in queue._ready().store.hashes.matching(match))


@contextmanager
def _running(kind: str, name: str | None, table: Table, *, several: bool) -> Iterator[NamedRun]:
    """A named run over a table."""
    made = default_run_name(kind, table.name) if name is None else f"{name}:{table.name}" if several else name
    with NamedRun(table.source.look()._ready().store.runs, made, kind) as run:
        run.report(total=table.count())
        yield run


def _not_blank(texts: Iterable[Text]) -> Iterator[Text]:
    """What looks and fills takes no vector away."""
    return (text for text in texts if not is_blank(text[1]))


def _size(file: BinaryIO) -> tuple[int | None, Done]:
    """Bytes of a file and how many of them are read; None where that cannot be known."""
    try:
        state = os.fstat(file.fileno())
    except OSError:
        return None, lambda: 0.0
    return (state.st_size, file.tell) if stat.S_ISREG(state.st_mode) else (None, lambda: 0.0)


def _fill(
    source: Source,
    texts_of: Callable[[EmbeddingBatchQueue], Iterable[Text]],
    kinds: Collection[str] | None,
    max_waiting: int | None,
    within: float,
    total: int | None = None,
    position: Done = lambda: 0.0,
    spending: Spending | None = None,
    run: NamedRun | None = None,
) -> Iterator[tuple[int, Counter[str]]]:
    """As ``Filler.fill``, with a meter."""
    count = seen = 0
    queue = source.look()
    with Meter(total) as meter:
        before = None if spending is None else spending.before(queue, meter.hidden)
        check = None if run is None else run.check
        filler = queue._filler(kinds, max_waiting, meter.tell_full, within=within, before=before, check=check)
        for taken, found in filler.fill(texts_of(queue)):
            count, seen = count + taken, seen + found.total()
            meter.show(position(), count, seen)
            if run is not None and spending is not None:
                run.report(done=seen, texts=spending.texts, tokens=spending.tokens, usd=spending.known_dollars)
            yield taken, found


def _tell(*parts: tuple[int, Counter[str]]) -> int:
    """Tell how many were enqueued; returns that."""
    count, seen = sum(taken for taken, _ in parts), sum(found.total() for _, found in parts)
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

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Leave the terminal to a question."""
        self._progress.stop()
        try:
            yield
        finally:
            self._progress.start()

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
