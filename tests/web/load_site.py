"""The Flask example, and beside its handler that saves a note the same one without embedqueue."""

from __future__ import annotations

from flask import redirect, request

from examples.flask_notes.app import create_app, store

app = create_app()


@app.post("/plain")
def save_plain():
    """What saving a note costs where nothing is embedded."""
    text = request.form["text"].strip()[:4000]
    return redirect(f"/#{store().write(text, 'plain')}", 303)
