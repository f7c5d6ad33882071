"""``flask embedqueue ...``: the commands of ``embedqueue``, for the queues of a Flask app."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
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
        names: in EMBEDQUEUE_QUEUES; only a worker takes more than one, or none for all.
    """

    def __init__(self, queues: Queues, names: Sequence[str]) -> None:
        self._queues = queues
        self._names = names

    @property
    def _name(self) -> str:
        return self._names[0] if self._names else DEFAULT

    def each(self) -> Mapping[str, AppSource]:
        """The queues that a worker is to serve, by their names."""
        return {name: AppSource(self._queues, [name]) for name in self._names or self._queues}

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
    def with_queue(queue: str | None, names: Sequence[str] = (), **arguments: Any) -> None:
        named = [*names, *([queue] if queue else ())]
        click.get_current_context().obj = AppSource(current_app.extensions["embedqueue"], named)
        run(**arguments)

    made.callback = with_queue
    made.params = [copy.copy(one) for one in command.params if not (one.name or "").startswith("own_")]
    several = command.name == "worker"
    made.params += [click.Argument(["names"], nargs=-1, metavar="[NAME]...")] if several else []
    words = "Name in EMBEDQUEUE_QUEUES" + ("; all of them, and the default one, if none is named." if several else ".")
    made.params += [click.Option(["--queue"], default=None if several else DEFAULT, show_default=True, help=words)]
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
