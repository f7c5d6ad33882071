"""``manage.py embedqueue ...``: the commands of ``embedqueue``, for the project's queues."""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import Any

import click
from django.core.management.base import BaseCommand, CommandError, CommandParser

from embedqueue.cli.project import Application, project_commands
from embedqueue.contrib.django.access import SPELLING, queues
from embedqueue.contrib.django.backfill import tables

PROGRAM = "manage.py embedqueue"

#: What Django takes anywhere behind the name of a command. It has read the first two already.
_DJANGOS = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
for _option in ("--settings", "--pythonpath", "--verbosity"):
    _DJANGOS.add_argument(_option)
for _option in ("--traceback", "--no-color", "--force-color", "--skip-checks"):
    _DJANGOS.add_argument(_option, action="store_true")

group = project_commands(
    Application(program=PROGRAM, setting=SPELLING.format("QUEUES"), queues=lambda: queues, tables=tables)
)


class Command(BaseCommand):
    """See ``manage.py embedqueue --help``."""

    help = group.help or ""
    requires_system_checks = ()  # what is wrong is told by the queue itself, or by the subcommand check

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Django's options, and behind them whatever the commands take; the help is theirs."""
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        parser.format_help = lambda: group.get_help(click.Context(group, info_name=PROGRAM)) + "\n"  # type: ignore[method-assign]
        return parser

    def add_arguments(self, parser: CommandParser) -> None:
        """The command and all that it takes."""
        parser.add_argument("args", nargs=argparse.REMAINDER, metavar="command ...")

    def handle(self, *args: str, **options: Any) -> None:
        """Run a command.

        Raises:
            CommandError: it did not work out, or was used wrongly; ``returncode`` is its exit code.
            SystemExit: it did, and its answer is an exit code.
        """
        end = args.index("--") if "--" in args else len(args)
        _, given = _DJANGOS.parse_known_args(args[:end])
        with contextlib.ExitStack() as stack:
            if options.get("stdout") is not None:
                stack.enter_context(contextlib.redirect_stdout(options["stdout"]))
            if options.get("stderr") is not None:
                stack.enter_context(contextlib.redirect_stderr(options["stderr"]))
            try:
                code = group.main(args=[*given, *args[end:]] or ["--help"], prog_name=PROGRAM, standalone_mode=False)
            except click.ClickException as error:
                hint = f"{error.ctx.get_usage()}\n" if isinstance(error, click.UsageError) and error.ctx else ""
                raise CommandError(f"{hint}{error.format_message()}", returncode=error.exit_code) from None
            except click.Abort:
                raise CommandError("Aborted!") from None
        if isinstance(code, int) and code:
            sys.exit(code)
