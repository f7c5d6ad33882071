"""The texts that are embedded, and the vector that each must get: deterministic, so that every hash can be checked."""

from __future__ import annotations

import struct
from functools import cache
from hashlib import blake2b

import numpy as np

#: Characters of a text, unless a question asks for others.
TEXT_CHARS = 200
#: The part of a vector that tells texts apart: its first floats, 24 bits of the text's digest each.
HEAD_FLOATS = 3
_WORDS = "the quick document is about durable queues and vectors that arrive late but never get lost on their way "


def text(name: str, chars: int = TEXT_CHARS) -> str:
    """The text called ``name``: unique by its name, ``chars`` long."""
    return f"{name} {_filler(chars)}"[:chars]


def pairs(prefix: str, count: int, first: int = 0, chars: int = TEXT_CHARS) -> list[tuple[str, str]]:
    """``count`` pairs of (redis_key, text)."""
    return [(f"{prefix}{i}", text(f"{prefix}{i}", chars)) for i in range(first, first + count)]


def head(text_bytes: bytes) -> tuple[float, float, float]:
    """The first floats of a text's vector; all of them exact in float32."""
    digest = blake2b(text_bytes, digest_size=9).digest()
    a, b, c = (int.from_bytes(digest[i : i + 3], "big") / 2**24 for i in (0, 3, 6))
    return a, b, c


@cache
def body(dimensions: int) -> np.ndarray:
    """The rest of every vector: of the size and precision that real ones have."""
    rest = np.random.default_rng(7).normal(size=dimensions - HEAD_FLOATS).astype("<f4")
    return rest / np.float32(np.linalg.norm(rest))


def vector(text_bytes: bytes, dimensions: int) -> bytes:
    """What must stand in the hash of a text."""
    return struct.pack("<3f", *head(text_bytes)) + _body_bytes(dimensions)


@cache
def _body_bytes(dimensions: int) -> bytes:
    return bytes(body(dimensions).tobytes())


@cache
def _filler(chars: int) -> str:
    return _WORDS * (chars // len(_WORDS) + 1)
