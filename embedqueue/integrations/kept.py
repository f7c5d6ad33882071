"""Vectors of texts that have no hash of their own: through the queue, into hashes that expire.

A queue writes vectors into hashes. Where a library asks for vectors of mere texts, each text gets a hash under a
prefix: ``PREFIXdigest``, the digest being of the text. So all that holds for documents holds here: what was asked for
survives a crash, equal texts that several processes ask for at once are sent once, and a text that was asked for before
the hash expired is not sent again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from typing import Any, cast

from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.values.item import check_pair, is_blank

#: Seconds for which a vector is kept after it was asked for last: a day.
DEFAULT_EXPIRE = 86_400.0
#: Seconds to wait for the vectors of one call.
DEFAULT_TIMEOUT = 300.0
#: Texts in one round trip.
_PART = 1_000


class KeptVectors:
    """Vectors of documents by their texts. Thread-safe.

    Args:
        queue: started, or enqueued to by a process that waits for another's worker.
        library: that asks.
        prefix: of the hashes' keys; None for ``LIBRARY:NAMESPACE:``. An index over the application's own hashes must
            not cover it.
        expire: seconds for which a hash is kept after its text was asked for last. It should be longer than the queue
            may stand still: a vector that comes later makes the hash anew, which then stays until it is asked for.
        timeout: seconds to wait for one call's vectors at most; None waits until there is an answer.

    Raises:
        ValueError: a number out of range, or an empty prefix.
    """

    def __init__(
        self, queue: EmbeddingBatchQueue, library: str, prefix: str | None, expire: float, timeout: float | None
    ) -> None:
        prefix = f"{library}:{queue.options.namespace}:" if prefix is None else prefix
        if not isinstance(prefix, str) or not prefix:
            raise ValueError("prefix must be a str that is not empty")
        if not expire >= 1:
            raise ValueError(f"expire must be at least 1 second, not {expire!r}")
        self._queue = queue
        self._prefix = prefix
        self._expire_ms = int(expire * 1000)
        self._timeout = timeout

    def __call__(self, texts: Sequence[str]) -> list[list[float]]:
        """The vectors of texts, in order; that of a blank text is all zeros.

        Raises:
            TypeError, ValueError: a text that the queue does not take.
            TimeoutError: not all have come in time. What is missing is still queued: asking again goes on from there.
            BatchFailed, ItemRejected: as the queue's futures.
            QueueFull, QueueStopped, redis.RedisError: as ``enqueue``.
        """
        deadline_mono = None if self._timeout is None else time.monotonic() + self._timeout
        options = self._queue.options
        for text in texts:  # before anything is written
            check_pair(self._prefix, text, options.namespace, options.max_text_chars)
        keys = [f"{self._prefix}{_digest(text)}" for text in texts]
        lasting = [key for key, text in zip(keys, texts, strict=True) if not is_blank(text)]
        self._last(lasting, create=True)
        # what a hash has already is not sent again, where it says what it has
        if_changed = options.provenance_field is not None
        futures = self._queue.enqueue_many(list(zip(keys, texts, strict=True)), if_changed=if_changed)
        vectors = [
            future.result(None if deadline_mono is None else max(0.0, deadline_mono - time.monotonic()))
            for future in futures
        ]
        self._last(lasting, create=False)
        return vectors

    def _last(self, keys: Sequence[str], *, create: bool) -> None:
        """Have hashes expire so long from now; ``create`` those that are not there, or a vector makes them for ever."""
        client = cast(Any, self._queue._redis)
        distinct = list(dict.fromkeys(keys))
        for start in range(0, len(distinct), _PART):
            commands = client.pipeline(transaction=False)
            for key in distinct[start : start + _PART]:
                if create:
                    commands.hset(key, "asked", int(time.time()))
                commands.pexpire(key, self._expire_ms)
            commands.execute()


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
