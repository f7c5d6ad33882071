"""What may be seen of dead letters where texts are not shown: reasons without what they quote."""

from __future__ import annotations

import re

from embedqueue.values.stats import DeadLetter
from embedqueue.values.words import without_texts

#: What agrees with the text in so many characters is taken for a quotation.
QUOTED_CHARS = 12
#: Characters that a list shows of a text and of a reason.
SHOWN_CHARS = 400
LEFT_OUT = "[…]"
WITHHELD = "The reason may quote the text, which is too long to be compared with it here."


class Reader:
    """Says why letters died; what this quotes of their texts is left out where texts are not shown.

    What a cut text does not hold may be quoted all the same. Its letter's reason is shown, without its numbers, where
    that of another letter, which was whole, is the same but for numbers and was found to quote nothing.

    Args:
        show_texts: whether texts are shown.
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
            return re.sub(r"\d+", LEFT_OUT, reason) if kind_of(reason) in self._quoteless else WITHHELD
        shown = unquoted(letter)
        if shown == reason:
            self._quoteless.add(kind_of(reason))
        return shown


def kind_of(words: str) -> str:
    """A reason without what differs from letter to letter: its numbers, and what was left out."""
    return re.sub(rf"\d+|{re.escape(LEFT_OUT)}", "0", words)


def unquoted(letter: DeadLetter) -> str:
    """Why a letter that is whole died, without what this quotes of the text."""
    text, reason = letter.text, letter.reason[: 4 * SHOWN_CHARS]
    if re.search(r"[\\%&]", reason):  # with an escape, which is seldom, and costs more to look through
        reason = without_texts(reason, [text])
    size = min(QUOTED_CHARS, max(4, len(text)))
    quoted = [False] * len(reason)
    for at in range(len(reason) - size + 1):
        if reason[at : at + size] in text:
            quoted[at : at + size] = [True] * size
    shown = "".join("\0" if hide else char for char, hide in zip(reason, quoted, strict=True))
    return re.sub("\0+", LEFT_OUT, shown)


def cut(text: str, chars: int = SHOWN_CHARS) -> str:
    """The beginning of something long."""
    return text if len(text) <= chars else text[:chars].rstrip() + "…"
