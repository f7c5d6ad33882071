"""Notes found by meaning: an index over their hashes, and searches through it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from embedqueue import EmbeddingBatchQueue, SearchHit

#: What stands before each note's key, and the name of the index over them.
PREFIX, INDEX = "note:", "notes"


@cache  # once a process
def ensure_index(queue: EmbeddingBatchQueue) -> None:
    """Make the index unless it is there. Redis keeps it up to date from then on."""
    queue.create_index(INDEX, PREFIX)


def nearest(queue: EmbeddingBatchQueue, question: str, count: int = 3) -> list[SearchHit]:
    """The notes nearest to the question, best first."""
    ensure_index(queue)
    return queue.search(question, count, index=INDEX, return_fields=[])


def searchable(queue: EmbeddingBatchQueue, client: Any, keys: Iterable[str]) -> set[str]:
    """Those of the keys whose hash has its vector."""
    ensure_index(queue)  # before the first note is: Redis would need a moment to read older ones
    keys = list(keys)
    pipe = client.pipeline(transaction=False)
    for key in keys:
        pipe.hexists(key, queue.options.embedding_field)
    return {key for key, there in zip(keys, pipe.execute(), strict=True) if there}
