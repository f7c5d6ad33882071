"""Vectors on their way to Redis."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedqueue.values.vectors import (
    Malformed,
    as_rows,
    cosine,
    faulty_rows,
    size_bytes,
    to_bytes,
    to_floats,
    zero_vector,
)

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(FLOATS, min_size=1, max_size=20))
def test_bytes_round_trip(floats):
    """Float32 little-endian, dimensions x 4 bytes, and back without loss."""
    stored = as_rows([floats], 1, len(floats))[0].tobytes()
    assert stored == struct.pack(f"<{len(floats)}f", *floats)
    assert to_floats(stored) == floats


@given(st.lists(st.floats(width=16, allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_bytes_round_trip_as_float16(floats):
    """Float16 little-endian, dimensions x 2 bytes, and back without loss."""
    stored = to_bytes(floats, "float16")
    assert stored == struct.pack(f"<{len(floats)}e", *floats)
    assert to_floats(stored, "float16") == floats
    assert len(stored) == size_bytes(len(floats), "float16") == len(zero_vector(len(floats), "float16"))


@pytest.mark.parametrize(
    "answer",
    [
        [[1.0, 2.0], [3.0, 4.0]],
        ((1, 2), (3, 4)),
        np.array([[1, 2], [3, 4]]),
        np.array([[1, 2], [3, 4]], dtype=">f8"),
        np.asfortranarray([[1.0, 2.0], [3.0, 4.0]], dtype=np.float32),
        [np.array([1.0, 2.0]), np.array([3.0, 4.0])],
        np.array([[1.0, 9.0, 2.0, 9.0], [3.0, 9.0, 4.0, 9.0]])[:, ::2],
    ],
    ids=["lists", "tuples", "ints", "big-endian", "fortran", "rows", "strided"],
)
def test_shapes_accepted(answer):
    """Whatever holds the right numbers becomes the same rows, each contiguous."""
    rows = as_rows(answer, 2, 2)
    assert [row.tobytes() for row in rows] == [struct.pack("<2f", 1, 2), struct.pack("<2f", 3, 4)]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "no array|shape"),
        ([], "shape"),
        ([[1.0, 2.0]], "2 texts"),
        ([[1.0, 2.0]] * 3, "2 texts"),
        ([[1.0], [2.0]], "1 dimensions"),
        ([[1.0, 2.0, 3.0]] * 2, "3 dimensions"),
        ([[1.0, 2.0], [3.0]], "no array"),
        ([["a", "b"], ["c", "d"]], "no array"),
        ([[1.0, None], [3.0, "x"]], "no array"),
        ([1.0, 2.0], "shape"),
        (np.zeros((2, 2, 2)), "shape"),
        ({"data": []}, "no array"),
        ("text", "no array"),
        ([[1 + 2j, 0], [0, 0]], "no array"),
        ([[10**400, 0.0], [1.0, 1.0]], "no array"),
    ],
    ids=lambda part: repr(part)[:24],
)
def test_shapes_refused(answer, words):
    """Too few, too many, too wide, ragged, or not numbers: Malformed, and nothing else."""
    with pytest.raises(Malformed, match=words):
        as_rows(answer, 2, 2)


def test_overflow_is_infinity():
    """A number that float32 cannot hold shows as infinity and is caught, without a warning."""
    assert faulty_rows(as_rows([[1e300, 0.0], [1.0, 0.0]], 2, 2)).tolist() == [0]


def test_what_float16_cannot_hold_is_faulty():
    """Beyond 65,504 it is infinite, and what vanishes altogether is all zeros; both without a warning."""
    rows = as_rows([[70_000.0, 0.0], [65_504.0, 0.0], [1e-9, -1e-9], [6e-8, 0.0]], 4, 2, "float16")
    assert faulty_rows(rows).tolist() == [0, 2]
    assert not len(faulty_rows(as_rows([[70_000.0, 0.0], [1e-9, 0.0]], 2, 2)))


def test_faulty_rows():
    """NaN, either infinity and all zeros are faulty; one tiny number is enough to be good."""
    nan, inf = float("nan"), float("inf")
    rows = as_rows([[1, 0], [nan, 1], [1, inf], [-inf, 1], [0, 0], [-0.0, 0], [0, 1e-38], [None, 1]], 8, 2)
    assert faulty_rows(rows).tolist() == [1, 2, 3, 4, 5, 7]


def test_how_alike_two_vectors_are():
    """Not at all, where their lengths differ or one is all zeros."""
    one = np.array([3.0, 4.0])
    assert cosine(one, 2 * one) == pytest.approx(1.0)
    assert (cosine(one, np.zeros(3)), cosine(one, np.zeros(2))) == (0.0, 0.0)
