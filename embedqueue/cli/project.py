"""The commands of ``embedqueue`` for the queues of an application: the same tree, with other settings behind it.

So Flask and Django have each command that there is, with its options, its JSON and its exit codes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import click
from redis import Redis

from embedqueue.embedders import Embedder
from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.settings.application import DEFAULT, Queues
from embedqueue.settings.settings import Settings, SettingsError

from .context import OWN, Table, no_tables
from .context import cli as tree

_EAGER = "the queues are eager, as in tests: this would reach the Redis or the provider of the settings"


@dataclass(frozen=True)
class Application:
    """What the commands need to know of an application.

    Attributes:
        program: what stands before the command, such as ``flask embedqueue``.
        setting: what names the queues, such as ``EMBEDQUEUE_QUEUES``.
        queues: returns them; called when a command runs.
        wrap: is given the function that runs a command, and returns one that runs it where the application is at hand.
        tables: where there are models, finds their texts.
    """

    program: str
    setting: str
    queues: Callable[[], Queues]
    wrap: Callable[[Callable[..., None]], Callable[..., None]] = lambda run: run
    tables: Callable[[ProjectSource, Sequence[str], str | None], Sequence[Table]] | None = None


class _Sealed(Settings):
    """Settings of eager queues, for what a command does beside these: it shall reach no Redis and no provider."""

    def client(self, **options: Any) -> Redis:
        """None."""
        raise SettingsError(_EAGER)

    def embedder(self) -> Embedder:
        """The application's own, for it knows the length of its vectors; none of a provider's."""
        if self.own is None:
            raise SettingsError(_EAGER)
        return super().embedder()


class ProjectSource:
    """Where a command finds its queue; see :class:`embedqueue.cli.context.Source`.

    Args:
        application: whose queues.
        queues: its.
        names: of the queues; only a worker takes more than one, or none for all.

    Attributes:
        names: as given; empty where none was.
    """

    def __init__(self, application: Application, queues: Queues, names: Sequence[str] = ()) -> None:
        self._application = application
        self._queues = queues
        self.names = names

    @property
    def _name(self) -> str:
        return self.names[0] if self.names else DEFAULT

    def of(self, name: str) -> ProjectSource:
        """The same for the queue of this name."""
        return ProjectSource(self._application, self._queues, [name])

    def each(self) -> Mapping[str, ProjectSource]:
        """The queues that a worker is to serve, by their names."""
        return {name: self.of(name) for name in self.names or self._queues}

    def settings(self, **options: Any) -> Settings:
        """The application's settings of this queue."""
        settings = self._queues.settings(self._name)
        if self._queues.eager:
            settings = _Sealed(**vars(settings))
        return replace(settings, options={**settings.options, **options})

    def queue(self, **options: Any) -> EmbeddingBatchQueue:
        """A queue that is not started."""
        return self._queues.idle(self._name, **options)

    def look(self) -> EmbeddingBatchQueue:
        """A queue that only looks and enqueues."""
        return self._queues.look(self._name)

    def others(self) -> Mapping[str, Settings]:
        """The settings of the application's other queues."""
        return self._queues.others(self._name)

    def tables(self, names: Sequence[str], database: str | None) -> Sequence[Table]:
        """The texts of the application's models."""
        if self._application.tables is None:
            no_tables()
        self.settings()  # a name that is no queue's is told
        return self._application.tables(self, names, database)


def project_commands(application: Application) -> click.Group:
    """All commands there are, for an application's queues, each with the option ``--queue``."""
    found = _adopted(tree, application)
    assert isinstance(found, click.Group)
    return click.Group("embedqueue", commands=found.commands, help="Look at the embedding queue, and work it.")


def _adopted(command: click.Command, application: Application) -> click.Command:
    made = copy.copy(command)
    made.epilog = (command.epilog or "").replace("embedqueue", application.program, 1)
    if isinstance(command, click.Group):
        assert isinstance(made, click.Group)
        made.commands = {name: _adopted(part, application) for name, part in command.commands.items()}
        return made
    if not any((one.name or "").startswith(OWN) for one in command.params):
        return made  # it has no queue, as the demonstration
    several = command.name == "worker"  # it works several queues
    run = command.callback
    assert run is not None

    @application.wrap
    def with_queue(queue: str | None, **arguments: Any) -> None:
        named = [*(arguments.pop("names") if several else ()), *([queue] if queue else ())]
        click.get_current_context().obj = ProjectSource(application, application.queues(), named)
        run(**arguments)

    made.callback = with_queue
    made.params = [copy.copy(one) for one in command.params if not (one.name or "").startswith(OWN)]
    made.params += [click.Argument(["names"], nargs=-1, metavar="[NAME]...")] if several else []
    words = (
        f"Name in {application.setting}; "
        + ("all of them, and the" if several else "the")
        + " default one if none is named."
    )
    made.params.append(click.Option(["--queue"], metavar="NAME", help=words))
    return made
