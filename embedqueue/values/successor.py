"""What a queue asks of the queue of its second field, which searches are led to when somebody cuts over."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Successor(Protocol):
    """A queue, as another queue sees it."""

    @property
    def options(self) -> Any:
        """Its options."""

    def start(self, *, quietly: bool = False) -> Any:
        """Start its worker, if it may have one."""

    def stop(self, timeout: float | None = None, drain: bool = False) -> None:
        """Stop it."""

    def embed_query(self, text: str, timeout: float | None = None) -> list[float]:
        """The vector of a query."""

    def search(
        self,
        text: str,
        k: int = 10,
        *,
        index: str,
        filter: str | None = None,  # noqa: A002 - as Redis calls it
        return_fields: Iterable[str] | None = None,
        timeout: float | None = None,
    ) -> list[Any]:
        """The hashes nearest to a query."""
