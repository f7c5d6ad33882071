"""The provider's batch jobs: look at them, cancel one, try one."""

from __future__ import annotations

from dataclasses import asdict

import click

from embedqueue.operating.describe import lines
from embedqueue.operating.jobs import TRIAL_SECONDS, describe_jobs, job_as_json, try_economy
from embedqueue.values.stats import BatchJob
from embedqueue.values.words import printable

from .context import Source, as_json, cli, command


@cli.group("jobs")
def jobs() -> None:
    """Look at the provider's batch jobs (economy), or cancel one."""


@command(jobs, "list", "embedqueue jobs list --json")
@as_json
def jobs_list(source: Source, as_json: bool) -> None:
    """List batch jobs, the latest first, with those of late that are over."""
    found = source.look().jobs()
    for line in map(job_as_json, found) if as_json else describe_jobs(found):
        click.echo(line)


def _named(source: Source, name: str) -> BatchJob:
    found = [job for job in source.look().jobs() if job.name.startswith(name)]
    if len(found) != 1:
        many = f"{len(found)} jobs begin with" if found else "there is no job"
        raise click.ClickException(printable(f"{many} {name}: embedqueue jobs list"))
    return found[0]


@command(jobs, "show", "embedqueue jobs show 3f2a")
@click.argument("name")
@as_json
def jobs_show(source: Source, name: str, as_json: bool) -> None:
    """Tell everything of one batch job; the beginning of its name is enough."""
    job = _named(source, name)
    click.echo(job_as_json(job) if as_json else "\n".join(lines(asdict(job))))


@command(jobs, "cancel", "embedqueue jobs cancel 3f2a")
@click.argument("name")
def jobs_cancel(source: Source, name: str) -> None:
    """Cancel a batch job: its items go to the live lane at once, and may be paid for twice."""
    job = _named(source, name)
    try:
        back = source.look().cancel_job(job.name)
    except KeyError:
        raise click.ClickException(f"{job.name} is over") from None
    click.echo(f"{back} items of {job.name} are in the live lane now.")


@cli.group("economy")
def economy() -> None:
    """Half price by the provider's batch jobs."""


@command(economy, "try", "embedqueue economy try --texts 3")
@click.option("--texts", type=click.IntRange(1, 100), default=3, show_default=True)
@click.option(
    "--seconds", type=click.FloatRange(1), default=TRIAL_SECONDS, show_default=True, help="After which it is cancelled."
)
def economy_try(source: Source, texts: int, seconds: float) -> None:
    """Send one small batch job with your key, and say what each step gave. No queue and no Redis is touched."""
    settings = source.settings()
    try_economy(settings.embedder(), settings.model, texts, click.echo, seconds=seconds)
