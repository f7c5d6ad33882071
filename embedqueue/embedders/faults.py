"""What a refusal says, whatever shape its body has: nine are known (docs/providers.md). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from embedqueue.embedders import documents
from embedqueue.values.words import READ_CHARS, without_secrets, without_texts

#: Fields that name the kind of a fault in one word.
_WORD_FIELDS = ("code", "type", "status", "reason", "error_type", "error_code", "provider_code")
#: Fields that name the part of our request that is at fault.
_PLACE_FIELDS = ("param", "field")
#: Fields that hold words or lead to them. Others are left alone: pydantic's "input" and OpenRouter's
#: "flagged_input" hold the user's text.
_INNER_FIELDS = (
    "message",
    "error",
    "errors",
    "detail",
    "details",
    "description",
    "metadata",
    "violations",
    "fieldViolations",
    "raw",
)
#: Characters of the provider's words, and of the places it names, that are looked at: what matters stands in front,
#: and whatever is asked of them (forty patterns, each of 2,048 texts) costs next to nothing.
WORDS_CHARS = 4096
#: Deeper than any provider nests, shallow enough for any stack.
_DEEPEST = 8
#: Entries of one list that are read: a validator may complain about each of 2,048 texts.
_MOST_ENTRIES = 20
#: Characters of a word that names a kind: what is longer is none.
_WORD_CHARS = 100
#: Characters of a quota's limit that are read.
_LIMIT_CHARS = 20
#: Texts from this length on are recognised by their beginning, because providers echo them cut.
_ECHO_CHARS = 16
#: What a code looks like; a text rarely does.
_CODE = re.compile(r"[a-z0-9]+(?:[_.-][a-z0-9]+)*")

_HTML_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.I | re.S)


@dataclass(slots=True)
class Fault:
    """A refusal in one shape.

    Attributes:
        status: the effective status: that of HTTP, or the one in the body of a 200.
        words: codes, types and reasons, in lower case.
        places: parts of our request that are named, such as ``input[3]``, joined by spaces.
        message: the provider's words, on one line; for recognition, not for showing.
        retry_delay: Google's ``RetryInfo.retryDelay`` as written.
        quota_ids: Google's names of the quotas that ran out.
        quotas: their limits, where these are told, by name.
        moderated: whether the provider says that it moderated an input.
        shown: the message as people may see it: set by :meth:`hide`. Cut what is shown after it, not before.
    """

    status: int
    words: set[str] = field(default_factory=set)
    places: str = ""
    message: str = ""
    retry_delay: str | None = None
    quota_ids: list[str] = field(default_factory=list)
    quotas: dict[str, int] = field(default_factory=dict)
    moderated: bool = False
    shown: str = ""

    def hide(self, secrets: Iterable[str], texts: Sequence[str]) -> None:
        """Take out what is secret and the user's texts, which some providers echo.

        The beginnings of long texts also leave ``message``, so that no text is taken for the provider's words. Short
        ones stay there: a text that reads "requests" must not blank that word in "at most 100 requests".

        Args:
            secrets: see :func:`embedqueue.values.words.forms`.
            texts: the texts of the call.
        """
        secrets = tuple(secrets)
        words = without_secrets(self.message[:READ_CHARS], secrets)
        self.shown = without_texts(words, texts)
        if self.shown != words and self.words:  # the provider's codes say what it was
            codes = ", ".join(sorted(word for word in self.words if _CODE.fullmatch(word))[:_MOST_ENTRIES])
            self.shown += f" ({without_texts(without_secrets(codes, secrets), texts)})"
        self.message = self.message[:WORDS_CHARS]  # now, for a secret that is cut would not be found
        for text in texts:
            start = " ".join(text[: 4 * _ECHO_CHARS].split())[:_ECHO_CHARS]
            if len(start) == _ECHO_CHARS and start in self.message:
                self.message = self.message.partition(start)[0] + "[text]"


def read_fault(status: int, body: bytes) -> Fault:
    """Read the body of a refusal.

    Args:
        status: the HTTP status.
        body: the body, decoded from any content encoding; may be empty or cut.

    Returns:
        What it says. The status is the body's where HTTP claims success.
    """
    document = documents.parse(body)
    reader = _Reader(Fault(status))
    if document is documents.BROKEN:
        reader.messages.append(_plain_words(body) if status >= 400 else "no JSON")
    else:
        reader.take(document, 0)
    if status < 400:
        reader.fault.status = _inner_status(document) or status
    return reader.finish()


def _inner_status(document: Any) -> int | None:
    """The status that a body of HTTP 200 claims: an integer in ``error.code``, by its own account or as digits."""
    if isinstance(document, list) and document:
        document = document[0]
    if not isinstance(document, dict):
        return None
    inner = document.get("error")
    holder = inner if isinstance(inner, dict) else document
    code = holder.get("code")
    digits = str(code) if isinstance(code, str | int) else ""  # nothing nested: its repr may be too deep for the stack
    return int(digits) if re.fullmatch("[45][0-9][0-9]", digits) else None


def _plain_words(body: bytes) -> str:
    text = body.decode("utf-8", "replace").strip()
    if not text.startswith("<"):
        return text
    title = _HTML_TITLE.search(text[:WORDS_CHARS])
    return f"an HTML page: {title.group(1)}" if title else "an HTML page"


class _Reader:
    """Walks a body once and gathers what it says."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.messages: list[str] = []
        self.places: list[str] = []

    def finish(self) -> Fault:
        said = dict.fromkeys(" ".join(message.split()) for message in self.messages)
        self.fault.message = "; ".join(message for message in said if message)
        self.fault.places = " ".join(self.places)[:WORDS_CHARS]
        return self.fault

    def take(self, node: Any, depth: int) -> None:
        if depth > _DEEPEST:
            return
        if isinstance(node, str):
            self.messages.append(node)
        elif isinstance(node, list):
            for entry in node[:_MOST_ENTRIES]:
                self.take(entry, depth + 1)
        elif isinstance(node, dict):
            self._take_fields(node, depth)

    def _take_fields(self, node: dict[str, Any], depth: int) -> None:
        fault = self.fault
        words = (str(node[name]) for name in _WORD_FIELDS if isinstance(node.get(name), str | int))
        fault.words.update(word.lower() for word in words if len(word) <= _WORD_CHARS)
        self.places.extend(node[name] for name in _PLACE_FIELDS if isinstance(node.get(name), str))
        if isinstance(node.get("msg"), str):
            self._take_complaint(node["msg"], node.get("loc"))
        if isinstance(node.get("quotaId"), str):
            fault.quota_ids.append(node["quotaId"])
            value = str(node.get("quotaValue", ""))[:_LIMIT_CHARS]
            if value.isascii() and value.isdigit():
                fault.quotas[node["quotaId"]] = int(value)
        if isinstance(node.get("retryDelay"), str):
            fault.retry_delay = node["retryDelay"]
        fault.moderated |= "flagged_input" in node
        for name in _INNER_FIELDS:
            if name == "raw" and isinstance(node.get(name), str):
                self._take_raw(node[name], depth)
            elif name in node:
                self.take(node[name], depth + 1)

    def _take_complaint(self, message: str, location: Any) -> None:
        """FastAPI's way to name a field: ``["body", "input", 3]`` is our ``input[3]``."""
        steps = location if isinstance(location, list) else []
        steps = [step for step in steps if isinstance(step, str | int)]
        path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")
        # pydantic puts the name of a union's branch between the field and the index
        self.places.append(re.sub(r"\.(?:list|constrained|union)[^.]*?(?=\[\d+\]$)", "", path))
        self.messages.append(f"{path}: {message}" if path else message)

    def _take_raw(self, raw: str, depth: int) -> None:
        """The upstream's own answer, which OpenRouter hands on as text."""
        document = documents.parse(raw.encode("utf-8", "replace"))
        self.take(raw if document is documents.BROKEN else document, depth + 1)
