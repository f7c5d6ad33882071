"""The project's queues, and how a transaction reaches them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping

from django.conf import settings
from django.db import transaction

from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.settings.application import DEFAULT, Queues
from embedqueue.settings.front import Front
from embedqueue.settings.settings import Settings, SettingsError, read_queues
from embedqueue.values.item import checked_member

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


def _is_tested() -> bool:
    """Whether Django's test environment is set up, by ``manage.py test`` or pytest-django (``setup_test_environment``).

    By the mark that it leaves for itself: ``mail.outbox`` is there as well once a ``locmem.EmailBackend`` was made.
    """
    utils = sys.modules.get("django.test.utils")
    return hasattr(getattr(utils, "_TestState", None), "saved_data")


#: The project's queues by name, each made and started at its first use in each process.
queues = Queues(load, _is_tested)


class _DefaultQueue(Front):
    """Stands for the default queue, so that it can be imported before there are settings."""

    # As Django's own lazy objects do: isinstance() and type checkers see what it stands for.
    __class__ = property(lambda self: EmbeddingBatchQueue)

    @property
    def queues(self) -> Queues:
        """All queues of the project, by name."""
        return queues

    def __repr__(self) -> str:
        """That of the queue, once there is one."""
        made = queues.made(DEFAULT)
        return "<the default embedqueue of this project, not used yet>" if made is None else repr(made)


#: The default queue.
queue: EmbeddingBatchQueue = _DefaultQueue()


def enqueue_on_commit(
    redis_key: str, text: str, *, using: str | None = None, queue: str = DEFAULT, robust: bool = False
) -> None:
    """Enqueue once the transaction under way is committed; at once where there is none.

    A transaction, or a savepoint, that is rolled back enqueues nothing.

    Args:
        redis_key: the hash that receives the vector.
        text: what to embed.
        using: alias of the database whose transaction it is.
        queue: name of the queue.
        robust: as with Django's ``on_commit``: where Redis cannot be reached then, the log says so and the request goes
            on, and ``manage.py embedqueue backfill`` finds what was missed.

    Raises:
        TypeError, ValueError: bad arguments, at once, so that they end the transaction.
        SettingsError: there is no such queue.
    """
    check_pairs(queue, [(redis_key, text)])
    transaction.on_commit(lambda: queues[queue].enqueue(redis_key, text), using=using, robust=robust)


def enqueue_many_on_commit(
    items: Iterable[tuple[str, str]], *, using: str | None = None, queue: str = DEFAULT, robust: bool = False
) -> None:
    """Enqueue many (redis_key, text) pairs in one round trip; otherwise as :func:`enqueue_on_commit`."""
    pairs = list(items)
    check_pairs(queue, pairs)
    transaction.on_commit(lambda: queues[queue].enqueue_many(pairs), using=using, robust=robust)


def check_pairs(name: str, pairs: Iterable[tuple[str, str]]) -> None:
    """Refuse what the queue of this name would refuse, for after a commit it would be too late."""
    settings = queues.settings(name)
    namespace, max_text_chars = settings.option("namespace"), settings.option("max_text_chars")
    for redis_key, text in pairs:
        checked_member(redis_key, text, namespace, max_text_chars)
