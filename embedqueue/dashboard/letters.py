"""Dead letters as the page shows them and as its forms name them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.report import DeadLetter

#: Dead letters on a page.
PAGE_LETTERS = 25
#: Of so many, the latest, the reasons are counted.
REASONS_LETTERS = 200
#: Longest name that a form holds as it is.
NAME_BYTES = 300
#: What agrees with the text in so many characters is taken for a quotation.
QUOTED_CHARS = 12
#: Characters that are shown of a text and of a reason.
SHOWN_CHARS = 400


@dataclass(frozen=True, slots=True)
class Shown:
    """A dead letter on the page; ``text`` is None where texts are not shown."""

    id: str
    key: str
    reason: str
    died_at: float
    deliveries: int
    text: str | None


@dataclass(frozen=True, slots=True)
class Reason:
    """Why letters died, in the words of the latest of them."""

    id: str
    words: str
    count: int


def name_of(letter: DeadLetter) -> str | bytes:
    """What the queue knows a letter by."""
    return letter.redis_key or letter.member


def show(letter: DeadLetter, show_text: bool) -> Shown:
    """What may be seen of a letter."""
    return Shown(
        id=form_id(name_of(letter)),
        key=letter.redis_key,
        reason=cut(reason_of(letter, show_text)),
        died_at=letter.died_at,
        deliveries=letter.deliveries,
        text=cut(letter.text) if show_text else None,
    )


def cut(text: str) -> str:
    """The beginning of something long."""
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS].rstrip() + "…"


def reason_of(letter: DeadLetter, show_text: bool) -> str:
    """Why a letter died; what this quotes of the text is left out where texts are not shown."""
    if show_text:
        return letter.reason
    reason, text = letter.reason[: 4 * SHOWN_CHARS], letter.text
    size = min(QUOTED_CHARS, max(4, len(text)))
    quoted = [False] * len(reason)
    for at in range(len(reason) - size + 1):
        if reason[at : at + size] in text:
            quoted[at : at + size] = [True] * size
    shown = "".join("\0" if hide else char for char, hide in zip(reason, quoted, strict=True))
    return re.sub("\0+", "[…]", shown)


# -- names in forms --------------------------------------------------------------------------------------------------


def form_id(name: str | bytes) -> str:
    """A name as a form can hold it: the key itself, or a digest of what is long or is no key."""
    if isinstance(name, str) and len(name.encode()) <= NAME_BYTES:
        return "k" + base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")
    return "d" + _digest(name)


def _digest(text: str | bytes) -> str:
    return hashlib.blake2b(text if isinstance(text, bytes) else text.encode(), digest_size=16).hexdigest()


def names(queue: EmbeddingBatchQueue, ids: Iterable[str]) -> list[str | bytes]:
    """The names that a form holds; what is none is left out. Only digests need a look at all letters."""
    found: list[str | bytes] = []
    digests = set()
    for one in ids:
        if one.startswith("d"):
            digests.add(one)
            continue
        try:
            found.append(base64.b64decode(one[1:] + "=" * (-len(one[1:]) % 4), b"-_", validate=True).decode())
        except (binascii.Error, ValueError):
            continue
    if digests:
        found += [name_of(letter) for letter in every(queue) if form_id(name_of(letter)) in digests]
    return found


def every(queue: EmbeddingBatchQueue) -> Iterator[DeadLetter]:
    """All dead letters, the latest first."""
    offset = 0
    while letters := queue.dead_letters(limit=REASONS_LETTERS, offset=offset):
        yield from letters
        offset += len(letters)


# -- reasons ---------------------------------------------------------------------------------------------------------


def reasons(letters: Iterable[DeadLetter], show_text: bool) -> list[Reason]:
    """Why they died, the most frequent first; reasons that differ in numbers only are one."""
    groups: dict[str, tuple[str, int]] = {}
    for letter in letters:
        words = reason_of(letter, show_text)
        kind = _kind(words)
        latest, count = groups.get(kind, (words, 0))
        groups[kind] = (latest, count + 1)
    found = [Reason(_digest(kind), cut(words), count) for kind, (words, count) in groups.items()]
    return sorted(found, key=lambda reason: -reason.count)


def _kind(words: str) -> str:
    return re.sub(r"\d+", "0", words)


def of_reason(show_text: bool, reason_id: str) -> Callable[[DeadLetter], bool]:
    """Whether a letter died for this reason."""
    return lambda letter: _digest(_kind(reason_of(letter, show_text))) == reason_id
