"""Models whose text follows them into the queue, and the page of the admin."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, ClassVar, Self

from django.db import models, transaction

from embedqueue.contrib.queues import DEFAULT

from .access import queues


class EmbeddedText(models.Model):
    """A mixin: the text of an instance is enqueued when the instance is saved and the text is new.

    ::

        class Note(EmbeddedText):
            text = models.TextField()
            embed_fields = ("text",)

    The vector ends up in the hash ``app.model:pk``, after the transaction is committed. Deleting the instance takes it
    away. ``QuerySet.update`` and ``bulk_create`` send no signals: see ``manage.py embedqueue backfill``.
    """

    #: The fields whose texts are embedded, together.
    embed_fields: ClassVar[tuple[str, ...]] = ("text",)
    #: The name of the queue.
    embed_queue: ClassVar[str] = DEFAULT

    class Meta:
        """No table of its own."""

        abstract = True

    #: The text that the queue has, as far as this object knows.
    _embedded_text: str | None = None

    def embed_key(self) -> str:
        """The hash that receives the vector. Override it as you like; it must not change while the instance lives."""
        return f"{self._meta.label_lower}:{self.pk}"

    def embed_text(self) -> str:
        """What is embedded. Override it as you like."""
        return "\n\n".join(str(value) for name in self.embed_fields if (value := getattr(self, name)))

    @classmethod
    def from_db(cls, db: str | None, field_names: Collection[str], values: Collection[Any], **later: Any) -> Self:
        """Remember the text that came from the database."""
        instance = super().from_db(db, field_names, values, **later)  # Django 6.1 has one more
        instance._remember()
        return instance

    def refresh_from_db(self, *args: Any, **kwargs: Any) -> None:
        """Remember the text that came from the database."""
        super().refresh_from_db(*args, **kwargs)
        self._remember()

    def _remember(self) -> None:
        # A deferred field is not fetched for this: the text counts as new then, and the queue knows equal ones.
        if not self.get_deferred_fields() & set(self.embed_fields):
            self._embedded_text = self.embed_text()

    def enqueue_text(self, using: str | None = None) -> None:
        """Enqueue the text when the transaction is committed, new or not."""
        redis_key, text = self.embed_key(), self.embed_text()

        def committed() -> None:
            queues[self.embed_queue].enqueue(redis_key, text)
            self._embedded_text = text  # not before: a rollback must not make it look known

        transaction.on_commit(committed, using=using)


def saved(
    sender: type[models.Model],
    instance: models.Model,
    created: bool,
    using: str | None,
    update_fields: Iterable[str] | None,
    **_: Any,
) -> None:
    """Signal ``post_save``: a text that is new goes into the queue."""
    if not isinstance(instance, EmbeddedText):
        return
    if update_fields is not None and not set(update_fields) & set(instance.embed_fields):
        return  # the database still has the old text
    if created or instance.embed_text() != instance._embedded_text:
        instance.enqueue_text(using)


def deleted(sender: type[models.Model], instance: models.Model, using: str | None, **_: Any) -> None:
    """Signal ``post_delete``: neither a text in the queue nor a vector outlives its instance."""
    if not isinstance(instance, EmbeddedText):
        return
    redis_key, name = instance.embed_key(), instance.embed_queue

    def committed() -> None:
        queues[name].enqueue(redis_key, "")  # a blank text takes the place of what waits or is in flight
        queues.redis(name).hdel(redis_key, queues.settings(name).option("embedding_field"))

    transaction.on_commit(committed, using=using)


class Queue(models.Model):
    """Stands for the queues in the admin: what may be seen and done there is a matter of permissions. Has no table."""

    class Meta:
        """Permissions only."""

        managed = False
        default_permissions = ("view", "change")
        verbose_name = "queue"
        verbose_name_plural = "queues"
