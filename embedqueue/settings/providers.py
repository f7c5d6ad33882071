"""The providers that settings know by name, and what each can be told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from embedqueue.embedders import (
    AzureOpenAIEmbedder,
    CohereEmbedder,
    Embedder,
    GeminiEmbedder,
    LocalEmbedder,
    MistralEmbedder,
    OpenAIEmbedder,
    OpenRouterEmbedder,
    VoyageEmbedder,
)
from embedqueue.values.options import DEFAULT_MODEL, EMBED_DIMENSIONS

from .conversion import SettingsError, mapping, role, text, timeout

DEFAULT_PROVIDER = "gemini"
_HOSTED: Mapping[str, type[GeminiEmbedder] | type[OpenAIEmbedder]] = {
    "gemini": GeminiEmbedder,
    "openrouter": OpenRouterEmbedder,
    "openai": OpenAIEmbedder,
    "azure": AzureOpenAIEmbedder,
    "voyage": VoyageEmbedder,
    "cohere": CohereEmbedder,
    "mistral": MistralEmbedder,
}
#: Model and dimensions of each provider, unless told otherwise.
PROVIDERS: Mapping[str, tuple[str, int]] = {
    "gemini": (DEFAULT_MODEL, EMBED_DIMENSIONS),
    "openrouter": (DEFAULT_MODEL, EMBED_DIMENSIONS),
    "openai": ("text-embedding-3-large", EMBED_DIMENSIONS),
    "local": ("wordllama", 256),
    "azure": ("text-embedding-3-large", EMBED_DIMENSIONS),
    "voyage": (VoyageEmbedder.model, VoyageEmbedder.native_dimensions),
    "cohere": (CohereEmbedder.model, CohereEmbedder.native_dimensions),
    "mistral": (MistralEmbedder.model, MistralEmbedder.native_dimensions),
}

#: What more an embedder can be told, by the setting's name; each is read by its function, and passed by its own name.
_TOLD: Mapping[str, Callable[[str, Any, str], Any]] = {
    "HEADERS": mapping,
    "BODY": mapping,
    "TIMEOUT": timeout,
    "TASK_TYPE": lambda name, value, spelling: _task_type(name, value, spelling),
    "DOCUMENT_ROLE": role,
    "QUERY_ROLE": role,
}
TOLD = tuple(_TOLD)
#: What an embedder of the application's own is not told: it is made without arguments.
NOT_FOR_OWN = ("PROVIDER", "API_KEY", "BASE_URL", "DIMENSIONS", *TOLD)


def plain_provider(value: Any) -> str:
    """How a provider is called, whether or not there is one; the default one where none is set."""
    return str(value or DEFAULT_PROVIDER).strip().lower()


def read_provider(value: Any, spelling: str) -> str:
    """The name of a provider; the default one where none is set."""
    if (value is None or isinstance(value, str)) and plain_provider(value) in PROVIDERS:
        return plain_provider(value)
    raise SettingsError(f"{spelling.format('PROVIDER')} must be one of {', '.join(PROVIDERS)}, not {value!r}")


def read_told(given: Mapping[str, Any], provider: str, spelling: str) -> dict[str, Any]:
    """What more the provider's embedder is told, by the names of its options.

    Args:
        given: all settings.
        provider: its name.
        spelling: how the user writes a name, ``{}`` standing for it.
    """
    told = {}
    for name, convert in _TOLD.items():
        if given.get(name) is not None and given[name] != "":
            if not _can_be_told(provider, name):
                words = f'has no meaning where the provider is "{provider}"'
                raise SettingsError(f"{spelling.format(name)} {words}")
            told[name.lower()] = convert(name, given[name], spelling)
    return told


def dimensions_of(provider: str, model: str) -> int | None:
    """How long a model's vectors are; None where that is learned from the first answer."""
    kind = _HOSTED.get(provider)
    return PROVIDERS[provider][1] if kind is None else kind.known_dimensions(model)


def key_variables(provider: str) -> tuple[str, ...]:
    """Environment variables that may hold the provider's key."""
    return _HOSTED[provider].key_variables if provider in _HOSTED else ()


def make(
    provider: str, api_key: str | None, base_url: str | None, dimensions: int | None, told: Mapping[str, Any]
) -> Embedder:
    """A new embedder. No key is looked for and nothing is called yet."""
    if provider == "local":
        return LocalEmbedder(dimensions or PROVIDERS["local"][1])
    place: dict[str, Any] = {} if base_url is None else {"base_url": base_url}
    return _HOSTED[provider](api_key, dimensions=dimensions, **place, **told)


def _can_be_told(provider: str, name: str) -> bool:
    if provider == "gemini":
        return name in ("HEADERS", "TIMEOUT", "TASK_TYPE")
    return provider != "local" and name != "TASK_TYPE"


def _task_type(name: str, value: Any, spelling: str) -> str | None:
    word = text(name, {name: value}, spelling)
    return None if word is None or word.lower() == "none" else word
