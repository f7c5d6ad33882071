"""The methods of an application's queue on an object that can be made, and imported, before there are settings."""

from __future__ import annotations

from functools import wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any

from embedqueue.queue import EmbeddingBatchQueue

from .application import DEFAULT, Queues

if TYPE_CHECKING:
    _Queue = EmbeddingBatchQueue  # for type checkers: it has all public names of a queue
else:
    _Queue = object


class Front(_Queue):
    """Every public name of :class:`embedqueue.EmbeddingBatchQueue`; each looks for the queue when it is called.

    So ``enqueue`` may be handed to a signal at import. Looking only, or stopping, uses no queue that was not used.
    """

    def __init__(self) -> None:  # the queue's own is not called: this is none
        pass

    @property
    def queues(self) -> Queues:
        """All queues of the application, by name."""
        raise NotImplementedError

    def start(self, *, quietly: bool = False) -> EmbeddingBatchQueue:  # type: ignore[override]  # not this object
        """Use the queue now, or again after ``stop()``. Elsewhere the first use starts it."""
        return self.queues[DEFAULT].start(quietly=quietly)

    def stop(self, timeout: float | None = None, drain: bool = False) -> None:
        """See :meth:`embedqueue.EmbeddingBatchQueue.stop`. A queue that was not used stays so."""
        made = self.queues.made()
        if made is not None:
            made.stop(timeout, drain)

    @property
    def closed(self) -> bool:
        """Whether the queue was stopped."""
        made = self.queues.made()
        return made is not None and made.closed

    @property
    def _redis(self) -> Any:  # type: ignore[override]  # what integrations need of a queue
        return self.queues[DEFAULT]._redis

    @property
    def _embedder(self) -> Any:  # type: ignore[override]
        return self.queues[DEFAULT]._embedder

    def __enter__(self) -> EmbeddingBatchQueue:  # type: ignore[override]  # as start()
        """Start."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop; what was not embedded stays queued."""
        self.stop()


def _forwarded(name: str) -> Any:
    theirs = getattr(EmbeddingBatchQueue, name)
    if isinstance(theirs, property):
        return property(lambda front: getattr(front.queues[DEFAULT], name), doc=theirs.__doc__)

    @wraps(theirs)
    def method(front: Front, *args: Any, **kwargs: Any) -> Any:
        return getattr(front.queues[DEFAULT], name)(*args, **kwargs)

    return method


for _name in vars(EmbeddingBatchQueue):
    if not _name.startswith("_") and _name not in vars(Front):
        setattr(Front, _name, _forwarded(_name))
