"""What the commands share: where settings come from, and how a user's mistake becomes a sentence."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, NoReturn, Protocol

import click
from redis.exceptions import RedisError

from embedqueue import __version__
from embedqueue.backlog.inspection import Text
from embedqueue.money.prices import read_price
from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.settings.checks import explain_redis
from embedqueue.settings.settings import Settings, SettingsError, read_environment
from embedqueue.values.errors import EmbedQueueError
from embedqueue.values.words import printable

#: What the names of parameters begin with that are settings: an application has its own instead.
OWN = "own_"
#: Ended by Ctrl-C, as shells count it.
INTERRUPTED = 130


@dataclass(frozen=True)
class Table:
    """Texts that stand somewhere, each with the key of the hash that is to have its vector.

    Attributes:
        name: what it is called.
        source: of the queue that embeds them.
        texts: reads them.
        count: tells how many there are.
    """

    name: str
    source: Source
    texts: Callable[[], Iterable[Text]]
    count: Callable[[], int]


def no_tables() -> NoReturn:
    """Refuse to look for texts where there are no models.

    Raises:
        click.UsageError: always.
    """
    raise click.UsageError("where are the texts? Give --match and --text-field")


class Source(Protocol):
    """Where a command finds its queue. ``flask embedqueue`` has another one than ``embedqueue``."""

    def settings(self, **options: Any) -> Settings:
        """The settings, with options of the queue that differ from them."""

    def queue(self, **options: Any) -> EmbeddingBatchQueue:
        """A queue that is not started."""

    def look(self) -> EmbeddingBatchQueue:
        """A queue that only looks and enqueues; no worker of its own is ever started."""

    def each(self) -> Mapping[str, Source]:
        """The queues that a worker is to serve, by their names."""

    def others(self) -> Mapping[str, Settings]:
        """The settings of the application's other queues, by name."""

    def tables(self, names: Sequence[str], database: str | None) -> Sequence[Table]:
        """The texts of the application's models.

        Args:
            names: of the models; all if none is named.
            database: where their rows are; None for where they usually are.

        Raises:
            click.UsageError: there are no models.
        """


class Context:
    """Settings from the environment, and the command's options before them.

    Args:
        own: settings by their names without a prefix.
        namespaces: instead of the environment's; a worker may have several.
    """

    def __init__(self, own: Mapping[str, str], namespaces: Sequence[str] = ()) -> None:
        self._own = dict(own)
        self._namespaces = tuple(dict.fromkeys(namespaces))
        self._looks: EmbeddingBatchQueue | None = None

    def with_(self, own: Mapping[str, str], namespaces: Sequence[str]) -> Context:
        """The same, with more settings that win."""
        return Context(self._own | dict(own), namespaces or self._namespaces)

    def each(self) -> Mapping[str, Source]:
        """See :class:`Source`."""
        several = {name: Context(self._own, [name]) for name in self._namespaces}
        return several or {self.settings().option("namespace"): self}

    def settings(self, **options: Any) -> Settings:
        """See :class:`Source`.

        Raises:
            click.UsageError: several namespaces.
        """
        if len(self._namespaces) > 1:
            raise click.UsageError("only worker takes more than one --namespace")
        settings = read_environment(own=self._own | dict(zip(["NAMESPACE"], self._namespaces, strict=False)))
        return replace(settings, options={**settings.options, **options})

    def queue(self, **options: Any) -> EmbeddingBatchQueue:
        """See :class:`Source`."""
        return self.settings().queue(**options)

    def look(self) -> EmbeddingBatchQueue:
        """See :class:`Source`: the same queue each time."""
        if self._looks is None:
            self._looks = self.queue(worker=False)
        return self._looks

    def close(self) -> None:
        """The command is done: what it did stands in the history, and nothing of it stays in a process that goes on."""
        if self._looks is not None:
            self._looks.stop()

    def others(self) -> Mapping[str, Settings]:
        """See :class:`Source`: the environment tells of one queue alone."""
        return {}

    def tables(self, names: Sequence[str], database: str | None) -> Sequence[Table]:
        """See :class:`Source`: the environment tells of no models."""
        no_tables()


_SETTINGS = {
    "REDIS_URL": ("--redis", "URL", "redis://HOST:PORT/0, rediss://... or unix:///PATH"),
    "PROVIDER": (
        "--provider",
        "NAME",
        "gemini, openrouter, openai (and what speaks its format), azure, voyage, cohere, mistral or local",
    ),
    "EMBEDDER": ("--embedder", "PATH", "an embedder of your own instead, such as myapp.embedders.Mine"),
    "API_KEY": ("--api-key", "KEY", "others on this machine can see it; the environment is the better place"),
    "BASE_URL": ("--base-url", "URL", "where the provider stands"),
    "MODEL": ("--model", "NAME", "the model's name"),
    "DIMENSIONS": ("--dimensions", "COUNT", "length of the vectors"),
    "NAMESPACE": ("--namespace", "NAME", "prefix of the queue's keys; worker takes several"),
}


def settings_options(*, hidden: bool) -> list[click.Option]:
    """An option for each setting of the environment, and ``--set`` for all others."""
    options = [
        click.Option(
            [flag, f"{OWN}{name.lower()}"],
            metavar=metavar,
            multiple=name == "NAMESPACE",
            hidden=hidden,
            help=f"{words} [EMBEDQUEUE_{name}]",
        )
        for name, (flag, metavar, words) in _SETTINGS.items()
    ]
    words = "any other setting, such as flush_interval=5, for EMBEDQUEUE_FLUSH_INTERVAL; may be given again"
    return [
        *options,
        click.Option(["--set", f"{OWN}more"], metavar="NAME=VALUE", multiple=True, hidden=hidden, help=words),
    ]


def as_utf8(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments with the bytes that the locale could not read, as that of cron may, read as UTF-8: keys and texts are.

    Raises:
        click.UsageError: one is no UTF-8 either.
    """
    return {name: _utf8(value) for name, value in arguments.items()}


def _utf8(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(map(_utf8, value))
    if not isinstance(value, str):
        return value
    try:
        return value.encode(errors="surrogateescape").decode()
    except UnicodeError:
        raise click.UsageError(f"{printable(value)} is no UTF-8") from None


def own_settings(arguments: dict[str, Any]) -> tuple[dict[str, str], list[str]]:
    """Take the settings out of a command's arguments; returns them, and apart from them the namespaces.

    Raises:
        click.UsageError: a ``--set`` without a name or a value.
    """
    found = {name: arguments.pop(f"{OWN}{name.lower()}", None) for name in _SETTINGS}
    namespaces = list(found.pop("NAMESPACE") or ())
    for pair in arguments.pop(f"{OWN}more", ()):
        name, sign, value = pair.partition("=")
        if not sign or not name:
            raise click.UsageError(f"--set takes NAME=VALUE, not {pair!r}")
        name = name.strip().upper().replace("-", "_")
        if name == "NAMESPACE":
            namespaces.append(value)
        else:
            found[name] = value
    return {name: value for name, value in found.items() if value is not None}, namespaces


def guarded(source: Source, function: Callable[[], None]) -> None:
    """Run a command; a user's mistake is a sentence, not a traceback.

    Raises:
        click.ClickException: with the sentence.
        click.exceptions.Exit: interrupted.
    """
    try:
        function()
    except RedisError as error:
        raise click.ClickException(printable(explain_redis(source.settings(), error))) from None
    except BrokenPipeError:
        raise  # of "| head"; click ends quietly
    except (SettingsError, EmbedQueueError, TimeoutError, OSError, ValueError) as error:
        raise click.ClickException(printable(str(error)) or type(error).__name__) from None
    except KeyboardInterrupt:
        raise click.exceptions.Exit(INTERRUPTED) from None


def command(
    parent: click.Group, name: str, example: str, *, shown: str = ""
) -> Callable[[Callable[..., None]], click.Command]:
    """Make a command of a function that gets a :class:`Source` and its own arguments.

    Args:
        parent: the group that it belongs to.
        name: of the command.
        example: stands at the end of its help.
        shown: the setting that its own help shows as well.
    """

    def register(function: Callable[..., None]) -> click.Command:
        @wraps(function)
        def run(source: Source, **arguments: Any) -> None:
            arguments = as_utf8(arguments)
            own = own_settings(arguments)
            if isinstance(source, Context):
                source = source.with_(*own)
            guarded(source, lambda: function(source, **arguments))
            if isinstance(source, Context):
                source.close()

        made = parent.command(name, epilog=f"Example: {example}")(click.pass_obj(run))
        taken = {word for option in made.params for word in option.opts}  # by an option of the command's own
        for option in settings_options(hidden=True):  # before the command or after it: both are right
            if taken & set(option.opts):
                continue
            option.hidden &= option.name != f"{OWN}{shown.lower()}"
            made.params.append(option)
        return made

    return register


def read(function: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """A function of one string as click calls it."""

    def read(context: click.Context, parameter: click.Parameter, value: str | None) -> Any:
        try:
            return None if value is None else function(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return read


def _prices(
    context: click.Context, parameter: click.Parameter, pairs: tuple[str, ...]
) -> tuple[tuple[str, float], ...]:
    try:
        return tuple(map(read_price, pairs))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


price_option = click.option(
    "--price",
    "prices",
    multiple=True,
    metavar="MODEL=DOLLARS",
    callback=_prices,
    help="For a million tokens; repeatable.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="For scripts.")


def say(words: str, *, as_json: bool) -> None:
    """Print the sentence that a command ends with."""
    click.echo(json.dumps({"said": words}) if as_json else words)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__)
@click.pass_context
def cli(context: click.Context, /, **arguments: Any) -> None:
    """The durable embedding queue.

    Settings come from variables EMBEDQUEUE_REDIS_URL, EMBEDQUEUE_PROVIDER and so on, and from the options below, which
    win and may stand after the command as well.
    """
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # where the modules are that settings name; as "python -m embedqueue" has it
    context.obj = Context(*own_settings(as_utf8(arguments)))


cli.params += settings_options(hidden=False)
