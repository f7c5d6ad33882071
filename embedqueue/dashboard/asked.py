"""What an address asks for: every parameter is read here, within bounds; what is wrong is told in a sentence (400)."""

from __future__ import annotations

import re
from typing import Any, NoReturn, cast, get_args

from flask import abort, request

from embedqueue.operating.shown import NUMBER
from embedqueue.store.items import Mark, Place

#: Digits of the largest page, and of the largest count that an address may tell.
PAGE_DIGITS, COUNT_DIGITS = 9, 15
#: Bytes of the longest key that an address may name, and of the words that are looked for.
KEY_BYTES, WORDS_BYTES = 4096, 512
#: Seconds of the longest pause that a form can ask for: a year.
LONGEST_PAUSE_SECONDS = 366 * 86_400
#: Characters of the reason of a pause.
PAUSE_REASON_CHARS = 200


def wrong(sentence: str) -> NoReturn:
    """End the request: it cannot be meant."""
    abort(400, sentence)


def parameter(name: str, most_bytes: int = KEY_BYTES) -> str:
    """A parameter of the address, "" where it is missing."""
    given = request.args.get(name, "")
    if len(given.encode("utf-8", "replace")) > most_bytes:
        wrong(f"{name} is longer than {most_bytes} bytes.")
    return given


def page_number() -> int:
    """The page that is jumped to, from 1 on."""
    given = parameter("page") or "1"
    if not re.fullmatch(rf"\d{{1,{PAGE_DIGITS}}}", given, re.ASCII) or int(given) < 1:
        wrong("page must be a whole number from 1 on.")
    return int(given)


def place() -> Place:
    """Where items stand that are listed."""
    given = parameter("place") or "pending"
    if given not in get_args(Place):
        wrong(f"place must be one of {', '.join(get_args(Place))}.")
    return cast(Place, given)


def start(page_items: int) -> int | Mark:
    """Where a list of live items begins: behind an item, before one, or at a page."""
    for way in ("after", "before"):
        given = parameter(way, 2 * KEY_BYTES)
        if given:
            parts = re.fullmatch(rf"({NUMBER})~(\d{{1,9}})~(.*)", given, re.ASCII | re.DOTALL)
            if parts is None:
                wrong(f"{way} must be what a link of this page says.")
            score, skip, key = parts.groups()
            return Mark(cast(Any, way), score, key, int(skip))
    return (page_number() - 1) * page_items


def marked(mark: Mark) -> dict[str, str]:
    """The same as a link says it."""
    return {mark.way: f"{mark.score}~{mark.skip}~{mark.redis_key}"}


def words() -> str:
    """What is looked for in keys."""
    return parameter("words", WORDS_BYTES).strip()


def where() -> str:
    """In which part of the queue it is looked for: "live", "dead", or "" for both."""
    given = parameter("where")
    if given not in ("", "live", "dead"):
        wrong("where must be live or dead.")
    return given


def cursor() -> str:
    """Where a search goes on."""
    given = parameter("cursor") or "0"
    if not re.fullmatch(r"\d{1,20}", given, re.ASCII) or int(given) >= 1 << 64:
        wrong("cursor must be what a link of this page says.")
    return given


def done() -> tuple[str, int] | None:
    """What the request before this one has done, for a line on the page; None where it says nothing that we know."""
    did, count = request.args.get("did", ""), request.args.get("count", "0")
    if did not in ("retry", "discard", "pause", "resume", "asked", "cancel") or not re.fullmatch(
        rf"\d{{1,{COUNT_DIGITS}}}", count, re.ASCII
    ):
        return None
    return did, int(count)


def pause_seconds() -> float | None:
    """For how long a form wants to pause; None: until somebody resumes."""
    given = request.form.get("seconds", "")
    if given == "":
        return None
    if not re.fullmatch(r"\d{1,9}", given, re.ASCII) or not 1 <= int(given) <= LONGEST_PAUSE_SECONDS:
        wrong(f"seconds must be a whole number from 1 to {LONGEST_PAUSE_SECONDS}.")
    return float(given)


def pause_reason() -> str:
    """Why it wants that, in one line."""
    given = " ".join(request.form.get("reason", "").split())
    if len(given) > PAUSE_REASON_CHARS:
        wrong(f"The reason is longer than {PAUSE_REASON_CHARS} characters.")
    return given
