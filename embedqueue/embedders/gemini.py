"""Google's own API for Gemini's embedding models: ``batchEmbedContents``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from embedqueue.values.options import EMBED_DIMENSIONS

from .hosted import DEFAULT_MAX_RESPONSE_BYTES, DEFAULT_TIMEOUT, Address, HostedEmbedder, parted
from .keys import Secret
from .rows import gemini_rows, normalised
from .usage import charged

#: Texts in one call: a hard limit of the API.
_MAX_TEXTS = 100
#: Only its full 3,072 numbers come normalised; the shorter vectors are ours to normalise (docs/providers.md).
_UNNORMALISED_MODEL = "gemini-embedding-001"
#: Takes no task type: there the task is a part of the text.
_UNTYPED_MODEL = "gemini-embedding-2"


class GeminiEmbedder(HostedEmbedder):
    """Gemini's embedding models, straight from Google.

    Args:
        api_key: the key; None reads ``GEMINI_API_KEY``, then ``GOOGLE_API_KEY``, at the first call.
        base_url: Google's, or what speaks like it, with or without ``/v1beta``.
        dimensions: length of the vectors, 128 to 3,072.
        timeout: seconds that the server may keep silent, or a pair: seconds to connect, seconds of silence.
        task_type: what the vectors are for; None sends none. Never sent to gemini-embedding-2, which has none.
        deadline: seconds for a whole call; None means twice the read timeout.
        max_texts: texts in one call.
        max_tokens: tokens in one call; None means no known limit.
        max_response_bytes: the largest answer that is read, decoded.
        headers: more headers for every request; they win over ours.
    """

    key_variables = ("GEMINI_API_KEY", "GOOGLE_API_KEY")
    provider = "gcp.gemini"
    success_field = "embeddings"

    def __init__(
        self,
        api_key: Secret | None = None,
        base_url: str = "https://generativelanguage.googleapis.com/v1beta",
        dimensions: int = EMBED_DIMENSIONS,
        timeout: float | tuple[float, float] = DEFAULT_TIMEOUT,
        *,
        task_type: str | None = "RETRIEVAL_DOCUMENT",
        deadline: float | None = None,
        max_texts: int | None = _MAX_TEXTS,
        max_tokens: int | None = None,
        max_response_bytes: int = DEFAULT_MAX_RESPONSE_BYTES,
        headers: Mapping[str, Secret] | None = None,
    ) -> None:
        super().__init__(
            api_key,
            models_url(base_url),
            dimensions,
            timeout,
            deadline=deadline,
            max_texts=max_texts,
            max_tokens=max_tokens,
            max_response_bytes=max_response_bytes,
            headers=headers,
        )
        self.task_type = task_type

    def _auth(self, key: str) -> dict[str, str]:
        return {"x-goog-api-key": key}  # in the URL it would end in logs

    def _address(self, model: str) -> str:
        address, mark, query = self._url.partition("?")
        return f"{address}/{quote(_resource(model))}:batchEmbedContents{mark}{query}"

    def _options(self, model: str) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if self.task_type is not None and not _name(model).startswith(_UNTYPED_MODEL):
            options["taskType"] = self.task_type
        if self.dimensions != EMBED_DIMENSIONS:
            options["outputDimensionality"] = self.dimensions
        return options

    def _body(self, texts: Sequence[str], model: str, options: Mapping[str, Any]) -> dict[str, Any]:
        # one element a text: several parts in one content give one vector for all of them
        named = {"model": _resource(model), **options}
        return {"requests": [{**named, "content": {"parts": [{"text": text}]}} for text in texts]}

    def _rows(self, document: Any, count: int, model: str) -> NDArray[np.float32]:
        rows = gemini_rows(document, count)
        short = rows.shape[1] < EMBED_DIMENSIONS
        return normalised(rows) if short and _name(model) == _UNNORMALISED_MODEL else rows

    def _charged(self, document: Any) -> int | None:
        return charged(document.get("usageMetadata"), "totalTokenCount", "promptTokenCount")


def models_url(base_url: str) -> Address:
    """The address under which the API's models stand.

    Args:
        base_url: with or without a path, a final slash, ``/models``, a query.

    Returns:
        The URL without a final slash.
    """
    address, query, _ = parted(base_url)
    address, _, has_path = parted(re.sub(r"(?:/models(?:/[^/]*)?)?/*$", "", address))
    guessed = "" if has_path else "/v1beta"
    return Address(address + guessed + query, guessed)


def _resource(model: str) -> str:
    name = model.removeprefix("google/")
    return name if name.startswith(("models/", "tunedModels/")) else f"models/{name}"


def _name(model: str) -> str:
    return _resource(model).rpartition("/")[2]
