"""How many tokens a text may have, where nobody has counted them."""

from __future__ import annotations

#: Bytes of UTF-8 in a token, on average over English, code and CJK; budget.lua and buckets.lua have the same.
BYTES_PER_TOKEN = 4


def estimated_tokens(text: str) -> int:
    """About how many tokens a text has."""
    size = len(text) if text.isascii() else len(text.encode())
    return tokens_of_bytes(size)


def tokens_of_bytes(size: int) -> int:
    """The same of a text of so many bytes of UTF-8."""
    return size // BYTES_PER_TOKEN + 1
