"""One API call and one write, as bare as they get: the same for the limit and for every contender but embedqueue."""

from __future__ import annotations

import base64
import threading
from collections.abc import Sequence
from typing import Any

import orjson
import redis
import requests

from benchmarks.settings import FIELD, MODEL, Settings

_local = threading.local()
_clients: dict[str, redis.Redis] = {}


def request_body(settings: Settings, texts: Sequence[str], encoding: str = "base64") -> dict[str, Any]:
    """The request that everybody sends."""
    body = {"model": MODEL, "input": list(texts), "encoding_format": encoding}
    return body if settings.dimensions == 3072 else body | {"dimensions": settings.dimensions}


def unpack(content: bytes) -> list[bytes]:
    """Float32 bytes from an answer in base64."""
    return [base64.b64decode(entry["embedding"]) for entry in orjson.loads(content)["data"]]


def embed(settings: Settings, texts: Sequence[str]) -> list[bytes]:
    """One call of bare ``requests``, over a session per thread."""
    session = getattr(_local, "session", None)
    if session is None:
        session = _local.session = requests.Session()
    response = session.post(f"{settings.api_url}/embeddings", json=request_body(settings, texts), timeout=60)
    response.raise_for_status()
    return unpack(response.content)


def write(settings: Settings, keys: Sequence[str], vectors: Sequence[bytes]) -> None:
    """One pipeline of HSET."""
    client = _clients.get(settings.redis_url)
    if client is None:
        client = _clients.setdefault(settings.redis_url, redis.Redis(port=settings.redis_port, db=settings.db))
    pipeline = client.pipeline(transaction=False)
    for key, vector in zip(keys, vectors, strict=True):
        pipeline.hset(key, FIELD, vector)
    pipeline.execute()


def embed_and_write(settings: Settings, keys: Sequence[str], texts: Sequence[str]) -> None:
    """The whole job of one task."""
    write(settings, keys, embed(settings, texts))
