"""Named runs: who sees them, and who stops them."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from embedqueue.operating.runs import ask_run, describe_runs
from embedqueue.values.runs import WANTED, Wanted

from .context import Source, as_json, cli, command, say


@command(cli, "runs", "embedqueue runs pause backfill:doc:*")
@click.argument("wanted", type=click.Choice(WANTED), required=False)
@click.argument("name", required=False)
@as_json
def runs(source: Source, wanted: Wanted | None, name: str | None, as_json: bool) -> None:
    """List backfills, `verify --fix` and reembeds: how far they are, and what they cost. Or pause, resume, stop one.

    A run that was killed is shown as lost; the same command takes it up again under the same name.
    """
    queue = source.look()
    if wanted is not None:
        if name is None:
            raise click.UsageError(f"which run? embedqueue runs {wanted} NAME")
        say(ask_run(queue.ask_run, name, wanted), as_json=as_json)
        return
    found = queue.runs()
    for line in (json.dumps(asdict(run)) for run in found) if as_json else describe_runs(found):
        click.echo(line)
    if not found and not as_json:
        click.echo("There are no runs.")
