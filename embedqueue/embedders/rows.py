"""The vectors in an answer, as rows of float32. Pure.

Wrong widths, NaN and zeros are delivered as they came: the queue knows what to do about them. What cannot
be told apart text by text is refused here; nothing is ever paired by position across a gap.
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedqueue.values.vectors import FLOAT32, Malformed, size_bytes

try:  # in the extra "fast": a tenth of the time, which is a third of what a full call costs this process
    from pybase64 import b64decode

    def _unpack(vector: str) -> bytes:
        return b64decode(vector, validate=True)

except ImportError:

    def _unpack(vector: str) -> bytes:
        return binascii.a2b_base64(vector, strict_mode=True)


#: Numbers of the rows that are made up for vectors that are null: 256 MiB. One long vector among many nulls costs
#: its sender little, and would cost us their product.
_MOST_NUMBERS = 1 << 26


def openai_rows(document: Any, count: int) -> NDArray[np.float32]:
    """The rows of ``{"data": [{"embedding": ..., "index": ...}]}``.

    Args:
        document: the parsed answer.
        count: texts that were sent.

    Returns:
        Float32 array, C-contiguous, one row a text in the order of the texts.

    Raises:
        Malformed: the vectors cannot be told to their texts.
    """
    entries = document.get("data") if isinstance(document, dict) else None
    if not isinstance(entries, list) or (not entries and count):
        raise Malformed("the answer holds no data", encoded=True)
    _check_count(entries, count)
    indices = [entry.get("index") for entry in entries]
    vectors = [entry.get("embedding") for entry in entries]
    if indices != list(range(count)):
        vectors = _in_order(vectors, [_whole(index) for index in indices])
    return _stack(vectors)


def gemini_rows(document: Any, count: int) -> NDArray[np.float32]:
    """The rows of ``{"embeddings": [{"values": [...]}]}``, which come in the order of the texts.

    Args:
        document: the parsed answer.
        count: texts that were sent.

    Returns:
        Float32 array, C-contiguous, one row a text.

    Raises:
        Malformed: the vectors cannot be told to their texts.
    """
    entries = document.get("embeddings") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise Malformed("the answer holds no embeddings")
    _check_count(entries, count)
    return _stack([entry.get("values") for entry in entries])


def listed_rows(vectors: Any, count: int) -> NDArray[np.float32]:
    """The rows of a bare ``[[...], ...]`` in the order of the texts, as TEI's and Ollama's own formats have it.

    Args:
        vectors: what stands in the answer.
        count: texts that were sent.

    Returns:
        Float32 array, C-contiguous, one row a text.

    Raises:
        Malformed: the vectors cannot be told to their texts.
    """
    if not isinstance(vectors, list):
        raise Malformed("the answer holds no vectors")
    if len(vectors) != count:
        raise Malformed(f"{count} texts were sent and {len(vectors)} vectors came back")
    return _stack(vectors)


def normalised(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of length 1. A row of zeros stays one: it has no direction, and the queue refuses it.

    Args:
        rows: float32 array of two dimensions.

    Returns:
        A new array of the same shape.
    """
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    lengths[lengths == 0] = 1
    return np.ascontiguousarray(rows / lengths, dtype=np.float32)


def _check_count(entries: list[Any], count: int) -> None:
    if len(entries) != count:
        raise Malformed(f"{count} texts were sent and {len(entries)} vectors came back")
    if not all(isinstance(entry, dict) for entry in entries):
        raise Malformed("the answer holds something else than vectors")


def _whole(index: Any) -> Any:
    """An index as a whole number where it is one in another form: some servers write "0" or 0.0."""
    if isinstance(index, str) and len(index) < 10 and index.isascii() and index.isdecimal():
        return int(index)
    return int(index) if isinstance(index, float) and index.is_integer() else index


def _in_order(vectors: list[Any], indices: list[Any]) -> list[Any]:
    """Vectors by their indices, counted from 0 or from 1; as they come where none has one."""
    if all(index is None for index in indices):
        return vectors
    first = 1 if 0 not in indices else 0
    if any(type(index) is not int for index in indices) or sorted(indices) != list(range(first, first + len(indices))):
        raise Malformed(f"the indices are not 0 to {len(indices) - 1}")
    ordered = [None] * len(vectors)
    for index, vector in zip(indices, vectors, strict=True):
        ordered[index - first] = vector
    return ordered


def _stack(vectors: Sequence[Any]) -> NDArray[np.float32]:
    """One row a vector; a vector that is null becomes NaN where its neighbours tell the width."""
    known = [vector for vector in vectors if vector is not None]
    if not known:
        raise Malformed("the answer holds no vector at all")
    rows = _unpacked(known) if isinstance(known[0], str) else _listed(known)
    if len(known) == len(vectors):
        return rows
    if len(vectors) * rows.shape[1] > _MOST_NUMBERS:
        raise Malformed(f"most vectors are null, and the others have {rows.shape[1]} numbers")
    complete = np.full((len(vectors), rows.shape[1]), np.nan, dtype=np.float32)
    complete[[place for place, vector in enumerate(vectors) if vector is not None]] = rows
    return complete


def _unpacked(vectors: Sequence[Any]) -> NDArray[np.float32]:
    """Vectors in base64, which OpenAI's format packs as Redis stores them (docs/providers.md, "OpenAI")."""
    try:
        packed = [_unpack(vector) for vector in vectors]
    except (TypeError, ValueError):
        packed = []
    width = len(packed[0]) if packed else 0
    if width == 0 or width % size_bytes(1):
        raise Malformed("the vectors are no base64 of float32", encoded=True)
    if any(len(vector) != width for vector in packed):
        raise Malformed("the vectors differ in length", encoded=True)
    # joined in a bytearray, because an array over bytes could not be written to
    rows = np.frombuffer(bytearray().join(packed), dtype=FLOAT32).astype(np.float32, copy=False)
    return rows.reshape(len(packed), -1)


def _listed(vectors: Sequence[Any]) -> NDArray[np.float32]:
    try:
        pack = struct.Struct(f"{len(vectors[0])}f").pack  # packs lists 2.5 times faster than numpy reads them
        packed = bytearray().join([pack(*vector) for vector in vectors])
        rows = np.frombuffer(packed, dtype=np.float32).reshape(len(vectors), -1)
    except (struct.error, TypeError, ValueError, OverflowError):
        rows = _listed_leniently(vectors)
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise Malformed("the vectors are no lists of numbers of one length")
    return rows


def _listed_leniently(vectors: Sequence[Any]) -> NDArray[np.float32]:
    """Null and what overflows become NaN and infinity, which the queue blames on the one text."""
    try:
        numbers = np.array(vectors, dtype=object)
        if any(isinstance(number, str) for number in numbers.flat):  # numpy would read "0.1" as a number
            return np.empty(0, dtype=np.float32)
        with np.errstate(over="ignore"):
            return numbers.astype(np.float32)
    except (TypeError, ValueError, OverflowError):
        return np.empty(0, dtype=np.float32)
