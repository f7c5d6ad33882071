"""``flask embedqueue ...``: the commands of ``embedqueue``, for the queues of a Flask app."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import click
from flask import current_app
from flask.cli import with_appcontext

from embedqueue.cli.context import cli
from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.settings.application import DEFAULT, Queues
from embedqueue.settings.settings import Settings

#: Commands that have nothing to do with an app's settings.
_NOT_OURS = ("demo",)


class AppSource:
    """Where a command finds its queue; see :class:`embedqueue.cli.context.Source`.

    Args:
        queues: of the app.
        name: in EMBEDQUEUE_QUEUES.
    """

    def __init__(self, queues: Queues, name: str) -> None:
        self._queues = queues
        self._name = name

    def settings(self, **options: Any) -> Settings:
        """The app's settings of this queue."""
        settings = self._queues.settings(self._name)
        return replace(settings, options={**settings.options, **options})

    def queue(self, **options: Any) -> EmbeddingBatchQueue:
        """A queue that is not started."""
        return self._queues.idle(self._name, **options)

    def look(self) -> EmbeddingBatchQueue:
        """A queue that only looks."""
        return self._queues.look(self._name)

    def others(self) -> Mapping[str, Settings]:
        """The settings of the app's other queues."""
        return self._queues.others(self._name)


def _for_app(command: click.Command) -> click.Command:
    """The same command, which takes its settings from the current app and knows the option ``--queue``."""
    made = copy.copy(command)
    if isinstance(command, click.Group):
        assert isinstance(made, click.Group)
        made.commands = {name: _for_app(part) for name, part in command.commands.items() if name not in _NOT_OURS}
        return made
    run = command.callback
    assert run is not None

    @with_appcontext
    def with_queue(queue: str, **arguments: Any) -> None:
        click.get_current_context().obj = AppSource(current_app.extensions["embedqueue"], queue)
        run(**arguments)

    made.callback = with_queue
    name = click.Option(["--queue"], default=DEFAULT, show_default=True, help="Name in EMBEDQUEUE_QUEUES.")
    made.params = [copy.copy(one) for one in command.params if not (one.name or "").startswith("own_")] + [name]
    made.epilog = (command.epilog or "").replace("embedqueue", "flask embedqueue", 1)
    return made


def _group() -> click.Group:
    found = _for_app(cli)
    assert isinstance(found, click.Group)
    group = click.Group("embedqueue", commands=found.commands, help="Look at the embedding queue, and work it.")
    for one in group.commands["flush"].params:
        if one.name == "wait":
            one.default = True
    return group


group = _group()
