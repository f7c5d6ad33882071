"""How servers are asked that nearly speak OpenAI's format: TEI's and Ollama's own, and hosts with a switch of theirs.

What matters most is that switch: it has them refuse a text that is too long, which they cut without a word otherwise.
docs/providers.md, "Limits of a text", has the facts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from .rows import listed_rows, openai_rows


def _holds(name: str) -> Callable[[Any], bool]:
    return lambda document: isinstance(document, dict) and not document.get("error") and name in document


@dataclass(frozen=True, slots=True)
class Dialect:
    """A way to ask, and to read the answer.

    Attributes:
        rows: reads the vectors of an answer to so many texts.
        is_success: whether an answer holds vectors.
        texts: the field of the texts.
        refuses_long: the switch; nothing where there is none, or none is needed.
        fixed: what stands in every request.
        dimensions: the field of the vectors' length.
        names_model: whether the model is named.
        encodes: whether it knows ``encoding_format``.
    """

    rows: Callable[[Any, int], NDArray[np.float32]]
    is_success: Callable[[Any], bool]
    texts: str = "input"
    refuses_long: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    dimensions: str = "dimensions"
    names_model: bool = True
    encodes: bool = True


OPENAI: Final = Dialect(rows=openai_rows, is_success=_holds("data"))
_OLLAMA: Final = Dialect(
    rows=lambda document, count: listed_rows(document["embeddings"], count),
    is_success=_holds("embeddings"),
    refuses_long={"truncate": False},
    encodes=False,
)
_TEI: Final = Dialect(
    rows=listed_rows,
    is_success=lambda document: isinstance(document, list),
    texts="inputs",
    refuses_long={"truncate": False},
    names_model=False,
    encodes=False,
)


def _cohere_rows(document: Any, count: int) -> NDArray[np.float32]:
    embeddings = document["embeddings"]
    return listed_rows(embeddings.get("float") if isinstance(embeddings, dict) else embeddings, count)


#: What the embedders of these vendors speak, at whatever address (docs/providers.md, "Voyage, Cohere, Mistral").
VOYAGE: Final = replace(OPENAI, refuses_long={"truncation": False}, dimensions="output_dimension", encodes=False)
MISTRAL: Final = replace(OPENAI, dimensions="output_dimension")
COHERE: Final = Dialect(
    rows=_cohere_rows,
    is_success=_holds("embeddings"),
    texts="texts",
    refuses_long={"truncate": "NONE"},
    fixed={"embedding_types": ["float"]},
    dimensions="output_dimension",
    encodes=False,
)
#: The switch of hosts that speak OpenAI's format and cut by default.
_SWITCHES: Final[Mapping[str, Mapping[str, bool]]] = {
    "api.voyageai.com": {"truncation": False},
    "api.jina.ai": {"truncate": False},
}


def dialect_of(url: str) -> Dialect:
    """The way to ask whoever answers at this address.

    Args:
        url: as ``embeddings_url`` gives it, even a broken one.
    """
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
    except ValueError:  # broken brackets: it will not be asked
        return OPENAI
    if parts.path.endswith("/api/embed"):
        return _OLLAMA
    if parts.path.endswith("/embed"):
        return _TEI
    return replace(OPENAI, refuses_long=_SWITCHES[host]) if host in _SWITCHES else OPENAI
