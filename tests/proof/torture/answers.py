"""Answers that no client should trust, about a hundred, and the statuses that docs/design.md (section 6) speaks of.

Each is made for a call of ``count`` texts, in OpenAI's format, with vectors of ``dimensions`` numbers.
"""

from __future__ import annotations

import base64
import gzip
import json
import struct
from functools import cache
from typing import Any

from tests.provider import Answer, drop, raw, truncate

#: A vector that is not any text's: written anywhere, it shows.
WRONG = 0.125


def _vector(dimensions: int, first: Any = WRONG) -> list[Any]:
    return [first] + [WRONG] * (dimensions - 1)


def _packed(dimensions: int, first: float = WRONG, form: str = "<f") -> str:
    return base64.b64encode(b"".join(struct.pack(form, n) for n in _vector(dimensions, first))).decode()


def _entries(count: int, embedding: Any, **more: Any) -> list[dict[str, Any]]:
    return [{"object": "embedding", "index": i, "embedding": embedding, **more} for i in range(count)]


def _embeddings(dimensions: int) -> dict[str, Any]:
    """Things that may stand where a vector should: by what is wrong with them."""
    good = _vector(dimensions)
    return {
        "null": None,
        "true": True,
        "number": 1.5,
        "object": {},
        "object of numbers": {"0": 1.0},
        "empty string": "",
        "words": "not base64!",
        "base64 of nothing like floats": "AAA=",
        "base64 without padding": _packed(dimensions).rstrip("=") + "A",
        "base64 with line breaks": "\n".join(_packed(dimensions)[i : i + 8] for i in range(0, 64, 8)),
        "base64 too short": _packed(dimensions - 1),
        "base64 too long": _packed(dimensions + 1),
        "base64 of doubles": _packed(dimensions, form="<d"),
        "base64 of half floats": _packed(dimensions, form="<e"),
        "base64 with NaN": _packed(dimensions, float("nan")),
        "base64 with infinity": _packed(dimensions, float("inf")),
        "base64 of zeros": base64.b64encode(bytes(4 * dimensions)).decode(),
        "empty list": [],
        "one number": [WRONG],
        "too short": good[:-1],
        "too long": [*good, WRONG],
        "twice as long": good * 2,
        "nested": [good],
        "nested numbers": [[number] for number in good],
        "ragged": [[WRONG, WRONG], [WRONG]],
        "all zeros": [0.0] * dimensions,
        "all zeros, whole": [0] * dimensions,
        "minus zeros": [-0.0] * dimensions,
        "a null inside": _vector(dimensions, None),
        "a string inside": _vector(dimensions, "0.1"),
        "an object inside": _vector(dimensions, {}),
        "a list inside": _vector(dimensions, []),
        "nothing but nulls": [None] * dimensions,
        "nothing but strings": ["0.1"] * dimensions,
        "beyond float32": _vector(dimensions, 1e39),
        "a huge whole number": _vector(dimensions, 10**400),
        "numbers that vanish in float32": [1e-60] * dimensions,
    }


def _literals(count: int, dimensions: int) -> dict[str, bytes]:
    """Numbers that only text can hold: whether JSON has them or not."""
    found = {}
    for literal in (
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"1e400",
        b"-1e999",
        b"0x10",
        b"01",
        b"1.",
        b".5",
        b"+1",
        b"1_0",
    ):
        body = json.dumps({"data": _entries(count, _vector(dimensions, 777.5))}).encode()
        found[f"literal {literal.decode()}"] = body.replace(b"777.5", literal)
    return found


def _counts(count: int, dimensions: int) -> dict[str, Any]:
    """Entries of a good look that cannot be told to their texts."""
    good = _vector(dimensions)
    entries = _entries(count, good)
    return {
        "none": [],
        "one too few": entries[:-1],
        "one too many": [*entries, *_entries(1, good)],
        "ten times as many": entries * 10,
        "all with index 0": [{**entry, "index": 0} for entry in entries] + _entries(1, good),
        "indices from 2": [{**entry, "index": entry["index"] + 2} for entry in entries],
        "negative indices": [{**entry, "index": -1 - entry["index"]} for entry in entries],
        "indices that are words": [{**entry, "index": f"no {entry['index']}"} for entry in entries],
        "indices that are fractions": [{**entry, "index": entry["index"] + 0.5} for entry in entries],
        "a far index": [*entries[:-1], {**entries[-1], "index": 10**9}],
        "entries null": [None] * count,
        "entries numbers": [1.0] * count,
        "entries strings": ["x"] * count,
        "entries lists": [good] * count,
        "entries empty": [{}] * count,
        "entries without vector": [{"index": i} for i in range(count)],
        "an object": {str(i): entry for i, entry in enumerate(entries)},
        "a string": "data",
        "a number": 0,
        "null": None,
        "false": False,
    }


def _documents(count: int, dimensions: int) -> dict[str, Any]:
    """Whole documents that are something else."""
    entries = _entries(count, _vector(dimensions))
    errors: dict[str, Any] = {
        "503 under 200": {"code": 503, "message": "no instances available"},
        "429 under 200": {"code": 429, "message": "slow down"},
        "a word": "overloaded",
        "an empty object beside data": {"message": "upstream died"},
        "null code": {"code": None, "message": None},
        "a list": ["overloaded"],
        "a number": 500,
    }
    found: dict[str, Any] = {f"error {name}": {"error": error} for name, error in errors.items()}
    found["error beside data"] = {"error": {"message": "partial"}, "data": entries}
    found |= {
        "empty object": {},
        "empty list": [],
        "bare entries": entries,
        "wrong name": {"embeddings": entries},
        "capital name": {"Data": entries},
        "detail": {"detail": "gateway"},
        "a vector and nothing else": _vector(dimensions),
        "nested data": {"data": {"data": entries}},
    }
    return found


def _bodies(count: int, dimensions: int) -> dict[str, bytes]:
    """Bodies that are no document at all."""
    whole = json.dumps({"data": _entries(count, _vector(dimensions))}).encode()
    return {
        "empty": b"",
        "spaces": b" \r\n ",
        "one brace": b"{",
        "cut in the middle": whole[: len(whole) // 2],
        "cut before the end": whole[:-1],
        "something behind": whole + b"}",
        "two documents": whole + whole,
        "lines of JSON": whole + b"\n" + whole,
        "server-sent events": b"data: " + whole + b"\n\n",
        "null": b"null",
        "true": b"true",
        "a number": b"1",
        "a string": b'"data"',
        "HTML": b"<html><body>502 Bad Gateway</body></html>",
        "XML": b"<?xml version='1.0'?><Error><Code>SlowDown</Code></Error>",
        "single quotes": whole.replace(b'"', b"'"),
        "a comma too many": whole.replace(b"}]", b"},]"),
        "NULs": bytes(64),
        "no charset": b"\xff\xfe\x00garbage\x80\x81",
        "half a surrogate": b'{"data": "\\ud800"}',
        "Latin-1": b'{"note": "caf\xe9", "data": []}',
        "deep": b"[" * 100_000,
        "deep and whole": b"[" * 50_000 + b"]" * 50_000,
        "huge": b'{"data": [' + b" " * (3 << 20) + b"]}",
        "a huge number": b'{"data": [' + b"9" * 100_000 + b"]}",
    }


def malformed(count: int = 1, dimensions: int = 16) -> dict[str, Answer]:
    """All of them, by name; each with status 200, but for the redirects.

    Args:
        count: texts of the call.
        dimensions: that were asked for.
    """
    found: dict[str, Answer] = {}
    for name, embedding in _embeddings(dimensions).items():
        found[f"vector: {name}"] = raw(json.dumps({"data": _entries(count, embedding)}).encode())
    for name, entries in _counts(count, dimensions).items():
        found[f"entries: {name}"] = raw(json.dumps({"data": entries}).encode())
    for name, document in _documents(count, dimensions).items():
        found[f"document: {name}"] = raw(json.dumps(document).encode())
    for name, body in (_literals(count, dimensions) | _bodies(count, dimensions)).items():
        found[f"body: {name}"] = raw(body)
    return found | _transports(json.dumps({"data": _entries(count, _vector(dimensions))}).encode())


@cache
def _bomb() -> bytes:
    return gzip.compress(bytes(1 << 20), 9) * 64  # 64 MB in 64 kB


def _transports(whole: bytes) -> dict[str, Answer]:
    """Answers that do not arrive as their head says."""
    headers: dict[str, tuple[bytes, dict[str, str]]] = {
        "gzip bomb": (_bomb(), {"content-encoding": "gzip"}),
        "gzip bomb in a bomb": (gzip.compress(_bomb()), {"content-encoding": "gzip, gzip"}),
        "gzip cut short": (gzip.compress(whole)[:-12], {"content-encoding": "gzip"}),
        "gzip that is none": (whole, {"content-encoding": "gzip"}),
        "deflate that is none": (whole, {"content-encoding": "deflate"}),
        "shorter than it says": (whole, {"content-length": str(len(whole) + 50), "connection": "close"}),
        "longer than it says": (whole, {"content-length": str(len(whole) // 2), "connection": "close"}),
        "a length that is none": (whole, {"content-length": "many", "connection": "close"}),
        "a negative length": (whole, {"content-length": "-1", "connection": "close"}),
        "chunks that are none": (whole, {"transfer-encoding": "chunked", "content-length": ""}),
    }
    found = {f"transport: {name}": raw(body, 200, **fields) for name, (body, fields) in headers.items()}
    return found | {"transport: cut off": truncate(), "transport: nothing": drop()}


def redirects(elsewhere: str) -> dict[str, Answer]:
    """Redirects to another host, which must not be followed with a key.

    Args:
        elsewhere: where they lead.
    """
    found = {f"redirect: {status}": raw(b"", status, location=elsewhere) for status in (301, 302, 303, 307, 308)}
    found["redirect: nowhere"] = raw(b"", 302)
    found["redirect: no address"] = raw(b"", 302, location="http://[")
    return found


def _error(status: int, message: str, code: str | None = None, **headers: str) -> Answer:
    body = json.dumps({"error": {"message": message, "type": "error", "code": code}}).encode()
    return raw(body, status, **headers)


#: Every status of docs/design.md, section 6; the call has to be made again.
TRANSIENT: dict[str, Answer] = {
    **{str(status): _error(status, "try again") for status in (408, 409, 425, 429)},
    **{str(status): _error(status, "overloaded") for status in (500, 502, 503, 504, 520, 521, 522, 524, 529, 599)},
    "429, in a second": _error(429, "slow down", retry_after="1"),
    "503, in a second": _error(503, "slow down", retry_after="1"),
    "503, HTML": raw(b"<html>503</html>", 503, content_type="text/html"),
    "424": _error(424, "inference failed"),
}
#: The call is at fault, or one of its texts.
REFUSALS: dict[str, Answer] = {
    "400": _error(400, "bad input"),
    "422": _error(422, "unprocessable input"),
    "413": _error(413, "request entity too large"),
    "400, too many": _error(400, "array too long. Expected an array with maximum length 7, but got 20."),
    "400, too many tokens": _error(400, "Requested 900 tokens, max 500 tokens per request", "max_tokens_per_request"),
}
#: Somebody has to act.
ACCOUNT: dict[str, Answer] = {
    **{str(status): _error(status, "not allowed") for status in (401, 402, 403, 404, 498)},
    "429, no quota": _error(429, "You exceeded your current quota", "insufficient_quota"),
    "429, for the day": raw(
        b'{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": [{"@type": "type.googleapis.com/'
        b'google.rpc.QuotaFailure", "violations": [{"quotaId": "EmbedContentRequestsPerDayPerProject"}]}]}}',
        429,
    ),
    "400, API_KEY_INVALID": raw(
        json.dumps(
            {"error": {"code": 400, "status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID"}]}}
        ).encode(),
        400,
    ),
    "400, FAILED_PRECONDITION": raw(
        b'{"error": {"code": 400, "status": "FAILED_PRECONDITION", "message": "User location is not supported"}}', 400
    ),
}
