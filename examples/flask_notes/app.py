"""The application. A server would run ``gunicorn examples.flask_notes.app:app``."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flask import Flask, redirect, render_template, request
from werkzeug.wrappers import Response

from embedqueue.contrib.flask import EmbedQueue
from examples import notes

#: Notes that the page lists.
SHOWN = 50

embeddings = EmbedQueue()


def create_app() -> Flask:
    """The application; its queue is set up by the environment's ``EMBEDQUEUE_*`` variables."""
    app = Flask(__name__, template_folder=str(Path(notes.__file__).parent / "templates"))
    embeddings.init_app(app)

    @app.get("/")
    def page() -> str:
        keys = [key.decode() for key in store().lrange("notes", 0, SHOWN - 1)]
        shown = notes.show(embeddings.queue, store(), keys, read, request.args.get("q", "").strip())
        return render_template("notes.html", powered_by="Flask", **shown)

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


def store() -> Any:
    """The Redis that has the notes: texts beside their vectors."""
    return embeddings.redis


def save(text: str) -> str:
    """Save a note, and enqueue it; its key."""
    key = f"note:{secrets.token_hex(8)}"
    write(key, text)
    embeddings.enqueue(key, text)  # durable now; the vector will be written to the same hash
    return key


def write(key: str, text: str) -> None:
    """Write the note, the latest of all."""
    store().pipeline().hset(key, "text", text).lpush("notes", key).execute()


def read(keys: Sequence[str]) -> dict[str, str]:
    """The texts of notes by key."""
    pipe = store().pipeline(transaction=False)
    for key in keys:
        pipe.hget(key, "text")
    return {key: text.decode() for key, text in zip(keys, pipe.execute(), strict=True) if text is not None}


app = create_app()
