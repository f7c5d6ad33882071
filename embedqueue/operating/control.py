"""Pauses by hand, what workers must agree in, and dead letters."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from embedqueue.embedders.protocol import role_of
from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.settings.settings import Settings
from embedqueue.store.door import open_store as store_for
from embedqueue.store.records import Terms, differing, terms_of
from embedqueue.store.store import Store
from embedqueue.values.options import Options
from embedqueue.values.stats import DeadLetter

#: Dead letters that one look fetches, which are in memory together.
DEAD_PAGE = 20


def set_pause(settings: Settings, seconds: float | None, reason: str) -> None:
    """Have nobody claim anything, for so many seconds or until it is lifted."""
    with open_store(settings) as store:
        store.hold(seconds, reason)


def lift_pause(settings: Settings) -> bool:
    """End a pause at once, whoever made it: after a failure, one call tests the provider. Whether there was one."""
    with open_store(settings) as store:
        return store.unhold()


def agreed(settings: Settings) -> dict[str, str]:
    """What the processes of the namespace have to agree in, as it is kept in Redis; empty before the first write."""
    with open_store(settings) as store:
        return store.agreed()


def terms(settings: Settings) -> Terms:
    """On which terms a worker with these settings writes."""
    options = Options(model=settings.model, **settings.options)
    return terms_of(options, settings.width, role_of(settings.embedder(), settings.model))


def compared(settings: Settings) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """What is kept, what these settings say, as far as that is known, and the names in which the two differ."""
    kept, ours = agreed(settings), terms(settings).agreed
    return kept, ours, differing(kept, ours)


def agree(settings: Settings) -> None:
    """Have all processes of the namespace agree in what these settings say; what is written stays as it is."""
    with open_store(settings) as store:
        store.agree(terms(settings))


def fields_of_change(settings: Settings) -> tuple[str | None, str | None]:
    """The second field that texts go to as well, and the one that was cut over to; None where there is none."""
    with open_store(settings) as store:
        second = store.change.second()
        return second and second.field, store.change.reading().get("field")


@contextlib.contextmanager
def open_store(settings: Settings) -> Iterator[Store]:
    """The store of a queue, closed in the end."""
    store = store_for(settings.client(), settings.option("namespace"))
    try:
        yield store
    finally:
        store.close()


def dead_letters(queue: EmbeddingBatchQueue, reason: str | None = None, *, whole: bool = False) -> Iterator[DeadLetter]:
    """Dead letters, the latest first; with ``reason``, those whose reason contains it. Long texts are cut, or whole."""
    offset = 0
    while letters := queue.dead_letters(limit=DEAD_PAGE, offset=offset, max_bytes=None if whole else 0):
        yield from (letter for letter in letters if reason is None or reason in letter.reason)
        offset += len(letters)


def dead_letter_of(settings: Settings, name: str) -> DeadLetter | None:
    """The dead letter of a redis_key, or of a member that is not our JSON."""
    with open_store(settings) as store:
        found = store.dead.find([name])
    return found[0] if found else None
