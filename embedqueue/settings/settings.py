"""One way to configure a queue, shared by Flask, Django and the command line.

The names are ``REDIS_URL``, ``EAGER``, ``PROVIDER`` or ``EMBEDDER``, ``API_KEY``, ``BASE_URL``, ``MODEL`` and so on,
what more ``providers.py`` knows, and every option of the queue by its own name in capitals. In the environment each has
the prefix ``EMBEDQUEUE_``.
"""

from __future__ import annotations

import difflib
import os
import re
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any
from urllib.parse import urlsplit

import redis

from embedqueue.embedders import Embedder
from embedqueue.money.prices import budget_price
from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.store.keys import second_namespace
from embedqueue.values.errors import OptionError
from embedqueue.values.options import DEFAULT_MODEL, Options
from embedqueue.values.words import shown_url

from .conversion import SettingsError as SettingsError
from .conversion import converted, text
from .named import NameFault, OwnEmbedder, option
from .providers import (
    DEFAULT_PROVIDER,
    NOT_FOR_OWN,
    TOLD,
    dimensions_of,
    key_variables,
    make,
    plain_provider,
    read_provider,
    read_told,
)
from .providers import PROVIDERS as PROVIDERS
from .redis_url import client_of, fault_of

#: What stands before each name in the environment.
ENVIRONMENT_PREFIX = "EMBEDQUEUE_"
DEFAULT_REDIS_URL = "redis://localhost:6379/0"
#: Seconds that a request handler waits for a Redis that does not answer; the URL may say otherwise.
REDIS_TIMEOUT_SECONDS = 10.0

_OPTION_TYPES = {
    name: hint for name, hint in typing.get_type_hints(Options).items() if name not in ("model", "successor")
}
#: Every name that a configuration may hold.
KNOWN: tuple[str, ...] = (
    *("REDIS_URL", "PROVIDER", "EMBEDDER", "API_KEY", "BASE_URL", "MODEL", "DIMENSIONS"),
    *(*TOLD, "EAGER"),
    *(option.name.upper() for option in fields(Options) if option.name != "model"),
)
#: What Kubernetes puts into the environment of every pod where a service is called "embedqueue" or "embedqueue-...".
_SERVICE_LINK = re.compile(r"(?:.*_)?(?:SERVICE_HOST|SERVICE_PORT(?:_.*)?|PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_.*)?)?)")


@dataclass(frozen=True, repr=False, kw_only=True)
class Settings:
    """How a queue is set up. Make one with :func:`read` or :func:`read_environment`: they check.

    Attributes:
        redis_url: ``redis://``, ``rediss://`` or ``unix://``, or ``redis+cluster://`` with some of a cluster's nodes.
        provider: a name in ``providers.PROVIDERS``; or what ``own`` is called.
        own: the application's own embedder; None where the provider's is used.
        api_key: the key; None leaves it to the provider's own variable, "" sends none.
        base_url: where the provider stands; None for its own address.
        model: the model's name.
        dimensions: length of the vectors; None leaves it to ``own``: see ``width``.
        told: what more the provider's embedder is told, by the names of its options.
        eager: whether an application's queues are those of its tests: offline, on a fake Redis. None: where a test
            runner is known to be at work.
        options: options of the queue that differ from the defaults, by their own names.
        successor: settings of the queue of the second field that differ from these; None where there is none.
        spelling: how a user writes a name, ``{}`` standing for it; for messages.
    """

    redis_url: str = DEFAULT_REDIS_URL
    provider: str = DEFAULT_PROVIDER
    api_key: str | None = None
    base_url: str | None = None
    model: str = PROVIDERS[DEFAULT_PROVIDER][0]
    dimensions: int | None = PROVIDERS[DEFAULT_PROVIDER][1]
    own: OwnEmbedder | None = None
    told: dict[str, Any] = field(default_factory=dict)
    eager: bool | None = None
    options: dict[str, Any] = field(default_factory=dict)
    successor: dict[str, Any] | None = None
    spelling: str = field(default="{}", compare=False)

    def __repr__(self) -> str:
        """Everything but secrets."""
        key = "not set" if self.api_key is None else "empty" if not self.api_key else "***"
        base_url = None if self.base_url is None else shown_url(self.base_url)
        return (
            f"Settings(redis_url={shown_url(self.redis_url)!r}, provider={self.provider!r}, api_key=<{key}>, "
            f"base_url={base_url!r}, model={self.model!r}, dimensions={self.dimensions}, told={sorted(self.told)}, "
            f"options={self.options!r})"
        )

    def spelled(self, name: str) -> str:
        """The name of a setting as the user writes it, such as ``EMBEDQUEUE_API_KEY``."""
        return self.spelling.format(name)

    def option(self, name: str) -> Any:
        """An option of the queue by its own name, be it set or the default."""
        return getattr(Options(model=self.model, **self.options), name)

    # -- what the settings make --------------------------------------------------------------------------------

    def embedder(self) -> Embedder:
        """The application's own embedder, made once; else a new one. No key is looked for and nothing is called yet.

        Raises:
            SettingsError: the application's own cannot be made, or is none.
        """
        if self.own is None:
            return make(self.provider, self.api_key, self.base_url, self.dimensions, self.told)
        try:
            return self.own.get()
        except NameFault as error:
            fault = str(error)
        raise SettingsError(f"{self.spelled('EMBEDDER')} {fault}")

    @property
    def width(self) -> int | None:
        """Numbers of a vector: as set, or as the application's own embedder says; None while it has to learn it."""
        return self.embedder().dimensions if self.own is not None else self.dimensions

    @property
    def key_variables(self) -> tuple[str, ...]:
        """Environment variables that may hold the provider's key where ``api_key`` is None."""
        return () if self.own is not None else key_variables(self.provider)

    def client(self, **options: Any) -> redis.Redis:
        """A new client; where the URL names a cluster, it is a ``redis.RedisCluster``. Nothing is connected yet.

        Args:
            options: of ``redis.Redis``; what the URL says wins.
        """
        usual = {
            "protocol": 2,  # as a queue has it: old or hardened servers know no HELLO, and say so with the password
            "socket_connect_timeout": REDIS_TIMEOUT_SECONDS,
            "socket_timeout": REDIS_TIMEOUT_SECONDS,
        }
        return client_of(self.redis_url, **(usual | options))

    def queue(
        self, *, embedder: Embedder | None = None, redis: redis.Redis | None = None, **overrides: Any
    ) -> EmbeddingBatchQueue:
        """A new queue, not started.

        Args:
            embedder: instead of the one that the settings make.
            redis: a client instead of the one that the settings make.
            overrides: options of the queue that differ from the settings.
        """
        if self.successor is not None and "successor" not in overrides:
            worker = overrides.get("worker", self.option("worker"))
            overrides["successor"] = self.second(**self.successor).queue(redis=redis, worker=worker)
        return EmbeddingBatchQueue(
            self.embedder() if embedder is None else embedder,
            self.client() if redis is None else redis,
            **{"model": self.model, **self.options, **overrides},
        )

    def second(self, EMBEDDING_FIELD: str, **own: Any) -> Settings:  # noqa: N803 - as settings are called
        """The settings of the queue that embeds the texts anew into a second field; see :func:`second_settings`."""
        return second_settings(self, EMBEDDING_FIELD, own)


# -- reading ---------------------------------------------------------------------------------------------------------


def read(mapping: Mapping[str, Any], prefix: str = "", *, spelling: str | None = None) -> Settings:
    """Read and check settings.

    Args:
        mapping: names in capitals and their values; strings are converted where another type is due.
        prefix: what stands before each name; what does not begin with it is ignored.
        spelling: how the user writes a name, ``{}`` standing for it; the prefix and the name by default.

    Raises:
        SettingsError: a name that is not known, or a value that cannot work.
    """
    spelling = f"{prefix}{{}}" if spelling is None else spelling
    given = {name[len(prefix) :]: value for name, value in mapping.items() if name.startswith(prefix)}
    for name in given:
        if name not in KNOWN:
            raise SettingsError(_unknown(name, spelling))
    options = {
        name: _option(name.upper(), given[name.upper()], hint, spelling)
        for name, hint in _OPTION_TYPES.items()
        if name.upper() in given
    }
    own = _own(given, spelling)
    provider = read_provider(None if own is not None else given.get("PROVIDER"), spelling)
    named, dimensions = text("MODEL", given, spelling), given.get("DIMENSIONS")
    model = named or (PROVIDERS[provider][0] if own is None else own.default_model or DEFAULT_MODEL)
    if dimensions is None or dimensions == "":
        dimensions = None if own is not None else dimensions_of(provider, model)
    settings = Settings(
        redis_url=text("REDIS_URL", given, spelling) or DEFAULT_REDIS_URL,
        provider=provider if own is None else own.name,
        own=own,
        api_key=text("API_KEY", given, spelling),
        base_url=text("BASE_URL", given, spelling) or None,
        model=model,
        dimensions=converted("DIMENSIONS", dimensions, int, spelling),
        told=read_told(given, provider, spelling),
        eager=converted("EAGER", given.get("EAGER"), bool | None, spelling),
        options=options,
        successor=_successor(given.get("SUCCESSOR"), spelling),
        spelling=spelling,
    )
    _refuse_what_cannot_work(settings)
    return settings


def read_environment(
    environ: Mapping[str, str] | None = None, *, ignore: Iterable[str] = (), own: Mapping[str, str] | None = None
) -> Settings:
    """Read settings from ``EMBEDQUEUE_*`` variables. An empty variable counts as not set.

    Args:
        environ: instead of the process's own environment.
        ignore: more names, without the prefix, that are somebody else's.
        own: settings by their names without the prefix, which come before the environment's.

    Raises:
        SettingsError: as with :func:`read`.
    """
    found = environment(environ, ignore=ignore)
    shared = {name.removeprefix(ENVIRONMENT_PREFIX): value for name, value in found.items()}
    return read(inherited(shared, own or {}), spelling=f"{ENVIRONMENT_PREFIX}{{}}")


def inherited(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """What is set, and the rest of what others have: another provider has other keys, addresses, models."""
    inherited = _without_rivals(shared, own)
    if "EMBEDDER" in own:
        inherited.pop("MODEL", None)
    elif "PROVIDER" in own and plain_provider(own["PROVIDER"]) != plain_provider(shared.get("PROVIDER")):
        for setting in ("API_KEY", "BASE_URL", "MODEL", "DIMENSIONS", *TOLD):
            inherited.pop(setting, None)
    if "MODEL" in own and own["MODEL"] != shared.get("MODEL"):
        inherited.pop("DIMENSIONS", None)
    return inherited | dict(own)


def _without_rivals(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """What others have, but for what is of a provider where an embedder is set, and the other way round."""
    rivals = NOT_FOR_OWN if own.get("EMBEDDER") else ("EMBEDDER",) if "PROVIDER" in own else ()
    return {name: value for name, value in shared.items() if name not in rivals}


def environment(environ: Mapping[str, str] | None = None, *, ignore: Iterable[str] = ()) -> dict[str, str]:
    """The ``EMBEDQUEUE_*`` variables that are settings, with their prefix; arguments as with `read_environment`."""
    found = os.environ if environ is None else environ
    foreign = {f"{ENVIRONMENT_PREFIX}{name}" for name in ignore}
    return {
        name: value
        for name, value in found.items()
        if name.startswith(ENVIRONMENT_PREFIX)
        and value != ""
        and name not in foreign
        and not _SERVICE_LINK.fullmatch(name.removeprefix(ENVIRONMENT_PREFIX))
    }


def read_queues(
    mapping: Mapping[str, Any],
    prefix: str = "",
    *,
    spelling: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> dict[str, Settings]:
    """Read an application's queues: the default one, and the named ones of its setting ``QUEUES``.

    What the application does not set, the environment may. A named queue has the default's settings except for its own,
    and a namespace of its own.

    Args:
        mapping: as with :func:`read`; ``QUEUES`` is a dictionary of such mappings by name.
        prefix: as with :func:`read`.
        spelling: as with :func:`read`.
        environ: instead of the process's own environment.

    Raises:
        SettingsError: as with :func:`read`.
    """
    spelling = f"{prefix}{{}}" if spelling is None else spelling
    shared: dict[str, Any] = {
        name.removeprefix(ENVIRONMENT_PREFIX): value for name, value in environment(environ).items()
    }
    own = {name[len(prefix) :]: value for name, value in mapping.items() if name.startswith(prefix)}
    providers = {plain_provider(one["PROVIDER"]) for one in (shared, own) if "PROVIDER" in one}
    shared = inherited(shared, own) if len(providers) > 1 else _without_rivals(shared, own) | own
    named = shared.pop("QUEUES", None) or {}
    if not isinstance(named, Mapping) or not all(isinstance(own, Mapping) for own in named.values()):
        raise SettingsError(f"{spelling.format('QUEUES')} must be a dictionary of dictionaries, by the queues' names")
    queues = {"default": read(shared, spelling=spelling)}
    shared.pop("SUCCESSOR", None)
    for name, own in named.items():
        if name == "default":
            raise SettingsError(f'{spelling.format("QUEUES")} must not name a queue "default": that is the other one')
        own_spelling = f'{spelling.format("QUEUES")}["{name}"]["{{}}"]'
        namespace = f"{queues['default'].options.get('namespace', Options.namespace)}_{name}"
        queues[name] = read(inherited(shared, {"NAMESPACE": namespace} | dict(own)), spelling=own_spelling)
    return queues


#: What of the first queue's options the second does without: where vectors of the first model go.
_NOT_OF_SECOND = ("sink", "provenance_field", "successor")
#: Names that no second field has: keys of the first queue begin with them.
_TAKEN = ("cache", "history", "trace", "dead", "pause", "limits", "runs", "test")


def second_settings(first: Settings, field: str, own: Mapping[str, Any]) -> Settings:
    """The settings of the second queue: the first one's, with another model and field.

    Args:
        first: of the queue whose texts are embedded anew.
        field: that receives the new vectors.
        own: what differs, by the names of settings: another provider has another key, address, model and length.

    Raises:
        SettingsError: they cannot work.
    """
    if not field or len(field.split()) != 1 or field in _TAKEN or ":" in field:
        raise SettingsError(f"the second field must be a name without blanks and colons, and no key's, not {field!r}")
    given: dict[str, Any] = {
        "REDIS_URL": first.redis_url,
        "API_KEY": first.api_key,
        "BASE_URL": first.base_url,
        "MODEL": first.model,
        "DIMENSIONS": first.dimensions,
        **{name: first.told.get(name.lower()) for name in TOLD},
    }
    if first.own is None:
        given["PROVIDER"] = first.provider
    else:
        given = {"REDIS_URL": first.redis_url, "MODEL": first.model, "EMBEDDER": first.own.name}
    shared = {name: value for name, value in given.items() if value is not None}
    made = read(inherited(shared, own), spelling=first.spelling)
    if first.own is not None and "EMBEDDER" not in own and "PROVIDER" not in own:
        made = replace(made, own=first.own)  # it may be an object, which no path names
    options = {name: value for name, value in first.options.items() if name not in _NOT_OF_SECOND}
    namespace = second_namespace(first.option("namespace"), field)
    return replace(made, options={**options, "namespace": namespace, "embedding_field": field}, eager=first.eager)


def _successor(given: Any, spelling: str) -> dict[str, Any] | None:
    """The settings of a successor: a mapping, or ``EMBEDDING_FIELD=v2 MODEL=new ...``."""
    if given is None or given == "":
        return None
    name = spelling.format("SUCCESSOR")
    if isinstance(given, str):
        # A value may hold blanks and commas, but no other setting, not even in small letters.
        words = re.split(rf"(?<![\s,])[\s,]+(?=(?:[A-Z_]+|(?i:{'|'.join(KNOWN)}))=)", given.strip(" ,\t\r\n"))
        if not all(re.match("[A-Z_]{1,40}=", word) for word in words):  # not shown: it may be part of a secret
            raise SettingsError(f"{name} holds a word that is no NAME=VALUE")
        given = dict(word.partition("=")[::2] for word in words)
    if not isinstance(given, Mapping) or "EMBEDDING_FIELD" not in given:
        raise SettingsError(f"{name} must have EMBEDDING_FIELD=..., and what else differs, such as MODEL=...")
    if unknown := [one for one in given if one not in KNOWN]:
        raise SettingsError(_unknown(str(unknown[0]), f"{name}: {{}}"))
    return dict(given)


def _unknown(name: str, spelling: str) -> str:
    near = difflib.get_close_matches(name.upper(), KNOWN, n=1, cutoff=0.5)
    hint = f"did you mean {spelling.format(near[0])}?" if near else f"known are {', '.join(KNOWN)}."
    return f"{spelling.format(name)} is not a setting of embedqueue: {hint}"


def _own(given: Mapping[str, Any], spelling: str) -> OwnEmbedder | None:
    """The application's own embedder, where one is set."""
    if given.get("EMBEDDER") is None or given["EMBEDDER"] == "":
        return None
    spelled = spelling.format("EMBEDDER")
    for name in NOT_FOR_OWN:
        if given.get(name) is not None and given[name] != "":
            raise SettingsError(
                f"{spelling.format(name)} has no meaning beside {spelled}, which is made without arguments"
            )
    try:
        return OwnEmbedder(given["EMBEDDER"])
    except NameFault as error:
        raise SettingsError(f"{spelled} {error}") from None


def _option(name: str, value: Any, hint: Any, spelling: str) -> Any:
    try:
        value = option(name, value)
    except NameFault as error:
        raise SettingsError(f"{spelling.format(name)} {error}") from None
    return converted(name, value, hint, spelling)


def _refuse_what_cannot_work(settings: Settings) -> None:
    fault = fault_of(settings.redis_url)
    if fault is not None:
        raise SettingsError(f"{settings.spelled('REDIS_URL')} {fault}")
    if settings.base_url is not None:
        if settings.provider == "local":
            raise SettingsError(f'{settings.spelled("BASE_URL")} has no meaning where the provider is "local"')
        try:
            parts = urlsplit(settings.base_url)
            good = parts.scheme in ("http", "https") and bool(parts.hostname)
        except ValueError:  # broken brackets
            good = False
        if not good:
            raise SettingsError(
                f"{settings.spelled('BASE_URL')} must begin with http:// or https:// and name a host, "
                f"not {shown_url(settings.base_url)!r}"
            )
    try:
        if settings.own is None:
            settings.embedder()
        options = Options(model=settings.model, **settings.options)
        if options.budget is not None:
            budget_price(options)
    except OptionError as error:
        raise SettingsError(f"{settings.spelled(error.name.upper())} {error.why}") from None
