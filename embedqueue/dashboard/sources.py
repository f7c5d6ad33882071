"""Whose queues the dashboard shows."""

from __future__ import annotations

from collections.abc import Mapping

from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.settings.application import DEFAULT, Queues
from embedqueue.settings.front import Front

Source = EmbeddingBatchQueue | Mapping[str, EmbeddingBatchQueue] | Front


class Sources:
    """Queues by name. Looking never starts one.

    Args:
        given: a queue, queues by name, or the Flask extension (the queues of the current app).

    Raises:
        TypeError: something else.
    """

    def __init__(self, given: Source) -> None:
        if not isinstance(given, EmbeddingBatchQueue | Mapping | Front):
            raise TypeError(f"queues must be a queue, queues by name, or an EmbedQueue, not {type(given).__name__}")
        self._given = given

    def _mapping(self) -> Mapping[str, EmbeddingBatchQueue]:
        if isinstance(self._given, Front):  # first: Django's looks like a queue
            return self._given.queues
        return {DEFAULT: self._given} if isinstance(self._given, EmbeddingBatchQueue) else self._given

    def names(self) -> list[str]:
        """In order.

        Raises:
            SettingsError: the application's settings cannot work.
        """
        return list(self._mapping())

    def __getitem__(self, name: str) -> EmbeddingBatchQueue:
        """A queue to look at.

        Raises:
            SettingsError: its settings cannot work, or there is none of this name.
            KeyError: there is none of this name.
        """
        queues = self._mapping()
        return queues.look(name) if isinstance(queues, Queues) else queues[name]
