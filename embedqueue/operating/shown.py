"""Dead letters as pages show them: some at a time, by reason, and as their forms name them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any, Final

from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.values.stats import DeadLetter

from .explain import explain
from .hiding import WITHHELD, Reader, cut, kind_of

#: Dead letters on a page.
PAGE_LETTERS = 25
#: Of so many, the latest, the reasons are counted; of fewer once a page of them has taken Redis to read so many bytes.
REASONS_LETTERS, REASONS_BYTES = 200, 4_000_000
#: Letters that one look for those of a reason reads at most; the next look goes on behind them. And so many are looked
#: at for a reason whose letters are retried or discarded together.
FILTERED_LETTERS, RETRIED_LETTERS = 1000, 5000
#: Bytes of long texts that are read whole to be compared with reasons: a few tenths of a second. Others are cut.
WHOLE_BYTES = 2_000_000
#: What an address tells of a time or a score: a number, and not of any length.
NUMBER: Final = r"-?(?:\d{1,17}(?:\.\d{1,17})?(?:e[+-]?\d{1,3})?|inf)"
#: Longest name that a form holds as it is.
NAME_BYTES = 300


@dataclass(frozen=True, slots=True)
class Shown:
    """A dead letter on a page; ``text`` is None where texts are not shown."""

    id: str
    key: str
    reason: str
    died_at: float
    text: str | None


@dataclass(frozen=True, slots=True)
class Reason:
    """Why letters died, in the words of the latest of them."""

    id: str
    words: str
    count: int


@dataclass(frozen=True, slots=True)
class LettersPage:
    """Some dead letters, the latest first.

    Attributes:
        letters: of the page.
        offset: how many newer ones there are.
        looked: how many were looked at for these.
        last: the last of those, where there are more behind it; else None.
        missing: how many of the page are too long to be shown with these.
    """

    letters: list[DeadLetter]
    offset: int
    looked: int
    last: DeadLetter | None
    missing: int = 0

    @property
    def behind(self) -> int:
        """The offset of what comes behind this page."""
        return self.offset + self.looked


def show(reader: Reader, letter: DeadLetter) -> Shown:
    """What may be seen of a letter in a list."""
    return Shown(
        id=form_id(name_of(letter)),
        key=letter.redis_key,
        reason=cut(reader.reason_of(letter)),
        died_at=letter.died_at,
        text=cut(letter.text) if reader.show_texts else None,
    )


def explained(queue: EmbeddingBatchQueue, key: str, show_texts: bool) -> tuple[dict[str, Any], DeadLetter | None]:
    """What is known of a key, and its dead letter where it has one; of the reason, as much as may be seen.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    facts = explain(queue, key)
    if facts["state"] != "dead":
        return facts, None
    found = queue._engine.store.dead.find([key])
    facts["because"] = whole_reason(found[0], show_texts) if found else "its letter has gone just now"
    return facts, found[0] if found else None


def whole_reason(letter: DeadLetter, show_texts: bool) -> str:
    """Why a letter died, as much of it as may be seen."""
    long = len(letter.member) > WHOLE_BYTES and not show_texts  # to compare it with the text would take too long
    return Reader(show_texts).reason_of(replace(letter, member=b"") if long else letter)


def reasons(reader: Reader, letters: Iterable[DeadLetter]) -> list[Reason]:
    """Why they died, the most frequent first; reasons that differ in numbers only are one."""
    groups: dict[str, tuple[str, int]] = {}
    for letter in letters:
        words = reader.reason_of(letter)
        kind = kind_of(words)
        latest, count = groups.get(kind, (words, 0))
        groups[kind] = (latest, count + 1)
    found = [Reason(_reason_id(words), cut(words), count) for words, count in groups.values()]
    return sorted(found, key=lambda reason: -reason.count)


def died_of(reader: Reader, letter: DeadLetter, reason_id: str) -> bool:
    """Whether a letter died for this reason. To be asked in the order in which they were shown."""
    return bool(reason_id) and _reason_id(reader.reason_of(letter)) == reason_id


def _reason_id(words: str) -> str:
    """What a form calls a reason; nothing where it was withheld: such letters have no reason in common."""
    return "" if words == WITHHELD else _digest(kind_of(words))


def name_of(letter: DeadLetter) -> str | bytes:
    """What the queue knows a letter by."""
    return letter.redis_key or letter.member


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
        if not one.startswith("k") or len(one) == 1:
            continue
        try:
            found.append(base64.b64decode(one[1:] + "=" * (-len(one[1:]) % 4), b"-_", validate=True).decode())
        except (binascii.Error, ValueError):
            continue
    if digests:
        found += [name_of(letter) for letter in every(queue) if form_id(name_of(letter)) in digests]
    return found


# -- what a page asks for --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Listing:
    """A page of dead letters, as an address asks for it.

    Attributes:
        dead_count: how many letters there are.
        page: which page it is, counted from 1.
        pages: how many there are.
        reason_id: of which reason its letters are; "" for all.
        reason_words: of that reason, if one of the latest letters has it.
        reasons: why the latest letters died, the most frequent first.
        reasons_of: how many these are.
        letters: of the page.
        looked: how many were looked at for these.
        missing: how many of the page are too long to be shown with these.
        older: names the place behind the last of them; None at the end.
    """

    dead_count: int
    page: int
    pages: int
    reason_id: str
    reason_words: str
    reasons: list[Reason]
    reasons_of: int
    letters: list[Shown]
    looked: int
    missing: int
    older: str | None


def listing(
    queue: EmbeddingBatchQueue, show_texts: bool, *, number: int = 1, older: str = "", reason_id: str = ""
) -> Listing:
    """A page of dead letters.

    Args:
        queue: whose letters they are.
        show_texts: whether texts are shown.
        number: of the page, from 1 on; beyond the last one is the last one.
        older: instead: the place that another page has named.
        reason_id: of which reason; "" for all.

    Raises:
        ValueError: ``older`` or ``reason_id`` is nothing that a page has named.
        redis.RedisError: Redis does not answer.
    """
    if reason_id and not re.fullmatch(r"[0-9a-f]{32}", reason_id, re.ASCII):
        raise ValueError("reason must be what a link of this page says")
    behind = _read_place(older)
    count = queue.stats().dead
    last = max(1, -(-count // PAGE_LETTERS))
    offset = (min(number, last) - 1) * PAGE_LETTERS if behind is None else _offset(queue, *behind)
    reader, first = Reader(show_texts), latest(queue) if count else []
    found = reasons(reader, first)  # first: what it learns of them serves for those of the page
    if reason_id:
        page = page_of_reason(queue, reader, reason_id, offset)
    elif offset + PAGE_LETTERS <= len(first):  # they were read for their reasons
        page = page_at(first, offset, count)
    else:
        page = page_of(queue, offset, count)
    return Listing(
        dead_count=count,
        page=page.offset // PAGE_LETTERS + 1,
        pages=last,
        reason_id=reason_id,
        reason_words=next((one.words for one in found if one.id == reason_id), ""),
        reasons=found,
        reasons_of=len(first),
        letters=[show(reader, letter) for letter in page.letters],
        looked=page.looked,
        missing=page.missing,
        older=None if page.last is None else f"{page.last.died_at!r}~{form_id(name_of(page.last))}~{page.behind}",
    )


def _read_place(older: str) -> tuple[float, str, int] | None:
    """When a letter died, its name as forms have it, and how many were before what is behind it; None for no place."""
    if not older:
        return None
    parts = re.fullmatch(rf"({NUMBER})~([kd][\w-]{{0,500}})~(\d{{1,9}})", older, re.ASCII)
    if parts is None:
        raise ValueError("older must be what a link of this page says")
    return float(parts[1]), parts[2], int(parts[3])


def _offset(queue: EmbeddingBatchQueue, died_at: float, name: str, offset: int) -> int:
    """How many letters are newer than what a list goes on with."""
    if not name.startswith("k"):
        return offset
    return queue._engine.store.dead.newer(died_at, *names(queue, [name]))


# -- some at a time --------------------------------------------------------------------------------------------------


def pages(queue: EmbeddingBatchQueue, offset: int = 0) -> Iterator[list[DeadLetter]]:
    """Dead letters, the latest first, some at a time; long texts are whole as far as ``WHOLE_BYTES`` go."""
    left = WHOLE_BYTES
    while found := queue.dead_letters(PAGE_LETTERS, offset, max_bytes=left):
        yield found
        offset += len(found)
        left = max(0, left - sum(len(letter.member) for letter in found))


def every(queue: EmbeddingBatchQueue) -> Iterator[DeadLetter]:
    """All of them, one by one."""
    return chain.from_iterable(pages(queue))


def latest(queue: EmbeddingBatchQueue) -> list[DeadLetter]:
    """Those whose reasons are counted: what can be looked through while somebody waits for the page."""
    found: list[DeadLetter] = []
    for page in pages(queue):
        found += page
        if len(found) >= REASONS_LETTERS or sum(letter.size_bytes for letter in found) > REASONS_BYTES:
            break
    return found


def page_of(queue: EmbeddingBatchQueue, offset: int, count: int) -> LettersPage:
    """A page of all letters, of which there are ``count``."""
    return page_at(queue.dead_letters(PAGE_LETTERS, offset, max_bytes=WHOLE_BYTES), 0, count - offset, offset)


def page_at(letters: Sequence[DeadLetter], at: int, count: int, newer: int = 0) -> LettersPage:
    """A page of letters that were read: from ``at`` on, where there are ``count``, and ``newer`` ones before them."""
    end = min(at + PAGE_LETTERS, count)
    found = list(letters[at:end])
    missing = max(0, end - at - len(found))
    more = at + len(found) < count
    return LettersPage(found, newer + at, len(found), found[-1] if found and more else None, missing)


def page_of_reason(queue: EmbeddingBatchQueue, reader: Reader, reason_id: str, offset: int) -> LettersPage:
    """The next letters that died for one reason, as far as one look goes."""
    found: list[DeadLetter] = []
    looked = 0
    for letter in chain.from_iterable(pages(queue, offset)):
        looked += 1
        if died_of(reader, letter, reason_id):
            found.append(letter)
        if len(found) == PAGE_LETTERS or looked == FILTERED_LETTERS:
            return LettersPage(found, offset, looked, letter)
    return LettersPage(found, offset, looked, None)


def of_reason(queue: EmbeddingBatchQueue, reader: Reader, reason_id: str) -> list[str | bytes]:
    """Names of the letters that died for one reason, as far as ``RETRIED_LETTERS`` go, the latest first."""
    looked = islice(every(queue), RETRIED_LETTERS)
    return [name_of(letter) for letter in looked if died_of(reader, letter, reason_id)]
