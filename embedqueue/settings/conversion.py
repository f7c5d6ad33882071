"""The values of settings: what a string of the environment becomes, and what is said of one that cannot work."""

from __future__ import annotations

import json
import math
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal

from embedqueue.embedders.keys import revealed
from embedqueue.values.budget import Budget, read_prices
from embedqueue.values.economy import read_poll
from embedqueue.values.errors import OptionError
from embedqueue.values.limits import Limits, read_limits

_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_NONE = ("none", "null", "")
#: What reads options that are neither numbers nor words.
_READERS: Mapping[str, Callable[[Any], Any]] = {"BUDGET": Budget.read, "PRICES": read_prices, "ECONOMY_POLL": read_poll}


class SettingsError(ValueError):
    """A setting that cannot work; the message names it and says what to write instead."""


def text(name: str, given: Mapping[str, Any], spelling: str) -> str | None:
    """A setting that is a string, or holds a secret one; None where it is not set.

    Args:
        name: of the setting.
        given: all settings.
        spelling: how the user writes a name, ``{}`` standing for it.
    """
    if given.get(name) is None:
        return None
    try:
        value = revealed(name, given[name])
    except OptionError as error:
        raise SettingsError(f"{spelling.format(name)} {error.why}") from None
    return value if name == "API_KEY" else value.strip()


def converted(name: str, value: Any, hint: Any, spelling: str) -> Any:
    """A string from the environment as the type that is due; anything else as it stands."""
    none = isinstance(value, str) and value.strip().lower() in _NONE and type(None) in typing.get_args(hint)
    if name in _READERS and not none:
        try:
            return _READERS[name](value)
        except OptionError as error:
            raise SettingsError(f"{spelling.format(name)} {error.why}") from None
    if not isinstance(value, str):
        return value
    kinds = (hint,) if typing.get_origin(hint) is Literal else typing.get_args(hint) or (hint,)
    word = value.strip()
    if any(word.lower() in typing.get_args(kind) for kind in kinds if typing.get_origin(kind) is Literal):
        return word.lower()
    if none:
        return None
    if Limits in kinds:
        try:
            return read_limits(word)
        except OptionError as error:
            raise SettingsError(f"{spelling.format(name)} {error.why}") from None
    try:
        if bool in kinds:
            return _WORDS[word.lower()]
        if float in kinds:
            return float(word)
        if int in kinds:
            return int(word)
    except (ValueError, KeyError):
        due = "true or false" if bool in kinds else "a number" if float in kinds else "a whole number"
        words = [f'"{word}"' for kind in kinds if typing.get_origin(kind) is Literal for word in typing.get_args(kind)]
        either = "".join(f" or {word}" for word in [*words, *(["none"] if type(None) in kinds else [])])
        raise SettingsError(f"{spelling.format(name)} must be {due}{either}, not {value!r}") from None
    return value


def mapping(name: str, value: Any, spelling: str) -> dict[str, Any]:
    """Names and values, or JSON of them. No value is shown in an error: it may be a secret."""
    found = _json(value) if isinstance(value, str) else value
    if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
        raise SettingsError(f'{spelling.format(name)} must be names and values, in JSON such as {{"name": "value"}}')
    return dict(found)


def role(name: str, value: Any, spelling: str) -> str | dict[str, Any]:
    """A prefix with its blanks, or the fields of a request, as a mapping or as JSON."""
    if isinstance(value, str) and not value.lstrip().startswith("{"):
        return value
    return mapping(name, value, spelling)


def timeout(name: str, value: Any, spelling: str) -> float | tuple[float, float]:
    """Seconds, or two of them: to connect, and of silence."""
    found = _json(f"[{value.strip().strip('[]()')}]") if isinstance(value, str) else value
    parts = list(found) if isinstance(found, list | tuple) else [found]
    if len(parts) not in (1, 2) or not all(_is_positive(part) for part in parts):
        raise SettingsError(
            f"{spelling.format(name)} must be a positive number of seconds, or two: to connect and of silence, "
            f"such as 5, 60; not {value!r}"
        )
    return float(parts[0]) if len(parts) == 1 else (float(parts[0]), float(parts[1]))


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0 and math.isfinite(value)


def _json(value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None
