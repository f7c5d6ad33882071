"""The design that embedqueue grew from, with vectors as lists of floats and the standard library's JSON, as it had."""

from __future__ import annotations

import aiohttp
import numpy as np

from benchmarks.contenders import asyncio_queue
from benchmarks.contenders.embedding import request_body
from benchmarks.settings import Settings

LABEL = "asyncio queue, lists"
PACKAGES = asyncio_queue.PACKAGES
Producer = asyncio_queue.Producer


async def _call(settings: Settings, session: aiohttp.ClientSession, texts: list[str]) -> list[bytes]:
    body = request_body(settings, texts, encoding="float")
    async with session.post(f"{settings.api_url}/embeddings", json=body) as response:
        response.raise_for_status()
        entries = (await response.json())["data"]
        return [np.array(entry["embedding"], dtype="<f4").tobytes() for entry in entries]


def work(settings: Settings) -> None:
    """Drain as ``asyncio_queue`` does."""
    asyncio_queue.work(settings, _call)
