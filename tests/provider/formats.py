"""The two formats that the test provider speaks, as strictly as the real APIs (docs/providers.md)."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

try:
    import orjson
except ImportError:
    orjson = None  # type: ignore[assignment,unused-ignore]

#: Full width of the models that are played here.
FULL_DIMENSIONS = 3072
#: Random numbers that vectors are cut from; any text's vector is two cuts, mixed.
_POOL = np.random.default_rng(20240917).standard_normal(1 << 17).astype(np.float32)

_OPENAI_FIELDS = {"model", "input", "dimensions", "encoding_format", "user"}
_OPENROUTER_FIELDS = _OPENAI_FIELDS | {"input_type", "provider", "session_id", "trace"}
_GEMINI_FIELDS = {"model", "content", "taskType", "title", "outputDimensionality"}
_GEMINI_TASKS = {
    "RETRIEVAL_QUERY",
    "RETRIEVAL_DOCUMENT",
    "SEMANTIC_SIMILARITY",
    "CLASSIFICATION",
    "CLUSTERING",
    "QUESTION_ANSWERING",
    "FACT_VERIFICATION",
    "CODE_RETRIEVAL_QUERY",
}


@dataclass
class Settings:
    """How strict, and how able, the provider is.

    Attributes:
        keys: keys that are accepted.
        require_key: False plays a server of one's own, which asks for none.
        max_texts: texts a call; None: 100 for Gemini and OpenRouter, 2,048 for OpenAI.
        base64: "yes", "empty" (200 without data), or "floats" (lists, whatever was asked).
        refused_options: options that are answered by a 400 that names them.
        indices: whether OpenAI's format gives an index.
        tokens_per_text: what is charged for a text, by the answer's usage; None: the answer does not say.
        roles: fields of OpenAI's format beyond those of OpenAI, with the words that they take: ``{"input_type":
            ["query", "document"]}`` plays Voyage.
        text_tokens: words that a text may have; a longer one is refused, or cut, as each format does; None: any.
        cuts: whether OpenAI's format cuts a text that is too long without a word, as servers of one's own do.
        dimensions: of OpenAI's format, where a call does not ask for any.
        apart: models whose vectors are of spaces of their own; all others give a text the same vector.
    """

    keys: list[str] = field(default_factory=lambda: ["test-key"])
    require_key: bool = True
    max_texts: int | None = None
    base64: Literal["yes", "empty", "floats"] = "yes"
    refused_options: list[str] = field(default_factory=list)
    indices: bool = True
    tokens_per_text: int | None = 1
    roles: dict[str, list[str]] = field(default_factory=dict)
    text_tokens: int | None = None
    cuts: bool = False
    dimensions: int = FULL_DIMENSIONS
    apart: Collection[str] = ()


class Refusal(Exception):
    """A strict provider's no."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(status)
        self.status = status
        self.body = body if isinstance(body, bytes) else dumps(body)


def vector_of(text: str, dimensions: int = FULL_DIMENSIONS) -> NDArray[np.float32]:
    """The vector that the provider gives a text: float32, of length 1, a function of the text alone."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    first = int.from_bytes(digest[:6]) % (len(_POOL) - dimensions)
    second = int.from_bytes(digest[6:12]) % (len(_POOL) - dimensions)
    mix = np.float32(0.25 + int.from_bytes(digest[12:]) / 2**33)
    vector = _POOL[first : first + dimensions] + mix * _POOL[second : second + dimensions]
    unit: NDArray[np.float32] = vector / np.sqrt(np.dot(vector, vector))
    return unit


def cut(text: str, settings: Settings) -> str:
    """What a model reads of a text: so many words of it."""
    return text if settings.text_tokens is None else " ".join(text.split(" ")[: settings.text_tokens])


def too_long(texts: list[str], settings: Settings) -> int | None:
    """The position of the first text that is too long."""
    return next((place for place, text in enumerate(texts) if cut(text, settings) != text), None)


def dumps(document: Any) -> bytes:
    """JSON; arrays of numpy as lists."""
    if orjson is not None:
        return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return json.dumps(document, default=lambda array: array.tolist()).encode()


def read_document(body: bytes) -> dict[str, Any] | None:
    """The JSON object that a body is, or None."""
    try:
        document = json.loads(body)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def error_body(status: int, message: str, code: str | None = None, param: str | None = None) -> bytes:
    """An error as OpenAI words it."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})


class OpenAIFormat:
    """``/v1/embeddings``, ``/api/v1/embeddings`` (OpenRouter's words), ``/embeddings``."""

    def serves(self, path: str) -> bool:
        return path in ("/v1/embeddings", "/api/v1/embeddings", "/embeddings")

    def texts(self, document: dict[str, Any]) -> list[str]:
        given = document.get("input")
        return [given] if isinstance(given, str) else list(given or ())

    def model(self, path: str, document: dict[str, Any]) -> str:
        return str(document.get("model", ""))

    def check(self, path: str, headers: Mapping[str, str], document: dict[str, Any], settings: Settings) -> None:
        router = path.startswith("/api")
        key = headers.get("authorization", "").removeprefix("Bearer ")
        if settings.require_key and key not in settings.keys:
            body = {"error": {"code": 401, "message": "No auth credentials found"}} if router else None
            raise Refusal(401, body or error_body(401, f"Incorrect API key provided: {key}", "invalid_api_key"))
        if headers.get("content-type") != "application/json":
            raise Refusal(400, error_body(400, "we could not parse the JSON body of your request"))
        known = (_OPENROUTER_FIELDS if router else _OPENAI_FIELDS) | settings.roles.keys()
        for name, words in settings.roles.items():
            if name in document and document[name] not in words:
                raise Refusal(400, error_body(400, f"{name} must be one of {words}", None, name))
        for name in document:
            if name in settings.refused_options or name not in known:
                raise Refusal(400, error_body(400, f"Unsupported parameter: {name}", "unsupported_parameter", name))
        model, texts = self.model(path, document), self.texts(document)
        if not model or (router and "/" not in model):
            raise Refusal(400, error_body(400, f"{model} is not a valid model ID"))
        if model.endswith("no-such-model"):
            raise Refusal(404, error_body(404, f"The model `{model}` does not exist", "model_not_found"))
        if not texts or not all(isinstance(text, str) and text for text in texts):
            raise Refusal(400, error_body(400, "'$.input' is invalid. Please check the API reference"))
        self._check_count(len(texts), router, settings)
        place = too_long(texts, settings)
        if place is not None and not settings.cuts:
            message = f"Invalid 'input[{place}]': maximum input length is {settings.text_tokens} tokens."
            raise Refusal(400, error_body(400, message, None, "input"))

    def _check_count(self, count: int, router: bool, settings: Settings) -> None:
        most = settings.max_texts or (100 if router else 2048)
        if count <= most:
            return
        if router:
            raw = {"error": {"code": 400, "message": _too_many(most), "status": "INVALID_ARGUMENT"}}
            metadata = {"raw": json.dumps(raw), "provider_name": "Google"}
            raise Refusal(400, {"error": {"code": 400, "message": "Provider returned error", "metadata": metadata}})
        message = f"Invalid 'input': array too long. Expected an array with maximum length {most}, but got {count}."
        raise Refusal(400, error_body(400, message, "array_above_max_length", "input"))

    def vectors(self, document: dict[str, Any], settings: Settings) -> bytes:
        texts = self.texts(document)
        packed = document.get("encoding_format") == "base64" and settings.base64 != "floats"
        if packed and settings.base64 == "empty":
            return dumps({"object": "list", "data": [], "model": document["model"]})
        entries, own = [], f"{document['model']} " if document["model"] in settings.apart else ""
        for index, text in enumerate(texts):
            vector = vector_of(own + cut(text, settings), document.get("dimensions", settings.dimensions))
            value = base64.b64encode(vector.astype("<f4").tobytes()).decode() if packed else vector
            entry = {"object": "embedding", "index": index, "embedding": value}
            entries.append(entry if settings.indices else {"embedding": value})
        answer = {"object": "list", "data": entries, "model": document["model"]}
        if settings.tokens_per_text is not None:
            tokens = settings.tokens_per_text * len(texts)
            answer["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
        return dumps(answer)


class GeminiFormat:
    """``/v1beta/models/{model}:batchEmbedContents``."""

    _verb = ":batchEmbedContents"

    def serves(self, path: str) -> bool:
        return path.startswith("/v1beta/models/") and path.endswith(self._verb)

    def texts(self, document: dict[str, Any]) -> list[str]:
        parts = [request.get("content", {}).get("parts", []) for request in document.get("requests", ())]
        return [str(part.get("text", "")) for some in parts for part in some]

    def model(self, path: str, document: dict[str, Any]) -> str:
        return path.removeprefix("/v1beta/").removesuffix(self._verb)

    def check(self, path: str, headers: Mapping[str, str], document: dict[str, Any], settings: Settings) -> None:
        model = self.model(path, document)
        if settings.require_key and headers.get("x-goog-api-key") not in settings.keys:
            if "x-goog-api-key" not in headers:
                raise _google(403, "PERMISSION_DENIED", "Method doesn't allow unregistered callers")
            detail = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
            raise _google(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", detail)
        if model.endswith("no-such-model"):
            raise _google(404, "NOT_FOUND", f"{model} is not found for API version v1beta")
        requests = document.get("requests", [])
        most = settings.max_texts or 100
        if len(requests) > most:
            raise _google(400, "INVALID_ARGUMENT", _too_many(most))
        for place, request in enumerate(requests):
            self._check_one(place, request, model, settings)

    def _check_one(self, place: int, request: dict[str, Any], model: str, settings: Settings) -> None:
        for name in request:
            if name in settings.refused_options or name not in _GEMINI_FIELDS:
                message = f"Invalid JSON payload received. Unknown name \"{name}\" at 'requests[{place}]'"
                raise _google(400, "INVALID_ARGUMENT", message)
        if request.get("model") != model:
            raise _google(400, "INVALID_ARGUMENT", f"requests[{place}].model must match the model of the URL")
        if not all(part.get("text") for part in request["content"]["parts"]):
            raise _google(400, "INVALID_ARGUMENT", "EmbedContentRequest.content contains an empty Part.")
        task = request.get("taskType")
        if task is not None and (task not in _GEMINI_TASKS or "embedding-2" in model):
            raise _google(400, "INVALID_ARGUMENT", f"Invalid value at 'requests[{place}].task_type', \"{task}\"")

    def vectors(self, document: dict[str, Any], settings: Settings) -> bytes:
        values = []
        for request in document["requests"]:
            # several parts in one content give one vector: the real API's trap
            text = "".join(part["text"] for part in request["content"]["parts"])
            width = request.get("outputDimensionality", FULL_DIMENSIONS)
            shrink = np.float32(0.7 if width < FULL_DIMENSIONS and request["model"].endswith("-001") else 1)
            values.append({"values": vector_of(cut(text, settings), width) * shrink})  # without a word
        answer = {"embeddings": values}
        if settings.tokens_per_text is not None:
            answer["usageMetadata"] = {"promptTokenCount": settings.tokens_per_text * len(values)}
        return dumps(answer)


def _too_many(most: int) -> str:
    return f"* BatchEmbedContentsRequest.requests: at most {most} requests can be in one batch\n"


def _google(status: int, word: str, message: str, *details: Any) -> Refusal:
    return Refusal(status, {"error": {"code": status, "message": message, "status": word, "details": list(details)}})
