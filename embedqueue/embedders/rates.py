"""What providers say of their limits, in every form. Pure functions of an answer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from embedqueue.embedders.faults import Fault
from embedqueue.embedders.protocol import Measure, Per, RateSeen

from .waits import duration_seconds, reset_seconds

#: Characters of a header that are read.
_HEADER_CHARS = 100
#: What limits nothing that anybody sends.
_MOST = 10**15
#: A window that seems longer than this many seconds is a day: it is reckoned from rounded figures.
_LONG_WINDOW_SECONDS = 1800.0
#: "Rate limit reached for ... on requests per min (RPM): Limit 3, Used 3, Requested 1"
_LIMIT_SAID = re.compile(r"\b(RPM|TPM|RPD)\b\)?:? Limit:? ([\d,]{1,20})")
_SAID: Mapping[str, tuple[Measure, Per]] = {
    "RPM": ("requests", "minute"),
    "TPM": ("tokens", "minute"),
    "RPD": ("requests", "day"),
}


def rates_of(headers: Mapping[str, str], fault: Fault | None, now_unix: float) -> tuple[RateSeen, ...]:
    """The limits that an answer tells of.

    Args:
        headers: of the answer, looked up by lower-case name in a case-insensitive mapping.
        fault: what its body says, where it is a refusal.
        now_unix: our clock, for resets that are given as an instant.
    """
    found = list(_of_headers(headers, now_unix))
    if fault is not None:
        found += _of_quotas(fault)
        for word, limit in _LIMIT_SAID.findall(fault.message):
            measure, per = _SAID[word]
            found += _rate(measure, per, _count(limit.replace(",", "")), 0)
    return tuple(found)


def _of_headers(headers: Mapping[str, str], now: float) -> Iterator[RateSeen]:
    """``x-ratelimit-limit-requests``, ``-remaining-requests``, ``-reset-requests``; also without the last word."""
    for suffix, measure in (("-requests", "requests"), ("-tokens", "tokens"), ("", "requests")):
        limit = _count(headers.get(f"x-ratelimit-limit{suffix}", ""))
        if limit is not None:
            left = _count(headers.get(f"x-ratelimit-remaining{suffix}", ""))
            reset = headers.get(f"x-ratelimit-reset{suffix}", "")[:_HEADER_CHARS]
            yield from _rate(measure, _window(limit, left, reset, now), limit, left)  # type: ignore[arg-type]


def _window(limit: int, left: int | None, reset: str, now: float) -> Per:
    """Which window a limit is of: headers do not say so.

    A duration such as ``8.64s`` is that until all is back, which comes back steadily: so it tells how long all of it
    takes. A bare number, or an instant, is the end of a window.
    """
    steady = duration_seconds(reset)
    if steady is not None and left is not None and left < limit:
        return "day" if limit * steady / (limit - left) > _LONG_WINDOW_SECONDS else "minute"
    seconds = steady if steady is not None else reset_seconds(reset, now)
    return "day" if seconds is not None and seconds > _LONG_WINDOW_SECONDS else "minute"


def _of_quotas(fault: Fault) -> Iterator[RateSeen]:
    """Google's quotas. What it calls a request is a text: each of a batch counts as one."""
    for name, limit in fault.quotas.items():
        word = name.lower()
        per: Per | None = "day" if "perday" in word else "minute" if "perminute" in word else None
        if per is not None:
            yield from _rate("tokens" if "token" in word else "texts", per, limit, 0)


def _rate(measure: Measure, per: Per, limit: int | None, left: int | None) -> Iterator[RateSeen]:
    if limit is not None and 0 < limit < _MOST:
        yield RateSeen(measure, per, limit, left)


def _count(text: str) -> int | None:
    text = text[:_HEADER_CHARS].strip()
    return int(text) if text.isascii() and text.isdigit() else None
