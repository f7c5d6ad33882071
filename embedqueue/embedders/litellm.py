"""Whatever LiteLLM speaks to, behind a queue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .keys import Secret, revealed
from .library import LibraryEmbedder, imported
from .roles import Role, given_role
from .rows import openai_rows

#: Seconds for a call, unless told otherwise.
_DEFAULT_TIMEOUT = 60.0


class LiteLLMEmbedder(LibraryEmbedder):
    """A model by its name in LiteLLM, such as ``"bedrock/cohere.embed-english-v3"``; needs ``embedqueue[litellm]``.

    LiteLLM is imported at the first call. It is told to try once, for the queue tries again; with providers that speak
    OpenAI's format it takes no notice of that, and tries up to three times (as of 1.110).

    Args:
        model: LiteLLM's name of it.
        dimensions: length of the vectors, which LiteLLM is asked for; None: the model's own, learned from the first
            answer.
        api_key: the key; None leaves it to LiteLLM, which looks into the environment.
        timeout: seconds for a call.
        document_role: how documents are told from queries, where the model does so: a prefix, such as ``"passage: "``,
            or more arguments, such as ``{"input_type": "search_document"}``. It is a part of the space of the vectors.
        query_role: the same for queries.
        max_text_tokens: what one text may hold; None means what is known of the model.
        options: more arguments for ``litellm.embedding``, such as ``api_base``.
    """

    provider = "litellm"

    def __init__(
        self,
        model: str,
        dimensions: int | None = None,
        *,
        api_key: Secret | None = None,
        timeout: float = _DEFAULT_TIMEOUT,
        document_role: str | Mapping[str, Any] | None = None,
        query_role: str | Mapping[str, Any] | None = None,
        max_text_tokens: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, dimensions, max_text_tokens)
        self._key = None if api_key is None else revealed("api_key", api_key)
        self._options = {"timeout": timeout, "max_retries": 0, **options}
        self._document_role = given_role("document_role", document_role) or Role()
        self._query_role = given_role("query_role", query_role) or Role()

    @property
    def variant(self) -> str:
        """The model, where it is asked for, and in which role queries are."""
        return "\0".join([super().variant, str(self._options.get("api_base", "")), self._query_role.name or ""])

    def role_of_documents(self, model: str) -> str | None:
        """What documents are embedded as, in one word; None if the provider is told of no role."""
        return self._document_role.name

    def _documents(self, texts: list[str]) -> Any:
        return self._asked(texts, self._document_role)

    def _queries(self, texts: list[str]) -> Any:
        return self._asked(texts, self._query_role)

    def _asked(self, texts: list[str], role: Role) -> Any:
        litellm = imported("litellm", type(self).__name__, "litellm")
        options: dict[str, Any] = {**self._options, **role.fields}
        if self._key is not None:
            options["api_key"] = self._key
        if self._given_dimensions is not None:
            options["dimensions"] = self._given_dimensions
        answer = litellm.embedding(model=self.default_model, input=[role.prefix + text for text in texts], **options)
        # by index, not by position: entries are dictionaries or objects, by the version of LiteLLM
        entries = [entry if isinstance(entry, dict) else dict(entry) for entry in answer.data]
        return openai_rows({"data": entries}, len(texts))

    def _secrets(self) -> Iterator[str]:
        """The key, if we have it, and what else is given as one."""
        yield self._key or ""
        for name, value in self._options.items():
            if isinstance(value, str) and any(word in name for word in ("key", "token", "secret", "password")):
                yield value
