"""Models whose text follows them into the queue, and the page of the admin."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Self

from django.core import checks
from django.core.checks import CheckMessage, Error
from django.db import models, router, transaction
from django.db.models.signals import class_prepared, post_delete, post_save

from embedqueue.settings.application import DEFAULT
from embedqueue.settings.settings import SettingsError
from embedqueue.values.item import is_blank
from embedqueue.values.log import logger
from embedqueue.values.words import printable

from .access import check_pairs, load, queues


class EmbeddedText(models.Model):
    """A mixin: the text of an instance is enqueued when the instance is saved and the text is new.

    ::

        class Note(EmbeddedText):
            text = models.TextField()
            embed_fields = ("text",)

    The vector ends up in the hash ``app.model:pk``, after the transaction is committed. Deleting the instance, or
    emptying its text, takes it away. ``bulk_create``, ``bulk_update`` and ``QuerySet.update`` send no signals: see
    ``docs/django.md``.
    """

    #: The fields whose texts are embedded, together. Where ``embed_text`` is your own: those that it is made of.
    embed_fields: ClassVar[tuple[str, ...]] = ("text",)
    #: The name of the queue.
    embed_queue: ClassVar[str] = DEFAULT
    #: Fields that a sink writes: saving an instance leaves them alone, unless it names them in ``update_fields``.
    embed_written: ClassVar[tuple[str, ...]] = ()
    #: Whether saving goes on where Redis cannot be reached: see ``enqueue_on_commit(robust=True)``.
    embed_robust: ClassVar[bool] = False

    class Meta:
        """No table of its own."""

        abstract = True

    #: What this object knows of the fields that the queue has the text of: never changed, only replaced.
    _embedded: Mapping[str, str] = MappingProxyType({})
    #: Whether a transaction has saved a text of it that is handed over at its commit, if that comes.
    _embed_pending: bool = False
    #: Whether who saves it has named fields. Where some are deferred, Django itself names those that are loaded.
    _embed_named: bool = False

    def embed_key(self) -> str:
        """The hash that receives the vector. Override it as you like; it must not change while the instance lives."""
        model = self._meta.concrete_model  # a proxy's rows are this model's
        assert model is not None
        return f"{model._meta.label_lower}:{self.pk}"

    def embed_text(self) -> str:
        """What is embedded. Override it as you like, and name in ``embed_fields`` what it is made of."""
        return "\n\n".join(str(value) for name in self.embed_fields if (value := getattr(self, name)))

    @classmethod
    def check(cls, **kwargs: Any) -> list[CheckMessage]:
        """Django's checks, and whether the fields and the queue exist."""
        return [*super().check(**kwargs), *check_model(cls)]

    @classmethod
    def from_db(cls, db: str | None, field_names: Collection[str], values: Collection[Any], **later: Any) -> Self:
        """Remember what came from the database."""
        instance = super().from_db(db, field_names, values, **later)  # Django 6.1 has one more
        instance._embedded = instance._embed_state()
        return instance

    def refresh_from_db(self, *args: Any, **kwargs: Any) -> None:
        """Remember what came from the database, and only that: an unsaved change of another field is still new."""
        super().refresh_from_db(*args, **kwargs)
        fields = kwargs.get("fields", args[1] if len(args) > 1 else None)
        self._embed_pending &= transaction.get_connection(self._state.db).in_atomic_block
        state = self._embed_state(fields)
        known = {name: value for name, value in self._embedded.items() if name not in state}
        self._embedded = known if self._embed_pending else {**known, **state}  # after the commit, the hook remembers it

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save the instance as Django does, and enqueue its text if that is new; see ``embed_written`` as well."""
        before = self._embed_named  # a receiver of a signal may save it once more
        self._embed_named = kwargs.get("update_fields", args[3] if len(args) > 3 else None) is not None
        try:
            super().save(*args, **kwargs)
        finally:
            self._embed_named = before

    def _do_update(
        self, base_qs: Any, using: Any, pk_val: Any, values: Any, update_fields: Any, *more: Any, **later: Any
    ) -> Any:
        """The instance may have been loaded, or made, before the sink wrote what these fields have now."""
        if not self._embed_named:
            values = [value for value in values if value[0].name not in self.embed_written]
        return super()._do_update(base_qs, using, pk_val, values, update_fields, *more, **later)

    def _embed_state(self, names: Iterable[str] | None = None) -> dict[str, str]:
        """The values as text of those fields (of all) that are embedded and loaded. Fetches nothing."""
        columns = {name: self._column(name) for name in self._embed_names(names)}
        return {name: str(self.__dict__[column]) for name, column in columns.items() if column in self.__dict__}

    def _embed_names(self, given: Iterable[str] | None) -> set[str]:
        """Those of the embedded fields that are among the given ones, by name or by column; None: all."""
        among = None if given is None else set(given)
        return {name for name in self.embed_fields if among is None or among & {name, self._column(name)}}

    def _column(self, name: str) -> str:
        return self._meta.get_field(name).attname  # type: ignore[union-attr,no-any-return,unused-ignore]

    def enqueue_text(self, using: str | None = None) -> None:
        """Enqueue the text when the transaction is committed, new or not.

        Args:
            using: alias of the database whose transaction it is; None for the one to which the instance would be saved.
        """
        using = using or router.db_for_write(type(self), instance=self)
        self._enqueue_state(self._embed_state(), self.embed_text(), using)

    def _enqueue_state(self, state: dict[str, str], text: str, using: str | None) -> None:
        redis_key, name = self.embed_key(), self.embed_queue
        if text and not self.embed_robust:  # else the log is told after the commit, and the row is saved
            check_pairs(name, [(redis_key, text)])
        # Neither is known now: after a rollback, or when the old text comes back before the commit, it is new.
        self._embedded = {field: value for field, value in self._embedded.items() if field not in state}

        self._embed_pending = True

        def committed() -> None:
            _hand_over(name, redis_key, text)
            self._embedded, self._embed_pending = {**self._embedded, **state}, False

        transaction.on_commit(committed, using=using, robust=self.embed_robust)


def _hand_over(name: str, redis_key: str, text: str) -> None:
    """Enqueue; where there is no text any more, the vector of the old one goes as well."""
    if is_blank(text):
        queues[name].forget(redis_key, vector=True)
    else:
        queues[name].enqueue(redis_key, text)


def follow(sender: type[models.Model], **_: Any) -> None:
    """Signal ``class_prepared``: hear of the rows of a model with texts.

    Of no other: with a receiver for all models, Django would load each row that it deletes.
    """
    if issubclass(sender, EmbeddedText):
        post_save.connect(saved, sender=sender, dispatch_uid="embedqueue.saved")
        post_delete.connect(deleted, sender=sender, dispatch_uid="embedqueue.deleted")


class_prepared.connect(follow, dispatch_uid="embedqueue.follow")


def saved(
    sender: type[models.Model],
    instance: models.Model,
    created: bool,
    using: str | None,
    update_fields: Iterable[str] | None,
    raw: bool = False,
    **_: Any,
) -> None:
    """Signal ``post_save``: a text that is new goes into the queue, as it stands in the database now."""
    if not isinstance(instance, EmbeddedText):  # Django knows senders by numbers, which another class may have later
        return
    if raw:  # from a fixture: what it refers to, and its parents' columns, may be loaded after it
        model, pk = type(instance), instance.pk
        transaction.on_commit(lambda: _loaded(model, pk, using), using=using, robust=instance.embed_robust)
        return
    names = instance._embed_names(update_fields)
    state = instance._embed_state(names)
    computed = len(state) < len(names) or _holds_expression(instance, names)
    if not names or (not created and not computed and state.items() <= instance._embedded.items()):
        return  # what was saved was known
    source = instance
    unsaved = instance._embed_state(set(instance.embed_fields) - names).items() - instance._embedded.items()
    if computed or unsaved:  # the database has another text than the object
        source = type(instance)._base_manager.using(using).get(pk=instance.pk)
        state = source._embed_state(names)
    instance._enqueue_state(state, source.embed_text(), using)


def _loaded(model: type[EmbeddedText], pk: Any, using: str | None) -> None:
    """A fixture has been loaded: the text of one of its rows, if that is still there."""
    for row in model._base_manager.using(using).filter(pk=pk):
        try:
            _hand_over(row.embed_queue, row.embed_key(), row.embed_text())
        except ValueError as error:  # no queue takes it, and what Django calls after it shall be called
            logger.error("embedqueue: %s is loaded and not enqueued: %s", row.embed_key(), error)


def _holds_expression(instance: EmbeddedText, names: Iterable[str]) -> bool:
    """Whether the database makes a text of what is there, as with ``note.text = Upper("text")``."""
    return any(hasattr(instance.__dict__.get(name), "resolve_expression") for name in names)


def deleted(sender: type[models.Model], instance: models.Model, using: str | None, **_: Any) -> None:
    """Signal ``post_delete``: neither a text in the queue nor a vector outlives its instance."""
    if isinstance(instance, EmbeddedText):
        name, redis_key = instance.embed_queue, instance.embed_key()
        transaction.on_commit(lambda: _removed(name, redis_key), using=using, robust=instance.embed_robust)


def _removed(name: str, redis_key: str) -> None:
    """A row is gone for good. Where its vector stays, the log names it: ``verify`` knows nothing of such a row."""
    try:
        _hand_over(name, redis_key, "")
    except Exception:
        logger.error(
            "embedqueue: a vector was to go and is left, of %s: queue.forget(key, vector=True) helps",
            printable(redis_key),
        )
        raise


class _NoRows(models.Manager["Queue"]):
    """What asks for rows (``dumpdata``, links of the admin) gets none, without a question to the database."""

    def get_queryset(self) -> models.QuerySet[Queue]:
        """None."""
        return super().get_queryset().none()


class Queue(models.Model):
    """Stands for the queues in the admin: what may be seen and done there is a matter of permissions. Has no table."""

    objects = _NoRows()

    class Meta:
        """Permissions only."""

        managed = False
        base_manager_name = "objects"
        default_permissions = ("view", "change")
        permissions = (("view_text", "Can view the texts of items"),)
        verbose_name = "queue"
        verbose_name_plural = "queues"


def check_model(model: type[EmbeddedText]) -> list[CheckMessage]:
    """Whether a model with :class:`EmbeddedText` names fields and a queue that exist."""
    columns = {field.name for field in model._meta.concrete_fields if not getattr(field, "generated", False)}
    problems: list[CheckMessage] = [
        Error(
            f"embed_fields names {name!r}, which is no column that is saved of {model._meta.label}",
            hint=f"There are: {', '.join(sorted(columns))}. Override embed_text() to make a text of more than these.",
            obj=model,
            id="embedqueue.E005",
        )
        for name in model.embed_fields
        if name not in columns
    ]
    shared = [one for one in model._meta.get_parent_list() if issubclass(one, EmbeddedText)]
    if shared and not model._meta.proxy and model.embed_key is EmbeddedText.embed_key:
        problems.append(
            checks.Warning(
                f"a row of {model._meta.label} is one of {shared[0]._meta.label} as well, and has two keys and vectors",
                hint="Where it is saved as one of them, the other key keeps the vector of the old text. Override "
                "embed_key() so that both give one key, and embed_text() so that both give one text.",
                obj=model,
                id="embedqueue.W002",
            )
        )
    try:
        known = load()
    except SettingsError:
        return problems  # E001 says so
    if model.embed_queue not in known:
        hint = f"There are: {', '.join(sorted(known))}."
        problems.append(Error(f"embed_queue is {model.embed_queue!r}", hint=hint, obj=model, id="embedqueue.E006"))
    return problems
