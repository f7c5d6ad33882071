"""Vectors out of answers: what is delivered, and what cannot be told to its text."""

from __future__ import annotations

import base64
import importlib.util
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedqueue.embedders import documents
from embedqueue.embedders.rows import gemini_rows, normalised, openai_rows
from embedqueue.values.vectors import Malformed

NAN = float("nan")


def answer(*vectors: Any, indices: list[Any] | None = None) -> dict[str, Any]:
    entries = [{"embedding": vector} for vector in vectors]
    for entry, index in zip(entries, indices or [], strict=False):
        entry["index"] = index
    return {"data": entries}


def packed(*numbers: float) -> str:
    return base64.b64encode(np.array(numbers, dtype="<f4").tobytes()).decode()


@pytest.mark.parametrize(
    ("document", "rows"),
    [
        (answer([1, 2], [3.5, 4]), [[1, 2], [3.5, 4]]),
        (answer(packed(1, 2), packed(3, 4)), [[1, 2], [3, 4]]),
        (answer([3, 4], [1, 2], indices=[1, 0]), [[1, 2], [3, 4]]),
        (answer(packed(3, 4), packed(1, 2), indices=[1, 0]), [[1, 2], [3, 4]]),
        (answer([3, 4], [1, 2], indices=[2, 1]), [[1, 2], [3, 4]]),
        (answer([3, 4], [1, 2], indices=["1", "0"]), [[1, 2], [3, 4]]),
        (answer([3, 4], [1, 2], indices=["2", "1"]), [[1, 2], [3, 4]]),
        (answer([3, 4], [1, 2], indices=[1.0, 0.0]), [[1, 2], [3, 4]]),
        (answer([1, 2], [3, 4], indices=[None, None]), [[1, 2], [3, 4]]),
        (answer([1, 2], None), [[1, 2], [NAN, NAN]]),
        (answer(None, packed(1, 2)), [[NAN, NAN], [1, 2]]),
        (answer([1, 2], [None, None]), [[1, 2], [NAN, NAN]]),
        (answer([1, 2], [NAN, 1]), [[1, 2], [NAN, 1]]),
        (answer([1, 1e300], [0, 0]), [[1, np.inf], [0, 0]]),
    ],
)
def test_rows(document: Any, rows: list[list[float]]) -> None:
    found = openai_rows(document, len(rows))
    np.testing.assert_array_equal(found, np.array(rows, dtype=np.float32))
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    assert found.flags.writeable


@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        None,
        "text",
        {"data": None},
        {"data": []},
        answer([1, 2]),
        answer([1, 2], [3, 4], [5, 6]),
        answer([1, 2], [3]),
        answer([1, 2], []),
        answer([], []),
        answer(None, None),
        answer([[1, 2]], [[3, 4]]),
        answer([1, 2], "text"),
        answer("?", "!"),
        answer("", ""),
        answer("AAA=", "AAA="),
        answer(packed(1, 2), packed(1)),
        answer(packed(1, 2), [1, 2]),
        answer([1, {}], [1, 2]),
        answer([1, "2"], [1, 2]),
        answer(["1", "2"], ["3", "4"]),
        answer([10**400, 1], [1, 2]),
        answer([1, 2], [3, 4], indices=[0, 0]),
        answer([1, 2], [3, 4], indices=[2, 3]),
        answer([1, 2], [3, 4], indices=[1, None]),
        answer([1, 2], [3, 4], indices=[0.5, 1]),
        answer([1, 2], [3, 4], indices=["a", "b"]),
        answer([1, 2], [3, 4], indices=["0", "0"]),
        answer([1, 2], [3, 4], indices=[True, False]),
        answer([1, 2], [3, 4], indices=[1]),
        answer(5, 6),
        answer(True, False),
        {"data": [1, 2]},
        {"data": {"0": [1, 2]}},
    ],
)
def test_what_cannot_be_told_to_its_text_is_refused(document: Any) -> None:
    with pytest.raises(Malformed):
        openai_rows(document, 2)


@pytest.mark.parametrize(
    ("document", "encoded"),
    [({"data": []}, True), (answer("", ""), True), (answer("?", "?"), True), (answer([1], [1, 2]), False)],
)
def test_only_a_fault_of_the_encoding_asks_for_another(document: Any, encoded: bool) -> None:
    with pytest.raises(Malformed) as caught:
        openai_rows(document, 2)
    assert caught.value.encoded is encoded


def test_gemini() -> None:
    rows = gemini_rows({"embeddings": [{"values": [1, 2]}, {}]}, 2)
    np.testing.assert_array_equal(rows, [[1, 2], [NAN, NAN]])
    bad: list[Any] = [{}, {"embeddings": [{"values": [1, 2]}]}, {"embeddings": [{}, {}]}, {"embeddings": None}]
    for document in bad:
        with pytest.raises(Malformed):
            gemini_rows(document, 2)


def test_normalised_leaves_zeros_and_nan_to_the_queue() -> None:
    rows = normalised(np.array([[3, 4], [0, 0], [NAN, 1]], dtype=np.float32))
    np.testing.assert_allclose(rows[:2], [[0.6, 0.8], [0.0, 0.0]], rtol=1e-6)
    assert np.isnan(rows[2]).any()


@pytest.mark.parametrize("body", [b'{"a": NaN}', b'{"a": Infinity}', b'{"a": -Infinity}'])
def test_json_that_one_library_refuses_is_read_all_the_same(body: bytes) -> None:
    """The standard library reads them, orjson does not: the user must not notice which one is installed."""
    assert not np.isfinite(documents.parse(body)["a"])


@pytest.mark.parametrize("body", [b"", b"{", b"<html>", b"\xff", b"[" * 200_000, b'{"a": 1} tail'])
def test_what_is_no_json(body: bytes) -> None:
    assert documents.parse(body) is documents.BROKEN


def test_without_orjson(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "orjson", None)  # as if it were not installed
    spec = importlib.util.find_spec("embedqueue.embedders.documents")
    without = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(without)
    assert without.parse(without.serialise({"text": "Grüße 🙂"})) == {"text": "Grüße 🙂"}
    assert without.parse(b"{") is without.BROKEN
    with pytest.raises(ValueError, match="UTF-8") as caught:
        without.serialise("secret \ud800")
    assert caught.value.__context__ is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["embedding", "index"]), inner),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(entries=JSON)
def test_any_document_gives_rows_or_malformed(entries: Any) -> None:
    """Whatever a server makes up, nothing else comes out."""
    try:
        rows = openai_rows({"data": entries}, 2)
    except Malformed:
        return
    assert rows.dtype == np.float32
    assert rows.shape[0] == 2


def test_one_long_vector_does_not_make_room_for_a_thousand_that_are_null() -> None:
    """64 MB of an answer would ask for 100 GB."""
    entries = [{"values": [0.0] * (1 << 16)}, *[{"values": None}] * 2047]
    with pytest.raises(Malformed, match="65536 numbers"):
        gemini_rows({"embeddings": entries}, len(entries))
