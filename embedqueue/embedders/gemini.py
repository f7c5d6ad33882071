"""Google's own API for Gemini's embedding models: ``batchEmbedContents``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from embedqueue.values.options import EMBED_DIMENSIONS

from .batch_jobs import BatchJobs
from .gemini_jobs import GeminiJobs
from .hosted import DEFAULT_MAX_RESPONSE_BYTES, DEFAULT_TIMEOUT, Address, HostedEmbedder, parted
from .keys import Secret
from .openai_jobs import jobs_http
from .roles import DOCUMENT_TASK, QUERY_TASK, Role, is_untyped, untyped_role
from .rows import gemini_rows, normalised
from .usage import charged

#: How long the vectors of its models are that are asked for without a length.
GEMINI_DIMENSIONS = dict.fromkeys(
    ("gemini-embedding-001", "gemini-embedding-2", "gemini-embedding-2-preview"), EMBED_DIMENSIONS
)
#: Texts in one call: a hard limit of the API.
_MAX_TEXTS = 100
#: Only its full 3,072 numbers come normalised; the shorter vectors are ours to normalise (docs/providers.md).
_UNNORMALISED_MODEL = "gemini-embedding-001"


class GeminiEmbedder(HostedEmbedder):
    """Gemini's embedding models, straight from Google.

    Args:
        api_key: the key; None reads ``GEMINI_API_KEY``, then ``GOOGLE_API_KEY``, at the first call.
        base_url: Google's, or what speaks like it, with or without ``/v1beta``.
        dimensions: length of the vectors, 128 to 3,072; None: that of the model where it is known, else learned.
        timeout: seconds that the server may keep silent, or a pair: seconds to connect, seconds of silence.
        task_type: what the vectors are for; None sends none. With "RETRIEVAL_DOCUMENT", queries are embedded as
            "RETRIEVAL_QUERY"; with any other, as documents are. To gemini-embedding-2 it goes as a prefix of the text,
            as that model's documentation says.
        deadline: seconds for a whole call; None means twice the read timeout.
        max_texts: texts in one call.
        max_tokens: tokens in one call; None means no known limit.
        max_response_bytes: the largest answer that is read, decoded.
        headers: more headers for every request; they win over ours.
        max_text_tokens: tokens in one text; None means what is known of the model.
    """

    key_variables = ("GEMINI_API_KEY", "GOOGLE_API_KEY")
    provider = "gcp.gemini"
    success_field = "embeddings"
    model_dimensions = GEMINI_DIMENSIONS

    def __init__(
        self,
        api_key: Secret | None = None,
        base_url: str = "https://generativelanguage.googleapis.com/v1beta",
        dimensions: int | None = None,
        timeout: float | tuple[float, float] = DEFAULT_TIMEOUT,
        *,
        task_type: str | None = DOCUMENT_TASK,
        deadline: float | None = None,
        max_texts: int | None = _MAX_TEXTS,
        max_tokens: int | None = None,
        max_response_bytes: int = DEFAULT_MAX_RESPONSE_BYTES,
        headers: Mapping[str, Secret] | None = None,
        max_text_tokens: int | None = None,
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
            max_text_tokens=max_text_tokens,
        )
        self.task_type = task_type

    def cuts_long_texts(self, model: str) -> bool:
        """Yes: no refusal of such a text is known of Google, and no option that asks for one."""
        return True

    def batch_jobs(self, model: str) -> BatchJobs | None:
        """Gemini's batch jobs."""
        address, _, query = self._url.partition("?")
        return None if query else GeminiJobs(self, _resource(model), jobs_http(self), address)

    def _auth(self, key: str) -> dict[str, str]:
        return {"x-goog-api-key": key}  # in the URL it would end in logs

    def _address(self, model: str) -> str:
        address, mark, query = self._url.partition("?")
        return f"{address}/{quote(_resource(model))}:batchEmbedContents{mark}{query}"

    def role_of_documents(self, model: str) -> str | None:
        """The task type, or the prefix that tells it; None for neither."""
        return super().role_of_documents(model) if is_untyped(model) else self.task_type

    def _document_role(self, model: str) -> Role:
        return _role(model, self.task_type)

    def _query_role(self, model: str) -> Role:
        return _role(model, QUERY_TASK if self.task_type == DOCUMENT_TASK else self.task_type)

    def _options(self, model: str, role: Role) -> dict[str, Any]:
        options = dict(role.fields)
        if self._asked_dimensions is not None:
            options["outputDimensionality"] = self._asked_dimensions
        return options

    def _body(self, role: Role, texts: Sequence[str], model: str, options: Mapping[str, Any]) -> dict[str, Any]:
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


def _role(model: str, task_type: str | None) -> Role:
    if is_untyped(model):
        return untyped_role(task_type)
    return Role() if task_type is None else Role(fields={"taskType": task_type})


def _resource(model: str) -> str:
    name = model.removeprefix("google/")
    return name if name.startswith(("models/", "tunedModels/")) else f"models/{name}"


def _name(model: str) -> str:
    return _resource(model).rpartition("/")[2]
