"""Notes found by meaning: the query becomes a vector, too, and Redis finds the nearest ones."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any, NamedTuple

import redis

from embedqueue.settings.settings import Settings
from embedqueue.values.vectors import index_type, to_bytes


class Hit(NamedTuple):
    """A note that was found: its hash, and the cosine of the angle between its vector and the query's."""

    key: str
    score: float


class NoteSearch:
    """The vector index over all hashes whose key begins with a prefix.

    Args:
        settings: how the queue is set up: queries are embedded as notes are.
        prefix: what stands before each note's key.
    """

    def __init__(self, settings: Settings, prefix: str) -> None:
        self._field = settings.option("embedding_field")
        self.settings = settings
        self._prefix = prefix
        self._embedder = settings.embedder()
        # RESP3, the default of newer clients, gives the search's answers another shape.
        self._client: Any = settings.client(protocol=2)
        self._indexed = False
        self._lock = threading.Lock()  # guards the flag

    def ensure_index(self) -> None:
        """Make the index unless it is there. Redis keeps it up to date from then on."""
        with self._lock:
            if self._indexed:
                return
            vector = [
                "VECTOR",
                "HNSW",
                "6",
                "TYPE",
                index_type(self.settings.option("vector_type")),
                "DIM",
                str(self.settings.dimensions),
            ]
            schema = [self._field, *vector, "DISTANCE_METRIC", "COSINE"]
            try:
                self._client.execute_command(
                    *("FT.CREATE", f"{self._prefix}index", "ON", "HASH", "PREFIX", "1", self._prefix, "SCHEMA"), *schema
                )
            except redis.ResponseError as error:
                if "already exists" not in str(error):
                    raise
            self._indexed = True

    def nearest(self, question: str, count: int = 3) -> list[Hit]:
        """The notes nearest to the question, best first.

        Raises:
            EmbedQueueError: the question cannot be embedded.
            redis.RedisError: Redis cannot be asked.
        """
        self.ensure_index()
        rows = self._embedder.embed_batch([question], self.settings.model)
        vector = to_bytes(rows[0], self.settings.option("vector_type"))
        query = f"*=>[KNN {count} @{self._field} $vector AS distance]"
        options = ["PARAMS", "2", "vector", vector, "SORTBY", "distance", "RETURN", "1", "distance"]
        reply = self._client.execute_command("FT.SEARCH", f"{self._prefix}index", query, *options, "DIALECT", "2")
        pairs = zip(reply[1::2], reply[2::2], strict=True)
        return [Hit(key.decode(), 1 - float(fields[1])) for key, fields in pairs]

    def searchable(self, keys: Iterable[str]) -> set[str]:
        """Those of the keys whose hash has its vector."""
        self.ensure_index()  # before the first note is: Redis would need a moment to read older ones
        keys = list(keys)
        pipe = self._client.pipeline(transaction=False)
        for key in keys:
            pipe.hexists(key, self._field)
        return {key for key, there in zip(keys, pipe.execute(), strict=True) if there}
