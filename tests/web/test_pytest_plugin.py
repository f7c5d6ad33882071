"""The plugin for pytest, in sessions of their own, as a project's tests would use it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.parts import PROGRAM_SECONDS

pytest.importorskip("freezegun", reason="freezegun is not installed")

FIXTURE = """
def test_it(eager_queue):
    assert len(eager_queue.enqueue("fixture:1", "text").result(0)) == 8
    assert eager_queue.redis.hexists("fixture:1", "embedding")
"""

FLASK = """
from flask import Flask
from embedqueue.contrib.flask import EmbedQueue

def test_it():
    application = Flask("tested")
    embeddings = EmbedQueue(application)
    with application.app_context():
        assert len(embeddings.enqueue("flask:1", "text").result(45)) == 16
"""

FROZEN = """
import os
import freezegun
import redis
from embedqueue import EmbeddingBatchQueue
from embedqueue.testing import FakeEmbedder

@freezegun.freeze_time("2020-01-01")
def test_it(eager_queue):
    client = redis.Redis.from_url(os.environ["EMBEDQUEUE_REDIS_URL"])
    with EmbeddingBatchQueue(FakeEmbedder(8), client, namespace="cold") as queue:
        assert queue.enqueue("frozen:1", "text").result(45)
        queue.flush(5)
    with freezegun.freeze_time("1999-12-31"):
        assert eager_queue.enqueue("doc:2", "text").result(0)
    assert eager_queue.enqueue("doc:3", "text").result(0)
"""


@pytest.mark.parametrize(
    ("config", "reached"),
    [("", {b"flask:1", b"frozen:1"}), ("embedqueue_eager = true", {b"frozen:1"})],
    ids=["", "eager"],
)
def test_a_session(env, redis_client, tmp_path, config, reached):
    """A project's tests pass, and reach the Redis of the settings only where nothing keeps them from it."""
    for name, text in (("fixture", FIXTURE), ("flask", FLASK), ("frozen", FROZEN)):
        (tmp_path / f"test_{name}.py").write_text(text)
    (tmp_path / "pytest.ini").write_text(f"[pytest]\n{config}\n")
    environment = {**os.environ, **env, "PYTHONPATH": os.getcwd()}
    environment.pop("PYTEST_ADDOPTS", None)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=PROGRAM_SECONDS
    )
    assert done.returncode == 0, done.stdout
    assert set(redis_client.keys("*:1")) == reached
