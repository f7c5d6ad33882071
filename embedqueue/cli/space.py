"""What the workers of a namespace must agree in: look at it, and decide."""

from __future__ import annotations

import json

import click

from embedqueue.operating.confirm import confirm
from embedqueue.operating.control import agree, compared, fields_of_change
from embedqueue.operating.spaces import count_spaces, label
from embedqueue.store.store import AGREED
from embedqueue.values.words import printable

from .context import Source, as_json, cli, command


@cli.group("space")
def space() -> None:
    """Look at, or decide, in which field and by which model the vectors of this namespace are."""


match_option = click.option(
    "--match", default="*", show_default=True, metavar="PATTERN", help="Of the hashes' keys, as SCAN takes it."
)


@command(space, "show", "embedqueue space show --match 'doc:*' --json")
@match_option
@as_json
def show(source: Source, match: str, as_json: bool) -> None:
    """Tell what is kept, what workers with these settings have, and how many vectors are of which space.

    Exits with 1 where these workers would claim nothing.
    """
    settings = source.settings()
    kept, ours, differ = compared(settings)
    spaces, (second, read) = count_spaces(settings, match), fields_of_change(settings)
    if as_json:
        change = {"second": second, "read": read}
        click.echo(json.dumps({"kept": kept, "ours": ours, "differ": differ, "spaces": spaces, **change}))
    for name in () if as_json else AGREED:
        word = "" if name not in differ else "  <- differs"
        click.echo(f"{name}: kept {kept.get(name, 'nothing yet')}, here {ours.get(name, 'not known yet')}{word}")
    if not as_json:
        _tell(spaces)
        if second:
            click.echo(printable(f"texts go to {second} as well, and {read or 'the first field'} is read: see reembed"))
    if differ:
        raise click.exceptions.Exit(1)


@command(space, "adopt", "embedqueue space adopt --label --match 'doc:*' --text-field body")
@click.option("--label", "labels", is_flag=True, help="Vectors of which nothing says so are of these settings, too.")
@match_option
@click.option("--text-field", metavar="NAME", help="Field that holds the texts, for --label.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def adopt(source: Source, labels: bool, match: str, text_field: str | None, yes: bool) -> None:
    """From now on, vectors are as workers with these settings make them; those that are there stay as they are.

    Workers with other settings claim nothing from then on. A search finds nothing sensible among vectors of two models.
    With --label, vectors of the right length of which nothing says what they are of count as of these settings and of
    the texts in their hashes: nothing is paid for.
    """
    if labels and text_field is None:
        raise click.UsageError("--label needs --text-field: a vector is of the text that stands there")
    settings = source.settings()
    kept, ours, differ = compared(settings)
    if not differ and not labels:
        click.echo("Nothing differs.")
        return
    for name in differ:
        click.echo(printable(f"{name} {kept[name]} -> {ours[name]}"))
    _tell(count_spaces(settings, match))
    confirm("Vectors that are there stay as they are. Go on?", yes=yes)
    if differ:
        agree(settings)
        click.echo("Adopted. Workers with these settings go on within half a minute.")
    if text_field is not None and labels:
        click.echo(f"{label(settings, match, text_field)} labelled")


def _tell(spaces: dict[str, int]) -> None:
    for name, count in spaces.items():
        click.echo(printable(f"{count} vectors: {name}"))
