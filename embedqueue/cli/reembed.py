"""Changing the model: all texts embedded anew into a second field, then the change-over."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from typing import Any

import click

from embedqueue.money.cost import ASK_DOLLARS, tokens_and_dollars, usd
from embedqueue.operating.confirm import confirm
from embedqueue.operating.cutover import cut_over, finish, roll_back
from embedqueue.operating.reembed import Plan, Reembedding
from embedqueue.operating.reembed_run import Work
from embedqueue.operating.runs import NamedRun, age
from embedqueue.settings.checks import check_key
from embedqueue.settings.settings import SettingsError, second_settings
from embedqueue.values.runs import default_run_name

from .context import Source, as_json, cli, command, say
from .fill import LINE_SECONDS, max_waiting_option, run_name, within_option

#: Seconds between two lines of progress on a terminal.
TERMINAL_SECONDS = 2.0
_OWN = ("model", "provider", "dimensions", "base_url", "api_key", "embedder")


@command(
    cli, "reembed", "embedqueue reembed --match 'doc:*' --text-field body --to-field embedding_v2 --model new --wait"
)
@click.option("--match", required=True, metavar="PATTERN", help="Of the hashes' keys, as SCAN takes it.")
@click.option("--text-field", required=True, metavar="NAME", help="Field that holds the text.")
@click.option("--to-field", required=True, metavar="NAME", help="The second field, which receives the new vectors.")
@click.option("--model", metavar="NAME", help="The new model.")
@click.option("--provider", metavar="NAME", help="Of the new model, if it is another one.")
@click.option("--dimensions", metavar="COUNT", help="Length of the new vectors.")
@click.option("--base-url", metavar="URL", help="Where the new model's provider stands.")
@click.option("--api-key", metavar="KEY", help="For the new model's provider; the environment is the better place.")
@click.option("--embedder", metavar="PATH", help="An embedder of your own for the new vectors.")
@click.option("--dry-run", is_flag=True, help="Tell what there is to do, and do nothing; nobody is called.")
@click.option("--yes", is_flag=True, help="Do not ask before more than a dollar is spent, or before --finish.")
@click.option("--wait", is_flag=True, help="Return when every text has its vector in the second field.")
@click.option("--work/--no-work", default=True, show_default=True, help="Embed in this process; else others have to.")
@click.option("--cut-over", "how", flag_value="cut-over", help="Searches read the second field from now on.")
@click.option("--roll-back", "how", flag_value="roll-back", help="They read the first again; a second time: end it.")
@click.option("--finish", "how", flag_value="finish", help="One field is left, the second one: the first is removed.")
@click.option("--alias", metavar="NAME", help="Of the index, for --cut-over: it names the new index from then on.")
@click.option("--timeout", type=float, default=60.0, show_default=True, help="Seconds that --cut-over may wait.")
@within_option
@max_waiting_option
@run_name
@as_json
def reembed(source: Source, match: str, text_field: str, to_field: str, as_json: bool, **options: Any) -> None:
    """Embed all texts anew, by another model, into a second field; new texts go to both meanwhile.

    First it tells how many texts that are, what they cost, and how long they take. Run it again if it was stopped: it
    goes on, and nothing is paid for twice. When all is there, --cut-over; then --finish, or --roll-back.
    """
    first = source.settings()
    kept = dict(first.successor or {})
    known = kept if kept.pop("EMBEDDING_FIELD", None) == to_field else {}
    own = known | {name.upper(): options[name] for name in _OWN if options[name] is not None}
    second = second_settings(first, to_field, own)
    with Reembedding(first, second, match, text_field) as work:
        if options["how"] == "cut-over":
            say(cut_over(work, options["alias"], options["timeout"]), as_json=as_json)
        elif options["how"] == "roll-back":
            say(roll_back(work), as_json=as_json)
        elif options["how"] == "finish":
            say(finish(work, options["timeout"], yes=options["yes"]), as_json=as_json)
        else:
            _reembed(work, as_json=as_json, **options)


def _reembed(reembedding: Reembedding, *, as_json: bool, **options: Any) -> None:
    plan = reembedding.plan()
    if as_json:
        click.echo(json.dumps(plan.facts()))
    else:
        click.echo(_planned(plan))
    if options["dry_run"]:
        return
    if options["work"] and plan.texts and (faults := check_key(reembedding.second)):
        raise SettingsError(" ".join(faults))
    if plan.usd is not None and plan.usd > ASK_DOLLARS:
        confirm(f"That is about {usd(plan.usd)}. Spend it?", yes=options["yes"])
    name = options["name"] or default_run_name("reembed", reembedding.terms.field)
    with ExitStack() as stack:
        run = stack.enter_context(NamedRun(reembedding.store.runs, name, "reembed", _hold(reembedding, name)))
        if reembedding.other.pause_reason() == _paused(name):  # by one that was killed while it stood still
            reembedding.other.unhold()
        run.report(done=plan.done, total=plan.total)
        reembedding.begin()
        queue = None
        if options["work"]:
            queue = reembedding.second.queue(worker=True)
            stack.callback(queue.stop)
            queue.start()
        at_work = Work(
            reembedding,
            plan,
            run,
            queue,
            within=options["within"],
            max_waiting=options["max_waiting"],
            say=lambda line: click.echo(line, err=True),
            say_seconds=TERMINAL_SECONDS if sys.stderr.isatty() else LINE_SECONDS,
        )
        left = _carry_out(at_work, run, wait=options["wait"])
    if options["wait"] and not as_json:
        look = f"embedqueue --namespace {reembedding.second.option('namespace')} dead list"
        lacking = f"{left} texts have no vector in {plan.field}: {look}"
        click.echo(lacking if left else f"Every text has its vector in {plan.field}. Next: --cut-over")
    if left:
        raise click.exceptions.Exit(1)


def _carry_out(work: Work, run: NamedRun, *, wait: bool) -> int:
    if wait:
        left = work.until_complete()
        if not left:
            run.report(done=work.plan.total)
        return left
    work.until_all_is_in()
    click.echo(
        "All of it is enqueued, and texts go to both fields; workers of the second queue embed the rest", err=True
    )
    return 0


def _hold(work: Reembedding, name: str) -> Any:
    """What makes the workers of the second queue stand still with the run, in whatever process."""

    def hold(stand_still: bool) -> None:
        if stand_still:
            work.other.hold(None, _paused(name))
        else:
            work.other.unhold()

    return hold


def _paused(name: str) -> str:
    """Why the second queue stands still."""
    return f"the run {name} is paused"


def _planned(plan: Plan) -> str:
    said = tokens_and_dollars(plan.texts, plan.tokens, plan.usd, plan.model)
    time = "" if plan.seconds is None else f", at least {age(plan.seconds)} at the limits"
    return f"{said}{time}; {plan.done:,} of {plan.total:,} have their vector in {plan.field} already."
