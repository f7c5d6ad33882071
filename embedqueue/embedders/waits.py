"""How long a provider asks us to wait, in every form it is said. Pure functions of an answer's parts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from embedqueue.values.errors import finite_seconds

#: A reset stamp above this is an instant since 1970 rather than a number of seconds from now (2001-09-09).
_EPOCH_FLOOR_SECONDS = 1e9
#: A reset stamp above this counts milliseconds since 1970 (OpenRouter); below, seconds (Cohere).
_EPOCH_FLOOR_MS = 1e11
#: Characters of a header that are read: a date has 29.
_HINT_CHARS = 100

_UNIT_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
# Every digit is read once, however many there are: a run of them is entered at its beginning and never given back.
_DURATION = re.compile(
    r"(?<!\d)(\d++(?:\.\d++)?+)\s*+(milliseconds?|ms|minutes?|mins?|m|seconds?|secs?|s|hours?|hrs?|h|days?|d)(?![a-z])",
    re.I,
)
#: "Please try again in 1m2s", "Please retry in 37.41s", "Please retry after 30 seconds"
_ASKED = re.compile(
    rf"(?:try again|retry|retry your request|wait)(?: (?:in|after|for))? ((?:{_DURATION.pattern}[\s,]*+)++)", re.I
)


def duration_seconds(text: str) -> float | None:
    """Seconds of a written duration such as ``37s``, ``0.8s``, ``17ms``, ``6m0s``, ``1m2s``, ``20 seconds``.

    Args:
        text: the duration; words around it are ignored.

    Returns:
        The sum of its parts, or None where there are none.
    """
    parts = _DURATION.findall(text)
    if not parts:
        return None
    return sum(float(part[0]) * _unit_seconds(part[1].lower()) for part in parts)


def _unit_seconds(unit: str) -> float:
    if unit == "ms" or unit.startswith("milli"):
        return 0.001
    return _UNIT_SECONDS[unit[0]]


def asked_wait(headers: Mapping[str, str], message: str, retry_delay: str | None, now_unix: float) -> float | None:
    """Seconds to wait before the next try, as far as the provider says so.

    Args:
        headers: the answer's headers, looked up by lower-case name in a case-insensitive mapping.
        message: the provider's words ("try again in 6ms").
        retry_delay: Google's ``RetryInfo.retryDelay``, or None.
        now_unix: our clock, used only where the answer carries no ``Date`` of its own.

    Returns:
        Seconds from now, between 0 and a day, or None where nothing is said.
    """
    names = ("date", "retry-after-ms", "retry-after", "x-ratelimit-reset", "x-ratelimit-remaining")
    date, after_ms, after, reset, remaining = (headers.get(name, "")[:_HINT_CHARS] for name in names)
    if (_number(remaining) or 0.0) > 0.0:
        reset = ""  # this limit is not what refuses us
    now_server = _date_seconds(date)
    now = now_unix if now_server is None else now_server
    for seconds in (
        _scaled(after_ms, 0.001),
        _retry_after(after, now),
        duration_seconds(retry_delay) if retry_delay else None,
        reset_seconds(reset, now),
        _said(message),
    ):
        if seconds is not None:
            return finite_seconds(seconds)
    return None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _scaled(text: str, factor: float) -> float | None:
    value = _number(text)
    return None if value is None else value * factor


def _date_seconds(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


def _retry_after(text: str, now: float) -> float | None:
    value = _number(text)
    if value is not None:
        return _from_now(value, now)
    date = _date_seconds(text)
    return date - now if date is not None else duration_seconds(text)


def reset_seconds(text: str, now: float) -> float | None:
    """Seconds until a reset, which is written as a duration, as seconds, or as an instant; ``now`` is Unix time."""
    value = _number(text)
    return duration_seconds(text) if value is None else _from_now(value, now)


def _from_now(value: float, now: float) -> float:
    """Seconds from now of a number that is either that, or an instant (some servers put one into Retry-After, too)."""
    if value > _EPOCH_FLOOR_MS:
        return value / 1000 - now
    return value - now if value > _EPOCH_FLOOR_SECONDS else value


def _said(message: str) -> float | None:
    asked = _ASKED.search(message)
    return duration_seconds(asked.group(1)) if asked else None
