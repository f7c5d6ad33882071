"""Putting much in: which hashes lack a vector, and no more at a time than the queue is to hold."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import redis

from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.settings.settings import Settings
from embedqueue.store.keys import Keys
from embedqueue.store.records import named_member
from embedqueue.values.errors import QueueFull
from embedqueue.values.item import encode_member
from embedqueue.values.vectors import size_bytes

Pairs = Iterable[tuple[str, str]]

#: Hashes that are looked at in one round trip.
LOOK_ITEMS = 500
#: Items that may wait at a time while a backlog is put in, unless told otherwise.
DEFAULT_MAX_WAITING = 5000
#: Seconds between two looks at a queue that is full enough.
FULL_POLL_SECONDS = 0.5
#: Seconds after which one is told that the queue is full and nobody works it.
FULL_TELL_SECONDS = 5.0


def hashes_with_text(settings: Settings, match: str, text_field: str) -> Iterator[tuple[str, str]]:
    """Keys of hashes that match a pattern, and their texts; those of the queue's own are left out.

    A key or a text that is no UTF-8 is left out as well: it could not be enqueued.
    """
    client: Any = settings.client(decode_responses=False)
    own = f"{settings.option('namespace')}:".encode()
    keys = (key for key in client.scan_iter(match=match, count=LOOK_ITEMS, _type="HASH") if not key.startswith(own))
    while part := list(islice(keys, LOOK_ITEMS)):
        pipeline = client.pipeline(transaction=False)
        for key in part:
            pipeline.hget(key, text_field)
        for key, text in zip(part, pipeline.execute(raise_on_error=False), strict=True):
            if isinstance(text, bytes) and text:
                try:
                    yield key.decode(), text.decode()
                except UnicodeDecodeError:
                    continue


def _as_bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


class Filler:
    """Enqueues pairs, part by part, while the queue has room.

    Args:
        settings: of the queue.
        queue: the queue itself; it need not work.
        client: of the queue's Redis.
        everything: also pairs whose hash has a vector of the model's length, or that wait already.
        max_waiting: go on only while fewer items wait; None for no such limit.
        full: called once with how many wait, when there was no room for some seconds.
    """

    def __init__(
        self,
        settings: Settings,
        queue: EmbeddingBatchQueue,
        client: redis.Redis,
        *,
        everything: bool,
        max_waiting: int | None,
        full: Callable[[int], None] = lambda waiting: None,
    ) -> None:
        self._settings = settings
        self._queue = queue
        self._everything = everything
        self._max_waiting = max_waiting
        self._full = full
        self._nap = threading.Event()
        self._client: Any = client
        self._keys = Keys(settings.option("namespace"))
        self._full_seconds = 0.0

    def fill(self, pairs: Pairs) -> Iterator[tuple[int, int]]:
        """Enqueue. Safe to be stopped at any point, and to be started again.

        Yields:
            Of each part, how many were enqueued, and how many there were.

        Raises:
            TypeError, ValueError: a pair that cannot be enqueued; the parts before it are in.
            redis.RedisError: Redis cannot be reached.
        """
        source = iter(pairs)
        most = min(LOOK_ITEMS, self._settings.option("max_pending") or LOOK_ITEMS, self._max_waiting or LOOK_ITEMS)
        while part := list(islice(source, most)):
            lacking = part if self._everything else self._lacking(part)
            self._enqueue(lacking)
            yield len(lacking), len(part)

    def _lacking(self, part: list[tuple[str, str]]) -> list[tuple[str, str]]:
        pipeline = self._client.pipeline(transaction=False)
        for redis_key, _ in part:
            pipeline.hstrlen(redis_key, self._settings.option("embedding_field"))
            pipeline.hget(self._keys.latest, redis_key)
        found = pipeline.execute(raise_on_error=False)  # a key of another type becomes a dead letter that says so
        right = size_bytes(self._settings.dimensions, self._settings.option("vector_type"))
        return [
            pair
            for pair, size, live in zip(part, found[::2], found[1::2], strict=True)
            if size != right and not (live and named_member(_as_bytes(live)) == encode_member(*pair))
        ]

    def _enqueue(self, pairs: list[tuple[str, str]]) -> None:
        while pairs:
            if self._max_waiting is not None and self._queue.pending_count() > self._max_waiting - len(pairs):
                self._rest()
                continue
            try:
                self._queue.enqueue_many(pairs)
            except QueueFull:
                self._rest()
            else:
                self._full_seconds = 0.0
                return

    def _rest(self) -> None:
        self._queue.flush_now()
        self._nap.wait(FULL_POLL_SECONDS)
        self._full_seconds += FULL_POLL_SECONDS
        if self._full_seconds == FULL_TELL_SECONDS:
            self._full(self._queue.pending_count())
