"""JSON both ways: orjson where it is installed, the standard library where it is not or where it is stricter."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from embedqueue.values.errors import InputRejected

try:
    import orjson
except ImportError:
    orjson = None  # type: ignore[assignment,unused-ignore]

#: What :func:`parse` gives for a body that is no JSON. (None is JSON.)
BROKEN: Final = object()


def parse(body: bytes) -> Any:
    """Parse a body.

    ``NaN`` and ``Infinity`` are read as such, with either library: orjson refuses them, and a
    refusal would hide which of the call's texts made them.

    Args:
        body: the body, decoded from any content encoding.

    Returns:
        The document, or :data:`BROKEN`.
    """
    if orjson is not None:
        try:
            return orjson.loads(body)
        except ValueError:
            pass  # perhaps only too strict: the standard library decides
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return BROKEN


def serialise(document: Any) -> bytes:
    """Write a document as compact UTF-8.

    Args:
        document: dictionaries, lists, strings and numbers.

    Returns:
        The bytes to send.

    Raises:
        ValueError: a text holds a lone surrogate, or a value is no JSON.
    """
    try:
        if orjson is not None:
            return orjson.dumps(document)
        return json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError):
        pass  # raised anew below: the library's error holds the text
    raise ValueError("not representable as JSON in UTF-8")


def check_sendable(texts: Sequence[Any]) -> None:
    """See that each text has a form in UTF-8: a lone surrogate, as cut emoji leave it, has none.

    Args:
        texts: what should be texts.

    Raises:
        InputRejected: the first of them that is anything but a str without lone surrogates.
    """
    for place, text in enumerate(texts):
        if not isinstance(text, str) or any("\ud800" <= letter <= "\udfff" for letter in text):
            raise InputRejected("a text holds a lone surrogate and has no form in UTF-8", index=place)
