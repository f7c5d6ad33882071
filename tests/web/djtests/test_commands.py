"""``embedqueue X``, ``flask embedqueue X`` and ``manage.py embedqueue X`` are one and the same."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from django.core.management import CommandError, call_command

flask = pytest.importorskip("flask", reason="Flask is not installed: pip install embedqueue[flask]")

from embedqueue.cli import cli  # noqa: E402
from embedqueue.contrib.django import queues  # noqa: E402
from embedqueue.contrib.django.management.commands.embedqueue import group as of_django  # noqa: E402
from embedqueue.contrib.flask import EmbedQueue  # noqa: E402
from embedqueue.contrib.flask.commands import group as of_flask  # noqa: E402
from tests import nursery  # noqa: E402
from tests.parts import PROGRAM_SECONDS  # noqa: E402
from tests.web.servers import DJANGO, OF_DJANGO, OURS  # noqa: E402

ROOT = Path(__file__).parents[3]
#: What names the queue, here and there.
SOURCE = ("queue", "names")


def _tree(group: click.Group, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], click.Command]:
    found: dict[tuple[str, ...], click.Command] = {}
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found |= _tree(command, (*path, name))
        else:
            found[*path, name] = command
    return found


def _facts(parameter: click.Parameter) -> dict[str, Any]:
    facts = parameter.to_info_dict()
    facts["default"] = parameter.default if not callable(parameter.default) else "a function"
    return facts


ALL = _tree(cli)


@pytest.mark.parametrize("theirs", [of_flask, of_django], ids=["flask", "django"])
def test_the_same_commands(theirs):
    """Every one, and no other; each group says the same of itself."""
    assert set(_tree(theirs)) == set(ALL)
    for name, command in cli.commands.items():
        assert theirs.commands[name].get_short_help_str() == command.get_short_help_str()


@pytest.mark.parametrize("theirs", [of_flask, of_django], ids=["flask", "django"])
@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_the_same_options(theirs, path):
    """Names, types, defaults, help; but for what says which queue is meant."""
    ours, found = ALL[path], _tree(theirs)[path]
    own = [_facts(one) for one in ours.params if not (one.name or "").startswith("own_")]
    assert [_facts(one) for one in found.params if one.name not in SOURCE] == own
    assert found.help == ours.help
    has_queue = any((one.name or "").startswith("own_") for one in ours.params)
    assert has_queue == any(one.name == "queue" for one in found.params)


def _cli(env, words: list[str]) -> tuple[int, str]:
    result = CliRunner().invoke(cli, words, env=env)
    return result.exit_code, result.stdout


def _flask(env, words: list[str]) -> tuple[int, str]:
    app = flask.Flask("notes")
    app.config.update(env)
    EmbedQueue().init_app(app)
    result = app.test_cli_runner().invoke(args=["embedqueue", *words])
    app.extensions["embedqueue"].reset()
    return result.exit_code, result.stdout


def _django(env, words: list[str]) -> tuple[int, str]:
    out, code = io.StringIO(), 0
    try:
        call_command("embedqueue", *words, stdout=out, stderr=io.StringIO())
    except CommandError as error:
        code = error.returncode
    except SystemExit as ended:
        code = ended.code
    return code, out.getvalue()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("stats --json", 0),
        ("workers --json", 1),
        ("cost --json", 0),
        ("dead list --json", 0),
        ("dead show doc:1 --json", 1),
        ("explain doc:1 --json", 0),
        ("space show --json", 0),
        ("runs --json", 0),
        ("check --no-call --json", 1),
        ("verify --match doc:* --text-field text --json", 1),
        ("verify --match doc:*", 2),
        ("forget doc:7", 0),
        ("pause --for 1", 0),
        ("resume", 0),
        ("budget show --json", 0),
        ("dead retry", 2),
        ("stats --nothing", 2),
        ("nothing", 2),
        ("pause --for soon", 2),
    ],
)
def test_the_same_answers(env, redis_client, monkeypatch, words, code):
    """What is printed, JSON to the letter, and the exit code; with a queue of each one's settings behind it."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    queues.reset()
    redis_client.hset("doc:1", "text", "one")
    redis_client.zadd("embed_queue:pending", {'{"redis_key":"doc:2","text":"two"}': 1})
    answers = [run(env, words.split()) for run in (_cli, _flask, _django)]
    assert [answer[0] for answer in answers] == [code] * 3
    plain = [_plain(answer[1]) for answer in answers]
    assert plain[0] == plain[1] == plain[2]


def _plain(told: str) -> Any:
    """Without the times in it, which pass between two looks; and without the names of settings."""
    if told.startswith("{"):
        found = [json.loads(line) for line in told.splitlines()]
        return [{k: v for k, v in one.items() if not isinstance(v, float) and k != "words"} for one in found]
    return told


def test_a_projects_process(env, redis_client):
    """As a shell sees it: help, an answer, a mistake and its exit code."""
    env = os.environ | env | DJANGO | {"PYTHONPATH": str(ROOT)}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return nursery.run(
            "django", "embedqueue", *words, env=env, timeout=PROGRAM_SECONDS, imported=[*OURS, *OF_DJANGO]
        )

    manage = [sys.executable, "-m", "django", "embedqueue"]
    helped = subprocess.run(
        [*manage, "--help"], env=env, cwd=ROOT, capture_output=True, text=True, timeout=PROGRAM_SECONDS
    )
    assert helped.returncode == 0
    assert "backfill" in helped.stdout and "Usage: manage.py embedqueue" in helped.stdout
    assert json.loads(run("stats", "--json").stdout)["waiting"] == 0
    wrong = run("dead", "retry")
    assert wrong.returncode == 2
    assert "Usage: manage.py embedqueue dead retry" in wrong.stderr and "give keys" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    alone = run("workers")
    assert (alone.returncode, alone.stderr) == (1, "")


def test_djangos_own_options_may_stand_anywhere(used, run):
    """As with every other command; what stands behind -- is a command's own."""
    words = "--settings=x --pythonpath y --verbosity 2 --traceback --no-color --skip-checks".split()
    assert run("dead", "list", *words, "--json") == run("dead", "list", "--json")
    used.redis.hset("--traceback", "embedding", "v")
    run("forget", "--vector", "--", "--traceback")
    assert not used.redis.exists("--traceback")
