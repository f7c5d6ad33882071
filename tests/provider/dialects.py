"""Formats with a switch for texts that are too long: TEI's and Ollama's own, and Voyage's, which is nearly OpenAI's.

All of them cut by default, without a word, and refuse only where they are asked to (docs/providers.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.provider.formats import FULL_DIMENSIONS, OpenAIFormat, Refusal, Settings, cut, dumps, too_long, vector_of

_TEI_FIELDS = {"inputs", "truncate", "truncation_direction", "prompt_name", "normalize", "dimensions"}
_OLLAMA_FIELDS = {"model", "input", "truncate", "dimensions", "keep_alive", "options"}
_VOYAGE_FIELDS = {"input", "model", "input_type", "truncation", "output_dimension", "output_dtype", "encoding_format"}


class _OwnFormat:
    """What TEI's and Ollama's own formats have in common."""

    path = ""
    known: frozenset[str] | set[str] = frozenset()
    input_field = ""

    def serves(self, path: str) -> bool:
        return path == self.path

    def texts(self, document: dict[str, Any]) -> list[str]:
        return list(document.get(self.input_field, ()))

    def model(self, path: str, document: dict[str, Any]) -> str:
        return str(document.get("model", ""))

    def refuse(self, status: int, words: str) -> Refusal:
        raise NotImplementedError

    def check(self, path: str, headers: Mapping[str, str], document: dict[str, Any], settings: Settings) -> None:
        for name in document:
            if name not in self.known:
                raise self.refuse(400, f"unknown field `{name}`")
        if not self.texts(document):
            raise self.refuse(400, f"`{self.input_field}` cannot be empty")

    def rows(self, document: dict[str, Any], settings: Settings) -> list[Any]:
        width = document.get("dimensions", FULL_DIMENSIONS)
        return [vector_of(cut(text, settings), width) for text in self.texts(document)]


class TEIFormat(_OwnFormat):
    """``/embed``."""

    path, known, input_field = "/embed", _TEI_FIELDS, "inputs"

    def refuse(self, status: int, words: str) -> Refusal:
        return Refusal(status, {"error": words, "error_type": "Validation"})

    def check(self, path: str, headers: Mapping[str, str], document: dict[str, Any], settings: Settings) -> None:
        super().check(path, headers, document, settings)
        texts, most = self.texts(document), settings.max_texts or 32
        if len(texts) > most:
            raise self.refuse(422, f"batch size {len(texts)} > maximum allowed batch size {most}")
        if too_long(texts, settings) is not None and document.get("truncate") is False:
            raise self.refuse(
                422, f"Input validation error: `inputs` must have less than {settings.text_tokens} tokens."
            )

    def vectors(self, document: dict[str, Any], settings: Settings) -> bytes:
        return dumps(self.rows(document, settings))


class OllamaFormat(_OwnFormat):
    """``/api/embed``."""

    path, known, input_field = "/api/embed", _OLLAMA_FIELDS, "input"

    def refuse(self, status: int, words: str) -> Refusal:
        return Refusal(status, {"error": words})

    def check(self, path: str, headers: Mapping[str, str], document: dict[str, Any], settings: Settings) -> None:
        super().check(path, headers, document, settings)
        if document.get("model") is None:
            raise self.refuse(400, "model is required")
        if too_long(self.texts(document), settings) is not None and document.get("truncate") is False:
            raise self.refuse(400, "the input length exceeds the context length")

    def vectors(self, document: dict[str, Any], settings: Settings) -> bytes:
        return dumps({"model": document["model"], "embeddings": self.rows(document, settings), "prompt_eval_count": 1})


class VoyageFormat(OpenAIFormat):
    """Voyage's host, as it is reached through this server as a proxy."""

    def serves(self, path: str) -> bool:
        return path in ("http://api.voyageai.com/v1/embeddings", "/voyage/v1/embeddings")

    def check(self, path: str, headers: Mapping[str, str], document: dict[str, Any], settings: Settings) -> None:
        if settings.require_key and headers.get("authorization") not in {f"Bearer {key}" for key in settings.keys}:
            raise Refusal(401, {"detail": "Provided API key is invalid."})
        for name in document:
            if name not in _VOYAGE_FIELDS or name in settings.refused_options:
                raise Refusal(400, {"detail": f"Argument '{name}' is not supported by our API"})
        if document.get("encoding_format", "base64") != "base64":
            raise Refusal(400, {"detail": "Argument 'encoding_format' must be null or base64"})
        place = too_long(self.texts(document), settings)
        if place is not None and document.get("truncation") is False:
            words = (
                f"The example at index {place} in your batch has too many tokens. Shorten it or set truncation=True."
            )
            raise Refusal(400, {"detail": words})

    def vectors(self, document: dict[str, Any], settings: Settings) -> bytes:
        return super().vectors(document | {"dimensions": document.get("output_dimension", 1024)}, settings)
