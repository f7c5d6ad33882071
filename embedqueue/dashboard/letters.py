"""The page of dead letters: their reasons, and the letters, all or of one reason, a page at a time."""

from __future__ import annotations

import time
from typing import Any

from embedqueue.operating import shown
from embedqueue.operating.hiding import Reader
from embedqueue.queue import EmbeddingBatchQueue

from . import asked


def listed(queue: EmbeddingBatchQueue, show_texts: bool) -> dict[str, Any]:
    """The letters of the page that the address asks for, and the reasons of the latest ones.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    count, reason, older, number = queue.stats().dead, asked.reason_id(), asked.older(), asked.page_number()
    pages = max(1, -(-count // shown.PAGE_LETTERS))
    offset = (min(number, pages) - 1) * shown.PAGE_LETTERS if older is None else _offset(queue, *older)
    reader, latest = Reader(show_texts), shown.latest(queue) if count else []
    reasons = shown.reasons(reader, latest)  # first: what it learns of them serves for those of the page
    if reason:
        page = shown.page_of_reason(queue, reader, reason, offset)
    elif offset + shown.PAGE_LETTERS <= len(latest):  # they were read for their reasons
        page = shown.page_at(latest, offset, count)
    else:
        page = shown.page_of(queue, offset, count)
    return {
        "dead_count": count,
        "page": page.offset // shown.PAGE_LETTERS + 1,
        "pages": pages,
        "reason_id": reason,
        "reason_words": next((one.words for one in reasons if one.id == reason), ""),
        "reasons": reasons,
        "letters": [shown.show(reader, letter) for letter in page.letters],
        "looked": page.looked,
        "missing": page.missing,
        "older": _marked(page),
        "reasons_of": len(latest),
        "now": time.time(),
    }


def _offset(queue: EmbeddingBatchQueue, died_at: float, name: str, offset: int) -> int:
    """How many letters are newer than what a list goes on with."""
    if not name.startswith("k"):
        return offset
    return queue._engine.store.dead.newer(died_at, *shown.names(queue, [name]))


def _marked(page: shown.LettersPage) -> str | None:
    """The link to what is behind a page; None at the end."""
    if page.behind is None or page.last is None:
        return None
    return f"{page.last.died_at!r}~{shown.form_id(shown.name_of(page.last))}~{page.behind}"
