"""``manage.py embedqueue ...``: the project's queues from the command line."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from redis.exceptions import RedisError

from embedqueue.checkup import explain_redis
from embedqueue.config import SettingsError
from embedqueue.contrib.django.access import queues
from embedqueue.contrib.django.backfill import DEFAULT_MAX_WAITING, backfill
from embedqueue.contrib.queues import DEFAULT
from embedqueue.errors import EmbedQueueError
from embedqueue.operate import (
    DEFAULT_GRACE_SECONDS,
    beside,
    dead_letters,
    describe,
    describe_dead,
    run_worker,
    stats_as_json,
)


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
        worker = command("worker", self._worker, "Work the queue in this process until SIGTERM.")
        worker.add_argument("--burst", action="store_true", help="end once the queue is empty")
        worker.add_argument("--grace", type=float, default=DEFAULT_GRACE_SECONDS, help="seconds for calls at the end")
        stats = command("stats", self._stats, "Tell how the queue stands.")
        stats.add_argument("--json", action="store_true", help="for scripts")
        flush = command("flush", self._flush, "Embed all that waits now, and return when it is done.")
        flush.add_argument("--timeout", type=float, default=60.0, help="seconds")
        fill = command("backfill", self._backfill, "Enqueue what has no vector yet, of models with EmbeddedText.")
        fill.add_argument("models", nargs="*", metavar="app.Model", help="all such models if none is named")
        fill.add_argument("--max-waiting", type=int, default=DEFAULT_MAX_WAITING, help="items that may wait at a time")
        fill.add_argument("--wait", action="store_true", help="return when all of it is embedded")
        fill.add_argument("--all", action="store_true", help="also what has a vector already")
        fill.add_argument("--database", metavar="ALIAS", help="where the rows are, unless the models' own manager says")
        dead = commands.add_parser("dead", help="Look at what was given up, put it back, or drop it.")
        dead_commands = dead.add_subparsers(title="commands", required=True)
        listing = command("list", self._dead_list, "List dead letters, the latest first.", dead_commands)
        listing.add_argument("--limit", type=int, default=100)
        for name, run, words in (
            ("retry", self._dead_retry, "Put dead letters back to the end of the queue."),
            ("discard", self._dead_discard, "Drop dead letters for good."),
        ):
            made = command(name, run, words, dead_commands)
            made.add_argument("keys", nargs="*", metavar="key")
            made.add_argument("--all", action="store_true", help="all dead letters")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the subcommand; a user's mistake is a sentence, not a traceback."""
        try:
            options["run"](options["queue"], options)
        except RedisError as error:
            raise CommandError(explain_redis(queues.settings(options["queue"]), error)) from None
        except (SettingsError, EmbedQueueError, TimeoutError) as error:
            raise CommandError(str(error)) from None

    def _check(self, name: str, options: dict[str, Any]) -> None:
        problems = queues.settings(name).check(call=not options["no_call"])
        if problems:
            raise CommandError("\n".join(problems))
        self.stdout.write("All is well.")

    def _worker(self, name: str, options: dict[str, Any]) -> None:
        missing = queues.settings(name).check(redis=False)
        if missing:
            raise CommandError(missing[0])
        settings = queues.settings(name)
        run_worker(
            lambda more: queues.idle(name, worker=True, observers=beside(settings, more)),
            burst=options["burst"],
            grace=options["grace"],
            say=self.stdout.write,
        )

    def _stats(self, name: str, options: dict[str, Any]) -> None:
        stats = queues.look(name).stats()
        self.stdout.write(stats_as_json(stats) if options["json"] else "\n".join(describe(stats)))

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
            wait=options["wait"],
            say=self.stdout.write,
        )
        self.stdout.write(f"{count} enqueued")

    def _dead_list(self, name: str, options: dict[str, Any]) -> None:
        lines = list(describe_dead(islice(dead_letters(queues.look(name)), options["limit"])))
        self.stdout.write("\n".join(lines) or "There are no dead letters.")

    def _dead_retry(self, name: str, options: dict[str, Any]) -> None:
        self.stdout.write(f"{queues.look(name).retry_dead(_chosen(options))} put back")

    def _dead_discard(self, name: str, options: dict[str, Any]) -> None:
        self.stdout.write(f"{queues.look(name).discard_dead(_chosen(options))} discarded")


def _chosen(options: dict[str, Any]) -> list[str] | None:
    if bool(options["keys"]) == options["all"]:
        raise CommandError("give keys, or --all")
    return None if options["all"] else options["keys"]
