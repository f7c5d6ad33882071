"""``flask embedqueue ...``: the commands of ``embedqueue``, for the queues of a Flask app."""

from __future__ import annotations

from flask import current_app
from flask.cli import with_appcontext

from embedqueue.cli.project import Application, project_commands

group = project_commands(
    Application(
        program="flask embedqueue",
        setting="EMBEDQUEUE_QUEUES",
        queues=lambda: current_app.extensions["embedqueue"],
        wrap=with_appcontext,
    )
)
