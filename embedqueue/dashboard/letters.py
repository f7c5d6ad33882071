"""The page of dead letters: their reasons, and the letters, all or of one reason, a page at a time."""

from __future__ import annotations

import time
from dataclasses import fields
from typing import Any

from embedqueue.operating.shown import listing
from embedqueue.queue import EmbeddingBatchQueue

from . import asked


def listed(queue: EmbeddingBatchQueue, show_texts: bool) -> dict[str, Any]:
    """The letters of the page that the address asks for, and the reasons of the latest ones.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    number, older, reason = asked.page_number(), asked.parameter("older"), asked.parameter("reason")
    try:
        found = listing(queue, show_texts, number=number, older=older, reason_id=reason)
    except ValueError as error:
        asked.wrong(f"{error}.")
    return {one.name: getattr(found, one.name) for one in fields(found)} | {"now": time.time()}
