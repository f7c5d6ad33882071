"""Documents for the demo: the user's own file, or the Python language reference that every Python carries.

The reference is ``pydoc_data.topics`` of the standard library, under the Python Software Foundation Licence.
"""

from __future__ import annotations

import json
import pydoc_data.topics as reference
import re
import sys
from collections.abc import Iterable
from pathlib import Path

#: Passages of this many characters read well as search results.
PASSAGE_CHARS = (200, 700)

#: What the demo asks the reference when its user asks nothing.
QUESTIONS = (
    "which objects can be the keys of a dictionary",
    "make a function that produces values one after another",
    "rounding errors of decimal numbers",
)


class BadInput(ValueError):
    """The user's file cannot be used; the message says why, in one sentence."""


def reference_passages() -> list[tuple[str, str]]:
    """Some hundreds of distinct (title, text) passages of prose."""
    passages: dict[str, str] = {}
    for title, topic in reference.topics.items():
        for paragraph in re.split(r"\n\s*\n", topic):
            text = " ".join(paragraph.split())
            prose = text[:1].isupper() and text[-1:] in ".!?" and "::=" not in text and ">>>" not in text
            if prose and PASSAGE_CHARS[0] <= len(text) <= PASSAGE_CHARS[1]:
                passages.setdefault(text, title)
    return [(title, text) for text, title in passages.items()]


def read_documents(source: str) -> list[tuple[str, str]]:
    """(key, text) pairs of a file, or of standard input where ``source`` is "-".

    Each line is a document, or a JSON object with ``text`` and, if it likes, ``key``.

    Raises:
        BadInput: no such file, nothing in it, or a line that begins like JSON and is none.
    """
    if source == "-":
        lines: Iterable[str] = sys.stdin.read().splitlines()
    else:
        try:
            lines = Path(source).read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise BadInput(f"cannot read {source}: {reason}") from None
    documents: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            key, text = _document(line.strip(), number)
            documents[key] = text
    if not documents:
        raise BadInput(f"there is no document in {'standard input' if source == '-' else source}")
    return list(documents.items())


def _document(line: str, number: int) -> tuple[str, str]:
    if not line.startswith("{"):
        return f"{number:04}", line
    try:
        document = json.loads(line)
        text, key = document["text"], document.get("key", f"{number:04}")
    except (ValueError, LookupError, RecursionError):
        raise BadInput(f"line {number} is no JSON object with a text") from None
    if not isinstance(text, str) or not isinstance(key, str | int) or not text.strip() or not str(key):
        raise BadInput(f"line {number} needs a text that is not blank, and a key that is a string")
    return str(key), text
