"""A queue as LangChain's ``Embeddings``: for vector stores, retrievers and whatever else takes them.

::

    store = RedisVectorStore(QueueEmbeddings(queue), ...)

Needs ``pip install "embedqueue[langchain]"``.
"""

from __future__ import annotations

from langchain_core.embeddings import Embeddings

from embedqueue.queue import EmbeddingBatchQueue

from .kept import DEFAULT_EXPIRE, DEFAULT_TIMEOUT, KeptVectors


class QueueEmbeddings(Embeddings):  # type: ignore[misc,unused-ignore]  # Any where LangChain is not installed
    """LangChain's ``Embeddings`` by a queue: durable, shared by all who ask, and kept for a while.

    ``embed_documents`` enqueues under keys of its own, whose hashes expire: ``PREFIXdigest``, one for each text. So a
    text that was asked for lately, by any process, is not sent again, and what a crash interrupts is embedded all the
    same. ``embed_query`` is the queue's: at once, in the role of queries, and without a hash.

    Args:
        queue: whose worker runs here or elsewhere.
        prefix: of the hashes' keys; None for ``langchain:NAMESPACE:``. No index of the application should cover it.
        expire: seconds for which a document's vector is kept after it was asked for last; at least 1.
        timeout: seconds to wait for the vectors of one call; None waits until there is an answer.

    Raises:
        ValueError: a number out of range, or an empty prefix.
    """

    def __init__(
        self,
        queue: EmbeddingBatchQueue,
        *,
        prefix: str | None = None,
        expire: float = DEFAULT_EXPIRE,
        timeout: float | None = DEFAULT_TIMEOUT,
    ) -> None:
        self._queue = queue
        self._timeout = timeout
        self._documents = KeptVectors(queue, "langchain", prefix, expire, timeout)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """The vectors of documents, in order; a blank text has zeros.

        Args:
            texts: any number.

        Raises:
            TimeoutError: not all are there in time; what is missing is still queued.
            BatchFailed, ItemRejected: as the queue's futures.
        """
        return self._documents(texts)

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query; see :meth:`embedqueue.EmbeddingBatchQueue.embed_query`."""
        return self._queue.embed_query(text, self._timeout)
