"""The live items: those that wait, are in flight, or wait for their last delivery; a page at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from embedqueue.operating.hiding import SHOWN_CHARS, cut
from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.store.items import LiveItem, Mark, Place
from embedqueue.store.keys import JOBS_SCORE
from embedqueue.store.records import due_seconds

from . import asked, words

#: Items on a page.
PAGE_ITEMS = 50
#: What the places are called, and what of an item is told in each.
PLACES: dict[Place, tuple[str, str]] = {
    "pending": ("Waiting", "Due"),
    "inflight": ("In flight", "Lease"),
    "alone": ("Last delivery", "Due"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """An item on the page; ``text`` is None where texts are not shown."""

    key: str
    waited: float
    when: str
    size_bytes: int
    deliveries: int
    worker: str
    text: str | None


def listed(queue: EmbeddingBatchQueue, show_texts: bool) -> dict[str, Any]:
    """The items of the page that the address asks for. Two round trips, three at the end of a list.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    place, start = asked.place(), asked.start(PAGE_ITEMS)
    store = queue._engine.store
    status = store.status()
    page = store.items.page(place, start, PAGE_ITEMS, SHOWN_CHARS * 4 if show_texts else 0)
    if not page.items and isinstance(start, Mark):  # the end, or all of it has gone meanwhile
        page = store.items.page(place, page.total, PAGE_ITEMS, SHOWN_CHARS * 4 if show_texts else 0)

    def row(item: LiveItem) -> Row:
        return Row(
            key=item.redis_key,
            waited=max(0.0, page.now - item.enqueued_at),
            when=_when(place, float(item.score), page.now, status.base_seconds, queue.options.flush_interval),
            size_bytes=item.size_bytes,
            deliveries=item.deliveries,
            worker=item.worker if place == "inflight" and float(item.score) < JOBS_SCORE else "",
            text=cut(item.text) if show_texts else None,
        )

    end = page.rank + len(page.items)
    return {
        "place": place,
        "places": PLACES,
        "jobs": asked.marked(Mark("after", f"{JOBS_SCORE:.0f}")) if status.outsourced else None,
        "rows": [row(item) for item in page.items],
        "total": page.total,
        "first": page.rank + 1,
        "last": end,
        "page": page.rank // PAGE_ITEMS + 1,
        "pages": max(1, -(-page.total // PAGE_ITEMS)),
        "next": asked.marked(page.items[-1].mark("after")) if page.items and end < page.total else None,
        "previous": asked.marked(page.items[0].mark("before")) if page.items and page.rank else None,
        "strays": max(0, status.strays),
    }


def _when(place: Place, score: float, now: float, base: float | None, flush_interval: float) -> str:
    """When the lease of an item ends, or a drain starts because of it."""
    if place == "inflight" and score >= JOBS_SCORE:
        return "in a batch job"
    if place == "inflight":
        left = score - now
        return f"ends in {words.duration(left)}" if left > 0 else "has run out"
    seconds = due_seconds(now - score, base, flush_interval)
    if seconds is None or math.isnan(seconds):
        return ""
    return f"in {words.duration(seconds)}" if seconds > 0 else "now"
