"""Dead letters as the page shows them and as its forms name them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain

from embedqueue.money.cost import ASK_DOLLARS, tokens_and_dollars
from embedqueue.money.prices import price_by
from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.values.stats import DeadLetter
from embedqueue.values.tokens import tokens_of_bytes

#: Dead letters on a page.
PAGE_LETTERS = 25
#: Of so many, the latest, the reasons are counted; of fewer once a page of them has taken Redis to read so many bytes.
REASONS_LETTERS, REASONS_BYTES = 200, 4_000_000
#: Bytes of long texts that are read whole to be compared with reasons: a few tenths of a second. Others are cut.
WHOLE_BYTES = 2_000_000
#: Longest name that a form holds as it is.
NAME_BYTES = 300
#: What agrees with the text in so many characters is taken for a quotation.
QUOTED_CHARS = 12
#: Characters that are shown of a text and of a reason.
SHOWN_CHARS = 400
LEFT_OUT = "[…]"
WITHHELD = "The reason may quote the text, which is too long to be compared with it here."


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


class Reader:
    """Says why letters died; what this quotes of their texts is left out where texts are not shown.

    What a cut text does not hold may be quoted all the same. Its letter's reason is shown, without its numbers, where
    that of another letter, which was whole, is the same but for numbers and was found to quote nothing.
    """

    def __init__(self, show_texts: bool) -> None:
        self.show_texts = show_texts
        self._quoteless: set[str] = set()

    def reason_of(self, letter: DeadLetter) -> str:
        """The words that may be seen."""
        if self.show_texts:
            return letter.reason
        reason = letter.reason[: 4 * SHOWN_CHARS]
        if not letter.member and reason:
            return re.sub(r"\d+", LEFT_OUT, reason) if _kind(reason) in self._quoteless else WITHHELD
        shown = reason_of(letter, False)
        if shown == reason:
            self._quoteless.add(_kind(reason))
        return shown

    def show(self, letter: DeadLetter) -> Shown:
        """What may be seen of a letter."""
        return Shown(
            id=form_id(name_of(letter)),
            key=letter.redis_key,
            reason=cut(self.reason_of(letter)),
            died_at=letter.died_at,
            deliveries=letter.deliveries,
            text=cut(letter.text) if self.show_texts else None,
        )

    def reasons(self, letters: Iterable[DeadLetter]) -> list[Reason]:
        """Why they died, the most frequent first; reasons that differ in numbers only are one."""
        groups: dict[str, tuple[str, int]] = {}
        for letter in letters:
            words = self.reason_of(letter)
            kind = _kind(words)
            latest, count = groups.get(kind, (words, 0))
            groups[kind] = (latest, count + 1)
        found = [Reason(_reason_id(words), cut(words), count) for words, count in groups.values()]
        return sorted(found, key=lambda reason: -reason.count)

    def died_of(self, letter: DeadLetter, reason_id: str) -> bool:
        """Whether a letter died for this reason. To be asked in the order in which they were shown."""
        return bool(reason_id) and _reason_id(self.reason_of(letter)) == reason_id


def _kind(words: str) -> str:
    return re.sub(rf"\d+|{re.escape(LEFT_OUT)}", "0", words)


def _reason_id(words: str) -> str:
    """What a form calls a reason; nothing where it was withheld: such letters have no reason in common."""
    return "" if words == WITHHELD else _digest(_kind(words))


def reason_of(letter: DeadLetter, show_text: bool) -> str:
    """Why a letter that is whole died; what this quotes of the text is left out where texts are not shown."""
    if show_text:
        return letter.reason
    reason, text = letter.reason[: 4 * SHOWN_CHARS], letter.text
    size = min(QUOTED_CHARS, max(4, len(text)))
    quoted = [False] * len(reason)
    for at in range(len(reason) - size + 1):
        if reason[at : at + size] in text:
            quoted[at : at + size] = [True] * size
    shown = "".join("\0" if hide else char for char, hide in zip(reason, quoted, strict=True))
    return re.sub("\0+", LEFT_OUT, shown)


def name_of(letter: DeadLetter) -> str | bytes:
    """What the queue knows a letter by."""
    return letter.redis_key or letter.member


def cut(text: str) -> str:
    """The beginning of something long."""
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS].rstrip() + "…"


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


def pages(queue: EmbeddingBatchQueue) -> Iterator[list[DeadLetter]]:
    """All dead letters, the latest first, some at a time; long texts are whole as far as ``WHOLE_BYTES`` go."""
    offset, left = 0, WHOLE_BYTES
    while found := queue.dead_letters(PAGE_LETTERS, offset, max_bytes=left):
        yield found
        offset += len(found)
        left = max(0, left - sum(len(letter.member) for letter in found))


def every(queue: EmbeddingBatchQueue) -> Iterator[DeadLetter]:
    """The same, one by one."""
    return chain.from_iterable(pages(queue))


def latest(queue: EmbeddingBatchQueue) -> list[DeadLetter]:
    """Those whose reasons are counted: what can be looked through while somebody waits for the page."""
    found: list[DeadLetter] = []
    for page in pages(queue):
        found += page
        if len(found) >= REASONS_LETTERS or sum(letter.size_bytes for letter in found) > REASONS_BYTES:
            break
    return found


def cost(queue: EmbeddingBatchQueue, names: Iterable[str | bytes] | None, prices: Mapping[str, float]) -> str | None:
    """What it costs to embed dead letters, as words, where that is more than people spend unasked; else None.

    Args:
        queue: whose letters they are.
        names: of the letters; None for all.
        prices: that were given, by model.
    """
    options = queue.options
    price = price_by(replace(options, prices={**(options.prices or {}), **prices}))
    if not price:
        return None
    found = every(queue) if names is None else queue._engine.store.dead.find(list(names))
    sizes = [letter.size_bytes for letter in found]
    tokens = sum(map(tokens_of_bytes, sizes))
    dollars = tokens * price / 1e6
    return tokens_and_dollars(len(sizes), tokens, dollars) if dollars > ASK_DOLLARS else None
