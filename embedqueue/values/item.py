"""An item and its member: the JSON by which it stands in Redis.

Members written by another program read ``{"redis_key":"...","text":"..."}``, and so do ours: each side drains what the
other leaves. Equal members are equal items, so one encoder serves all.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from .stats import DeadLetter

_quote = json.encoder.encode_basestring  # in C; a JSONEncoder spends four times as long on so small an object


#: What stands for the member of a key whose newest text is blank, or which shall have no text any more.
BLANK, FORGOTTEN = b"", b"-"


@dataclass(frozen=True, slots=True)
class Item:
    """What was enqueued.

    Attributes:
        redis_key: the hash that receives the vector.
        text: what is embedded.
        member: their JSON, as it stands in the pending ZSET.
        owner: the name of the claim under which it is held; "" where it is not.
        sent: what the provider is sent: the text, or the beginning of one that is too long; "" where it is not claimed.
    """

    redis_key: str
    text: str
    member: bytes
    owner: str = ""
    sent: str = ""

    @property
    def truncated(self) -> bool:
        """Whether only the beginning of the text is embedded."""
        return len(self.sent) < len(self.text)


class NotOurs(ValueError):
    """A member that is not our JSON."""


def check_pair(redis_key: object, text: object, namespace: str, max_text_chars: int | None) -> None:
    """Refuse a pair that could never work, before anything is written; but see :func:`checked_member`.

    Args:
        redis_key: name of the user's hash.
        text: what to embed.
        namespace: the queue's own prefix; keys inside it are not the user's.
        max_text_chars: longest text in characters, or None.

    Raises:
        TypeError: not two strings.
        ValueError: empty key, key of the queue itself, too long, or not encodable as UTF-8.
    """
    if not isinstance(redis_key, str):
        raise TypeError(f"redis_key must be a str, not {type(redis_key).__name__}")
    if not isinstance(text, str):
        raise TypeError(f"text must be a str, not {type(text).__name__}")
    if not redis_key:
        raise ValueError("redis_key must not be empty")
    redis_key.encode()
    if redis_key.startswith((f"{namespace}:", f"{{{namespace}}}:")):  # the latter on a cluster
        raise ValueError(f"redis_key {redis_key!r} lies inside the queue's own namespace {namespace!r}")
    _check_length(text, max_text_chars)


def _check_length(text: str, max_text_chars: int | None) -> None:
    if max_text_chars is not None and len(text) > max_text_chars:
        raise ValueError(f"text has {len(text)} characters, more than max_text_chars={max_text_chars}")


def check_query(text: object, max_text_chars: int | None) -> None:
    """Refuse a query that could never work.

    Args:
        text: what is looked for.
        max_text_chars: longest text in characters, or None.

    Raises:
        TypeError: no string.
        ValueError: blank, too long, or not encodable as UTF-8.
    """
    if not isinstance(text, str):
        raise TypeError(f"text must be a str, not {type(text).__name__}")
    if is_blank(text):
        raise ValueError("the query is blank: it has no direction, so nothing is near it")
    _check_length(text, max_text_chars)
    text.encode()


def is_blank(text: str) -> bool:
    """Whether there is nothing in a text to embed."""
    return not text or text.isspace()


def encode_member(redis_key: str, text: str) -> bytes:
    """The member of a pair, as UTF-8.

    Raises:
        UnicodeEncodeError: (a ValueError) for a lone surrogate.
    """
    return f'{{"redis_key":{_quote(redis_key)},"text":{_quote(text)}}}'.encode()


def checked_member(redis_key: str, text: str, namespace: str, max_text_chars: int | None) -> bytes:
    """The member of a pair that a queue takes; arguments and errors of :func:`check_pair` and :func:`encode_member`."""
    check_pair(redis_key, text, namespace, max_text_chars)
    return encode_member(redis_key, text)


def decode_member(member: bytes) -> Item:
    """The item behind a member, in whichever JSON style it was written.

    Raises:
        NotOurs: it is not a pair of a non-empty key and a text.
    """
    try:
        pair = json.loads(member.decode())  # of bytes, it would guess at UTF-16 as well, which Redis does not
        redis_key, text = pair["redis_key"], pair["text"]
        if not (isinstance(redis_key, str) and isinstance(text, str) and redis_key):
            raise NotOurs("not our JSON: redis_key and text must be strings, and redis_key not empty")
        redis_key.encode()
        text.encode()
    except NotOurs:
        raise
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise NotOurs(f"not our JSON: {error}") from None
    return Item(redis_key, text, member)


def dead_letter(member: bytes, died_at: float, reason: str = "", deliveries: int = 0) -> DeadLetter:
    """What is told of a member that was given up; see :class:`DeadLetter`, also where it is not ours."""
    try:
        item = decode_member(member)
    except NotOurs:
        return DeadLetter("", member.decode("utf-8", "replace"), reason, died_at, deliveries, member, len(member))
    return DeadLetter(item.redis_key, item.text, reason, died_at, deliveries, member, len(member))
