"""What the admin's page shows of each queue: how it stands, who works, and its dead letters."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from redis.exceptions import RedisError

from embedqueue.operating.shown import Listing, explained, form_id, listing, name_of
from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.settings.checks import explain_redis
from embedqueue.settings.settings import SettingsError
from embedqueue.values.item import check_pair
from embedqueue.values.stats import LiveWorker, QueueStats

from .access import queues

#: Digits of the largest page that an address may ask for, and characters of its longest key.
PAGE_DIGITS, KEY_CHARS = 9, 4096


@dataclass(frozen=True)
class Row:
    """A queue as the page shows it; ``letters`` only of the one that was chosen."""

    name: str
    stats: QueueStats | None = None
    problem: str = ""
    workers: Sequence[LiveWorker] = ()
    letters: Listing | None = None
    item: Mapping[str, Any] | None = None

    @property
    def oldest(self) -> datetime | None:
        """When the oldest waiting item was enqueued."""
        if self.stats is None or self.stats.oldest_age is None:
            return None
        return datetime.fromtimestamp(time.time() - self.stats.oldest_age, UTC)

    @property
    def paused(self) -> bool:
        """Whether nobody claims."""
        return self.stats is not None and self.stats.paused_until is not None

    @property
    def paused_until(self) -> datetime | None:
        """When the provider is asked again; None for a pause without an end."""
        if self.stats is None or self.stats.paused_until in (None, math.inf):
            return None
        return datetime.fromtimestamp(self.stats.paused_until, UTC)

    @property
    def lines(self) -> list[tuple[Any, datetime | None]]:
        """The letters, and when each died."""
        letters = [] if self.letters is None else self.letters.letters
        return [(letter, _moment(letter.died_at)) for letter in letters]


def _moment(unix: float) -> datetime | None:
    """A Unix time; None where another program has written one that is none."""
    try:
        return datetime.fromtimestamp(unix, UTC)
    except (ValueError, OverflowError, OSError):
        return None


@dataclass(frozen=True)
class Wanted:
    """What an address asks for, of one queue. Made by :func:`read`, which checks it."""

    queue: str
    page: int = 1
    older: str = ""
    reason: str = ""
    key: str = ""


def read(given: Mapping[str, str], names: Sequence[str]) -> Wanted:
    """What an address asks for.

    Raises:
        ValueError: it cannot be meant; the sentence says what is wrong.
    """
    page, key = given.get("page") or "1", given.get("key", "").strip()
    if not (page.isascii() and page.isdigit() and 1 <= len(page) <= PAGE_DIGITS and int(page)):
        raise ValueError("page must be a whole number from 1 on")
    if len(key) > KEY_CHARS:
        raise ValueError(f"the key is longer than {KEY_CHARS} characters")
    name = given.get("queue") or (names[0] if names else "")
    if names and name not in names:
        raise ValueError("there is no such queue")
    return Wanted(name, int(page), given.get("older", ""), given.get("reason", ""), key)


def row(name: str, wanted: Wanted, show_texts: bool) -> Row:
    """A queue, and what is wanted of it.

    Args:
        name: of the queue.
        wanted: if it is of this queue, its letters and its item are shown.
        show_texts: whether texts are shown.

    Raises:
        ValueError: nothing that is wanted can be meant.
    """
    try:
        queue = queues.look(name)
        stats = queue.stats()
        found = Row(name, stats, workers=queue.workers() if stats.workers else [])
        if name != wanted.queue:
            return found
        letters = listing(queue, show_texts, number=wanted.page, older=wanted.older, reason_id=wanted.reason)
        return replace(found, letters=letters, item=_item(queue, wanted.key, show_texts) if wanted.key else None)
    except SettingsError as error:
        return Row(name, problem=str(error))
    except RedisError as error:
        return Row(name, problem=explain_redis(queues.settings(name), error))


def _item(queue: EmbeddingBatchQueue, key: str, show_texts: bool) -> dict[str, Any]:
    """Where the vector of a key is, and why; of a dead letter the whole reason, as far as it may be seen."""
    check_pair(key, "", queue.options.namespace, None)
    facts, letter = explained(queue, key, show_texts)
    if letter is not None:
        facts["id"] = form_id(name_of(letter))
    return facts
