"""What stands in the pages on frameworks, servers and the dashboard is so: their code runs, their names exist."""

from __future__ import annotations

import ast
import asyncio
import importlib
import os
import re
from pathlib import Path

import pytest

from embedqueue.settings.settings import KNOWN
from embedqueue.testing import FakeEmbedder

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("flask.md", "django.md", "servers.md", "dashboard.md")


def _blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text("utf-8"), flags=re.DOTALL)


@pytest.fixture
def django():
    """Django with settings, which its modules need to be imported."""
    found = pytest.importorskip("django", reason="Django is not installed: pip install embedqueue[django]")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.web.djsite.settings")
    found.setup()


@pytest.mark.parametrize("page", PAGES)
def test_what_is_imported_exists(page, django):
    """Names from embedqueue, in every block."""
    for block in _blocks(page):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("embedqueue"):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), node.module


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_pointed_to_exist(page):
    """No dead pointers."""
    text = (DOCS / page).read_text("utf-8")
    for path in re.findall(r"`((?:tests|docs|examples|benchmarks)/[\w./-]*)`", text):
        assert (DOCS.parent / path).exists(), path
    for other, anchor in re.findall(r"\]\(([\w.]+)#([\w-]+)\)", text):
        assert f"\n## {anchor}\n" in (DOCS / other).read_text("utf-8").lower()


def test_every_setting_is_named():
    """All that a configuration may hold, and nothing else."""
    section = (DOCS / "servers.md").read_text("utf-8").partition("## Settings")[2].partition("## Under load")[0]
    rows = re.findall(r"^\| `(\w+)`", section, flags=re.MULTILINE)
    options = re.findall(r"`([A-Z_]+)`[,.]", section.partition("its own name in capitals")[2])
    assert (*rows, *options) == KNOWN


def test_flasks_application_and_its_test_run_as_they_are_written(monkeypatch):
    """The first block makes the app, the last one tests it."""
    pytest.importorskip("flask", reason="Flask is not installed: pip install embedqueue[flask]")
    monkeypatch.delenv("GEMINI_API_KEY", raising=False)
    names: dict[str, object] = {"__name__": __name__}
    first, *_, last = _blocks("flask.md")
    exec(first, names)
    exec(last, names)
    app = names["create_app"]()
    names["test_a_note_is_embedded"](app)


def _named_commands(page: str, program: str) -> set[str]:
    text = (DOCS / page).read_text("utf-8")
    return set(re.findall(rf"^{re.escape(program)} embedqueue (\w+)", text, flags=re.MULTILINE))


def test_flasks_commands_that_are_named_exist():
    """Which those are, the page on the command line tells."""
    pytest.importorskip("flask", reason="Flask is not installed: pip install embedqueue[flask]")
    from embedqueue.contrib.flask.commands import group

    assert _named_commands("flask.md", "flask") <= set(group.commands)


def test_djangos_commands_that_are_named_exist(django):
    """The same."""
    from embedqueue.contrib.django.management.commands.embedqueue import group

    assert _named_commands("django.md", "manage.py") <= set(group.commands)


def test_fastapis_handler_runs_as_it_is_written(monkeypatch, redis_client):
    """Ten handlers at a time: each gets its vector."""
    pytest.importorskip("fastapi", reason="FastAPI is not installed: pip install fastapi")
    block = next(found for found in _blocks("servers.md") if "FastAPI" in found)
    monkeypatch.setattr("embedqueue.GeminiEmbedder", lambda: FakeEmbedder(16))
    names: dict[str, object] = {"client": redis_client}
    exec(block.replace("redis.Redis()", "client"), names)

    async def visitors():
        return await asyncio.gather(*(names["save"](f"n{n}", f"text {n}") for n in range(10)))

    try:
        assert asyncio.run(visitors()) == [{"dimensions": 16}] * 10
    finally:
        names["queue"].stop()


def test_the_dashboard_mounts_as_it_is_written(monkeypatch, redis_client, redis_server):
    """In Flask behind its hook, and on its own behind its password; the options of the command are all named."""
    pytest.importorskip("flask", reason="Flask is not installed: pip install embedqueue[flask]")
    in_flask, _, alone = _blocks("dashboard.md")
    names: dict[str, object] = {"__name__": __name__}
    exec(in_flask, names)
    app = names["create_app"]()
    app.secret_key, app.config["EMBEDQUEUE_REDIS_URL"] = "test", redis_server.url
    client = app.test_client()
    assert client.get("/embeddings/").status_code == 403
    with client.session_transaction() as session:
        session["role"] = "admin"
    assert client.get("/embeddings/").status_code == 200
    monkeypatch.setenv("DASHBOARD_PASSWORD", "secret")
    exec(alone, names)
    assert names["application"].test_client().get("/").status_code == 401

    cli = pytest.importorskip("embedqueue.cli", reason="click is not installed: pip install embedqueue[cli]")
    known = {name for one in cli.cli.commands["dashboard"].params if not one.hidden for name in one.opts}
    named = set(re.findall(r"--[a-z][a-z-]+", (DOCS / "dashboard.md").read_text("utf-8")))
    assert named == known
