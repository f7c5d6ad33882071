"""The test provider itself: what it counts, and how another process commands it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import requests

from embedqueue.embedders import OpenAIEmbedder
from embedqueue.values.errors import InputRejected, TransientError
from tests.provider import Provider, fail, poison, vector_of


def test_vectors_depend_on_the_text_alone() -> None:
    assert vector_of("a").dtype == np.float32
    assert np.linalg.norm(vector_of("a", 256)) == pytest.approx(1, rel=1e-5)
    np.testing.assert_array_equal(vector_of("a"), vector_of("a"))
    texts = [f"text {place}" for place in range(500)]
    likeness = np.stack([vector_of(text, 256) for text in texts]) @ np.stack([vector_of(text, 256) for text in texts]).T
    assert (likeness - np.eye(500)).max() < 0.9  # no two texts share a vector


def test_it_counts_and_fails_on_command() -> None:
    with Provider() as provider:
        embedder = OpenAIEmbedder("test-key", provider.openai_url, timeout=5)
        provider.rule = poison("bad", 400)
        embedder.embed_batch(["a", "b"], "m")
        with pytest.raises(InputRejected):
            embedder.embed_batch(["a", "bad"], "m")
        provider.script(fail(503))
        with pytest.raises(TransientError):
            embedder.embed_batch(["a"], "m")
        assert provider.sent == {"a": 3, "b": 1, "bad": 1}
        assert provider.answered == {"a": 1, "b": 1}
        assert [call.status for call in provider.calls] == [200, 400, 503]
        assert provider.max_concurrent == 1
        provider.reset()
        assert not provider.calls
        assert not provider.wait_for_calls(1, timeout=0.01)


def test_it_serves_and_obeys_from_another_process() -> None:
    command = [sys.executable, "-m", "tests.provider", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            _obeys(url)
        finally:
            process.kill()


def _obeys(url: str) -> None:
    embedder = OpenAIEmbedder("other-key", url, timeout=5)

    def control(**orders: Any) -> None:
        requests.post(f"{url}/control", json=orders, timeout=5).raise_for_status()

    control(keys=["other-key"], script=[{"status": 503}, None], rule={"contains": "bad", "answer": {"status": 400}})
    with pytest.raises(TransientError):
        embedder.embed_batch(["a"], "m")
    np.testing.assert_array_equal(embedder.embed_batch(["a"], "m")[0], vector_of("a"))
    with pytest.raises(InputRejected):
        embedder.embed_batch(["bad"], "m")
    state = requests.get(f"{url}/control", timeout=5).json()
    assert state["sent"] == {"a": 2, "bad": 1}
    assert state["answered"] == {"a": 1}
    assert [call["status"] for call in state["calls"]] == [503, 200, 400]
    control(reset=True)
    assert requests.get(f"{url}/control", timeout=5).json()["calls"] == []
