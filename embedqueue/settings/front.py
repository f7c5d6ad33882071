"""The methods of an application's queue on an object that can be made, and imported, before there are settings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from types import TracebackType

from embedqueue.futures.future import EmbeddingFuture
from embedqueue.observers.history import History
from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.values.options import Options
from embedqueue.values.stats import DeadLetter, QueueStats

from .application import DEFAULT, Queues


class Front(ABC):
    """Every public method of :class:`embedqueue.EmbeddingBatchQueue`; each looks for the queue when it is called.

    So ``enqueue`` may be handed to a signal at import, and what looks only or stops uses no queue that was not used.
    """

    @abstractmethod
    def _get_queues(self) -> Queues:
        """The queues of the application."""

    def _get_queue(self) -> EmbeddingBatchQueue:
        return self._get_queues()[DEFAULT]

    def start(self) -> EmbeddingBatchQueue:
        """Use the queue now, or again after ``stop()``. Elsewhere the first use starts it."""
        return self._get_queue().start()

    def stop(self, timeout: float | None = None, drain: bool = False) -> None:
        """See :meth:`embedqueue.EmbeddingBatchQueue.stop`. A queue that was not used stays so."""
        made = self._get_queues().made()
        if made is not None:
            made.stop(timeout, drain)

    @property
    def closed(self) -> bool:
        """Whether the queue was stopped."""
        made = self._get_queues().made()
        return made is not None and made.closed

    def __enter__(self) -> EmbeddingBatchQueue:
        """Start."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop; what was not embedded stays queued."""
        self.stop()

    def enqueue(self, redis_key: str, text: str) -> EmbeddingFuture:
        """See :meth:`embedqueue.EmbeddingBatchQueue.enqueue`."""
        return self._get_queue().enqueue(redis_key, text)

    def enqueue_many(self, items: Iterable[tuple[str, str]]) -> list[EmbeddingFuture]:
        """See :meth:`embedqueue.EmbeddingBatchQueue.enqueue_many`."""
        return self._get_queue().enqueue_many(items)

    def flush_now(self) -> None:
        """See :meth:`embedqueue.EmbeddingBatchQueue.flush_now`."""
        self._get_queue().flush_now()

    def flush(self, timeout: float | None = None) -> None:
        """See :meth:`embedqueue.EmbeddingBatchQueue.flush`."""
        self._get_queue().flush(timeout)

    def pending_count(self) -> int:
        """See :meth:`embedqueue.EmbeddingBatchQueue.pending_count`."""
        return self._get_queue().pending_count()

    def stats(self) -> QueueStats:
        """See :meth:`embedqueue.EmbeddingBatchQueue.stats`."""
        return self._get_queue().stats()

    def history(self, minutes: int = 60, days: int = 30) -> History:
        """See :meth:`embedqueue.EmbeddingBatchQueue.history`."""
        return self._get_queue().history(minutes, days)

    @property
    def options(self) -> Options:
        """See :attr:`embedqueue.EmbeddingBatchQueue.options`."""
        return self._get_queue().options

    def dead_letters(self, limit: int = 100, offset: int = 0, *, max_bytes: int | None = None) -> list[DeadLetter]:
        """See :meth:`embedqueue.EmbeddingBatchQueue.dead_letters`."""
        return self._get_queue().dead_letters(limit, offset, max_bytes=max_bytes)

    def retry_dead(self, redis_keys: str | bytes | Iterable[str | bytes] | None = None) -> int:
        """See :meth:`embedqueue.EmbeddingBatchQueue.retry_dead`."""
        return self._get_queue().retry_dead(redis_keys)

    def discard_dead(self, redis_keys: str | bytes | Iterable[str | bytes] | None = None) -> int:
        """See :meth:`embedqueue.EmbeddingBatchQueue.discard_dead`."""
        return self._get_queue().discard_dead(redis_keys)
