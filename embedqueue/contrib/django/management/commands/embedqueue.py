"""``manage.py embedqueue ...``: the project's queues from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from itertools import islice
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from redis.exceptions import RedisError

from embedqueue.backlog.filler import DEFAULT_MAX_WAITING
from embedqueue.backlog.inspection import FAULTS
from embedqueue.contrib.django.access import queues
from embedqueue.contrib.django.backfill import backfill, verify
from embedqueue.money.prices import read_price
from embedqueue.operating.arguments import address, concurrency, duration
from embedqueue.operating.budget import budget_as_json, describe_budget, raise_budget
from embedqueue.operating.control import dead_letter_of, dead_letters, lift_pause, set_pause
from embedqueue.operating.cost import DEFAULT_DAYS, MOST_DAYS, cost_as_json, cost_of, describe_cost
from embedqueue.operating.describe import describe, describe_dead, describe_workers, lines, stats_as_json
from embedqueue.operating.examine import examine, summary
from embedqueue.operating.explain import explain
from embedqueue.operating.letters import WrongChoice, discard, retry
from embedqueue.operating.run import DEFAULT_GRACE_SECONDS, Served, run_worker
from embedqueue.operating.spending import Spending
from embedqueue.settings.application import DEFAULT
from embedqueue.settings.checks import explain_redis
from embedqueue.settings.settings import SettingsError
from embedqueue.values.errors import EmbedQueueError
from embedqueue.values.words import printable


class Command(BaseCommand):
    """See ``manage.py embedqueue --help``."""

    help = "Look at the embedding queue, and work it."
    requires_system_checks = ()  # what is wrong is told by the queue itself, or by the subcommand check

    def add_arguments(self, parser: CommandParser) -> None:
        """A subcommand each."""
        commands = parser.add_subparsers(title="commands", required=True)

        def command(name: str, run: Callable[..., None], words: str, to: Any = commands) -> CommandParser:
            made: CommandParser = to.add_parser(name, help=words, description=words)
            made.set_defaults(run=run)
            made.add_argument("--queue", default=DEFAULT, help='name in EMBEDQUEUE["QUEUES"]')
            return made

        check = command("check", self._check, "Tell what is wrong, and what to set.")
        check.add_argument("--no-call", action="store_true", help="make no real call to the provider")
        worker = command("worker", self._worker, "Work the queues in this process until SIGTERM.")
        worker.set_defaults(queue=None)
        worker.add_argument("names", nargs="*", metavar="name", help="of the queues; all of them if none is named")
        worker.add_argument("--burst", action="store_true", help="end once the queue is empty")
        worker.add_argument("--concurrency", type=concurrency, help='API calls in flight, a number or "auto"')
        worker.add_argument("--health", type=address, metavar="HOST:PORT", help="answer at /health and /metrics there")
        worker.add_argument(
            "--grace", type=duration, default=DEFAULT_GRACE_SECONDS, help="seconds for calls at the end"
        )
        stats = command("stats", self._stats, "Tell how the queue stands.")
        stats.add_argument("--json", action="store_true", help="for scripts")
        workers = command("workers", self._workers, "Tell who works.")
        workers.add_argument("--json", action="store_true", help="for scripts, an object a line")
        cost = command("cost", self._cost, "Tell what was sent, what that cost, and what was saved.")
        cost.add_argument("--by", choices=["day", "model"], default="day")
        cost.add_argument("--days", type=int, choices=range(1, MOST_DAYS + 1), default=DEFAULT_DAYS, metavar="N")
        cost.add_argument("--price", type=read_price, action="append", default=[], metavar="MODEL=DOLLARS")
        cost.add_argument("--json", action="store_true", help="for scripts")
        budget = commands.add_parser("budget", help="What may be spent, and what is.")
        budget_commands = budget.add_subparsers(title="commands", required=True)
        spent = command("show", self._budget, "Tell what is spent, and what is left.", budget_commands)
        spent.add_argument("--json", action="store_true", help="for scripts")
        raising = command("raise", self._budget_raise, "Let more be spent today.", budget_commands)
        raising.add_argument("dollars", type=float, metavar="USD")
        flush = command("flush", self._flush, "Embed all that waits now, and return when it is done.")
        flush.add_argument("--timeout", type=duration, default=60.0, help="seconds")
        fill = command("backfill", self._backfill, "Enqueue what has no vector yet, of models with EmbeddedText.")
        fill.add_argument("models", nargs="*", metavar="app.Model", help="all such models if none is named")
        fill.add_argument("--max-waiting", type=int, default=DEFAULT_MAX_WAITING, help="items that may wait at a time")
        fill.add_argument("--wait", action="store_true", help="return when all of it is embedded")
        fill.add_argument("--all", action="store_true", help="also what has a vector already")
        fill.add_argument("--relabel", action="store_true", help="also vectors of which nothing says what they are of")
        fill.add_argument("--yes", action="store_true", help="do not ask before more than a dollar is spent")
        fill.add_argument("--database", metavar="ALIAS", help="where the rows are, unless the models' own manager says")
        verifying = command(
            "verify", self._verify, "Tell whether rows have the vectors of their texts; else exit with 1."
        )
        verifying.add_argument("models", nargs="*", metavar="app.Model", help="all such models if none is named")
        verifying.add_argument("--database", metavar="ALIAS", help="where the rows are")
        verifying.add_argument("--json", action="store_true", help="for scripts")
        forgetting = command("forget", self._forget, "Drop all that there is of keys.")
        forgetting.add_argument("keys", nargs="+", metavar="key")
        forgetting.add_argument("--vector", action="store_true", help="the vectors in the hashes as well")
        explaining = command("explain", self._explain, "Tell where a key's vector is, and why.")
        explaining.add_argument("key")
        pause = command("pause", self._pause, "Have nobody claim anything; items are taken in as ever.")
        pause.add_argument("--for", type=duration, dest="seconds", help="seconds, instead of until resume")
        pause.add_argument("--reason", default="paused by hand", help="what stats and the others say of it")
        command("resume", self._resume, "End a pause at once, also that of a provider that failed.")
        dead = commands.add_parser("dead", help="Look at what was given up, put it back, or drop it.")
        dead_commands = dead.add_subparsers(title="commands", required=True)
        listing = command("list", self._dead_list, "List dead letters, the latest first.", dead_commands)
        listing.add_argument("--limit", type=int, default=100)
        show = command("show", self._dead_show, "Tell everything of one dead letter.", dead_commands)
        show.add_argument("key")
        for name, run, words in (
            ("retry", self._dead_retry, "Put dead letters back to the end of the queue."),
            ("discard", self._dead_discard, "Drop dead letters for good."),
        ):
            made = command(name, run, words, dead_commands)
            made.add_argument("keys", nargs="*", metavar="key")
            made.add_argument("--reason", help="those whose reason contains this")
            made.add_argument("--all", action="store_true", help="all dead letters")
            if name == "discard":
                made.add_argument("--yes", action="store_true", help="do not ask")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the subcommand; a user's mistake is a sentence, not a traceback."""
        try:
            options["run"](options["queue"], options)
        except RedisError as error:
            raise CommandError(printable(explain_redis(queues.settings(options["queue"] or DEFAULT), error))) from None
        except (SettingsError, EmbedQueueError, WrongChoice, TimeoutError) as error:
            raise CommandError(printable(str(error))) from None

    def _check(self, name: str, options: dict[str, Any]) -> None:
        bad, levels = [], set()
        for finding in examine(queues.settings(name), call=not options["no_call"], others=queues.others(name)):
            levels.add(finding.level)
            if finding.level == "problem":
                bad.append(printable(finding.words))
            elif finding.level == "warning":
                self.stderr.write(f"warning  {finding.about}: {printable(finding.words)}")
        if bad:
            raise CommandError("\n".join(bad))
        self.stdout.write(summary(levels))

    def _worker(self, name: str | None, options: dict[str, Any]) -> None:
        own = {} if options["concurrency"] is None else {"max_concurrency": options["concurrency"]}
        names = dict.fromkeys([*options["names"], *([name] if name else ())]) or queues
        run_worker(
            [Served(one, queues.settings(one), partial(queues.idle, one, **own)) for one in names],
            burst=options["burst"],
            grace=options["grace"],
            health=options["health"],
            say=self.stdout.write,
        )

    def _stats(self, name: str, options: dict[str, Any]) -> None:
        stats = queues.look(name).stats()
        self.stdout.write(stats_as_json(stats) if options["json"] else "\n".join(describe(stats)))

    def _workers(self, name: str, options: dict[str, Any]) -> None:
        found = queues.look(name).workers()
        lines = (json.dumps(asdict(one)) for one in found) if options["json"] else describe_workers(found)
        self.stdout.write("\n".join(lines))

    def _cost(self, name: str, options: dict[str, Any]) -> None:
        by = options["by"]
        rows, total = cost_of(queues.look(name), options["days"], by, options["price"])
        told = cost_as_json(rows, total, by) if options["json"] else "\n".join(describe_cost(rows, total, by))
        self.stdout.write(told)

    def _budget(self, name: str, options: dict[str, Any]) -> None:
        settings = queues.settings(name)
        self.stdout.write(budget_as_json(settings) if options["json"] else "\n".join(describe_budget(settings)))

    def _budget_raise(self, name: str, options: dict[str, Any]) -> None:
        self.stdout.write(raise_budget(queues.settings(name), options["dollars"]))

    def _flush(self, name: str, options: dict[str, Any]) -> None:
        with queues.idle(name, worker=True) as queue:
            queue.flush(options["timeout"])
        self.stdout.write("Nothing of it waits any more.")

    def _backfill(self, name: str, options: dict[str, Any]) -> None:
        queues.settings(name)  # a name that is none is told
        count = backfill(
            options["models"],
            using=options["database"],
            queue=None if name == DEFAULT else name,
            max_waiting=options["max_waiting"],
            everything=options["all"],
            relabel=options["relabel"],
            wait=options["wait"],
            spending=Spending(yes=options["yes"]),
            say=self.stdout.write,
        )
        self.stdout.write(f"{count} enqueued")

    def _verify(self, name: str, options: dict[str, Any]) -> None:
        queues.settings(name)  # a name that is none is told
        queue = None if name == DEFAULT else name
        found = asdict(verify(options["models"], queue=queue, using=options["database"]))
        self.stdout.write(json.dumps(found) if options["json"] else "\n".join(lines(found)))
        if faults := sum(found[kind] for kind in FAULTS):
            raise CommandError(f"{faults} vectors are missing or wrong; backfill enqueues their texts")

    def _forget(self, name: str, options: dict[str, Any]) -> None:
        queue = queues.look(name)
        for key in options["keys"]:
            queue.forget(key, options["vector"])
        self.stdout.write(f"{len(options['keys'])} forgotten")

    def _explain(self, name: str, options: dict[str, Any]) -> None:
        self.stdout.write("\n".join(lines(explain(queues.look(name), options["key"]))))

    def _pause(self, name: str, options: dict[str, Any]) -> None:
        set_pause(queues.settings(name), options["seconds"], options["reason"])
        self.stdout.write("Nothing is claimed any more.")

    def _resume(self, name: str, options: dict[str, Any]) -> None:
        self.stdout.write("The pause is over." if lift_pause(queues.settings(name)) else "There is no pause to end.")

    def _dead_show(self, name: str, options: dict[str, Any]) -> None:
        letter = dead_letter_of(queues.settings(name), options["key"])
        if letter is None:
            raise CommandError(printable(f"{options['key']} is no dead letter"))
        self.stdout.write("\n".join(lines(asdict(letter))))

    def _dead_list(self, name: str, options: dict[str, Any]) -> None:
        letters = islice(dead_letters(queues.look(name)), options["limit"])
        self.stdout.write("\n".join(describe_dead(letters)) or "There are no dead letters.")

    def _dead_retry(self, name: str, options: dict[str, Any]) -> None:
        self.stdout.write(retry(queues.look(name), options["keys"], options["reason"], options["all"]))

    def _dead_discard(self, name: str, options: dict[str, Any]) -> None:
        choice = options["keys"], options["reason"], options["all"]
        self.stdout.write(discard(queues.look(name), *choice, options["yes"]))
