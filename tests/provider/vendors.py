"""Azure, Mistral and Cohere, each under a path of its own here (docs/providers.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.provider.formats import FULL_DIMENSIONS, OpenAIFormat, Refusal, Settings, dumps, too_long, vector_of

_MISTRAL_FIELDS = {"model", "input", "output_dimension", "output_dtype", "encoding_format"}
_COHERE_FIELDS = {"texts", "model", "input_type", "embedding_types", "output_dimension", "truncate", "max_tokens"}


class AzureFormat(OpenAIFormat):
    """A resource at Azure: the key has a header of its own, and the deployment stands in the address."""

    def serves(self, path: str) -> bool:
        return path.endswith("/embeddings") and path.startswith(("/openai/deployments/", "/openai/v1/"))

    def check(self, path: str, headers: Mapping[str, str], document: dict[str, Any], settings: Settings) -> None:
        if headers.get("api-key") not in settings.keys and "authorization" not in headers:
            message = "Access denied due to invalid subscription key or wrong API endpoint."
            raise Refusal(401, {"error": {"code": "401", "message": message}})
        if path.startswith("/openai/deployments/") and "/nobody/" in path:
            message = "The API deployment for this resource does not exist."
            raise Refusal(404, {"error": {"code": "DeploymentNotFound", "message": message}})
        super().check("/v1/embeddings", headers | {"authorization": f"Bearer {settings.keys[0]}"}, document, settings)


class MistralFormat(OpenAIFormat):
    """Mistral."""

    def serves(self, path: str) -> bool:
        return path == "/mistral/v1/embeddings"

    def check(self, path: str, headers: Mapping[str, str], document: dict[str, Any], settings: Settings) -> None:
        for name in document:
            if name not in _MISTRAL_FIELDS or name in settings.refused_options:
                detail = [{"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted"}]
                raise Refusal(422, {"object": "error", "message": {"detail": detail}, "type": "invalid_request_error"})
        if headers.get("authorization") not in {f"Bearer {key}" for key in settings.keys}:
            raise Refusal(401, {"detail": "Unauthorized"})
        if len(self.texts(document)) > 512:
            message = "Too many inputs in request, split into more batches."
            raise Refusal(
                400, {"object": "error", "message": message, "type": "invalid_request_prompt", "code": "3210"}
            )

    def vectors(self, document: dict[str, Any], settings: Settings) -> bytes:
        return super().vectors(document | {"dimensions": document.get("output_dimension", 1024)}, settings)


class CohereFormat:
    """Cohere's second version."""

    def serves(self, path: str) -> bool:
        return path == "/cohere/v2/embed"

    def texts(self, document: dict[str, Any]) -> list[str]:
        return list(document.get("texts", ()))

    def model(self, path: str, document: dict[str, Any]) -> str:
        return str(document.get("model", ""))

    def check(self, path: str, headers: Mapping[str, str], document: dict[str, Any], settings: Settings) -> None:
        if headers.get("authorization") not in {f"Bearer {key}" for key in settings.keys}:
            raise Refusal(401, {"message": "invalid api token"})
        for name in document:
            if name not in _COHERE_FIELDS or name in settings.refused_options:
                raise Refusal(400, {"message": f"invalid request: unknown field `{name}`"})
        if document.get("input_type") not in ("search_document", "search_query", "classification", "clustering"):
            raise Refusal(
                400, {"message": "invalid request: valid input_type must be provided with the provided model"}
            )
        if len(self.texts(document)) > 96:
            raise Refusal(400, {"message": "invalid request: total number of texts must be at most 96"})
        if too_long(self.texts(document), settings) is not None and document.get("truncate") == "NONE":
            raise Refusal(400, {"message": "too many tokens: a text is longer than the context length of the model"})

    def vectors(self, document: dict[str, Any], settings: Settings) -> bytes:
        width = document.get("output_dimension", FULL_DIMENSIONS // 2)
        rows = [vector_of(text, width) for text in self.texts(document)]
        units = {"billed_units": {"input_tokens": len(rows)}}
        return dumps({"id": "x", "embeddings": {"float": rows}, "texts": self.texts(document), "meta": units})
