"""The project's queues, and how a transaction reaches them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction

from embedqueue.config import Settings, SettingsError, read_queues
from embedqueue.contrib.queues import DEFAULT, Queues
from embedqueue.queue import EmbeddingBatchQueue

#: The name of the project's setting, and how a user writes what it holds.
SETTING = "EMBEDQUEUE"
SPELLING = f'{SETTING}["{{}}"]'


def load() -> dict[str, Settings]:
    """Read the project's settings.

    Raises:
        SettingsError: they cannot work.
        ImproperlyConfigured: Django's own settings cannot be read.
    """
    given = getattr(settings, SETTING, {})
    if not isinstance(given, Mapping):
        raise SettingsError(f'{SETTING} must be a dictionary such as {{"REDIS_URL": "redis://localhost:6379/0"}}')
    return read_queues(given, spelling=SPELLING)


#: The project's queues by name, each made and started at its first use in each process.
queues = Queues(load)


class _DefaultQueue:
    """Stands for the default queue, so that it can be imported before there are settings."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copy, pickle and inspect ask for these: none of them is a use of the queue
            raise AttributeError(name)
        return getattr(queues[DEFAULT], name)

    def __repr__(self) -> str:
        try:
            made = queues.made(DEFAULT)
        except (SettingsError, ImproperlyConfigured):
            made = None
        return "<the default embedqueue of this project, not used yet>" if made is None else repr(made)


if TYPE_CHECKING:
    queue: EmbeddingBatchQueue
else:
    #: The default queue.
    queue = _DefaultQueue()


def enqueue_on_commit(redis_key: str, text: str, *, using: str | None = None, queue: str = DEFAULT) -> None:
    """Enqueue once the transaction under way is committed; at once where there is none.

    A transaction, or a savepoint, that is rolled back enqueues nothing.

    Args:
        redis_key: the hash that receives the vector.
        text: what to embed.
        using: alias of the database whose transaction it is.
        queue: name of the queue.
    """
    transaction.on_commit(partial(_enqueue, queue, redis_key, text), using=using)


def enqueue_many_on_commit(items: Iterable[tuple[str, str]], *, using: str | None = None, queue: str = DEFAULT) -> None:
    """Enqueue many (redis_key, text) pairs in one round trip; otherwise as :func:`enqueue_on_commit`."""
    transaction.on_commit(partial(_enqueue_many, queue, list(items)), using=using)


def _enqueue(name: str, redis_key: str, text: str) -> None:
    queues[name].enqueue(redis_key, text)


def _enqueue_many(name: str, items: list[tuple[str, str]]) -> None:
    queues[name].enqueue_many(items)
