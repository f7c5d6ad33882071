"""A Flask application for the tests of the extension."""

from __future__ import annotations

import os
import threading

import pytest

from tests.parts import PATIENCE_SECONDS


@pytest.fixture
def clean_environment(monkeypatch):
    """The machine's own settings and keys play no part."""
    for name in list(os.environ):
        if name.startswith("EMBEDQUEUE_") or name.endswith("_API_KEY"):
            monkeypatch.delenv(name)


@pytest.fixture
def app(clean_environment):
    """An application with the extension, as the docs say; its queues are stopped at the end."""
    flask = pytest.importorskip("flask", reason="Flask is not installed: pip install embedqueue[flask]")
    from embedqueue.contrib.flask import EmbedQueue

    app = flask.Flask("notes")
    app.config["EMBEDQUEUE_PROVIDER"] = "local"
    EmbedQueue().init_app(app)
    yield app
    for thread in threading.enumerate():
        if thread.name == "embedqueue-first-request":  # it may be about to make a queue
            thread.join(PATIENCE_SECONDS)
    app.extensions["embedqueue"].reset()


@pytest.fixture
def real_app(app, redis_client, redis_server, provider):
    """The application on a real Redis and a real provider."""
    app.config.update(
        EMBEDQUEUE_REDIS_URL=redis_server.url,
        EMBEDQUEUE_PROVIDER="openai",
        EMBEDQUEUE_BASE_URL=provider.openai_url,
        EMBEDQUEUE_API_KEY="test-key",
        EMBEDQUEUE_DIMENSIONS=16,
    )
    return app


@pytest.fixture
def password_redis(fresh_redis_server):
    """The URL of a Redis whose password is "secret"."""
    client = fresh_redis_server.client()
    client.config_set("requirepass", "secret")
    client.close()
    return fresh_redis_server.url
