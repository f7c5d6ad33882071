"""What speaks HTTP is imported only by those who use it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import embedqueue
from embedqueue import embedders
from tests.parts import PROGRAM_SECONDS


def test_a_queue_needs_no_requests():
    """Its import takes longer than all the rest of embedqueue."""
    used = "embedqueue.OpenAIEmbedder; sys.modules['requests']"
    code = f"import sys, embedqueue; assert 'requests' not in sys.modules; {used}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PROGRAM_SECONDS)


def test_who_only_enqueues_and_waits_needs_no_numpy(redis_client, redis_server):
    """Another process makes the vectors; what it has written is read without numpy."""
    code = f"""
import sys, redis
from embedqueue import EmbeddingBatchQueue
class Nobody:
    dimensions = 2
    def embed_batch(self, texts, model): raise AssertionError
client = redis.Redis.from_url({redis_server.url!r})
queue = EmbeddingBatchQueue(Nobody(), client, worker=False)
assert queue.enqueue("lazy:1", " ").result(1) == [0.0, 0.0]
queue.enqueue("lazy:2", "text")
queue.stop()
assert 'numpy' not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PROGRAM_SECONDS)


@pytest.mark.parametrize("module", [embedqueue, embedders])
def test_every_public_name_is_there(module):
    assert all(getattr(module, name) is not None for name in module.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Nobody'"):
        module.Nobody
