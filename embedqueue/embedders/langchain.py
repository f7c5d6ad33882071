"""Any embeddings of LangChain behind a queue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from embedqueue.values.errors import OptionTypeError

from .library import LibraryEmbedder


class LangChainEmbedder(LibraryEmbedder):
    """An object of LangChain's ``Embeddings``: hundreds of providers are spoken to by its packages.

    Documents go to its ``embed_documents``, queries to its ``embed_query``. Give it no retries of its own
    (``max_retries=0``): the queue tries again, and tells others to wait meanwhile. A queue that is given no model takes
    the object's name of it, or that of its class.

    Args:
        embeddings: the object. It must be thread-safe, as LangChain's are that speak HTTP.
        dimensions: length of its vectors; None: it is learned from the first answer.
        max_text_tokens: what one text may hold; None means what is known of the model.

    Raises:
        TypeError: the object has not both methods.
    """

    provider = "langchain"

    def __init__(self, embeddings: Any, dimensions: int | None = None, *, max_text_tokens: int | None = None) -> None:
        if not all(callable(getattr(embeddings, name, None)) for name in ("embed_documents", "embed_query")):
            words = f"must have embed_documents and embed_query as LangChain's do, not {type(embeddings).__name__}"
            raise OptionTypeError("embeddings", words)
        self._embeddings = embeddings
        names = (getattr(embeddings, name, None) for name in ("model", "model_name", "deployment"))
        named = next((name for name in names if isinstance(name, str)), type(embeddings).__name__)
        super().__init__(named, dimensions, max_text_tokens)

    @property
    def variant(self) -> str:
        """Which class of LangChain's, and its model."""
        return f"{super().variant}\0{type(self._embeddings).__qualname__}"

    def cuts_long_texts(self, model: str) -> bool:
        """Perhaps, but for OpenAI's: LangChain embeds a long text in parts there, and takes their mean."""
        return getattr(self._embeddings, "check_embedding_ctx_length", False) is not True

    def _documents(self, texts: list[str]) -> Any:
        return self._embeddings.embed_documents(texts)

    def _queries(self, texts: list[str]) -> Any:
        return [self._embeddings.embed_query(text) for text in texts]

    def _secrets(self) -> Iterator[str]:
        """Keys, which LangChain's objects keep as pydantic's ``SecretStr``."""
        for value in list(getattr(self._embeddings, "__dict__", {}).values()):
            if callable(reveal := getattr(value, "get_secret_value", None)):
                yield str(reveal())
