"""What a sink needs of Redis: the stamps of what it is to write, and a pause while it takes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .records import Terms, as_json
from .scripts import Scripts


class Stalls:
    """The stamps of claimed items, and pauses while what is claimed cannot be written. Thread-safe.

    Args:
        scripts: of the queue.
    """

    def __init__(self, scripts: Scripts) -> None:
        self._call = scripts.call

    def stamps(self, items: Sequence[tuple[str, bytes]], terms: Terms) -> list[int | None]:
        """Tell which items may be written now, and under which stamps.

        Args:
            items: redis_key and member of each.
            terms: on which whoever asks would write.

        Returns:
            The stamp of each; None where it is no longer in flight or not its key's latest, or the workers of the
            namespace write otherwise.
        """
        pairs = [value for item in items for value in item]
        words = self._call("stamps", (), as_json(terms.agreed), *pairs) if items else []
        return [int(word) if word.isdigit() else None for word in words]

    def stall(self, owner: str, redis_keys: Iterable[str], seconds: float, words: str, *, again: bool) -> float:
        """Stop all claiming for a while, and tell who waits for these items why.

        Args:
            owner: the name of their claim; if it tested the provider, that is well.
            redis_keys: of items, which stay in flight.
            seconds: of the pause.
            words: why, for people.
            again: whether it was so before: then all who wait for anything are told.

        Returns:
            For how many seconds nobody claims; inf where there is no end.
        """
        left = self._call("stall", (), owner, int(seconds * 1000), words, "again" if again else "", *redis_keys)
        return left / 1000 if left >= 0 else float("inf")

    def over(self, owner: str, words: str) -> None:
        """End the pause that has these words, and have everybody look at the queue."""
        self._call("stall", (), owner, 0, words, "")
