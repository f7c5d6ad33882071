"""A worker of the command line with an embedder that stands in the current folder."""

from __future__ import annotations

import sys

from embedqueue.testing import FakeEmbedder

MODULE = """
from embedqueue.testing import FakeEmbedder

def count(report):
    with open("batches", "a") as file:
        file.write(f"{len(report.redis_keys)}\\n")

class Mine(FakeEmbedder):
    def __init__(self):
        super().__init__(5)
"""


def test_a_worker_takes_an_embedder_of_the_current_folder(run, env, tmp_path, monkeypatch, redis_client):
    """By its path, beside functions that are named so, whatever provider the environment names."""
    (tmp_path / "our_embedders.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    monkeypatch.delitem(sys.modules, "our_embedders", raising=False)
    run("--embedder", "our_embedders.Mine", "enqueue", "-", text='{"redis_key": "doc:1", "text": "hello"}\n')
    words = ["--embedder", "our_embedders:Mine", "--set", "on_batch=our_embedders.count"]
    run(*words, "worker", "--burst")
    assert redis_client.hget("doc:1", "embedding") == FakeEmbedder(5).bytes_of("hello")
    assert (tmp_path / "batches").read_text() == "1\n"
    assert "our_embedders:Mine, google/gemini-embedding-001: one call was made" in run(*words, "check", "-v")


def test_a_path_that_leads_nowhere_is_a_sentence(run):
    """Which names the setting."""
    assert "EMBEDQUEUE_EMBEDDER names 'no.such.Thing'" in run("--embedder", "no.such.Thing", "stats", code=1)
