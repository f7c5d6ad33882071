"""Keys that contain some words: among what waits or is in flight, and among the dead letters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from embedqueue.queue import EmbeddingBatchQueue

from . import asked

#: Keys that one page finds in each part, and steps that it takes for them; each looks at 2,000 items.
FOUND_KEYS, STEPS = 50, 50
#: What the places are called.
PLACES = {
    "pending": "waiting",
    "inflight": "in flight",
    "alone": "waiting",
    "job": "in a batch job",
    "dead": "dead",
    "": "gone",
}


@dataclass(frozen=True, slots=True)
class Part:
    """What was found in one part of the queue: ``cursor`` is None where all of it was looked at."""

    name: str
    keys: dict[str, str]
    cursor: str | None


def found(queue: EmbeddingBatchQueue) -> dict[str, Any]:
    """What the address looks for, as far as one page goes.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    words, where, cursor = asked.words(), asked.where(), asked.cursor()
    parts = [] if not words else [_part(queue, words, part, cursor) for part in ("live", "dead") if where in ("", part)]
    return {"words": words, "parts": parts, "places": PLACES}


def _part(queue: EmbeddingBatchQueue, words: str, name: str, cursor: str) -> Part:
    keys: dict[str, str] = {}
    for _ in range(STEPS):
        step = queue._engine.store.items.find(words, dead=name == "dead", cursor=cursor, enough=FOUND_KEYS)
        keys |= step.keys
        cursor = step.cursor
        if cursor == "0" or len(keys) >= FOUND_KEYS:
            break
    shown = {key.encode("utf-8", "surrogateescape").decode("utf-8", "replace"): place for key, place in keys.items()}
    return Part(name, shown, None if cursor == "0" else cursor)
