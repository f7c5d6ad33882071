"""Which error a refusal becomes: the table of docs/providers.md, "Classification". Pure."""

from __future__ import annotations

import re

from embedqueue.values.errors import (
    CallTooLarge,
    ConfigurationError,
    EmbedQueueError,
    InputRejected,
    Measure,
    TransientError,
)
from embedqueue.values.words import SHOWN_CHARS

from .faults import Fault

#: A limit of more digits limits nothing.
_LIMIT_DIGITS = 15

#: Somebody has to act: key, credit, model, country. 403 may also mean one input, see classify().
_ACCOUNT_STATUSES = frozenset({401, 402, 403, 404, 405, 498})
#: The address may be wrong.
_ADDRESS_STATUSES = frozenset({404, 405})
#: The call was fine and came at a bad moment. 499: an edge gave up on the upstream.
_MOMENT_STATUSES = frozenset({408, 409, 425, 429, 499})
#: The provider complains about what we sent.
_INPUT_STATUSES = frozenset({400, 422})
#: What a user may set, by status.
_SETTINGS = {
    401: "the API key",
    402: "the account's credit",
    403: "the API key and what it may do",
    404: "the model and the base URL",
    405: "the base URL",
    498: "the API key",
}
#: Words that mean the account or the model, whatever the status; and the status that says the same.
_ACCOUNT_WORDS = {
    "api_key_invalid": 401,
    "api_key_service_blocked": 403,
    "billing_hard_limit_reached": 402,
    "billing_not_active": 402,
    "failed_precondition": 0,
    "insufficient_quota": 402,
    "invalid_api_key": 401,
    "model_not_found": 404,
    "service_disabled": 403,
}
#: Words for a text that is too long on its own.
_LONG_TEXT_WORDS = frozenset({"context_length_exceeded", "string_too_long"})
#: Words for a call that is too large as a whole. 3210 is Mistral's.
_TOO_LARGE_WORDS: dict[str, Measure] = {
    "max_tokens_per_request": "tokens",
    "tokens_limits_reached": "tokens",
    "token_limit_exceeded": "tokens",
    "payload_too_large": "bytes",
    "request_too_large": "bytes",
    "3210": "texts",
}

_INDEX = re.compile(
    r"\b(?:inputs?|requests|texts?|contents?)\[(\d{1,9})\]"
    r"|\b(?:at index|at position|input id|input\.)\s*(\d{1,9})(?!\d)",
    re.I,
)
_LONG_TEXT = re.compile(r"(?:context|input|sequence) length|string (?:is )?too long|at most [\d,]+ characters", re.I)
_FOR_THE_DAY = re.compile(r"per[ -]day|\bdaily\b|\b(?:RPD|TPD)\b", re.I)
_UNKNOWN_MODEL = re.compile(
    r"(?:invalid|unknown) model\b|not a valid model|\bmodel\b.{0,80}?(?:not found|does not exist)", re.I
)

_COUNT = r"([\d,_]+)"
_THINGS = r"(?:requests|items|texts|inputs|elements|documents|strings)"
_TOO_LARGE_TEXTS: tuple[tuple[Measure, str], ...] = (
    ("texts", rf"at most {_COUNT} {_THINGS}"),
    ("texts", rf"{_THINGS} must be at most {_COUNT}"),
    ("texts", rf"max(?:imum)? (?:allowed )?batch size\D{{0,8}}{_COUNT}"),
    (
        "texts",
        rf"batch size (?:limit )?.{{0,40}}?(?:larger than|more than|exceeds?|limit is|limit of)\D{{0,20}}{_COUNT}",
    ),
    ("texts", rf"array too long.{{0,60}}?maximum length {_COUNT}"),
    ("texts", rf"max(?:imum)? (?:number|count) of {_THINGS}\D{{0,20}}{_COUNT}"),
    ("tokens", rf"max(?:imum)?(?: allowed)?(?: size)?\W{{1,3}}{_COUNT} tokens"),
    ("tokens", rf"tokens per (?:submitted )?(?:batch|request|call)\D{{0,20}}{_COUNT}"),
    ("tokens", rf"limit:? {_COUNT}\W{{1,3}}requested"),
    ("bytes", rf"(?:limit|maximum|max)\D{{0,20}}{_COUNT} bytes"),
    ("tokens", r"too many tokens (?:overall|in (?:the )?(?:batch|request|call))()"),
    ("texts", rf"too many {_THINGS}()"),
    ("texts", r"batch (?:size )?(?:is )?too large()|array too long()|split into more batches()"),
    ("bytes", r"(?:payload|request body|entity).{0,60}?(?:too large|exceed|limit)()"),
)
#: In order: the first that matches tells what was too large, and its group the limit.
_TOO_LARGE = tuple((measure, re.compile(pattern, re.I)) for measure, pattern in _TOO_LARGE_TEXTS)

#: How an option is named in a refusal, by the name under which we send it.
_OPTION_NAMES = {
    "dimensions": re.compile(r"\bdimensions?\b|matryoshka", re.I),
    "encoding_format": re.compile(r"encoding[_ ]format|base64", re.I),
    "output_dimension": re.compile(r"output_?dimension|\bdimensions?\b", re.I),
    "outputDimensionality": re.compile(r"output_?dimensionality", re.I),
    "taskType": re.compile(r"task_?type", re.I),
}


class OptionRefused(ConfigurationError):
    """The provider does not know an option that we sent; the embedder sends the call again without it.

    Args:
        message: the provider's words.
        option: the name under which it was sent.
    """

    def __init__(self, message: str, option: str) -> None:
        super().__init__(message)
        self.option = option


def classify(
    fault: Fault,
    *,
    origin: str,
    count: int,
    wait_seconds: float | None = None,
    should_retry: str = "",
    options: frozenset[str] = frozenset(),
    asked: str = "",
) -> EmbedQueueError:
    """The error that a refusal becomes.

    Args:
        fault: what the provider says, secrets hidden.
        origin: whom we asked, for the message.
        count: texts in the call.
        wait_seconds: what the provider asks us to wait, or None.
        should_retry: the value of ``x-should-retry``; wins over the status where it can.
        options: names of the options in the call that we can do without.
        asked: which address was asked, in words, for an answer that may come from a wrong one.

    Returns:
        The error, to be raised by the caller outside of any ``except``.
    """
    status = fault.status
    shown = fault.shown or fault.message or "no words in the answer"
    said = f"{origin} answered {status}: {shown[:SHOWN_CHARS]}"
    word = min(fault.words & _ACCOUNT_WORDS.keys(), default=None)
    if word is not None and status < 500:
        return _wrong(said, _ACCOUNT_WORDS[word], asked)
    if status in _ACCOUNT_STATUSES:
        moderated = status == 403 and _moderated(fault)
        return InputRejected(said, status=status) if moderated else _wrong(said, status, asked)
    if status in _MOMENT_STATUSES:
        return _of_a_moment(fault, said, wait_seconds, should_retry)
    if status >= 500 or status == 424 or status < 400:
        # also where the server asks not to retry: the same text may make it fail, and halving finds out
        if status < 300 and asked:  # a page, or another API
            said = f"{said} (look at the base URL: {asked})"
        return TransientError(said, retry_after=wait_seconds, status=status, suspect_input=True)
    if should_retry == "true":
        return TransientError(said, retry_after=wait_seconds, status=status, suspect_input=True)
    if status == 413:
        return _too_large(fault, said) or CallTooLarge(said, measure="bytes", status=status)
    if status in _INPUT_STATUSES:
        return _of_the_input(fault, said, count, options, asked)
    return _wrong(said, status, asked)


def _wrong(said: str, status: int, asked: str) -> ConfigurationError:
    """The provider's words, and what a user may set."""
    setting = _SETTINGS.get(status)
    if setting is not None and asked and status in _ADDRESS_STATUSES:
        setting = f"{setting}: {asked}"
    return ConfigurationError(said if setting is None else f"{said} (look at {setting})")


def _moderated(fault: Fault) -> bool:
    return fault.moderated or "content_policy_violation" in fault.words or "moderation" in fault.message.lower()


def _of_a_moment(fault: Fault, said: str, wait_seconds: float | None, should_retry: str) -> EmbedQueueError:
    named = [quota_id.lower() for quota_id in fault.quota_ids]
    told = fault.status == 429 and not named and _FOR_THE_DAY.search(fault.message)
    if told or any("perday" in name for name in named):
        # the retryDelay beside it is that of the minute (45 s seen): waiting that long gains nothing
        return ConfigurationError(f"the daily quota is used up: {said}")
    if fault.status == 429 and "request too large" in fault.message.lower():
        return _too_large(fault, said) or CallTooLarge(said, measure="tokens", status=fault.status)
    if should_retry == "false":
        return ConfigurationError(said)
    return TransientError(said, retry_after=wait_seconds, status=fault.status)


def _of_the_input(fault: Fault, said: str, count: int, options: frozenset[str], asked: str) -> EmbedQueueError:
    places = f"{fault.places} {fault.message}"
    for option in sorted(options):
        if _OPTION_NAMES[option].search(places):
            return OptionRefused(said, option)
    index = _index(places, count)
    if index is not None or fault.words & _LONG_TEXT_WORDS or _LONG_TEXT.search(fault.message):
        return InputRejected(said, index=index, status=fault.status)
    too_large = _too_large(fault, said)
    if too_large is not None:
        return too_large
    if _UNKNOWN_MODEL.search(fault.message):
        return _wrong(said, 404, asked)
    return InputRejected(said, status=fault.status)


def _index(places: str, count: int) -> int | None:
    for found in _INDEX.finditer(places):
        index = int(found.group(1) or found.group(2))
        if index < count:  # a gateway that cuts the call may count in its own parts: at least not beyond ours
            return index
    return None


def _too_large(fault: Fault, said: str) -> CallTooLarge | None:
    for measure, pattern in _TOO_LARGE:
        found = pattern.search(fault.message)
        if found:
            digits = re.sub(r"\D", "", next(filter(None, found.groups()), ""))
            limit = int(digits) if 0 < len(digits) <= _LIMIT_DIGITS else None
            return CallTooLarge(said, measure=measure, limit=limit or None, status=fault.status)
    for word, measure in _TOO_LARGE_WORDS.items():
        if word in fault.words:
            return CallTooLarge(said, measure=measure, status=fault.status)
    return None
