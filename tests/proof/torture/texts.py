"""The texts of a run, each a function of its key and version, and what is known of their vectors."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import numpy as np

from tests.provider import vector_of

#: Length of the vectors of a run.
DIMENSIONS = 16
#: What all processes of a run agree in, but for those that are there to differ; and the space of its vectors.
SETTINGS = {"embedding_field": "embedding", "model": "torture", "dimensions": str(DIMENSIONS)}
SPACE = f"torture/{DIMENSIONS}/-"
#: Models of a run whose model changes, each with vectors of its own: the first is that of every other run.
MODELS = ("torture", "torture-2", "torture-3", "torture-4")
#: Characters of a large text.
LARGE_CHARS = 1_000_000
#: Characters from which a text is kept as its beginning and its length.
LONG_CHARS = 200

_BEGINNING = re.compile(r"(\S+) in version (\d+) ")


def text_of(redis_key: str, version: int) -> str:
    """The text of a key's version: unlike any other. Of a key that is ``:large:``, every other one is large."""
    beginning = f"{redis_key} in version {version} "
    if ":large:" in redis_key and version % 2:
        return beginning + "word " * ((LARGE_CHARS - len(beginning)) // 5)
    return beginning + "word " * (version % 7)


def space_of(model: str) -> str:
    """The space of a model's vectors."""
    return f"{model}/{DIMENSIONS}/-"


def vector_by(model: str, text: str) -> Any:
    """The vector that a model of the run gives a text."""
    return vector_of(text if model == MODELS[0] else f"{model} {text}", DIMENSIONS)


def version_of(text: str) -> tuple[str, int] | None:
    """The key and the version of a text, or None where it is none of ours."""
    found = _BEGINNING.match(text)
    return (found[1], int(found[2])) if found else None


def short(text: str) -> str:
    """A text by which it is counted: a large one must not be kept a thousand times."""
    return text if len(text) <= LONG_CHARS else f"{text[: LONG_CHARS // 2]}... {len(text)} characters"


def digest(vector: Any) -> str:
    """A short name of a vector, exact to the bit."""
    return hashlib.sha1(np.asarray(vector, dtype="<f4").tobytes()).hexdigest()[:16]
