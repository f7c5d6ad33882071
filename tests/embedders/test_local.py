"""The offline embedder."""

from __future__ import annotations

import importlib
import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from embedqueue.embedders import Embedder, LocalEmbedder, local
from embedqueue.values.errors import ConfigurationError, InputRejected
from tests.parts import PROGRAM_SECONDS

pytest.importorskip("wordllama")

TEXTS = ["a cat on the mat", "ein Haus am See", "🙂 " + "long " * 2000]


@pytest.mark.parametrize("dimensions", [256, 128, 64])
def test_vectors(dimensions: int) -> None:
    embedder = LocalEmbedder(dimensions)
    rows = embedder.embed_batch(TEXTS, "any")
    assert rows.shape == (3, dimensions)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    assert isinstance(embedder, Embedder)


def test_a_text_has_one_vector_whatever_its_company() -> None:
    rows = LocalEmbedder().embed_batch(TEXTS)
    for text, row in zip(TEXTS, rows, strict=True):
        np.testing.assert_array_equal(LocalEmbedder().embed_batch([text])[0], row)


def test_meaning() -> None:
    cat, kitten, tax = LocalEmbedder().embed_batch(["a cat", "a small kitten", "income tax return"])
    assert cat @ kitten > cat @ tax


def test_threads_agree() -> None:
    local._load.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        several = list(pool.map(lambda _: LocalEmbedder().embed_batch(TEXTS[:2]), range(16)))
    for rows in several:
        np.testing.assert_array_equal(rows, several[0])


def test_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="256"):
        LocalEmbedder(300)
    with pytest.raises(InputRejected) as caught:
        LocalEmbedder().embed_batch(["x", ""])
    assert caught.value.index == 1
    with pytest.raises(InputRejected) as caught:
        LocalEmbedder().embed_batch(["x", "\ud800"])
    assert caught.value.index == 1
    assert LocalEmbedder().embed_batch([]).shape == (0, 256)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    local._load.cache_clear()
    monkeypatch.setitem(sys.modules, "wordllama", None)
    with pytest.raises(ConfigurationError, match=r"embedqueue\[local\]"):
        LocalEmbedder().embed_batch(["x"])


def test_the_users_logging_is_left_alone() -> None:
    """The package calls logging.basicConfig when it is imported."""
    code = (
        "import logging; from embedqueue.embedders import LocalEmbedder; LocalEmbedder().embed_batch(['x']);"
        "root = logging.getLogger(); print(len(root.handlers), root.level)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PROGRAM_SECONDS, check=True
    )
    assert ran.stdout.split() == ["0", str(logging.WARNING)]


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    code = "import sys, embedqueue.embedders; print('wordllama' in sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PROGRAM_SECONDS, check=True
    )
    assert ran.stdout.strip() == "False"
    assert importlib.util.find_spec("wordllama")
