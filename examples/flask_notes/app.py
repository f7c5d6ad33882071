"""The application. A server would run ``gunicorn examples.flask_notes.app:app``."""

from __future__ import annotations

import os
from pathlib import Path

from flask import Flask, redirect, render_template, request
from werkzeug.wrappers import Response

from embedqueue.contrib.flask import EmbedQueue
from embedqueue.dashboard import dashboard, password
from examples import notes

#: Notes that the page lists.
SHOWN = 50

embeddings = EmbedQueue()


def create_app() -> Flask:
    """The application; its queue is set up by the environment's ``EMBEDQUEUE_*`` variables."""
    app = Flask(__name__, template_folder=str(Path(notes.__file__).parent / "templates"))
    embeddings.init_app(app)
    secret = os.environ.get("NOTES_PASSWORD")
    if secret:  # each process has to know the same one; without it there is no dashboard
        pages = dashboard(embeddings, authenticate=password(secret), allow_changes=True)
        app.register_blueprint(pages, url_prefix="/queue")

    @app.get("/")
    def page() -> str:
        keys, question = store().latest(SHOWN), request.args.get("q", "").strip()
        shown = notes.show(embeddings.queue, embeddings.redis, keys, store().read, question)
        return render_template("notes.html", powered_by="Flask", dashboard=bool(secret), **shown)

    @app.post("/notes")
    def save_note() -> Response:
        text = request.form["text"].strip()[:4000]
        return redirect(f"/#{save(text)}" if text else "/", 303)

    @app.post("/samples")
    def save_samples() -> Response:
        for text in notes.SAMPLES:
            save(text)
        return redirect("/", 303)

    @app.post("/flush")
    def flush() -> Response:
        embeddings.flush_now()
        return redirect("/", 303)

    return app


def store() -> notes.RedisNotes:
    """The notes."""
    return notes.RedisNotes(embeddings.redis)


def save(text: str) -> str:
    """Save a note, and enqueue it; its key."""
    key = store().write(text)
    embeddings.enqueue(key, text)  # durable now; the vector will be written to the same hash
    return key


app = create_app()
