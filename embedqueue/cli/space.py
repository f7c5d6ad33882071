"""What the workers of a namespace must agree in: look at it, and decide."""

from __future__ import annotations

import json

import click

from embedqueue.operating.confirm import confirm
from embedqueue.operating.control import agree, agreed, terms
from embedqueue.settings.settings import Settings
from embedqueue.store.store import AGREED

from .context import Source, as_json, cli, command


@cli.group("space")
def space() -> None:
    """Look at, or decide, in which field and by which model the vectors of this namespace are."""


@command(space, "show", "embedqueue space show --json")
@as_json
def show(source: Source, as_json: bool) -> None:
    """Tell what is kept, and what workers with these settings have. Exits with 1 where they would claim nothing."""
    kept, ours, differ = _compared(source.settings())
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
    kept, ours, differ = _compared(settings)
    if not differ:
        click.echo("Nothing differs.")
        return
    click.echo("\n".join(f"{name} {kept[name]} -> {ours[name]}" for name in differ))
    confirm("Vectors that are there stay as they are. Go on?", yes=yes)
    agree(settings)
    click.echo("Adopted. Workers with these settings go on within half a minute.")


def _compared(settings: Settings) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """What is kept, what these settings say ("" where that is not known), and the names in which the two differ."""
    kept, ours = agreed(settings), dict(zip(AGREED, terms(settings).agreed, strict=True))
    return kept, ours, [name for name, value in kept.items() if ours[name] and ours[name] != value]
