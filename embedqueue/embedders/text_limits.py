"""How long one text may be: the limits of known models, and which providers cut a longer one without a word.

As of November 2026; docs/providers.md, "Limits of a text", has the sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

#: Most tokens of a text by the model's name, without what stands before a slash or behind a colon. The letter is the
#: certainty, as docs/providers.md has it: S source, D documentation, R reports, M memory.
MODEL_TOKENS: Final[Mapping[str, int]] = {
    "gemini-embedding-001": 2_048,  # D, R
    "gemini-embedding-2": 8_192,  # D
    "gemini-embedding-2-preview": 8_192,  # D
    "text-embedding-3-large": 8_192,  # S
    "text-embedding-3-small": 8_192,  # S
    "text-embedding-ada-002": 8_192,  # S
    "voyage-4-large": 32_000,  # D
    "voyage-4": 32_000,  # D
    "voyage-4-lite": 32_000,  # D
    "jina-embeddings-v3": 8_192,  # D
    "text-embedding-v3": 8_192,  # D, DashScope
    "text-embedding-v4": 8_192,  # D, DashScope
    "mistral-embed": 8_192,  # M
    # What people serve themselves. The server may be set to less; never to more than the model was made for.
    "bge-m3": 8_192,  # D
    "bge-small-en-v1.5": 512,  # R, as are the next five
    "bge-base-en-v1.5": 512,
    "bge-large-en-v1.5": 512,
    "bge-large-zh-v1.5": 512,
    "multilingual-e5-large": 512,
    "multilingual-e5-large-instruct": 512,
    "mxbai-embed-large": 512,  # R
    "mxbai-embed-large-v1": 512,  # R
    "all-minilm": 512,  # M
    "nomic-embed-text": 8_192,  # R
    "nomic-embed-text-v1.5": 8_192,  # R
    "qwen3-embedding": 32_768,  # R, as are the next three
    "qwen3-embedding-0.6b": 32_768,
    "qwen3-embedding-4b": 32_768,
    "qwen3-embedding-8b": 32_768,
}


@dataclass(frozen=True, slots=True)
class TextLimit:
    """What one text may hold.

    Attributes:
        tokens: most of them.
        cuts: whether the provider cuts what is longer without a word, as far as is known; else it refuses it.
    """

    tokens: int
    cuts: bool


def text_limit(embedder: Any, model: str) -> TextLimit | None:
    """The limit of a text.

    Args:
        embedder: may carry ``max_text_tokens``, which wins over the table, and ``cuts_long_texts(model)``.
        model: as users write it.

    Returns:
        None where it is not known.
    """
    given = getattr(embedder, "max_text_tokens", None)
    known = MODEL_TOKENS.get(model.rpartition("/")[2].partition(":")[0].lower())
    tokens = given if isinstance(given, int) else known
    if tokens is None:
        return None
    cuts = getattr(embedder, "cuts_long_texts", None)
    return TextLimit(tokens, bool(callable(cuts) and cuts(model) is True))
