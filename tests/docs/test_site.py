"""The pages for newcomers run as they are written; the site builds, and reaches every page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from embedqueue.demo.localredis import LocalRedis, find_search_module, find_server
from tests.parts import PROGRAM_SECONDS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
needs_search = pytest.mark.skipif(
    None in (find_server(), find_search_module()), reason="no Redis with search: embedqueue[demo]"
)


def blocks(page: str) -> dict[str, str]:
    """The blocks of a page that are files, by their titles."""
    text = (DOCS / page).read_text("utf-8")
    return dict(re.findall(r'^```python title="([^"]+)"\n(.*?)^```', text, re.MULTILINE | re.DOTALL))


@pytest.fixture(scope="module")
def url():
    """Of a Redis with search, as the pages ask for one."""
    pytest.importorskip("wordllama", reason="the offline model is not installed: pip install embedqueue[local]")
    with LocalRedis(search=True, appendonly=False) as server:
        yield server.url


def run(code: str, folder: Path, url: str) -> str:
    """Run Python in a process of its own; gives what it prints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EMBEDQUEUE_")}
    environment |= {
        "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
        "EMBEDQUEUE_REDIS_URL": url,
        "PYTHONIOENCODING": "utf-8",
    }
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, timeout=PROGRAM_SECONDS, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_search
def test_the_quickstart_in_python(url, tmp_path):
    code = blocks("quickstart-python.md")["notes.py"].replace("redis.Redis()", f"redis.Redis.from_url({url!r})")
    first = run(f"import redis; redis.Redis.from_url({url!r}).flushall()\n{code}", tmp_path, url)
    assert first.splitlines()[0].endswith(" note:1 The cat sleeps on the sofa.")


@needs_search
def test_the_quickstart_in_flask(url, tmp_path):
    pytest.importorskip("flask", reason="Flask is not installed: pip install embedqueue[flask]")
    (tmp_path / "app.py").write_text(blocks("quickstart-flask.md")["app.py"], "utf-8")
    page = (DOCS / "quickstart-flask.md").read_text("utf-8")
    assert "flask embedqueue index create --name notes --prefix note:" in page
    puts = re.findall(r"curl -X PUT localhost:5000(\S+) -d '(.*)'", page)
    [search] = re.findall(r"curl 'localhost:5000(/search\S+)'", page)
    code = f"""
import redis; redis.Redis.from_url({url!r}).flushall()
import app as module
app = module.app
app.config["EMBEDQUEUE_REDIS_URL"] = {url!r}
run = app.test_cli_runner()
def flask(*words):
    done = run.invoke(args=["embedqueue", *words])
    assert done.exit_code == 0, done.output
flask("index", "create", "--name", "notes", "--prefix", "note:")
client = app.test_client()
for path, text in {puts!r}:
    assert client.put(path, data=text).status_code == 200
flask("flush")
print([hit["key"] for hit in client.get({search!r}).json])
"""
    assert run(code, tmp_path, url) == "['note:cat', 'note:money']\n"


@needs_search
def test_the_quickstart_in_django(url, tmp_path):
    pytest.importorskip("django", reason="Django is not installed: pip install embedqueue[django]")
    files = blocks("quickstart-django.md")
    page = (DOCS / "quickstart-django.md").read_text("utf-8")
    manage = [line.split()[2:] for line in re.findall(r"^python manage.py (?:startapp|make|migrate).*$", page, re.M)]
    assert [words[0] for words in manage] == ["startapp", "makemigrations", "migrate"]
    [search] = re.findall(r"curl 'localhost:8000(/search\S+)'", page)
    call = "from django.core.management import execute_from_command_line as do\n"
    run(
        f"{call}for words in ['startproject', 'mysite', '.'], {manage[0]!r}: do(['django-admin', *words])",
        tmp_path,
        url,
    )
    with (tmp_path / "mysite" / "settings.py").open("a", encoding="utf-8") as settings:
        settings.write(files["mysite/settings.py (at its end)"])
    for name in ("notes/models.py", "mysite/urls.py"):
        (tmp_path / name).write_text(files[name], "utf-8")
    code = f"""
import os, redis
redis.Redis.from_url({url!r}).flushall()
os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
{call}
for words in {manage[1:]!r}:
    do(["manage.py", *words, "-v", "0"])
exec({files["in the shell"]!r})
from django.test import Client
print(Client(SERVER_NAME="localhost").get({search!r}).json()["found"])
"""
    ranked = ["Interest rates rise again.", "The cat sleeps on the sofa."]
    assert run(code, tmp_path, url).splitlines()[-1] == str(ranked), "not in the order of their ids"


@pytest.mark.parametrize("page", ["tutorial.md", "testing.md"])
def test_a_page_runs_block_by_block(page, redis_server, redis_client, tmp_path):
    """In a program of its own, as its reader would type it."""
    pytest.importorskip("wordllama", reason="the offline model is not installed: pip install embedqueue[local]")
    pytest.importorskip("fakeredis", reason="fakeredis is not installed: pip install embedqueue[demo]")
    found = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text("utf-8"), re.DOTALL)
    assert len(found) > 3
    code = "\n".join(found).replace("redis.Redis()", f"redis.Redis.from_url({redis_server.url!r})")
    run(code, tmp_path, redis_server.url)


def test_the_site_builds(tmp_path):
    """Strictly: no link and no heading that leads nowhere, no page that no other names."""
    pytest.importorskip("material", reason="mkdocs-material is not installed: make docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=quiet, timeout=PROGRAM_SECONDS, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    api = (tmp_path / "reference" / "api.html").read_text("utf-8")
    assert "enqueue_many" in api and "Raises" in api
    commands = (tmp_path / "reference" / "commands.html").read_text("utf-8")
    assert "embedqueue verify" in commands and "--fix" in commands
