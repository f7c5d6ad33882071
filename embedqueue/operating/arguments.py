"""What people type after a command, as values: a number of calls, a duration, an address."""

from __future__ import annotations

import contextlib

#: Longest duration that an option of a command may give, in seconds: a year.
LONGEST_SECONDS = 366 * 86_400


#: Digits of the largest whole number that an option of a command may be.
_MOST_DIGITS = 9


def concurrency(value: str) -> int | str:
    """An option of a command: API calls in flight, a number or "auto".

    Raises:
        ValueError: with a sentence.
    """
    if value == "auto":
        return value
    if not _is_whole(value) or int(value) < 1:
        raise ValueError('give a number, at least 1, or "auto"')
    return int(value)


def _is_whole(value: str) -> bool:
    return value.isdecimal() and len(value) <= _MOST_DIGITS


def duration(value: str, least: float = 0.0) -> float:
    """An option of a command: a number of seconds that a clock can count.

    Args:
        value: as it was typed.
        least: what it must be at least.

    Raises:
        ValueError: with a sentence.
    """
    with contextlib.suppress(ValueError):
        number = float(value)
        if least <= number <= LONGEST_SECONDS:  # NaN is neither
            return number
    raise ValueError(f"give a number of seconds from {least:g} to {LONGEST_SECONDS}")


def address(value: str) -> tuple[str, int]:
    """An option of a command: a host and a port.

    Raises:
        ValueError: with a sentence.
    """
    host, _, port = value.rpartition(":")
    if not _is_whole(port) or int(port) > 65535:
        raise ValueError("give HOST:PORT, such as 127.0.0.1:9100, or :9100 for all addresses")
    return host.strip("[]"), int(port)
