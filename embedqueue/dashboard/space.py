"""Of which space the vectors are: what the namespace has agreed in, and who would write otherwise."""

from __future__ import annotations

from collections import Counter
from typing import Any

from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.store.records import differing

#: What is agreed in, by name, in words.
AGREED = {
    "model": "Model",
    "dimensions": "Length of a vector",
    "role": "Role",
    "vector_type": "Type of its numbers",
    "embedding_field": "Field of the vector",
    "provenance_field": "Field beside it",
}


def agreed(queue: EmbeddingBatchQueue) -> dict[str, Any]:
    """What is kept, what this process says, and the spaces of those who work. Three round trips.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    engine, stats = queue._engine, queue.stats()
    kept, terms = engine.store.agreed(), engine.terms()
    ours = terms.agreed
    return {
        "names": AGREED,
        "kept": kept,
        "ours": ours,
        "differs": set(differing(kept, ours)),
        "space": terms.space,
        "spaces": Counter(worker.space for worker in queue.workers()) if stats.workers else {},
    }
