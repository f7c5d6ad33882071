"""A vector of a fixed text, kept in Redis: it finds a provider that serves another model under the same name."""

from __future__ import annotations

import base64
import binascii
import json
import time
from typing import Any

import numpy as np

from embedqueue.settings.settings import Settings
from embedqueue.values.vectors import FLOAT32, cosine

from .control import open_store, terms

#: What two vectors of one text by one model have for a cosine at least: they differ a little from machine to machine.
LEAST_COSINE = 0.98


def compare(settings: Settings, vector: Any) -> str:
    """Compare a vector of the canary with the one that is kept; keep it where none is, or one of another space.

    Args:
        settings: of the queue.
        vector: (dimensions,) numbers, of the text that each ``check`` embeds.

    Returns:
        A sentence if the two are of different models; else "".

    Raises:
        redis.RedisError: Redis does not answer.
    """
    ours, space = np.asarray(vector, FLOAT32), terms(settings).space
    with open_store(settings) as store:
        kept = _read(store.canary())
        if kept is None or kept[0] != space:
            facts = {"space": space, "at": time.time(), "vector": base64.b64encode(ours.tobytes()).decode()}
            store.keep_canary(json.dumps(facts))
            return ""
    _, at, before = kept
    alike = cosine(before, ours)
    if alike >= LEAST_COSINE:
        return ""
    day = time.strftime("%Y-%m-%d", time.localtime(at))
    return (
        f"{settings.model} gives the same text another vector than on {day} (cosine {alike:.2f}): the provider serves "
        "another model under this name; old and new vectors cannot be compared, so embed all texts anew (verify tells "
        "nothing of it). To go on with it, delete the field canary of the hash "
        f"{settings.option('namespace')}:settings"
    )


def _read(text: bytes | None) -> tuple[str, float, Any] | None:
    """Space, time and vector of what is kept; None where that is nothing of ours."""
    try:
        facts = json.loads(text or b"")
        vector = np.frombuffer(base64.b64decode(facts["vector"], validate=True), FLOAT32)
        return str(facts["space"]), float(facts["at"]), vector
    except (ValueError, TypeError, LookupError, binascii.Error):
        return None
