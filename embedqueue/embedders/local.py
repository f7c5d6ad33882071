"""An embedder without a network, for trying things out, tests and examples."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedqueue.embedders import documents
from embedqueue.values.errors import ConfigurationError, InputRejected, OptionValueError

from .rows import normalised

#: Numbers of a vector of the model that wordllama brings along.
_FULL_DIMENSIONS = 256
_DIMENSIONS = (64, 128, _FULL_DIMENSIONS)


class LocalEmbedder:
    """The word vectors that the ``wordllama`` package brings along: offline, deterministic, no key, some 16 MB.

    Good enough to see a search work; no match for a real model. The model is loaded at the first call.

    Args:
        dimensions: 256, or 128 or 64 of them.
    """

    provider = "wordllama"
    max_texts: int | None = None
    max_tokens: int | None = None
    task_type: str | None = None

    def __init__(self, dimensions: int = _FULL_DIMENSIONS) -> None:
        if dimensions not in _DIMENSIONS:
            raise OptionValueError("dimensions", f"must be one of {_DIMENSIONS}, not {dimensions!r}")
        self.dimensions = dimensions

    def __repr__(self) -> str:
        return f"{type(self).__name__}(dimensions={self.dimensions})"

    def embed_batch(self, texts: Sequence[str], model: str = "wordllama") -> NDArray[np.float32]:
        """Embed texts. Equal texts give equal vectors, whatever their company.

        Args:
            texts: the texts, none of them blank.
            model: any name: there is only one.

        Returns:
            Float32 array of shape ``(len(texts), dimensions)``, rows of length 1.

        Raises:
            InputRejected: a text holds nothing that the model knows.
            ConfigurationError: wordllama is not installed.
        """
        if isinstance(texts, str):
            raise TypeError("texts must be a sequence of str, not one str")
        if not texts:
            return np.empty((0, self.dimensions), dtype=np.float32)
        documents.check_sendable(texts)
        loaded = _load(self.dimensions)
        # one by one: padded to the longest of a batch, one book among fifty lines would take gigabytes
        rows = np.concatenate([loaded.embed([text]) for text in texts])
        empty = np.flatnonzero(~(np.isfinite(rows).all(axis=1) & rows.any(axis=1)))
        if len(empty):
            raise InputRejected("the local model knows nothing in this text", index=int(empty[0]))
        return normalised(rows)


@cache  # two threads at once may both load: they load the same, and no lock can be left taken in a forked child
def _load(dimensions: int) -> Any:
    try:
        word_llama = _import_wordllama()
    except ImportError as error:
        missing = ConfigurationError(f'LocalEmbedder needs wordllama: pip install "embedqueue[local]" ({error})')
    else:
        return word_llama.load(
            dim=_FULL_DIMENSIONS, trunc_dim=dimensions, cache_dir=_files(word_llama), disable_download=True
        )
    raise missing


def _import_wordllama() -> Any:
    """Import the extra, and undo what it does to everybody's logging: it calls ``logging.basicConfig``."""
    root = logging.getLogger()
    level, quiet = root.level, not root.handlers
    try:
        return importlib.import_module("wordllama").WordLlama
    finally:
        if quiet:
            for handler in list(root.handlers):
                root.removeHandler(handler)
            root.setLevel(level)


def _files(word_llama: Any) -> Path:
    """The folder of the package itself: its own search looks for the tokenizer under another name than it has there."""
    return Path(sys.modules[word_llama.__module__].__file__ or "").parent
