"""The page on the command line and the commands say the same."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

pytest.importorskip("click", reason='the command line is in the extra "embedqueue[cli]"')

import click

from embedqueue.cli import cli

DOCS = Path(__file__).parents[2] / "docs"
#: Pages that show commands.
PAGES = sorted(path.name for path in DOCS.glob("*.md") if "\nembedqueue " in path.read_text("utf-8"))


def commands(group: click.Group, path: tuple[str, ...] = ()):
    """All that can be run, by the words that one writes."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


ALL = dict(commands(cli))


def lines(page: str) -> list[list[str]]:
    """The command lines of a page that are ours, in words."""
    blocks = re.findall(r"```console\n(.*?)```", (DOCS / page).read_text("utf-8"), re.DOTALL)
    found = re.findall(r"(?:^|\| )embedqueue ([^\n|#]*)", "\n".join(blocks), re.MULTILINE)
    return [shlex.split(line) for line in found]


def check(words: list[str]) -> tuple[str, ...]:
    """Parse a line as click would run it, without running it; gives the command's name."""
    words = [word for word in words if word not in ("\\",)]
    context = click.Context(cli, info_name="embedqueue")
    rest = cli.make_parser(context).parse_args(args=list(words))[1]
    command, path = cli, []
    while isinstance(command, click.Group):
        path.append(rest[0])
        command, rest = command.commands[rest[0]], rest[1:]
    if path != ["demo"]:
        # a file that is not there is no fault of the line
        rest = ["-" if word.endswith((".jsonl", ".csv")) else word for word in rest]
        command.make_context(path[-1], rest, parent=context)
    return tuple(path)


@pytest.mark.parametrize("page", PAGES)
def test_every_line_of_a_page_is_understood(page):
    """No option and no command that there is not."""
    for line in lines(page):
        assert check(line) in ALL


def test_every_command_has_a_line_on_the_page():
    """Nothing is hidden."""
    assert {check(line) for line in lines("command-line.md")} == set(ALL)


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_commands_help_has_an_example_that_is_understood(path):
    """The last line of its help can be copied."""
    command = ALL[path]
    assert command.help
    assert command.epilog.startswith("Example: embedqueue " + " ".join(path))
    assert check(shlex.split(command.epilog.removeprefix("Example: embedqueue "))) == path
