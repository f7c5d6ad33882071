"""A queue as LangChain's embeddings. Skipped where LangChain is missing."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("langchain_core", reason="embedqueue[langchain] is not installed")

from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore

from embedqueue.integrations.langchain import QueueEmbeddings
from embedqueue.testing import FakeEmbedder, eager_queue
from tests.parts import PATIENCE_SECONDS


class WithQueries(FakeEmbedder):
    """One that embeds queries otherwise."""

    def embed_queries(self, texts, model):
        return self.embed_batch([f"query: {text}" for text in texts], model)


def test_a_vector_store_of_langchains_is_filled_and_searched():
    """By the queue alone: documents in their role, queries in theirs."""
    embedder = WithQueries(32)
    queue = eager_queue(embedder)
    embeddings = QueueEmbeddings(queue, timeout=PATIENCE_SECONDS)
    assert isinstance(embeddings, Embeddings)
    store = InMemoryVectorStore(embeddings)
    store.add_texts(["the cat sleeps", "money makes money"])
    assert store.similarity_search("a cat", k=1)[0].page_content == "the cat sleeps"
    assert embedder.sent == {"the cat sleeps": 1, "money makes money": 1, "query: a cat": 1}
    assert len(list(queue.redis.scan_iter("langchain:embed_queue:*"))) == 2


def test_its_asynchronous_methods_work(make_queue):
    """LangChain runs them in threads; these share the queue's calls."""
    embedder = FakeEmbedder(4)
    queue = make_queue(embedder=embedder)

    async def ask():
        embeddings = QueueEmbeddings(queue, timeout=PATIENCE_SECONDS)
        return await asyncio.gather(embeddings.aembed_documents(["one"]), embeddings.aembed_query("two"))

    assert asyncio.run(ask()) == [[embedder.vector_of("one").tolist()], embedder.vector_of("two").tolist()]
