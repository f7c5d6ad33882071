"""Vectors as Redis stores them: little-endian float32 bytes; and the checks before one is written."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: What Redis' vector search reads as FLOAT32 (redis.io, "Vectors").
FLOAT32 = np.dtype("<f4")


class Malformed(ValueError):
    """An answer that is not one vector a text."""


class WrongWidth(Malformed):
    """Vectors of another length than the embedder promises.

    Args:
        width: numbers of each.
        dimensions: what the embedder promises.
    """

    def __init__(self, width: int, dimensions: int) -> None:
        super().__init__(f"the model gives {width} dimensions, the embedder is set to {dimensions}")
        self.width = width


def as_rows(answer: Any, count: int, dimensions: int) -> NDArray[np.float32]:
    """Turn an embedder's answer into rows.

    Args:
        answer: a float array of shape ``(count, dimensions)`` or a list of lists.
        count: texts that were sent.
        dimensions: what the embedder promises.

    Returns:
        Float32 array of shape ``(count, dimensions)``, C-contiguous.

    Raises:
        WrongWidth: vectors of one other length.
        Malformed: another shape, or not numbers.
    """
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # an overflow shows as infinity: see faulty_rows
            rows = np.ascontiguousarray(answer, dtype=FLOAT32)
    except (TypeError, ValueError, OverflowError) as error:
        raise Malformed(f"the embedder's answer is no array of numbers: {error}") from None
    if rows.ndim != 2 or len(rows) != count:
        raise Malformed(f"{count} texts were sent and an answer of shape {rows.shape} came back")
    if rows.shape[1] != dimensions:
        raise WrongWidth(rows.shape[1], dimensions)
    return rows


def faulty_rows(rows: NDArray[np.float32]) -> NDArray[np.intp]:
    """Indices of the rows that must never be written: NaN, infinity, or all zeros.

    All zeros has no direction: under cosine distance it poisons every search that meets it.
    """
    return np.flatnonzero(~(np.isfinite(rows).all(axis=1) & rows.any(axis=1)))


def zero_vector(dimensions: int) -> bytes:
    """The vector of a blank text, as it would be stored."""
    return bytes(FLOAT32.itemsize * dimensions)


def to_floats(vector: bytes) -> list[float]:
    """The floats of one stored vector."""
    floats: list[float] = np.frombuffer(vector, dtype=FLOAT32).tolist()
    return floats
