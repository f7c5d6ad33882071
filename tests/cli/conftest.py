"""Runs commands in this process, and the worker in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("click", reason='the command line is in the extra "embedqueue[cli]"')

from click.testing import CliRunner

from embedqueue.cli import cli
from tests import nursery


@pytest.fixture
def run(env, monkeypatch):
    """Runs a command; gives its output, or fails where it should not have failed."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str, code: int = 0, text: str | bytes | None = None) -> str:
        result = CliRunner().invoke(cli, arguments, input=text, prog_name="embedqueue")
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        return result.output

    return run


@pytest.fixture
def command(env) -> Iterator[Any]:
    """Starts a command in a process of its own, which is dead at the end."""
    started: list[nursery.Process] = []
    counted = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}  # by make coverage

    def start(*arguments: str, afresh: bool = False) -> nursery.Process:
        environment = {"PATH": "", **counted, **env}
        process: nursery.Process
        if afresh:  # as a user does, instead of forked from one that has all imported
            process = subprocess.Popen(
                [sys.executable, "-u", "-m", "embedqueue", *arguments],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        else:
            process = nursery.start(
                "embedqueue",
                *arguments,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
                imported=["embedqueue.cli", "prometheus_client"],
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        print(*process.communicate(), sep="\n")  # shown if the test fails


@pytest.fixture
def worker(command) -> Any:
    """Starts ``embedqueue worker`` and hands it over once it is at work."""

    def start(*arguments: str, **how: bool) -> nursery.Process:
        process = command("worker", *arguments, **how)
        assert "at work" in process.stdout.readline()
        return process

    return start
