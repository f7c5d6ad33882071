"""Of which spaces the vectors in hashes are, and labels for those of which nothing says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

from embedqueue.backlog.inspection import LOOK_ITEMS, UNLABELLED, hashes_with_text, inspect
from embedqueue.settings.settings import Settings
from embedqueue.values.provenance import line, read_provenance

from .control import open_store, terms

One = TypeVar("One")


def count_spaces(settings: Settings, match: str) -> dict[str, int]:
    """How many vectors are of which space, the most frequent first; "unlabelled" and "malformed" are among the names.

    Args:
        settings: of the queue.
        match: of the hashes' keys, a pattern as SCAN takes it.
    """
    ours, found = terms(settings), Counter[str]()
    with open_store(settings) as store:
        for keys in _slices(store.hashes.matching(match)):
            for looked in store.hashes.look(keys, ours):
                if looked.vector_bytes:
                    of = read_provenance(looked.provenance)
                    found[of.space if of else "malformed" if looked.provenance else UNLABELLED] += 1
    return dict(found.most_common())


def label(settings: Settings, match: str, text_field: str) -> int:
    """Write that unlabelled vectors of the right length are of the texts beside them, and of the settings' space.

    Args:
        settings: of the queue.
        match: of the hashes' keys, a pattern as SCAN takes it.
        text_field: of the hashes.

    Returns:
        How many were labelled.
    """
    ours, count = terms(settings), 0
    with open_store(settings) as store:
        for texts in _slices(hashes_with_text(store, match, text_field)):
            found = inspect(store, texts, ours)
            labels = {
                redis_key: line(ours.space, text)
                for (redis_key, text), one in zip(texts, found, strict=True)
                if one.kind == UNLABELLED
            }
            count += store.hashes.label(labels, ours)
    return count


def _slices(items: Iterable[One]) -> Iterator[list[One]]:
    source = iter(items)
    while part := list(islice(source, LOOK_ITEMS)):
        yield part
