"""What the embedders over other libraries have in common: a length that may be learned, and errors of any make."""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedqueue.embedders import documents
from embedqueue.values.errors import (
    CallTooLarge,
    ConfigurationError,
    EmbedQueueError,
    OptionTypeError,
    OptionValueError,
    TransientError,
)
from embedqueue.values.vectors import as_rows, length_of
from embedqueue.values.words import READ_CHARS, SHOWN_CHARS, forms, words_of

from .answers import classify
from .faults import Fault
from .waits import asked_wait

#: Where exceptions keep the status of the answer that they are made of.
_STATUS_NAMES = ("status_code", "http_status", "code")
#: What a provider's code looks like amid an exception's words.
_CODE = re.compile(r"\b[a-z0-9]+(?:_[a-z0-9]+)+\b")


class LibraryEmbedder:
    """An embedder that has another library do it.

    Args:
        model: what the library is asked for; what a queue that is given no model calls its own.
        dimensions: length of the vectors; None: it is learned from the first answer.
        max_text_tokens: what one text may hold; None means what is known of the model.
    """

    provider = ""
    max_texts: int | None = None
    max_tokens: int | None = None
    task_type: str | None = None

    def __init__(self, model: str | None, dimensions: int | None, max_text_tokens: int | None = None) -> None:
        self.default_model = model
        self.dimensions = _count("dimensions", dimensions)
        self.max_text_tokens = _count("max_text_tokens", max_text_tokens)
        self._given_dimensions = dimensions

    def __repr__(self) -> str:
        return f"{type(self).__name__}(model={self.default_model!r}, dimensions={self.dimensions})"

    @property
    def variant(self) -> str:
        """What decides a vector beside its text and what the queue calls the model: the library's own name of it."""
        return f"{type(self).__name__}\0{self.default_model or ''}"

    def cuts_long_texts(self, model: str) -> bool:
        """Perhaps: nobody knows, and many do."""
        return True

    def embed_batch(self, texts: Sequence[str], model: str = "") -> NDArray[np.floating[Any]]:
        """Embed documents in one call of the library.

        Args:
            texts: the texts, none of them blank.
            model: what the queue calls the model; the library is asked for the one that this embedder was made with.

        Returns:
            Float32 array of shape ``(len(texts), dimensions)``.

        Raises:
            TransientError: the same call may work later.
            InputRejected: a text of the call will never work (``CallTooLarge``: the call, not a text).
            ConfigurationError: nothing will work until somebody acts; the library is missing, for instance.
        """
        return self._embed(self._documents, texts)

    def embed_queries(self, texts: Sequence[str], model: str = "") -> NDArray[np.floating[Any]]:
        """Embed queries; all else is as with :meth:`embed_batch`."""
        return self._embed(self._queries, texts)

    def _documents(self, texts: list[str]) -> Any:
        raise NotImplementedError

    def _queries(self, texts: list[str]) -> Any:
        raise NotImplementedError

    def _secrets(self) -> Iterable[str]:
        """What may not be shown, if an error says it."""
        return ()

    def _embed(self, call: Callable[[list[str]], Any], texts: Sequence[str]) -> NDArray[np.floating[Any]]:
        if isinstance(texts, str):
            raise TypeError("texts must be a sequence of str, not one str")
        if not texts:
            return np.empty((0, self.dimensions or 0), dtype=np.float32)
        documents.check_sendable(texts)
        try:
            answer = call(list(texts))
        except EmbedQueueError:
            raise
        except Exception as error:
            failure = failure_of(error, texts, self._secrets())
        else:
            rows = as_rows(answer, len(texts), None)
            if self.dimensions is None:
                self.dimensions = length_of(rows)
            return rows
        raise failure  # here, for the library's own error may hold a key, and would be shown as its cause


def imported(name: str, whose: str, extra: str) -> Any:
    """Import an optional library.

    Args:
        name: of the module.
        whose: who needs it.
        extra: of embedqueue, that brings it.

    Raises:
        ConfigurationError: it is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing = ConfigurationError(f'{whose} needs {name}: pip install "embedqueue[{extra}]" ({error})')
    raise missing


def failure_of(error: Exception, texts: Sequence[str], secrets: Iterable[str]) -> EmbedQueueError:
    """What a library's exception means, by its status where it has one, else by its kind.

    Args:
        error: of any library.
        texts: of the call; what the error quotes of them is hidden.
        secrets: that are hidden as well.
    """
    kind = type(error).__name__
    fault = Fault(_status(error) or 0, message=" ".join(f"{kind}: {words_of(error)[:READ_CHARS]}".split()))
    fault.hide([form for secret in secrets for form in forms(secret)], texts)
    shown = fault.shown[:SHOWN_CHARS]
    if isinstance(error, ImportError) or "UnsupportedParams" in kind:  # LiteLLM's: under 400, before anything is sent
        return ConfigurationError(shown)
    if fault.status:
        codes = (getattr(error, name, None) for name in ("code", "type"))
        fault.words |= {code.lower() for code in codes if isinstance(code, str)} | set(_CODE.findall(fault.shown))
        if "ContextWindow" in kind:
            fault.words.add("context_length_exceeded")
        wait_seconds = asked_wait(_headers(error), fault.message, None, time.time())
        return classify(fault, origin=kind, count=len(texts), wait_seconds=wait_seconds)
    if isinstance(error, MemoryError) or "OutOfMemory" in kind:
        return CallTooLarge(shown, measure="texts")
    if isinstance(error, TimeoutError) or "timeout" in kind.lower():
        return TransientError(shown, suspect_input=True, cause="timeout")
    if isinstance(error, ConnectionError) or "connect" in kind.lower():
        return TransientError(shown, cause="connection")
    return TransientError(shown, suspect_input=True)


def _status(error: Exception) -> int | None:
    response = getattr(error, "response", None)
    found = [getattr(error, name, None) for name in _STATUS_NAMES] + [getattr(response, "status_code", None)]
    if isinstance(response, Mapping):  # boto's
        found.append((response.get("ResponseMetadata") or {}).get("HTTPStatusCode"))
    return next((int(status) for status in found if isinstance(status, int) and 400 <= status < 600), None)


def _headers(error: Exception) -> Mapping[str, str]:
    headers = getattr(getattr(error, "response", None), "headers", None) or getattr(error, "headers", None)
    if not isinstance(headers, Mapping):
        return {}
    return {str(name).lower(): str(value) for name, value in headers.items()}


def _count(name: str, value: Any) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise OptionTypeError(name, f"must be a whole number or None, not {value!r}")
    if value is not None and value < 1:
        raise OptionValueError(name, f"must be at least 1, not {value!r}")
    return value
