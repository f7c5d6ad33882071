"""What the workers of a namespace must agree in: look at it, and decide."""

from __future__ import annotations

import json

import click

from embedqueue.operating.control import agree, compared
from embedqueue.store.store import AGREED

from .context import Source, as_json, cli, command


@cli.group("space")
def space() -> None:
    """Look at, or decide, in which field and by which model the vectors of this namespace are."""


@command(space, "show", "embedqueue space show --json")
@as_json
def show(source: Source, as_json: bool) -> None:
    """Tell what is kept, and what workers with these settings have. Exits with 1 where they would claim nothing."""
    kept, ours, differ = compared(source.settings())
    if as_json:
        click.echo(json.dumps({"kept": kept, "ours": ours, "differ": differ}))
    for name in () if as_json else AGREED:
        word = "" if name not in differ else "  <- differs"
        click.echo(f"{name}: kept {kept.get(name, 'nothing yet')}, here {ours[name] or 'not known yet'}{word}")
    if differ:
        raise click.exceptions.Exit(1)


@command(space, "adopt", "embedqueue space adopt --yes")
@click.option("--yes", is_flag=True, help="Do not ask.")
def adopt(source: Source, yes: bool) -> None:
    """From now on, vectors are as workers with these settings make them; those that are there stay as they are.

    Workers with other settings claim nothing from then on. A search finds nothing sensible among vectors of two models.
    """
    settings = source.settings()
    kept, ours, differ = compared(settings)
    if not differ:
        click.echo("Nothing differs.")
        return
    click.echo("\n".join(f"{name} {kept[name]} -> {ours[name]}" for name in differ))
    if not yes:
        click.confirm("Vectors that are there stay as they are. Go on?", abort=True)
    agree(settings)
    click.echo("Adopted. Workers with these settings go on within half a minute.")
