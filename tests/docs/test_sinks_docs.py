"""What the page on sinks shows runs."""

from __future__ import annotations

import re
from pathlib import Path

from embedqueue.testing import FakeEmbedder, eager_queue

PAGE = (Path(__file__).parents[2] / "docs" / "sinks.md").read_text("utf-8")


def test_vectors_of_hashes_are_copied(fake_redis):
    """As it is written: with their stamps and what they are of; what is no vector of ours is left out."""
    rows = {}

    class Sink:
        def write(self, some):
            rows.update({row.redis_key: row for row in some})

    embedder = FakeEmbedder(8)
    queue = eager_queue(embedder, fake_redis)
    queue.enqueue_many([("note:1", "one"), ("note:2", "two")])
    fake_redis.hset("note:3", "title", "none yet")
    block = next(found for found in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL) if "scan_iter" in found)
    exec(block, {"client": fake_redis, "sink": Sink()})
    assert set(rows) == {"note:1", "note:2"}
    assert rows["note:1"].vector.tobytes() == embedder.bytes_of("one")
    assert rows["note:2"].provenance.encode() == fake_redis.hget("note:2", "embedding_of")
    queue.stop()
