"""Dead letters: look at them, put them back, drop them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from itertools import islice
from typing import Any

import click

from embedqueue.operating.control import dead_letter_of, dead_letters
from embedqueue.operating.describe import dead_as_json, describe_dead, lines
from embedqueue.operating.letters import WrongChoice, discard, retry
from embedqueue.values.words import printable

from .context import Source, as_json, cli, command


@cli.group("dead")
def dead() -> None:
    """Look at what was given up, put it back, or drop it."""


@command(dead, "list", "embedqueue dead list --limit 20 --reason 'too long'")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True)
@click.option("--reason", help="Those whose reason contains this.")
@as_json
def dead_list(source: Source, limit: int, reason: str | None, as_json: bool) -> None:
    """List dead letters, the latest first."""
    letters = islice(dead_letters(source.look(), reason, whole=as_json), limit)
    if as_json:
        for letter in letters:
            click.echo(dead_as_json(letter))
        return
    click.echo("\n".join(describe_dead(letters)) or "There are no dead letters.")


@command(dead, "show", "embedqueue dead show doc:17")
@click.argument("redis_key")
@as_json
def dead_show(source: Source, redis_key: str, as_json: bool) -> None:
    """Tell everything of one dead letter, its text included."""
    letter = dead_letter_of(source.settings(), redis_key)
    if letter is None:
        raise click.ClickException(printable(f"{redis_key} is no dead letter"))
    if as_json:
        click.echo(dead_as_json(letter))
        return
    click.echo("\n".join(lines(asdict(letter))))


def _told(function: Callable[..., str], *arguments: Any) -> None:
    try:
        click.echo(function(*arguments))
    except WrongChoice as error:
        raise click.UsageError(str(error)) from None


def _choice(function: Callable[..., None]) -> Callable[..., None]:
    function = click.option("--all", "everything", is_flag=True, help="All dead letters.")(function)
    function = click.option("--reason", help="Those whose reason contains this.")(function)
    return click.argument("keys", nargs=-1)(function)


@command(dead, "retry", "embedqueue dead retry --reason 'too long'")
@_choice
def dead_retry(source: Source, keys: tuple[str, ...], reason: str | None, everything: bool) -> None:
    """Put dead letters back to the end of the queue."""
    _told(retry, source.look(), keys, reason, everything)


@command(dead, "discard", "embedqueue dead discard doc:17 doc:18")
@_choice
@click.option("--yes", is_flag=True, help="Do not ask.")
def dead_discard(source: Source, keys: tuple[str, ...], reason: str | None, everything: bool, yes: bool) -> None:
    """Drop dead letters for good."""
    _told(discard, source.look(), keys, reason, everything, yes)
