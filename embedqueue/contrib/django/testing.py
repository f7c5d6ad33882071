"""For a project's own tests: everything that is enqueued is finished at once, offline."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from redis import Redis

from embedqueue.embedders import Embedder

from .access import queues

if TYPE_CHECKING:
    from embedqueue.settings.eager import Eager


@contextlib.contextmanager
def eager(embedder: Embedder | None = None, redis: Redis | None = None) -> Iterator[Eager]:
    """Within the ``with``, every enqueue of the project is finished when it returns.

    Django's ``TestCase`` never commits: use ``captureOnCommitCallbacks(execute=True)`` there.

    Args:
        embedder: instead of one that needs no network: texts that share words are near each other there.
        redis: a client instead of a fake Redis of this block's own.

    Yields:
        An object with the ``redis`` and the ``embedders`` that were used.
    """
    with queues.eagerly(embedder, redis) as used:
        yield used
