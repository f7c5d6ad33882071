"""One way to configure a queue, shared by Flask, Django and the command line.

The names are ``REDIS_URL``, ``PROVIDER``, ``API_KEY``, ``BASE_URL``, ``MODEL``, ``DIMENSIONS``, ``EAGER`` and every
option of the queue by its own name in capitals. In the environment each has the prefix ``EMBEDQUEUE_``.
"""

from __future__ import annotations

import difflib
import os
import re
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal
from urllib.parse import urlsplit

import redis

from embedqueue.embedders import Embedder, GeminiEmbedder, LocalEmbedder, OpenAIEmbedder, OpenRouterEmbedder
from embedqueue.embedders.keys import revealed
from embedqueue.embedders.openai import MODEL_DIMENSIONS
from embedqueue.money.prices import budget_price
from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.values.budget import Budget, read_prices
from embedqueue.values.errors import OptionError
from embedqueue.values.limits import Limits, read_limits
from embedqueue.values.options import DEFAULT_MODEL, EMBED_DIMENSIONS, Options
from embedqueue.values.words import shown_url

from .redis_url import fault_of

#: What stands before each name in the environment.
ENVIRONMENT_PREFIX = "EMBEDQUEUE_"
DEFAULT_REDIS_URL = "redis://localhost:6379/0"
DEFAULT_PROVIDER = "gemini"
#: Seconds that a request handler waits for a Redis that does not answer; the URL may say otherwise.
REDIS_TIMEOUT_SECONDS = 10.0

_HOSTED: Mapping[str, type[GeminiEmbedder] | type[OpenAIEmbedder]] = {
    "gemini": GeminiEmbedder,
    "openrouter": OpenRouterEmbedder,
    "openai": OpenAIEmbedder,
}
#: Model and dimensions of each provider, unless told otherwise.
PROVIDERS: Mapping[str, tuple[str, int]] = {
    "gemini": (DEFAULT_MODEL, EMBED_DIMENSIONS),
    "openrouter": (DEFAULT_MODEL, EMBED_DIMENSIONS),
    "openai": ("text-embedding-3-large", EMBED_DIMENSIONS),
    "local": ("wordllama", 256),
}

_OPTION_TYPES = {name: hint for name, hint in typing.get_type_hints(Options).items() if name != "model"}
#: Every name that a configuration may hold.
KNOWN: tuple[str, ...] = (
    *("REDIS_URL", "PROVIDER", "API_KEY", "BASE_URL", "MODEL", "DIMENSIONS", "EAGER"),
    *(option.name.upper() for option in fields(Options) if option.name != "model"),
)
#: What Kubernetes puts into the environment of every pod where a service is called "embedqueue" or "embedqueue-...".
_SERVICE_LINK = re.compile(r"(?:.*_)?(?:SERVICE_HOST|SERVICE_PORT(?:_.*)?|PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_.*)?)?)")
_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


class SettingsError(ValueError):
    """A setting that cannot work; the message names it and says what to write instead."""


@dataclass(frozen=True, repr=False, kw_only=True)
class Settings:
    """How a queue is set up. Make one with :func:`read` or :func:`read_environment`: they check.

    Attributes:
        redis_url: ``redis://``, ``rediss://`` or ``unix://``.
        provider: "gemini", "openrouter", "openai" or "local".
        api_key: the key; None leaves it to the provider's own variable, "" sends none.
        base_url: where the provider stands; None for its own address.
        model: the model's name.
        dimensions: length of the vectors.
        eager: whether an application's queues are those of its tests: offline, on a fake Redis. None: where a test
            runner is known to be at work.
        options: options of the queue that differ from the defaults, by their own names.
        spelling: how a user writes a name, ``{}`` standing for it; for messages.
    """

    redis_url: str = DEFAULT_REDIS_URL
    provider: str = DEFAULT_PROVIDER
    api_key: str | None = None
    base_url: str | None = None
    model: str = PROVIDERS[DEFAULT_PROVIDER][0]
    dimensions: int = PROVIDERS[DEFAULT_PROVIDER][1]
    eager: bool | None = None
    options: dict[str, Any] = field(default_factory=dict)
    spelling: str = field(default="{}", compare=False)

    def __repr__(self) -> str:
        """Everything but secrets."""
        key = "not set" if self.api_key is None else "empty" if not self.api_key else "***"
        base_url = None if self.base_url is None else shown_url(self.base_url)
        return (
            f"Settings(redis_url={shown_url(self.redis_url)!r}, provider={self.provider!r}, api_key=<{key}>, "
            f"base_url={base_url!r}, model={self.model!r}, dimensions={self.dimensions}, options={self.options!r})"
        )

    def spelled(self, name: str) -> str:
        """The name of a setting as the user writes it, such as ``EMBEDQUEUE_API_KEY``."""
        return self.spelling.format(name)

    def option(self, name: str) -> Any:
        """An option of the queue by its own name, be it set or the default."""
        return getattr(Options(model=self.model, **self.options), name)

    # -- what the settings make --------------------------------------------------------------------------------

    def embedder(self) -> Embedder:
        """A new embedder. No key is looked for and nothing is called yet."""
        if self.provider == "local":
            return LocalEmbedder(self.dimensions)
        kind = _HOSTED[self.provider]
        if self.base_url is None:
            return kind(self.api_key, dimensions=self.dimensions)
        return kind(self.api_key, self.base_url, self.dimensions)

    @property
    def key_variables(self) -> tuple[str, ...]:
        """Environment variables that may hold the provider's key where ``api_key`` is None."""
        return _HOSTED[self.provider].key_variables if self.provider in _HOSTED else ()

    def client(self, **options: Any) -> redis.Redis:
        """A new client. Nothing is connected yet.

        Args:
            options: of ``redis.Redis``; what the URL says wins.
        """
        timeouts = {"socket_connect_timeout": REDIS_TIMEOUT_SECONDS, "socket_timeout": REDIS_TIMEOUT_SECONDS}
        return redis.Redis.from_url(self.redis_url, **(timeouts | options))

    def queue(
        self, *, embedder: Embedder | None = None, redis: redis.Redis | None = None, **overrides: Any
    ) -> EmbeddingBatchQueue:
        """A new queue, not started.

        Args:
            embedder: instead of the one that the settings make.
            redis: a client instead of the one that the settings make.
            overrides: options of the queue that differ from the settings.
        """
        return EmbeddingBatchQueue(
            self.embedder() if embedder is None else embedder,
            self.client() if redis is None else redis,
            **{"model": self.model, **self.options, **overrides},
        )


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
        name: _option(name, given[name.upper()], hint, spelling)
        for name, hint in _OPTION_TYPES.items()
        if name.upper() in given
    }
    provider = _provider(given.get("PROVIDER"), spelling)
    model = _text("MODEL", given, spelling) or PROVIDERS[provider][0]
    dimensions = given.get("DIMENSIONS")
    if dimensions is None or dimensions == "":
        dimensions = MODEL_DIMENSIONS.get(model.rpartition("/")[2], PROVIDERS[provider][1])
    settings = Settings(
        redis_url=_text("REDIS_URL", given, spelling) or DEFAULT_REDIS_URL,
        provider=provider,
        api_key=_text("API_KEY", given, spelling),
        base_url=_text("BASE_URL", given, spelling) or None,
        model=model,
        dimensions=_converted("DIMENSIONS", dimensions, int, spelling),
        eager=_converted("EAGER", given.get("EAGER"), bool | None, spelling),
        options=options,
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
    return read(_inherited(shared, own or {}), spelling=f"{ENVIRONMENT_PREFIX}{{}}")


def _inherited(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """What is set, and the rest of what others have: another provider has other keys, addresses, models."""
    inherited = dict(shared)
    if "PROVIDER" in own and own["PROVIDER"] != shared.get("PROVIDER", DEFAULT_PROVIDER):
        for setting in ("API_KEY", "BASE_URL", "MODEL", "DIMENSIONS"):
            inherited.pop(setting, None)
    if "MODEL" in own and own["MODEL"] != shared.get("MODEL"):
        inherited.pop("DIMENSIONS", None)
    return inherited | dict(own)


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
    shared |= {name[len(prefix) :]: value for name, value in mapping.items() if name.startswith(prefix)}
    named = shared.pop("QUEUES", None) or {}
    if not isinstance(named, Mapping) or not all(isinstance(own, Mapping) for own in named.values()):
        raise SettingsError(f"{spelling.format('QUEUES')} must be a dictionary of dictionaries, by the queues' names")
    queues = {"default": read(shared, spelling=spelling)}
    for name, own in named.items():
        if name == "default":
            raise SettingsError(f'{spelling.format("QUEUES")} must not name a queue "default": that is the other one')
        own_spelling = f'{spelling.format("QUEUES")}["{name}"]["{{}}"]'
        namespace = f"{queues['default'].options.get('namespace', Options.namespace)}_{name}"
        queues[name] = read(_inherited(shared, {"NAMESPACE": namespace} | dict(own)), spelling=own_spelling)
    return queues


def _unknown(name: str, spelling: str) -> str:
    near = difflib.get_close_matches(name.upper(), KNOWN, n=1, cutoff=0.5)
    hint = f"did you mean {spelling.format(near[0])}?" if near else f"known are {', '.join(KNOWN)}."
    return f"{spelling.format(name)} is not a setting of embedqueue: {hint}"


def _text(name: str, given: Mapping[str, Any], spelling: str) -> str | None:
    if given.get(name) is None:
        return None
    try:
        value = revealed(name, given[name])
    except OptionError as error:
        raise SettingsError(f"{spelling.format(name)} {error.why}") from None
    return value if name == "API_KEY" else value.strip()


def _provider(value: Any, spelling: str) -> str:
    if value is None or value == "":
        return DEFAULT_PROVIDER
    if isinstance(value, str) and value.strip().lower() in PROVIDERS:
        return value.strip().lower()
    raise SettingsError(f"{spelling.format('PROVIDER')} must be one of {', '.join(PROVIDERS)}, not {value!r}")


#: What reads options that are neither numbers nor words.
_READERS: Mapping[str, Callable[[Any], Any]] = {"budget": Budget.read, "prices": read_prices}


def _option(name: str, value: Any, hint: Any, spelling: str) -> Any:
    if name not in _READERS:
        return _converted(name.upper(), value, hint, spelling)
    try:
        return _READERS[name](value)
    except OptionError as error:
        raise SettingsError(f"{spelling.format(name.upper())} {error.why}") from None


def _converted(name: str, value: Any, hint: Any, spelling: str) -> Any:
    """A string from the environment as the type that is due; anything else as it stands."""
    if not isinstance(value, str):
        return value
    kinds = (hint,) if typing.get_origin(hint) is Literal else typing.get_args(hint) or (hint,)
    word = value.strip()
    if any(word.lower() in typing.get_args(kind) for kind in kinds if typing.get_origin(kind) is Literal):
        return word.lower()
    if type(None) in kinds and word.lower() in ("none", "null", ""):
        return None
    if Limits in kinds:
        try:
            return read_limits(word)
        except OptionError as error:
            raise SettingsError(f"{spelling.format(name)} {error.why}") from None
    try:
        if bool in kinds:
            return _WORDS[word.lower()]
        if float in kinds:
            return float(word)
        if int in kinds:
            return int(word)
    except (ValueError, KeyError):
        due = "true or false" if bool in kinds else "a number" if float in kinds else "a whole number"
        words = [f'"{word}"' for kind in kinds if typing.get_origin(kind) is Literal for word in typing.get_args(kind)]
        either = "".join(f" or {word}" for word in [*words, *(["none"] if type(None) in kinds else [])])
        raise SettingsError(f"{spelling.format(name)} must be {due}{either}, not {value!r}") from None
    return value


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
        settings.embedder()
        options = Options(model=settings.model, **settings.options)
        if options.budget is not None:
            budget_price(options)
    except OptionError as error:
        raise SettingsError(f"{settings.spelled(error.name.upper())} {error.why}") from None
