"""What it costs, and what may be spent."""

from __future__ import annotations

import click

from embedqueue.money.cost import By
from embedqueue.operating.budget import budget_as_json, describe_budget, raise_budget
from embedqueue.operating.cost import DEFAULT_DAYS, MOST_DAYS, cost_as_json, cost_of, describe_cost

from .context import Source, as_json, cli, command, price_option


@command(cli, "cost", "embedqueue cost --by model --days 7 --price my-model=0.05")
@click.option("--by", type=click.Choice(["day", "model"]), default="day", show_default=True)
@click.option("--days", type=click.IntRange(1, MOST_DAYS), default=DEFAULT_DAYS, show_default=True, help="Of UTC.")
@price_option
@as_json
def cost(source: Source, by: By, days: int, prices: tuple[tuple[str, float], ...], as_json: bool) -> None:
    """Tell what was sent, what that cost, and what was saved, by day or by model."""
    rows, total = cost_of(source.look(), days, by, prices)
    click.echo(cost_as_json(rows, total, by) if as_json else "\n".join(describe_cost(rows, total, by)))


@cli.group("budget")
def budget() -> None:
    """What may be spent, and what is."""


@command(budget, "show", "embedqueue budget show --json")
@as_json
def show(source: Source, as_json: bool) -> None:
    """Tell what all processes have spent today and in this month (UTC), and what is left."""
    settings = source.settings()
    click.echo(budget_as_json(settings) if as_json else "\n".join(describe_budget(settings)))


@command(budget, "raise", "embedqueue budget raise 2.50")
@click.argument("dollars", type=float, metavar="USD")
def raise_(source: Source, dollars: float) -> None:
    """Let so many dollars more be spent today; a queue whose budget is spent goes on at once."""
    click.echo(raise_budget(source.settings(), dollars))
