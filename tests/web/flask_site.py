"""A Flask application for real servers; its queue is set up by the environment's EMBEDQUEUE_* variables."""

from __future__ import annotations

import os

from flask import Flask, request

from embedqueue.contrib.flask import EmbedQueue

app = Flask(__name__)
embeddings = EmbedQueue(app)

if os.environ.get("SITE_USES_QUEUE_AT_IMPORT"):  # under --preload that is in gunicorn's master, before it forks
    with app.app_context():
        embeddings.enqueue("at-import", "text at import").result(timeout=45)
    os.register_at_fork(after_in_child=lambda: print("forked", flush=True))  # after the queues' own


@app.get("/pid")
def pid():
    """Who answers."""
    return {"pid": os.getpid()}


@app.post("/save/<key>")
def save(key: str):
    """Save, and wait for the vector if told to."""
    future = embeddings.enqueue(key, request.form["text"])
    wait = "wait" in request.form
    return {"pid": os.getpid(), "numbers": len(future.result(timeout=45)) if wait else None}


@app.post("/flush")
def flush():
    """Ask for a drain."""
    embeddings.flush_now()
    return {"pid": os.getpid()}
