"""Texts that are longer than the model takes: rejected, or cut to what fits; never cut by a provider in silence.

This is the one door through which each claimed text comes before it is sent. Without the model's own tokenizer nobody
knows how many tokens a text has. So there are two estimates: ``least_tokens``, below which no text that people write
is, and ``careful_tokens``, which is rarely too low. Only what is too long by the first is rejected. What is cut is cut
so that it fits by the second.
"""

from __future__ import annotations

import re

from embedqueue.embedders.text_limits import TextLimit
from embedqueue.values.options import OnLong

#: Tokens of a text that a provider adds: where it begins and ends, and the name of its task.
ADDED_TOKENS = 8
#: Characters of a token, on average over a text without blanks and repetitions, at most; and of scripts without blanks.
MOST_CHARS, MOST_SPACELESS_CHARS = 16, 4
#: Scripts that put no blanks between words: Thai to Tibetan and Burmese, Khmer, ideographs, kana, Hangul.
_SPACELESS = re.compile("[\u0e00-\u109f\u1780-\u17ff\u2e80-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff]+")
_REPETITIONS = re.compile(r"(.)\1+", re.S)
#: Characters that are looked at for each token of the limit, where words do not tell.
READ_CHARS = 64
#: What careful_tokens counts by: Latin letters, as camelCase joins words of them; blanks; one sign, be it repeated; one
#: letter of Cyrillic; one other character.
_PIECES = re.compile(r"([A-Z]?[a-z]+|[A-Z]+)|(\s+)|(([!-/:-@\[-`{-~])\4*)|([\u0400-\u04ff])|.", re.S)
_WORD, _BLANKS, _SIGNS, _CYRILLIC = 1, 2, 3, 5
#: Quarters of a token that one character counts by its bytes in UTF-8: a digit is one token, an ideograph a little
#: more, an emoji two. Cyrillic has two letters a token.
_QUARTERS = {1: 4, 2: 4, 3: 5, 4: 8}
_CYRILLIC_QUARTERS = 2
#: Latin letters of a word, and equal signs in a row, that count as one token.
_LETTERS = 4
#: Letters of a word that is not cut in two.
LONGEST_WORD = 100


class TooLong(ValueError):
    """A text that the model cannot take; the words say how long it is, what the limit is, and what to do."""


class Lengths:
    """Lets texts through that fit, rejects or cuts the others.

    Args:
        limit: of the model's texts, or None where it is not known: then everything fits.
        on_long: what to do with what is longer. None: reject it if the provider would cut it without a word, else
            leave it to the provider, which refuses it.
        model: its name, for the words of a rejection.
    """

    def __init__(self, limit: TextLimit | None, on_long: OnLong | None, model: str) -> None:
        self._limit = limit
        self._model = model
        self.on_long: OnLong | None = None if limit is None else on_long or ("reject" if limit.cuts else None)

    def fit(self, text: str) -> str:
        """The text, or the beginning of it that fits.

        Raises:
            TooLong: it is certainly too long, and is to be rejected.
        """
        limit = self._limit
        if limit is None or self.on_long is None or _fits(text, limit.tokens):
            return text
        if self.on_long == "truncate":
            return beginning(text, max(1, limit.tokens - ADDED_TOKENS))
        least = least_tokens(text, limit.tokens)
        if least > limit.tokens:
            raise TooLong(
                f"the text is too long for {self._model}: {len(text)} characters are at least {least} tokens, and it "
                f'takes {limit.tokens}; split the text, or have it cut with on_long="truncate"'
            )
        return text


def _fits(text: str, tokens: int) -> bool:
    """Whether a text fits for certain: no token is shorter than a byte. Most texts end here, and it costs nothing."""
    room = tokens - ADDED_TOKENS
    return len(text) <= room and (text.isascii() or 4 * len(text) <= room or len(text.encode()) <= room)


def least_tokens(text: str, enough: int) -> int:
    """Fewest tokens that a text can have.

    No tokenizer of a known model has tokens of several words. What has no blanks counts by its length, in which the
    repetition of a character counts nothing, for a whole rule of dashes may be one token.

    Args:
        text: of any length.
        enough: if words alone are more, nothing else is looked at, which takes longer.
    """
    least = len(text.split())
    text = text[: READ_CHARS * enough]  # what is behind only makes it more
    if least <= enough and not text.isascii():
        least = max(least, sum(map(len, _SPACELESS.findall(_REPETITIONS.sub(r"\1", text)))) // MOST_SPACELESS_CHARS)
    if least <= enough < len(text) // MOST_CHARS:
        least = max(least, len("".join(_REPETITIONS.sub(r"\1", text).split())) // MOST_CHARS)
    return least


def careful_tokens(text: str) -> int:
    """About how many tokens a text has at most. An estimate: of rare words and rare characters it may be too low."""
    return -(-sum(map(_quarters, _PIECES.finditer(text))) // 4)


def beginning(text: str, tokens: int) -> str:
    """The longest beginning that has no more than so many tokens by ``careful_tokens``: the text itself if it fits."""
    left = 4 * tokens
    for piece in _PIECES.finditer(text):
        quarters = _quarters(piece)
        if quarters > left:
            at = piece.start()
            if len(piece[0]) > LONGEST_WORD and piece.lastindex == _WORD:
                at += _LETTERS * (left // 4)
            return text[:at].rstrip() or text.lstrip()[:1]
        left -= quarters
    return text


def _quarters(piece: re.Match[str]) -> int:
    kind, found = piece.lastindex, piece[0]
    if kind == _WORD:
        return 4 * max(1, (len(found) + 2) // _LETTERS)
    if kind == _BLANKS:
        return 0 if found == " " else 4  # a single blank belongs to the word behind it
    if kind == _SIGNS:
        return 4 * -(-len(found) // _LETTERS)
    return _CYRILLIC_QUARTERS if kind == _CYRILLIC else _QUARTERS[len(found.encode("utf-8", "surrogatepass"))]
