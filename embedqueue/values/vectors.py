"""Vectors as Redis stores them: little-endian bytes of float32 or float16; and the checks before one is written.

Nothing else knows how many bytes a number has: whoever writes, reads, counts or searches vectors asks here. numpy is
imported by those who turn numbers into bytes: a process that only enqueues and waits reads vectors without it
(docs/decisions/0060-imported-when-needed.md).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: What a vector is written as: the option ``vector_type``. In capitals, it is what an index of Redis calls it.
VectorType = Literal["float32", "float16"]

#: What Redis' vector search reads as FLOAT32 and FLOAT16 (redis.io, "Vectors").
FLOAT32: Final = "<f4"
FLOAT16: Final = "<f2"
_DTYPES: Final[Mapping[str, str]] = {"float32": FLOAT32, "float16": FLOAT16}
#: Letters of the module ``struct`` for the same, and bytes of a number.
_LETTERS: Final[Mapping[str, str]] = {"float32": "f", "float16": "e"}
_BYTES: Final[Mapping[str, int]] = {"float32": 4, "float16": 2}


class Malformed(ValueError):
    """An answer that is not one vector a text.

    Args:
        message: what is wrong with it.
        encoded: whether asking for base64 may be the reason.
    """

    def __init__(self, message: str, *, encoded: bool = False) -> None:
        super().__init__(message)
        self.encoded = encoded


class WrongWidth(Malformed):
    """Vectors of another length than the embedder promises.

    Args:
        width: numbers of each.
        dimensions: what the embedder promises.
    """

    def __init__(self, width: int, dimensions: int) -> None:
        super().__init__(f"the model gives {width} dimensions, the embedder is set to {dimensions}")
        self.width = width


def as_rows(
    answer: Any, count: int, dimensions: int | None, vector_type: VectorType = "float32"
) -> NDArray[np.floating[Any]]:
    """Turn an embedder's answer into rows, whose bytes are what Redis stores.

    Args:
        answer: a float array of shape ``(count, dimensions)`` or a list of lists.
        count: texts that were sent.
        dimensions: what the embedder promises; None: any length.
        vector_type: of the rows.

    Returns:
        Array of this type and of shape ``(count, dimensions)``, C-contiguous. A number beyond the type's range (65,504
        for float16) is infinite: see :func:`faulty_rows`.

    Raises:
        WrongWidth: vectors of one other length.
        Malformed: another shape, or not numbers.
    """
    import numpy as np

    try:
        with np.errstate(over="ignore", invalid="ignore"):  # an overflow shows as infinity: see faulty_rows
            rows = np.ascontiguousarray(answer, dtype=_DTYPES[vector_type])
    except (TypeError, ValueError, OverflowError) as error:
        raise Malformed(f"the embedder's answer is no array of numbers: {error}") from None
    if rows.ndim != 2 or len(rows) != count:
        raise Malformed(f"{count} texts were sent and an answer of shape {rows.shape} came back")
    if dimensions is not None and rows.shape[1] != dimensions:
        raise WrongWidth(rows.shape[1], dimensions)
    return rows


def faulty_rows(rows: NDArray[np.floating[Any]]) -> NDArray[np.intp]:
    """Indices of the rows that must never be written: NaN, infinity, or all zeros.

    All zeros has no direction: under cosine distance it poisons every search that meets it.
    """
    import numpy as np

    return np.flatnonzero(~(np.isfinite(rows).all(axis=1) & rows.any(axis=1)))


def length_of(rows: NDArray[np.floating[Any]]) -> int | None:
    """The length of the vectors of an answer; None where no row of it may be written, for that may be broken, too."""
    return rows.shape[1] if len(faulty_rows(rows)) < len(rows) else None


def size_bytes(dimensions: int, vector_type: VectorType = "float32") -> int:
    """How many bytes a stored vector has."""
    return _BYTES[vector_type] * dimensions


def zero_vector(dimensions: int, vector_type: VectorType = "float32") -> bytes:
    """The vector of a blank text, as it would be stored."""
    return bytes(size_bytes(dimensions, vector_type))


def to_bytes(vector: Any, vector_type: VectorType = "float32") -> bytes:
    """One vector, a row or a list, as it is stored, and as a search through vectors of this type takes it."""
    return as_rows([vector], 1, len(vector), vector_type).tobytes()


def to_array(vector: bytes, vector_type: VectorType = "float32") -> NDArray[np.float32]:
    """One stored vector as an array, (dimensions,) float32; it may be read-only."""
    import numpy as np

    return np.frombuffer(vector, dtype=_DTYPES[vector_type]).astype(np.float32, copy=False)


def to_floats(vector: bytes, vector_type: VectorType = "float32") -> list[float]:
    """The floats of one stored vector."""
    return list(struct.unpack(f"<{len(vector) // _BYTES[vector_type]}{_LETTERS[vector_type]}", vector))


def index_type(vector_type: VectorType) -> str:
    """What an index of Redis calls this type: ``FLOAT32`` or ``FLOAT16``, which it knows from 2.10 of the module on."""
    return vector_type.upper()


def cosine(one: NDArray[Any], other: NDArray[Any]) -> float:
    """How alike two vectors are, ``(dimensions,)`` each: their cosine; 0 where they differ in length, or one is 0."""
    import numpy as np

    if len(one) != len(other):
        return 0.0
    first, second = np.asarray(one, np.float64), np.asarray(other, np.float64)
    lengths = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / lengths if lengths else 0.0
