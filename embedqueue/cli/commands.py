"""Working a queue and looking at it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import wraps
from typing import Any

import click
from redis.exceptions import RedisError

from embedqueue.config import Settings, SettingsError, read_environment
from embedqueue.errors import EmbedQueueError
from embedqueue.operate import DEFAULT_GRACE_SECONDS, dead_by_reason, describe, describe_dead, explain, run_worker
from embedqueue.report import QueueStats

#: Seconds between two looks of ``top``.
TOP_SECONDS = 1.0


class Context:
    """What the commands share.

    Args:
        redis_url: instead of what the environment says.
    """

    def __init__(self, redis_url: str | None) -> None:
        self._redis_url = redis_url

    def settings(self, **overrides: Any) -> Settings:
        """From the environment, and the options before the command."""
        settings = read_environment()
        return replace(
            settings, redis_url=self._redis_url or settings.redis_url, options={**settings.options, **overrides}
        )


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--redis", "redis_url", metavar="URL", help="Instead of EMBEDQUEUE_REDIS_URL.")
@click.version_option(package_name="embedqueue")
@click.pass_context
def cli(context: click.Context, redis_url: str | None) -> None:
    """The durable embedding queue. Settings come from EMBEDQUEUE_REDIS_URL, EMBEDQUEUE_PROVIDER and so on."""
    context.obj = Context(redis_url)


def command(parent: click.Group, name: str, example: str) -> Callable[[Callable[..., None]], click.Command]:
    """A command whose help ends with an example, and for which a user's mistake is a sentence, not a traceback."""

    def register(function: Callable[..., None]) -> click.Command:
        @wraps(function)
        def run(*args: Any, **kwargs: Any) -> None:
            try:
                function(*args, **kwargs)
            except (SettingsError, EmbedQueueError, RedisError, TimeoutError, OSError, ValueError) as error:
                raise click.ClickException(str(error) or type(error).__name__) from None

        return parent.command(name, epilog=f"Example: {example}")(click.pass_obj(run))

    return register


as_json = click.option("--json", "as_json", is_flag=True, help="For scripts.")


@command(cli, "worker", "embedqueue worker --concurrency 16")
@click.option("--concurrency", help='API calls in flight, a number or "auto".')
@click.option("--burst", is_flag=True, help="End once the queue is empty.")
@click.option(
    "--grace", type=float, default=DEFAULT_GRACE_SECONDS, show_default=True, help="Seconds for calls at the end."
)
def worker(context: Context, concurrency: str | None, burst: bool, grace: float) -> None:
    """Work the queue until SIGTERM, which lets calls under way finish; a second one ends the process at once."""
    more = (
        {} if concurrency is None else {"max_concurrency": int(concurrency) if concurrency.isdigit() else concurrency}
    )
    settings = context.settings(**more)
    missing = settings.check(redis=False)
    if missing:
        raise SettingsError(missing[0])
    run_worker(settings.queue(worker=True), burst=burst, grace=grace, say=click.echo)


@command(cli, "stats", "embedqueue stats --json")
@as_json
def stats(context: Context, as_json: bool) -> None:
    """Tell how the queue stands."""
    found = context.settings().queue(worker=False).stats()
    click.echo(json.dumps(asdict(found)) if as_json else "\n".join(describe(found)))


@command(cli, "top", "embedqueue top --count 10")
@click.option("--count", type=click.IntRange(1), help="End after so many looks.")
def top(context: Context, count: int | None) -> None:
    """Watch the queue, a line a second, until Ctrl-C."""
    queue = context.settings().queue(worker=False)
    click.echo(f"{'waiting':>10} {'change/s':>10} {'in flight':>10} {'dead':>8} {'oldest, s':>10}  state")
    before: QueueStats | None = None
    looks = 0
    while True:
        now = queue.stats()
        change = "" if before is None else f"{(now.waiting - before.waiting) / TOP_SECONDS:+.0f}"
        age = "" if now.oldest_age is None else f"{now.oldest_age:.0f}"
        state = "working" if now.paused_until is None else f"paused: {now.pause_reason}"
        click.echo(f"{now.waiting:>10} {change:>10} {now.in_flight:>10} {now.dead:>8} {age:>10}  {state}")
        before = now
        looks += 1
        if looks == count:
            return
        time.sleep(TOP_SECONDS)


@command(cli, "flush", "embedqueue flush --wait --timeout 300")
@click.option("--wait", is_flag=True, help="Return when all that waits now is embedded; works in this process, too.")
@click.option("--timeout", type=float, default=60.0, show_default=True, help="Seconds to wait.")
def flush(context: Context, wait: bool, timeout: float) -> None:
    """Have all that waits embedded now, by the workers that there are."""
    if not wait:
        context.settings().queue(worker=False).flush_now()
        click.echo("The workers have been told.")
        return
    with context.settings().queue(worker=True) as queue:
        queue.flush(timeout)
    click.echo("Nothing of it waits any more.")


@command(cli, "explain", "embedqueue explain doc:17")
@click.argument("redis_key")
@as_json
def explain_(context: Context, redis_key: str, as_json: bool) -> None:
    """Tell where a key's vector is, and why."""
    found = explain(context.settings(), redis_key)
    click.echo(json.dumps(found) if as_json else "\n".join(f"{name:<12} {value}" for name, value in found.items()))


@command(cli, "check", "embedqueue check --no-call")
@click.option("--call/--no-call", default=True, show_default=True, help="Make one real call to the provider.")
def check(context: Context, call: bool) -> None:
    """Tell what is wrong with the settings, Redis, the key or the model, and what to set."""
    problems = context.settings().check(call=call)
    for problem in problems:
        click.echo(problem, err=True)
    if problems:
        raise click.exceptions.Exit(1)
    click.echo("All is well.")


@cli.command("demo", context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def demo(arguments: tuple[str, ...]) -> None:
    """See it work, on a private Redis and an offline model (extra "demo")."""
    from embedqueue.demo import main

    raise click.exceptions.Exit(main(arguments))


# -- dead letters ----------------------------------------------------------------------------------------------------


@cli.group("dead")
def dead() -> None:
    """Look at what was given up, put it back, or drop it."""


@command(dead, "list", "embedqueue dead list --limit 20")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True)
@as_json
def dead_list(context: Context, limit: int, as_json: bool) -> None:
    """List dead letters, the latest first."""
    queue = context.settings().queue(worker=False)
    if as_json:
        for letter in queue.dead_letters(limit):
            click.echo(json.dumps(asdict(letter) | {"member": letter.member.decode("utf-8", "replace")}))
        return
    click.echo("\n".join(describe_dead(queue, limit)) or "There are no dead letters.")


@command(dead, "show", "embedqueue dead show doc:17")
@click.argument("redis_key")
def dead_show(context: Context, redis_key: str) -> None:
    """Tell everything of one dead letter, its text included."""
    for letter in dead_by_reason(context.settings().queue(worker=False), ""):
        if letter.redis_key == redis_key:
            for name, value in asdict(letter).items():
                click.echo(f"{name:<12} {value}")
            return
    raise click.ClickException(f"{redis_key} is no dead letter")


def _chosen(
    context: Context, keys: tuple[str, ...], reason: str | None, everything: bool
) -> tuple[Any, list[str | bytes] | None]:
    if [bool(keys), reason is not None, everything].count(True) != 1:
        raise click.UsageError("give keys, or --reason, or --all")
    queue = context.settings().queue(worker=False)
    if reason is not None:
        return queue, [letter.redis_key or letter.member for letter in dead_by_reason(queue, reason)]
    return queue, None if everything else list(keys)


def _choice(function: Callable[..., None]) -> Callable[..., None]:
    function = click.option("--all", "everything", is_flag=True, help="All dead letters.")(function)
    function = click.option("--reason", help="Those whose reason contains this.")(function)
    return click.argument("keys", nargs=-1)(function)


@command(dead, "retry", "embedqueue dead retry --reason 'too long'")
@_choice
def dead_retry(context: Context, keys: tuple[str, ...], reason: str | None, everything: bool) -> None:
    """Put dead letters back to the end of the queue."""
    queue, chosen = _chosen(context, keys, reason, everything)
    click.echo(f"{queue.retry_dead(chosen)} put back")


@command(dead, "discard", "embedqueue dead discard doc:17 doc:18")
@_choice
def dead_discard(context: Context, keys: tuple[str, ...], reason: str | None, everything: bool) -> None:
    """Drop dead letters for good."""
    queue, chosen = _chosen(context, keys, reason, everything)
    click.echo(f"{queue.discard_dead(chosen)} discarded")


# The other commands register themselves.
from . import fill, vectors  # noqa: E402, F401
