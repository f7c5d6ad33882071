"""``flask embedqueue ...``: the queue of a Flask app from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import wraps
from typing import Any

import click
from flask import current_app
from flask.cli import with_appcontext
from redis.exceptions import RedisError

from embedqueue.checkup import explain_redis
from embedqueue.config import SettingsError
from embedqueue.errors import EmbedQueueError
from embedqueue.operate import DEFAULT_GRACE_SECONDS, describe, describe_dead, run_worker

from .queues import DEFAULT, Queues


@click.group("embedqueue")
def group() -> None:
    """Look at the embedding queue, and work it."""


def _command(parent: click.Group, name: str) -> Callable[[Callable[..., None]], click.Command]:
    """A command of one queue: its name is an option, and a user's mistake is a sentence, not a traceback."""

    def register(function: Callable[..., None]) -> click.Command:
        @wraps(function)
        def run(queue: str, **arguments: Any) -> None:
            queues: Queues = current_app.extensions["embedqueue"]
            try:
                function(queues, queue, **arguments)
            except RedisError as error:
                raise click.ClickException(explain_redis(queues.settings(queue), error)) from None
            except (SettingsError, EmbedQueueError, TimeoutError) as error:
                raise click.ClickException(str(error)) from None

        option = click.option("--queue", default=DEFAULT, show_default=True, help="Name in EMBEDQUEUE_QUEUES.")
        return parent.command(name)(option(with_appcontext(run)))

    return register


@_command(group, "check")
@click.option("--call/--no-call", default=True, show_default=True, help="Make one real call to the provider.")
def check(queues: Queues, name: str, call: bool) -> None:
    """Tell what is wrong with the settings, Redis, the key or the model, and what to set."""
    problems = queues.settings(name).check(call=call)
    for problem in problems:
        click.echo(problem, err=True)
    if problems:
        raise click.exceptions.Exit(1)
    click.echo("All is well.")


@_command(group, "stats")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def stats(queues: Queues, name: str, as_json: bool) -> None:
    """Tell how the queue stands."""
    found = queues.look(name).stats()
    click.echo(json.dumps(asdict(found)) if as_json else "\n".join(describe(found)))


@_command(group, "flush")
@click.option("--timeout", type=float, default=60.0, show_default=True, help="Seconds.")
def flush(queues: Queues, name: str, timeout: float) -> None:
    """Embed all that waits now, and return when it is done."""
    with queues.idle(name, worker=True) as queue:
        queue.flush(timeout)
    click.echo("Nothing of it waits any more.")


@_command(group, "worker")
@click.option("--burst", is_flag=True, help="End once the queue is empty.")
@click.option(
    "--grace", type=float, default=DEFAULT_GRACE_SECONDS, show_default=True, help="Seconds for calls at the end."
)
def worker(queues: Queues, name: str, burst: bool, grace: float) -> None:
    """Work the queue in this process until SIGTERM; a second one ends it at once."""
    missing = queues.settings(name).check(redis=False)
    if missing:
        raise SettingsError(missing[0])
    run_worker(queues.idle(name, worker=True), burst=burst, grace=grace, say=click.echo)


@group.group("dead")
def dead() -> None:
    """Look at what was given up, put it back, or drop it."""


@_command(dead, "list")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True)
def dead_list(queues: Queues, name: str, limit: int) -> None:
    """List dead letters, the latest first."""
    lines = list(describe_dead(queues.look(name), limit))
    click.echo("\n".join(lines) or "There are no dead letters.")


def _chosen(keys: tuple[str, ...], everything: bool) -> tuple[str, ...] | None:
    if bool(keys) == everything:
        raise click.UsageError("give keys, or --all")
    return None if everything else keys


@_command(dead, "retry")
@click.argument("keys", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All dead letters.")
def dead_retry(queues: Queues, name: str, keys: tuple[str, ...], everything: bool) -> None:
    """Put dead letters back to the end of the queue."""
    click.echo(f"{queues.look(name).retry_dead(_chosen(keys, everything))} put back")


@_command(dead, "discard")
@click.argument("keys", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All dead letters.")
def dead_discard(queues: Queues, name: str, keys: tuple[str, ...], everything: bool) -> None:
    """Drop dead letters for good."""
    click.echo(f"{queues.look(name).discard_dead(_chosen(keys, everything))} discarded")
