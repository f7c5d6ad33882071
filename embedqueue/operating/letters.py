"""Dead letters as a command names them: put back, or dropped."""

from __future__ import annotations

from collections.abc import Sequence

from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.values.errors import EmbedQueueError

from .confirm import confirm
from .control import dead_letters

#: Of dead letters; None: all of them.
Names = list[str | bytes] | None


class WrongChoice(ValueError):
    """A command must be told which dead letters it is for, in one way."""


def names_of(queue: EmbeddingBatchQueue, keys: Sequence[str], reason: str | None, everything: bool) -> Names:
    """The names of the dead letters that are meant.

    Args:
        queue: whose letters they are.
        keys: named one by one, be there such letters or not.
        reason: those whose reason contains it.
        everything: all of them.

    Raises:
        WrongChoice: not exactly one of the three was given.
    """
    if [bool(keys), reason is not None, everything].count(True) != 1:
        raise WrongChoice("give keys, or --reason, or --all")
    if reason is not None:
        return [letter.redis_key or letter.member for letter in dead_letters(queue, reason)]
    return None if everything else list(keys)


def retry(queue: EmbeddingBatchQueue, keys: Sequence[str], reason: str | None, everything: bool) -> str:
    """Put dead letters back; see :func:`names_of`. Returns a sentence.

    Raises:
        WrongChoice: see :func:`names_of`.
        EmbedQueueError: a key that was named has no dead letter; those that have one are back.
    """
    names = names_of(queue, keys, reason, everything)
    return _told(queue.retry_dead(names), "put back", keys)


def discard(queue: EmbeddingBatchQueue, keys: Sequence[str], reason: str | None, everything: bool, yes: bool) -> str:
    """Drop dead letters for good, after a question unless each was named; see :func:`names_of`. Returns a sentence.

    Raises:
        WrongChoice: see :func:`names_of`.
        EmbedQueueError: nobody has agreed, and nothing was dropped; or a key that was named has no dead letter.
    """
    names = names_of(queue, keys, reason, everything)
    count = queue.stats().dead if names is None else len(names)
    if not keys and count:
        confirm(f"Drop {count} dead letters for good?", yes=yes)
    return _told(queue.discard_dead(names), "discarded", keys)


def _told(count: int, done: str, keys: Sequence[str]) -> str:
    named = len(set(keys))
    if count < named:
        what = f"{keys[0]} is no dead letter" if named == 1 else f"{named - count} of {named} keys have no dead letter"
        raise EmbedQueueError(f"{count} {done}: {what}")
    return f"{count} {done}"
