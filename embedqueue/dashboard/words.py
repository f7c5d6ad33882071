"""Numbers as people read them. Pure; all of them are template filters."""

from __future__ import annotations

import math
import time

from embedqueue.money.cost import usd

#: Characters of a key in a row.
KEY_CHARS = 60
#: Seconds beyond which nothing more is said than that it is long.
_LONG_SECONDS = 1e9


def count(number: float) -> str:
    """1,234,567."""
    return f"{number:,.0f}"


def rate(number: float) -> str:
    """A rate: whole where it is large, with a decimal where it is small."""
    return f"{round(number, 1):g}" if number < 9.95 else f"{number:,.0f}"


def duration(seconds: float) -> str:
    """Two units at most: 850 ms, 3.2 s, 4 min, 2 h 10 min, 3 days."""
    if not seconds < _LONG_SECONDS:
        return "decades"  # another program may have written any time
    if seconds < 0.9995:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    if seconds < 59.5:
        return f"{round(seconds, 1 if seconds < 9.95 else None):g} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} days"


def money(dollars: float) -> str:
    """Two digits that count below a cent, cents above."""
    return usd(dollars)


def clock(unix: float) -> str:
    """The time of a day, UTC."""
    return _date(unix, "%H:%M")


def day(unix: float) -> str:
    """A day, UTC."""
    return _date(unix, "%a %d %b")


def iso(unix: float) -> str:
    """For machines, and for who wants to know exactly; UTC."""
    return _date(unix, "%Y-%m-%dT%H:%M:%SZ")


def _date(unix: float, form: str) -> str:
    """A date; nothing where another program has written a time that is none."""
    try:
        return time.strftime(form, time.gmtime(unix))
    except (ValueError, OverflowError, OSError):
        return ""


def percent(part: float, whole: float) -> str:
    """A share; never 100 % where something is missing."""
    if not whole:
        return ""
    share = 100 * part / whole
    return f"{math.floor(share * 10) / 10:g} %" if 99 < share < 100 else f"{share:.0f} %"


def pace(per_second: float) -> str:
    """A rate by the second where it is high, by the minute where it is low."""
    return f"{rate(per_second)} a second" if per_second >= 1 else f"{rate(60 * per_second)} a minute"


def size(count_bytes: int) -> str:
    """A size in bytes: 850 B, 3.2 kB, 1.4 MB."""
    for unit, bytes_of in (("MB", 1e6), ("kB", 1e3)):
        if count_bytes >= bytes_of:
            return f"{rate(count_bytes / bytes_of)} {unit}"
    return f"{count_bytes} B"


def short(key: str) -> str:
    """A key that fits into a row: its beginning and its end, by which it is known."""
    return key if len(key) <= KEY_CHARS else f"{key[: KEY_CHARS - 21]}…{key[-20:]}"
