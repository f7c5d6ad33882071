"""The same searches without Redis' search module, for tests of applications: every vector is compared."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import redis
from numpy.typing import NDArray

from embedqueue.values.errors import EmbedQueueError
from embedqueue.values.vectors import VectorType, size_bytes, to_floats

from .definition import Definition
from .hits import SearchHit, fields_of, score_of


class ExactSearch:
    """Searches hashes one by one, in whatever has Redis' plain commands, such as fakeredis.

    Args:
        client: that decodes nothing.
        vector_field: of the users' hashes.
        namespace: of the queue; the definitions of indexes are kept under it, so ``FLUSHALL`` drops them.
    """

    def __init__(self, client: redis.Redis, vector_field: str, namespace: str) -> None:
        self._client: Any = client
        self._vector_field = vector_field
        self._indexes = f"{namespace}:testing:indexes"

    def create(self, name: str, definition: Definition) -> None:
        """Create an index; see :meth:`Search.create`."""
        kept = {key: value for key, value in asdict(definition).items() if key not in ("alias", "schema")}
        self._client.hsetnx(self._indexes, name, json.dumps(kept | {"prefixes": sorted(definition.prefixes)}))
        if differences := definition.differences(self._look(name)):
            raise EmbedQueueError(f"there is another index {name!r}, and it differs in {differences}")

    def find(
        self, name: str, vector: Sequence[float], k: int, where: str | None, return_fields: Sequence[str] | None
    ) -> list[SearchHit]:
        """The nearest hashes; see :meth:`Search.find`.

        Raises:
            EmbedQueueError: there is no such index, or there is a filter, which only Redis itself can read.
        """
        if where:
            raise EmbedQueueError("a search of a test has no filter: only Redis with its search module can read it")
        index = self._look(name)
        query = np.asarray(vector, np.float64)
        hits = []
        for key, values in self._hashes(index):
            stored = _numbers(values.get(self._vector_field.encode(), b""), index)
            if len(stored) == len(query) and stored.any():
                fields = fields_of(values.items(), raw=self._vector_field)
                shown = [name for name in fields if name != self._vector_field]
                wanted = shown if return_fields is None else [name for name in return_fields if name in fields]
                score = score_of(index.metric, _distance(index.metric, query, stored))
                hits.append(SearchHit(key.decode("utf-8", "replace"), score, {name: fields[name] for name in wanted}))
        return sorted(hits, key=lambda hit: (-hit.score, hit.redis_key))[:k]

    def _hashes(self, index: Definition) -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
        prefixes = tuple(prefix.encode() for prefix in index.prefixes)
        for key in self._client.scan_iter(_type="HASH"):
            if key.startswith(prefixes):
                yield key, self._client.hgetall(key)

    def _look(self, name: str) -> Definition:
        kept = self._client.hget(self._indexes, name)
        if kept is None:
            raise EmbedQueueError(f"there is no index {name!r}: queue.create_index(...) makes one")
        facts = json.loads(kept)
        return Definition(**facts | {"prefixes": frozenset(facts["prefixes"])})


def _numbers(vector: bytes, index: Definition) -> NDArray[np.float64]:
    """The numbers of a vector; none where it has another length than the index."""
    vector_type: VectorType = "float16" if index.data_type == "FLOAT16" else "float32"
    right = len(vector) == size_bytes(index.dimensions, vector_type)
    return np.asarray(to_floats(vector, vector_type) if right else [], np.float64)


def _distance(metric: str, query: Any, stored: Any) -> float:
    """As Redis has it."""
    if metric == "L2":
        return float(np.sum((query - stored) ** 2))
    product = float(query @ stored)
    return 1.0 - (product / float(np.linalg.norm(query) * np.linalg.norm(stored)) if metric == "COSINE" else product)
