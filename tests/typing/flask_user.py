"""The Flask extension and the dashboard as a user writes them. Type checkers read this; nothing runs it."""

from __future__ import annotations

from typing import assert_type

from flask import Flask, request

from embedqueue import EmbeddingBatchQueue, EmbeddingFuture, QueueStats
from embedqueue.contrib.flask import EmbedQueue, eager
from embedqueue.dashboard import dashboard, dashboard_app, password

embeddings = EmbedQueue()


def create_app() -> Flask:
    app = Flask(__name__)
    app.config["EMBEDQUEUE_REDIS_URL"] = "redis://localhost:6379/0"
    embeddings.init_app(app)
    app.register_blueprint(
        dashboard(embeddings, authenticate=password("admin", "secret"), allow_changes=True),
        url_prefix="/embeddings",
    )

    @app.post("/notes/<name>")
    def save(name: str) -> str:
        assert_type(embeddings.enqueue(f"note:{name}", request.form["text"]), EmbeddingFuture)
        embeddings["titles"].enqueue(f"title:{name}", "A title")
        return "saved"

    return app


def look(app: Flask) -> QueueStats:
    with app.app_context():
        assert_type(embeddings.queue, EmbeddingBatchQueue)
        assert_type(embeddings.closed, bool)
        embeddings.redis.hget("note:1", "embedding")
        return embeddings.stats()


def alone(queue: EmbeddingBatchQueue) -> Flask:
    return dashboard_app({"one": queue}, open=True)


def test_of_the_users_own() -> None:
    app = create_app()
    with eager(app) as used, app.test_client() as client:
        client.post("/notes/1", data={"text": "Hello"})
        assert used.redis.hget("note:1", "embedding")
