"""Working a queue and looking at it."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import asdict
from functools import partial

import click
from click.core import ParameterSource

from embedqueue.operating.arguments import address, duration
from embedqueue.operating.arguments import concurrency as concurrency_of
from embedqueue.operating.control import lift_pause, set_pause
from embedqueue.operating.describe import NOBODY, describe, describe_workers, lines, stats_as_json
from embedqueue.operating.examine import examine, summary
from embedqueue.operating.explain import explain
from embedqueue.operating.health import STALL_SECONDS
from embedqueue.operating.run import DEFAULT_GRACE_SECONDS, Served, run_worker
from embedqueue.settings.checks import check_key
from embedqueue.values.observer import Observer
from embedqueue.values.words import printable

from .context import Source, as_json, cli, command, read

#: Seconds between two looks of ``top``.
TOP_SECONDS = 1.0
LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"
#: Where there are several queues, a line tells of which it is.
LOG_FORMAT_OF_SEVERAL = "%(asctime)s %(levelname)s %(namespace)s %(message)s"


@command(cli, "worker", "embedqueue worker --concurrency 16 --health 127.0.0.1:9100", shown="NAMESPACE")
@click.option(
    "--concurrency", metavar="COUNT", callback=read(concurrency_of), help='API calls in flight for a queue, or "auto".'
)
@click.option("--burst", is_flag=True, help="End once each queue is empty; with 1 where a provider fails.")
@click.option(
    "--grace", callback=read(duration), default=DEFAULT_GRACE_SECONDS, show_default=True, metavar="SECONDS",
    help="For calls under way at the end; what they do not finish goes back to the queue.",
)  # fmt: skip
@click.option(
    "--health", metavar="HOST:PORT", callback=read(address), help="Answer at /health, /live and /metrics there."
)
@click.option(
    "--stall", callback=read(partial(duration, least=0.001)), default=STALL_SECONDS, show_default=True,
    metavar="SECONDS", help="Without progress, while something is due, until /health says 503.",
)  # fmt: skip
@click.option(
    "--log-level", type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False), default="WARNING",
    show_default=True, help="To standard error. INFO has a line for each call.",
)  # fmt: skip
@click.option(
    "--trace", is_flag=True,
    help="Make OpenTelemetry spans (extra otel), with: opentelemetry-instrument -- embedqueue worker --trace",
)  # fmt: skip
def worker(
    source: Source,
    concurrency: int | str | None,
    burst: bool,
    grace: float,
    health: tuple[str, int] | None,
    stall: float,
    log_level: str,
    trace: bool,
) -> None:
    """Work one queue or several until SIGTERM, which lets calls under way finish; a second one ends it at once.

    Ends with 0 after SIGTERM, SIGINT or a burst; 1 where it could not work; 2 if used wrongly; by the signal itself
    (143, 130) after a second one.
    """
    options = {} if concurrency is None else {"max_concurrency": concurrency}
    traces = [_tracing()] if trace else []
    served = [Served(name, one.settings(), partial(one.queue, **options)) for name, one in source.each().items()]
    given = click.get_current_context().get_parameter_source("log_level") is not ParameterSource.DEFAULT
    _log(log_level.upper(), several=len(served) > 1, given=given)
    run_worker(
        served,
        burst=burst,
        grace=grace,
        health=health,
        stall=stall,
        observers=traces,
        say=click.echo,
    )


def _log(level: str, *, several: bool, given: bool) -> None:
    handler = logging.StreamHandler()
    form = LOG_FORMAT_OF_SEVERAL if several else LOG_FORMAT
    handler.setFormatter(logging.Formatter(form, defaults={"namespace": "-"}))  # of others' records
    logging.basicConfig(level=level, handlers=[handler])
    if given:  # else an application that has set logging up, of which basicConfig changes nothing, knows best
        logging.getLogger("embedqueue").setLevel(level)


def _tracing() -> Observer:
    try:
        from opentelemetry import trace

        from embedqueue.tracing import Tracing
    except ImportError:
        raise click.UsageError('--trace needs OpenTelemetry: pip install "embedqueue[otel]"') from None
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):  # that of the API alone
        words = "opentelemetry-instrument -- embedqueue worker --trace"
        click.echo(f"--trace exports nothing, for nobody has set a tracer provider here: {words}", err=True)
    return Tracing()


@command(cli, "stats", "embedqueue stats --json")
@as_json
def stats(source: Source, as_json: bool) -> None:
    """Tell how the queue stands."""
    found = source.look().stats()
    click.echo(stats_as_json(found) if as_json else "\n".join(describe(found)))


@command(cli, "workers", "embedqueue workers --json")
@as_json
def workers(source: Source, as_json: bool) -> None:
    """Tell who works: host, pid, what it does, whose vectors it writes, since when. Ends with 1 where nobody does."""
    found = source.look().workers()
    for line in (json.dumps(asdict(one)) for one in found) if as_json else describe_workers(found):
        click.echo(line)
    if not found:
        raise click.exceptions.Exit(1)


@command(cli, "top", "embedqueue top --interval 2")
@click.option("--count", type=click.IntRange(1), help="End after so many looks.")
@click.option(
    "--interval", callback=read(partial(duration, least=0.1)), default=TOP_SECONDS, show_default=True,
    metavar="SECONDS",
)  # fmt: skip
@click.option("--plain", is_flag=True, help="A line a look, as where the output is no terminal.")
def top(source: Source, count: int | None, interval: float, plain: bool) -> None:
    """Watch the queue until Ctrl-C: rates, ages, what is in flight and with whom, errors."""
    from . import live

    try:
        if plain or not sys.stdout.isatty():
            live.lines(source.look(), count, interval)
        else:
            live.screen(source.look(), count, interval)
    except KeyboardInterrupt:
        return


@command(cli, "flush", "embedqueue flush --timeout 300")
@click.option(
    "--wait/--no-wait", default=True, show_default=True,
    help="Return when all that waits now is embedded; where there is a key, work as well.",
)  # fmt: skip
@click.option("--timeout", callback=read(duration), default=60.0, show_default=True, metavar="SECONDS")
def flush(source: Source, wait: bool, timeout: float) -> None:
    """Have all that waits embedded now, by the workers that there are."""
    if not wait:
        queue = source.look()
        queue.flush_now()
        click.echo(f"{NOBODY.capitalize()}." if queue.stats().workers == 0 else "The workers have been told.")
        return
    flush_queue(source, timeout)
    click.echo("Nothing of it waits any more.")


def flush_queue(source: Source, timeout: float | None = None) -> None:
    """Wait until all that waits now is embedded; see ``EmbeddingBatchQueue.flush``."""
    if check_key(source.settings()):  # without a key, a worker of ours would only pause the queue for all
        source.look().flush(timeout)
    else:
        with source.queue(worker=True) as queue:
            queue.flush(timeout)


@command(cli, "pause", "embedqueue pause --for 600 --reason 'the provider is being changed'")
@click.option(
    "--for", "seconds", callback=read(partial(duration, least=0.001)), metavar="SECONDS",
    help="Instead of until `resume`.",
)  # fmt: skip
@click.option("--reason", default="paused by hand", show_default=True, help="What `stats` and the others say of it.")
def pause(source: Source, seconds: float | None, reason: str) -> None:
    """Have nobody claim anything; items are taken in as ever, and calls under way finish."""
    set_pause(source.settings(), seconds, reason)
    click.echo("Nothing is claimed " + ("until it is resumed." if seconds is None else f"for {seconds:g} s."))


@command(cli, "resume", "embedqueue resume")
def resume(source: Source) -> None:
    """End a pause at once, also that of a provider that failed: one call tests it."""
    click.echo("The pause is over." if lift_pause(source.settings()) else "There is no pause to end.")


@command(cli, "forget", "embedqueue forget doc:17 doc:18 --vector")
@click.argument("keys", nargs=-1, required=True)
@click.option("--vector", is_flag=True, help="Take the vectors out of the hashes as well.")
def forget(source: Source, keys: tuple[str, ...], vector: bool) -> None:
    """Drop all that there is of documents that are deleted: what waits, is in flight, or was given up."""
    queue = source.look()
    for key in keys:
        queue.forget(key, vector)
    click.echo(f"{len(keys)} forgotten")


@command(cli, "explain", "embedqueue explain doc:17")
@click.argument("redis_key")
@as_json
def explain_(source: Source, redis_key: str, as_json: bool) -> None:
    """Tell where a key's vector is, and why."""
    found = explain(source.look(), redis_key)
    click.echo(json.dumps(found) if as_json else "\n".join(lines(found)))


@command(cli, "check", "embedqueue check --no-call")
@click.option("--call/--no-call", default=True, show_default=True, help="Make one real call to the provider.")
@click.option("--strict", is_flag=True, help="A warning is a problem.")
@click.option("-v", "--verbose", is_flag=True, help="Tell what is well, too.")
@as_json
def check(source: Source, call: bool, strict: bool, verbose: bool, as_json: bool) -> None:
    """Tell what is wrong with the settings, Redis, the queue, the key or the model, and what to set."""
    levels = set()
    for finding in examine(source.settings(), call=call, others=source.others()):
        levels.add(finding.level)
        if as_json:
            click.echo(json.dumps({"level": finding.level, "about": finding.about, "words": finding.words}))
        elif verbose or finding.level != "ok":
            click.echo(f"{finding.level:<8} {finding.about}: {printable(finding.words)}", err=finding.level != "ok")
    if "problem" in levels or (strict and "warning" in levels):
        raise click.exceptions.Exit(1)
    if not as_json:
        click.echo(summary(levels))


@cli.command(
    "demo",
    context_settings={"ignore_unknown_options": True},
    add_help_option=False,
    epilog="Example: embedqueue demo",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def demo(arguments: tuple[str, ...]) -> None:
    """See it work, on a private Redis and an offline model (extra "demo")."""
    from embedqueue.demo.demo import main

    raise click.exceptions.Exit(main(arguments))
