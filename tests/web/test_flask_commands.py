"""`flask embedqueue ...`, and what Redis and its passwords have to say at the first use."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import redis

pytest.importorskip("flask", reason="Flask is not installed: pip install embedqueue[flask]")

from embedqueue import EmbeddingBatchQueue  # noqa: E402
from embedqueue.contrib.flask import EmbedQueue  # noqa: E402
from embedqueue.dashboard import dashboard_app  # noqa: E402
from embedqueue.settings.settings import SettingsError  # noqa: E402

pytestmark = pytest.mark.usefixtures("clean_environment")


def _run(app, *args):
    return app.test_cli_runner().invoke(args=["embedqueue", *args])


def test_check_tells_what_to_set(real_app, provider, monkeypatch):
    """`flask embedqueue check`: one sentence a problem on stderr, and exit code 1."""
    good = _run(real_app, "check")
    assert good.exit_code == 0
    assert "no worker is running" in good.output and good.output.endswith("It works; the warnings say what may hurt.\n")
    real_app.extensions["embedqueue"].reset()
    real_app.config["EMBEDQUEUE_API_KEY"] = "hunter2"
    bad = _run(real_app, "check")
    assert bad.exit_code == 1
    assert "EMBEDQUEUE_API_KEY" in bad.output and "hunter2" not in bad.output
    assert _run(real_app, "check", "--no-call").exit_code == 0
    real_app.extensions["embedqueue"].reset()
    real_app.config["EMBEDQUEUE_MODELL"] = "x"
    unknown = _run(real_app, "check")
    assert unknown.exit_code == 1
    assert "did you mean EMBEDQUEUE_MODEL?" in unknown.output


def test_stats_and_flush(real_app):
    """`stats` looks without working; `flush` works."""
    real_app.config["EMBEDQUEUE_WORKER"] = False
    with real_app.app_context():
        EmbedQueue().enqueue_many([(f"note:{n}", f"text {n}") for n in range(3)])
    assert "waiting    3" in _run(real_app, "stats").output
    assert json.loads(_run(real_app, "stats", "--json").output)["waiting"] == 3
    assert _run(real_app, "flush").exit_code == 0
    assert json.loads(_run(real_app, "stats", "--json").output)["waiting"] == 0


def test_a_worker_that_ends_when_the_queue_is_empty(real_app, redis_client):
    """`worker --burst`."""
    real_app.config["EMBEDQUEUE_WORKER"] = False
    with real_app.app_context():
        EmbedQueue().enqueue("note:1", "hello")
    result = _run(real_app, "worker", "--burst")
    assert result.exit_code == 0, result.output
    assert redis_client.hexists("note:1", "embedding")


def test_a_worker_of_an_apps_queues(real_app, redis_client, redis_server):
    """All of them, or those that are named; each with its own settings, which a sentence names."""
    real_app.config["EMBEDQUEUE_WORKER"] = False
    real_app.config["EMBEDQUEUE_QUEUES"] = {"titles": {}, "images": {"REDIS_URL": redis_server.url}}

    def work(*arguments):
        with real_app.app_context():
            for name in ("default", "titles", "images"):
                EmbedQueue()[name].enqueue(f"{name}:1", "hello")
        result = _run(real_app, "worker", "--burst", *arguments)
        done = [name for name in ("default", "titles", "images") if redis_client.hexists(f"{name}:1", "embedding")]
        redis_client.delete(*(f"{name}:1" for name in done))
        return result.exit_code, done

    assert work("titles", "images") == (0, ["titles", "images"])
    assert work("--queue", "titles") == (0, ["titles"])
    assert work() == (0, ["default", "titles", "images"])
    unknown = _run(real_app, "worker", "titles", "nothing")
    assert unknown.exit_code == 1 and "there is no queue 'nothing'; there are default, images, titles" in unknown.output
    real_app.extensions["embedqueue"].reset()
    real_app.config["EMBEDQUEUE_QUEUES"]["images"]["REDIS_URL"] = f"{redis_server.url}-none"
    away = _run(real_app, "worker", "--burst")
    assert away.exit_code == 1 and 'start it, or set EMBEDQUEUE_QUEUES["images"]["REDIS_URL"].' in away.output


def test_dead_letters_from_the_command_line(real_app, provider):
    """List, retry and discard; a list shows reasons, never texts."""
    from tests.provider import poison

    provider.rule = poison("bad", 400)
    with real_app.app_context():
        embeddings = EmbedQueue()
        good, first, second = embeddings.enqueue_many([("note:0", "ok"), ("note:1", "bad 1"), ("note:2", "bad 2")])
        good.result(45)
        assert first.exception(10) and second.exception(10)
    listed = _run(real_app, "dead", "list").output
    assert "note:1" in listed and "note:2" in listed and "bad 1" not in listed
    assert _run(real_app, "dead", "retry").exit_code == 2
    unasked = _run(real_app, "dead", "discard", "--all")
    assert unasked.exit_code == 1 and "nothing was changed: --yes" in unasked.output
    assert _run(real_app, "dead", "discard", "note:2").output == "1 discarded\n"
    again = _run(real_app, "dead", "discard", "note:2")
    assert again.exit_code == 1 and "note:2 is no dead letter" in again.output
    provider.rule = None
    assert _run(real_app, "dead", "retry", "--all").output == "1 put back\n"
    assert _run(real_app, "dead", "list").output in ("There are no dead letters.\n",)


def test_no_redis_is_no_traceback(app, tmp_path):
    """A command that cannot reach Redis says so in one line."""
    app.config["EMBEDQUEUE_REDIS_URL"] = f"unix://{tmp_path}/none"
    for command in (["stats"], ["flush"], ["dead", "list"], ["worker", "--burst"]):
        result = _run(app, *command)
        assert result.exit_code == 1, command
        assert "Error: Redis at unix://" in result.output and "start it, or set EMBEDQUEUE_REDIS_URL." in result.output
        assert "Traceback" not in result.output


def test_a_url_with_options_of_another_client_is_no_traceback(app):
    """One line, from each command and at the first use."""
    app.config["EMBEDQUEUE_REDIS_URL"] = "redis://localhost/0?ssl=true"
    for command in (["stats"], ["check"]):
        result = _run(app, *command)
        assert result.exit_code == 1, command
        assert "Error: EMBEDQUEUE_REDIS_URL has the option 'ssl'" in result.output and "rediss://" in result.output
    with app.app_context(), pytest.raises(ValueError, match="for TLS write rediss://"):
        EmbedQueue().enqueue("a", "b")


def test_a_wrong_password_is_told_at_first_use(app, password_redis):
    """The note says which setting holds it, and shows no password."""
    for url, told in (("nothing", "wants a password"), (":hunter2@", "refuses the password")):
        app.extensions["embedqueue"].reset()
        app.config["EMBEDQUEUE_REDIS_URL"] = password_redis.replace("//", f"//{url}".replace("nothing", ""), 1)
        with app.app_context(), pytest.raises(redis.AuthenticationError) as caught:
            EmbedQueue().enqueue("a", "b")
        note = caught.value.__notes__[0]
        assert told in note and "EMBEDQUEUE_REDIS_URL" in note and "hunter2" not in note


def test_a_user_of_redis_with_no_more_rights_than_needed(app, password_redis):
    """The first use asks for nothing beyond docs/redis-acl.md."""
    page = (Path(__file__).parents[2] / "docs" / "redis-acl.md").read_text("utf-8")
    rules = re.search(r"ACL SETUSER (.*?)```", page, re.DOTALL).group(1).replace("\\\n", " ").split()
    admin = redis.Redis.from_url(password_redis.replace("//", "//:secret@", 1))
    admin.execute_command("ACL", "SETUSER", *rules)
    admin.close()
    app.config["EMBEDQUEUE_REDIS_URL"] = password_redis.replace("//", "//embedqueue:password@", 1)
    app.config["EMBEDQUEUE_WORKER"] = False
    with app.app_context():
        EmbedQueue().enqueue("doc:1", "x")
        assert EmbedQueue().pending_count() == 1
    checked = _run(app, "check", "--no-call").output
    assert (
        checked.startswith("problem  workers: 1 items wait, and no worker is running")
        and len(checked.splitlines()) == 1
    )
    assert "waiting    1" in _run(app, "stats").output


def test_every_command_has_help(app):
    """A stranger finds the way by --help."""
    for command in ("check", "stats", "flush", "worker", "dead"):
        result = _run(app, command, "--help")
        assert result.exit_code == 0
        assert len(result.output.splitlines()) > 3


def test_a_search_stops_no_queue_of_the_application(real_app, monkeypatch):
    """Of a process that goes on, such as a test or a view that calls a command."""
    real_app.config["EMBEDQUEUE_WORKER"] = False
    stopped = []
    monkeypatch.setattr(EmbeddingBatchQueue, "search", lambda queue, *args, **options: stopped.append(queue) or [])
    with real_app.app_context():
        EmbedQueue().enqueue("note:1", "before")
    for _ in range(2):
        assert _run(real_app, "search", "words").exit_code == 0
    with real_app.app_context():
        EmbedQueue().enqueue("note:2", "after")
    assert [queue.closed for queue in stopped] == [True, True]


def test_a_dashboard_beside_the_application_shows_its_queues(real_app):
    """Made in its context: a request to the dashboard's own application has another."""
    with real_app.app_context():
        beside = dashboard_app(EmbedQueue(), open=True)
    answer = beside.test_client().get("/")
    assert answer.status_code == 200 and "embed_queue" in answer.text


def test_economy_without_batch_jobs_is_told_by_its_name_at_the_first_use(real_app):
    """Before a row is saved that nobody would embed; and by the check, however it goes on."""
    real_app.config |= {"EMBEDQUEUE_PROVIDER": "local", "EMBEDQUEUE_ECONOMY": True, "EMBEDQUEUE_LIMITS": "auto"}
    for name in ("MODEL", "API_KEY", "BASE_URL", "DIMENSIONS"):
        real_app.config.pop(f"EMBEDQUEUE_{name}", None)
    with real_app.app_context(), pytest.raises(SettingsError, match="EMBEDQUEUE_ECONOMY needs an embedder"):
        EmbedQueue().enqueue("note:1", "text")
    told = _run(real_app, "check", "--no-call")
    assert told.exit_code == 1
    assert "EMBEDQUEUE_ECONOMY needs an embedder" in told.output
