"""OpenAI's wire format: OpenAI itself, OpenRouter, and the many servers of one's own that speak it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from embedqueue.values.errors import OptionValueError
from embedqueue.values.options import EMBED_DIMENSIONS

from .batch_jobs import BatchJobs
from .dialects import Dialect, dialect_of
from .gemini import GEMINI_DIMENSIONS
from .hosted import DEFAULT_MAX_RESPONSE_BYTES, DEFAULT_TIMEOUT, Address, HostedEmbedder, parted
from .keys import Secret
from .openai_jobs import OpenAIJobs, jobs_http
from .roles import DOCUMENT_TASK, QUERY_TASK, Role, given_role, is_untyped, untyped_role
from .usage import charged

EncodingFormat = Literal["base64", "float"]

#: Where OpenAI itself answers; its regional hosts end like it.
_OPENAI_HOST = "api.openai.com"
#: Texts in one call to OpenAI (openai-python, embedding_create_params).
_OPENAI_MAX_TEXTS = 2048
#: Tokens in one call to OpenAI, over all texts (the same).
_OPENAI_MAX_TOKENS = 300_000
#: Texts in one call to OpenRouter: what Gemini takes, its strictest upstream known to us.
_OPENROUTER_MAX_TEXTS = 100

#: Models whose vectors cannot be as long as those of the default one (platform.openai.com, "Embeddings").
MODEL_DIMENSIONS: Mapping[str, int] = {
    "text-embedding-3-large": EMBED_DIMENSIONS,
    "text-embedding-3-small": 1536,
    "text-embedding-ada-002": 1536,
    **GEMINI_DIMENSIONS,
}


class OpenAIEmbedder(HostedEmbedder):
    """Any server that answers ``POST .../embeddings`` as OpenAI does: OpenAI, TEI, vLLM, Ollama, infinity, LiteLLM ...

    Vectors are asked for in base64, which decodes five times faster than lists; a server that answers
    wrongly to that is asked for lists from then on. ``dimensions`` that are given are sent unless they are 3072,
    which is what the large models give by themselves; a server that refuses them is asked without them.

    Args:
        api_key: the key, as a string or a ``SecretStr``; None reads ``OPENAI_API_KEY`` at the first call, "" sends
            none. Only OpenAI's own host needs one.
        base_url: as people write it: with or without ``/v1``, a final slash or ``/embeddings``. A path is kept as it is
            (infinity has no ``/v1``: give ``http://host:7997/embeddings``); without any path it is ``/v1``. TEI's own
            ``http://host:8080/embed`` and Ollama's own ``http://host:11434/api/embed`` are spoken as well: only there
            can these servers be asked to refuse a text that is too long, which they cut without a word otherwise.
        dimensions: length of the vectors; None: that of the model, known or learned from its first answer.
        timeout: seconds that the server may keep silent, or a pair: seconds to connect, seconds of silence.
        encoding_format: "base64" or "float" to insist; None chooses and adapts.
        deadline: seconds for a whole call; None means twice the read timeout.
        max_texts: texts in one call; None means OpenAI's 2,048 there, no known limit elsewhere.
        max_tokens: tokens in one call; None means OpenAI's 300,000 there, no known limit elsewhere.
        max_response_bytes: the largest answer that is read, decoded.
        headers: more headers for every request; they win over ours.
        body: more fields for every request, such as ``{"user": "search"}``.
        document_role: how documents are told from queries, where the model does so: a prefix, such as ``"passage: "``,
            or more fields for their requests, such as ``{"input_type": "document"}``. It is a part of the space of the
            vectors. None: what the documentation of gemini-embedding-2 says for that model, nothing for others.
        query_role: the same for queries, such as ``"query: "`` or ``{"input_type": "query"}``.
        max_text_tokens: tokens in one text; None means what is known of the model.
        batches: whether the server has batch jobs as OpenAI does, for a queue with ``economy``: where it has none, each
            try to make a job is refused, and what was to go into it waits for its time. None: yes.
    """

    key_variables: tuple[str, ...] = ("OPENAI_API_KEY",)
    provider = "openai"  # also of other servers: it tells the format
    default_path = "/v1"
    model_dimensions: ClassVar[Mapping[str, int]] = MODEL_DIMENSIONS
    _automatic_encoding: EncodingFormat = "base64"
    _has_batches: ClassVar[bool] = True

    def __init__(
        self,
        api_key: Secret | None = None,
        base_url: str = "https://api.openai.com/v1",
        dimensions: int | None = None,
        timeout: float | tuple[float, float] = DEFAULT_TIMEOUT,
        *,
        encoding_format: EncodingFormat | None = None,
        deadline: float | None = None,
        max_texts: int | None = None,
        max_tokens: int | None = None,
        max_response_bytes: int = DEFAULT_MAX_RESPONSE_BYTES,
        headers: Mapping[str, Secret] | None = None,
        body: Mapping[str, Any] | None = None,
        document_role: str | Mapping[str, Any] | None = None,
        query_role: str | Mapping[str, Any] | None = None,
        max_text_tokens: int | None = None,
        batches: bool | None = None,
    ) -> None:
        if encoding_format not in ("base64", "float", None):
            raise OptionValueError("encoding_format", f'must be "base64", "float" or None, not {encoding_format!r}')
        address = self._place(base_url)
        self._is_openai = _is_openai(address.url)
        self._dialect = self._spoken_at(address.url)
        default_texts, default_tokens = self._default_limits()
        super().__init__(
            api_key,
            address,
            dimensions,
            timeout,
            deadline=deadline,
            max_texts=default_texts if max_texts is None else max_texts,
            max_tokens=default_tokens if max_tokens is None else max_tokens,
            max_response_bytes=max_response_bytes,
            headers=headers,
            max_text_tokens=max_text_tokens,
        )
        self._encoding_format = encoding_format
        self._given_batches = batches
        self._extra_body = dict(body or {})
        self._given_document_role = given_role("document_role", document_role)
        self._given_query_role = given_role("query_role", query_role)

    @property
    def default_model(self) -> str | None:
        """What a queue asks OpenAI itself for where it is given no model; None for other servers."""
        return "text-embedding-3-large" if self._is_openai else None

    def batch_jobs(self, model: str) -> BatchJobs | None:
        """The server's batch jobs; None where it has none."""
        address, mark, query = self._url.partition("?")
        has_batches = self._has_batches if self._given_batches is None else self._given_batches
        if not has_batches or mark or query or not address.endswith("/embeddings"):
            return None
        return OpenAIJobs(self, model, jobs_http(self), address.removesuffix("/embeddings"))

    def _place(self, base_url: str) -> Address:
        return embeddings_url(base_url, self.default_path)

    def _spoken_at(self, url: str) -> Dialect:
        return dialect_of(url)

    def _default_limits(self) -> tuple[int | None, int | None]:
        return (_OPENAI_MAX_TEXTS, _OPENAI_MAX_TOKENS) if self._is_openai else (None, None)

    def _needs_key(self) -> bool:
        return self._is_openai

    def _auth(self, key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {key}"}

    def _address(self, model: str) -> str:
        return self._url

    def _slug(self, model: str) -> str:
        return model.removeprefix("openai/") if self._is_openai else model

    def _document_role(self, model: str) -> Role:
        return _known_role(model, DOCUMENT_TASK) if self._given_document_role is None else self._given_document_role

    def _query_role(self, model: str) -> Role:
        return _known_role(model, QUERY_TASK) if self._given_query_role is None else self._given_query_role

    def _options(self, model: str, role: Role) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if self._dialect.encodes:
            options["encoding_format"] = self._encoding_format or self._automatic_encoding
        if self._asked_dimensions is not None:
            options[self._dialect.dimensions] = self._asked_dimensions
        return options

    def _instead_of(self, name: str, value: Any) -> Any:
        return "float" if name == "encoding_format" and value == "base64" else None

    def _chose_encoding(self, options: Mapping[str, Any]) -> bool:
        return self._encoding_format is None and options.get("encoding_format") == "base64"

    @property
    def variant(self) -> str:
        """Whose server, what more it is told in every request, and which roles it is told of."""
        roles = [role and role.name for role in (self._given_document_role, self._given_query_role)]
        told = [self._extra_body, *(roles if any(roles) else [])]
        return "\0".join([super().variant, *(json.dumps(one, sort_keys=True, default=str) for one in told)])

    def _body(self, role: Role, texts: Sequence[str], model: str, options: Mapping[str, Any]) -> dict[str, Any]:
        fixed = {"model": self._slug(model)} if self._dialect.names_model else {}
        more = {**self._dialect.fixed, **self._dialect.refuses_long, **self._extra_body, **role.fields}
        return {**fixed, self._dialect.texts: texts, **options, **more}

    def cuts_long_texts(self, model: str) -> bool:
        """As far as is known of the server; one of which nothing is known may, for many do."""
        return not (self._is_openai or self._dialect.refuses_long)

    def _is_success(self, document: Any) -> bool:
        return self._dialect.is_success(document)

    def _rows(self, document: Any, count: int, model: str) -> NDArray[np.float32]:
        return self._dialect.rows(document, count)

    def _charged(self, document: Any) -> int | None:
        usage = document.get("usage") if isinstance(document, dict) else None  # the answer of TEI's /embed is a list
        return charged(usage, "total_tokens", "prompt_tokens")


class OpenRouterEmbedder(OpenAIEmbedder):
    """OpenRouter: many vendors' models under one key.

    Vectors are asked for as lists: asked for base64, models that have none answer 200 without vectors.
    Where one model is served by several providers, pin them, because their vectors may differ:
    ``body={"provider": {"order": ["..."], "allow_fallbacks": False, "require_parameters": True}}``.

    Args:
        api_key: the key; None reads ``OPENROUTER_API_KEY`` at the first call.
        base_url: OpenRouter's, or what speaks like it.
        dimensions: length of the vectors; None: that of the model, known or learned from its first answer.
        timeout: seconds that the server may keep silent, or a pair: seconds to connect, seconds of silence.
        options: the keyword options of :class:`OpenAIEmbedder`.
    """

    key_variables = ("OPENROUTER_API_KEY",)
    provider = "openrouter"
    default_path = "/api/v1"
    _automatic_encoding = "float"
    _has_batches = False  # of this kind: see docs/half-price.md

    def __init__(
        self,
        api_key: Secret | None = None,
        base_url: str = "https://openrouter.ai/api/v1",
        dimensions: int | None = None,
        timeout: float | tuple[float, float] = DEFAULT_TIMEOUT,
        **options: Any,
    ) -> None:
        super().__init__(api_key, base_url, dimensions, timeout, **options)

    def _default_limits(self) -> tuple[int | None, int | None]:
        return _OPENROUTER_MAX_TEXTS, None

    def cuts_long_texts(self, model: str) -> bool:
        """What the model's own provider does: Google cuts, the others refuse."""
        return "gemini" in model

    def _needs_key(self) -> bool:
        return True

    def _slug(self, model: str) -> str:
        model = model.removeprefix("models/")  # as Google's own API names them
        if "/" in model:
            return model
        vendors = {"gemini-": "google/", "text-embedding-": "openai/"}
        return next((vendor for start, vendor in vendors.items() if model.startswith(start)), "") + model


def embeddings_url(base_url: str, default_path: str) -> Address:
    """The address to post to.

    Args:
        base_url: with or without a path, a final slash, ``/embeddings``, a query.
        default_path: the path where none is given.

    Returns:
        An URL whose path ends in ``/embeddings`` or ``/embed``.
    """
    address, query, has_path = parted(base_url)
    guessed = "" if has_path else default_path
    if not address.endswith(("/embeddings", "/embed")):
        address += f"{guessed}/embeddings"
    return Address(address + query, guessed)


def _known_role(model: str, task_type: str) -> Role:
    return untyped_role(task_type) if is_untyped(model) else Role()


def _is_openai(url: str) -> bool:
    try:
        host = (urlsplit(url).hostname or "").lower()
    except ValueError:
        return False
    return host == _OPENAI_HOST or host.endswith(f".{_OPENAI_HOST}")
