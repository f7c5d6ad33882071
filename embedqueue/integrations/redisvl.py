"""A queue as a vectorizer of RedisVL: for its semantic cache, router, message history and indexes.

::

    cache = SemanticCache(vectorizer=QueueVectorizer(queue))

Needs ``pip install "embedqueue[redisvl]"``.
"""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic import PrivateAttr
from redisvl.utils.vectorize import BaseVectorizer

from embedqueue.embedders.protocol import learned_dimensions
from embedqueue.queue import EmbeddingBatchQueue

from .kept import DEFAULT_EXPIRE, DEFAULT_TIMEOUT, KeptVectors

#: How RedisVL's own vectorizers are told of a query, by vendor.
_QUERIES = ("query", "search_query")


class QueueVectorizer(BaseVectorizer):  # type: ignore[misc,unused-ignore]  # Any where RedisVL is not installed
    """RedisVL's vectorizer by a queue: durable, shared by all who ask, and kept for a while.

    RedisVL asks ``embed`` for what it stores and for what it looks for alike, so everything is embedded as a document,
    in hashes of its own that expire; ``embed(text, input_type="query")`` embeds a query, for models that tell the two
    apart.

    Args:
        queue: whose worker runs here or elsewhere. If its embedder does not know the length of its vectors, it is asked
            for a short text now.
        prefix: of the hashes' keys; None for ``redisvl:NAMESPACE:``. No index of the application should cover it.
        expire: seconds for which a vector is kept after it was asked for last; at least 1.
        timeout: seconds to wait for the vectors of one call; None waits until there is an answer.
        options: ``dtype`` and ``cache`` of RedisVL's ``BaseVectorizer``.

    Raises:
        ValueError: a number out of range, or an empty prefix.
    """

    _queue: EmbeddingBatchQueue = PrivateAttr()
    _timeout: float | None = PrivateAttr()
    _documents: KeptVectors = PrivateAttr()

    def __init__(
        self,
        queue: EmbeddingBatchQueue,
        *,
        prefix: str | None = None,
        expire: float = DEFAULT_EXPIRE,
        timeout: float | None = DEFAULT_TIMEOUT,
        **options: Any,
    ) -> None:
        model = queue.options.model
        super().__init__(model=model, dims=learned_dimensions(queue._embedder, model), **options)
        self._queue = queue
        self._timeout = timeout
        self._documents = KeptVectors(queue, "redisvl", prefix, expire, timeout)

    @property
    def type(self) -> str:
        """What RedisVL writes of it into configurations; it cannot make a queue from one."""
        return "embedqueue"

    def _embed(self, content: Any = "", input_type: str = "document", **_: Any) -> list[float]:
        return self._embed_many([content], input_type=input_type)[0]

    async def _aembed(self, content: Any = "", **options: Any) -> list[float]:
        return await asyncio.to_thread(self._embed, content, **options)

    async def _aembed_many(self, contents: Any = (), batch_size: int = 0, **options: Any) -> list[list[float]]:
        return await asyncio.to_thread(self._embed_many, contents, batch_size, **options)

    def _embed_many(
        self, contents: Any = (), batch_size: int = 0, input_type: str = "document", **_: Any
    ) -> list[list[float]]:
        """All at once: the queue cuts calls itself, so RedisVL's ``batch_size`` means nothing."""
        if not all(isinstance(content, str) for content in contents):
            raise TypeError("only texts can be embedded")
        if input_type in _QUERIES:
            return [self._queue.embed_query(content, self._timeout) for content in contents]
        return self._documents(contents)
