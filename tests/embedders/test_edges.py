"""Corners of the embedders that no provider leads into."""

from __future__ import annotations

import base64
import importlib.util
import os
import sys

import numpy as np
import pytest
import requests
from requests.adapters import HTTPAdapter

from embedqueue.embedders import GeminiEmbedder, LocalEmbedder, OpenAIEmbedder, http, rows
from embedqueue.embedders.faults import read_fault
from embedqueue.embedders.wire import TimedAdapter
from embedqueue.values.errors import ConfigurationError, TransientError
from tests.provider import Provider


def test_a_deadline_that_has_passed_before_anything_came():
    with Provider() as provider, pytest.raises(TransientError, match="deadline"):
        OpenAIEmbedder("test-key", provider.openai_url, deadline=1e-9).embed_batch(["x"], "m")


def test_a_model_that_has_no_form_in_utf8():
    """It is no text's fault."""
    for kind in (OpenAIEmbedder, GeminiEmbedder):
        with pytest.raises(ConfigurationError, match="model's name"):
            kind("k", "http://127.0.0.1:9/v1").embed_batch(["x"], "m\ud800")


def test_close_in_a_child_leaves_the_parents_connections(monkeypatch):
    """A forked child must not say goodbye on sockets that its parent uses."""
    with Provider() as provider:
        embedder = OpenAIEmbedder("test-key", provider.openai_url)
        embedder.embed_batch(["x"], "m")
        with monkeypatch.context() as child:
            child.setattr(os, "getpid", lambda: -1)
            embedder.close()
        embedder.embed_batch(["x"], "m")
        assert len({call.peer for call in provider.calls}) == 1


def test_errors_within_errors_end_somewhere():
    error: Exception = OSError("innermost")
    for _ in range(20):
        error = requests.exceptions.ConnectionError(error)
    assert isinstance(http.failure_of(error, "http://host/v1", reached=False), TransientError)


def test_a_refusal_nested_beyond_reading_is_still_one():
    deep = b'{"error":' * 40 + b'"words"' + b"}" * 40
    fault = read_fault(400, deep)
    assert fault.status == 400
    assert "words" not in fault.message


def test_without_pybase64_vectors_are_the_same(monkeypatch):
    """The extra is faster, nothing else; bad base64 is refused by both."""
    monkeypatch.setitem(sys.modules, "pybase64", None)
    spec = importlib.util.spec_from_file_location("rows_without_extra", rows.__file__)
    plain = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plain)
    packed = base64.b64encode(np.array([1, 2], dtype="<f4").tobytes()).decode()
    assert plain._unpack(packed) == rows._unpack(packed)
    for broken in ("A", packed + "!", "é"):
        for module in (plain, rows):
            with pytest.raises(ValueError):
                module._unpack(broken)


def test_socks_proxies_keep_their_own_connections(monkeypatch):
    """They know nothing of our deadline; the read timeout holds there."""

    class Manager:
        pool_classes_by_scheme = None

    monkeypatch.setattr(HTTPAdapter, "proxy_manager_for", lambda self, proxy, **kwargs: Manager())
    adapter = TimedAdapter()
    assert adapter.proxy_manager_for("socks5h://127.0.0.1").pool_classes_by_scheme is None
    assert set(adapter.proxy_manager_for("http://127.0.0.1").pool_classes_by_scheme) == {"http", "https"}


def test_the_local_embedder_as_others():
    assert repr(LocalEmbedder(64)) == "LocalEmbedder(dimensions=64)"
    with pytest.raises(TypeError, match="not one str"):
        LocalEmbedder(64).embed_batch("text")
