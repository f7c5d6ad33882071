"""Commands, pages and frameworks on a cluster that ``REDIS_URL`` names."""

from __future__ import annotations

import json

import flask
import pytest
from click.testing import CliRunner

from embedqueue.cli import cli
from embedqueue.contrib.flask import EmbedQueue
from embedqueue.dashboard import dashboard
from tests.parts import PATIENCE_SECONDS


@pytest.fixture
def env(cluster, provider) -> dict[str, str]:
    return {
        "EMBEDQUEUE_REDIS_URL": cluster.url,
        "EMBEDQUEUE_PROVIDER": "openai",
        "EMBEDQUEUE_BASE_URL": provider.openai_url,
        "EMBEDQUEUE_API_KEY": "test-key",
        "EMBEDQUEUE_DIMENSIONS": "16",
    }


def run(env: dict[str, str], *words: str, status: int = 0) -> str:
    done = CliRunner().invoke(cli, words, env={**env, "COLUMNS": "200"}, prog_name="embedqueue")
    assert done.exit_code == status, done.output
    return done.output


def test_commands(env, client, cluster):
    client.hset("doc:1", "text", "one")
    client.hset("doc:2", "text", "two")
    assert "All is well" in (found := run(env, "check")) or "It works" in found
    assert "doc:1" in run(env, "explain", "doc:1", "--json")
    run(env, "backfill", "--match", "doc:*", "--text-field", "text", "--yes")
    run(env, "worker", "--burst")
    assert client.hget("doc:1", "embedding")
    assert json.loads(run(env, "explain", "doc:1", "--json"))["state"] == "written"
    assert json.loads(run(env, "stats", "--json"))["waiting"] == 0
    assert "sure" not in run(env, "verify", "--match", "doc:*", "--text-field", "text")
    run(env, "pause", "--reason", "by hand")
    assert "by hand" in run(env, "stats")
    run(env, "resume")
    node = {**env, "EMBEDQUEUE_REDIS_URL": f"redis://127.0.0.1:{cluster.nodes[0].port}"}
    assert "redis+cluster://HOST:PORT" in run(node, "check", status=1)


def test_flask_and_the_dashboard(env, client):
    app = flask.Flask("shop")
    app.config.update(env, SECRET_KEY="x")
    queue = EmbedQueue(app)
    app.register_blueprint(dashboard(queue, open=True), url_prefix="/queue")
    try:
        with app.app_context():
            assert queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS)
            assert client.hget("doc:1", "embedding")
            assert app.test_client().get("/queue/").status_code == 200
    finally:
        app.extensions["embedqueue"].reset()
