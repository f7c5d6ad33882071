"""Keys and other secrets as people hand them over: a string, or an object that keeps one from being shown."""

from __future__ import annotations

from typing import Any, Protocol

from embedqueue.values.errors import OptionTypeError


class SecretText(Protocol):
    """What pydantic's ``SecretStr`` and its like have."""

    def get_secret_value(self) -> str:
        """The secret itself."""


Secret = str | SecretText


def revealed(name: str, value: Any) -> str:
    """A secret as a string.

    Args:
        name: of the option that it is, for the error.
        value: as the user gave it.

    Raises:
        OptionTypeError: it is no string and holds none. The value is not shown.
    """
    given = type(value).__name__
    if not isinstance(value, str | type) and callable(reveal := getattr(value, "get_secret_value", None)):
        value = reveal()
        given = f"{given} of {type(value).__name__}"
    if isinstance(value, str):
        return value
    del value  # whoever reports errors shows the locals of this frame
    raise OptionTypeError(name, f"must be a string, or hold one as pydantic's SecretStr does, not {given}")
