"""Vectors in a column of a model's table, such as pgvector's: fenced by the stamp, many rows a statement."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
from django.apps import apps
from django.core.checks import CheckMessage, Error
from django.core.exceptions import FieldDoesNotExist, ValidationError
from django.db import connections, models, router, transaction
from django.db.models import Q
from django.db.utils import InterfaceError, NotSupportedError, OperationalError, ProgrammingError

from embedqueue.values.errors import ConfigurationError, TransientError
from embedqueue.values.provenance import read_provenance
from embedqueue.values.sink import SinkRow

#: What has ``UPDATE ... FROM``, as the statement needs it.
_VENDORS = ("postgresql", "sqlite")


class PgVectorSink:
    """A sink that writes vectors into the rows of a model. Thread-safe.

    ::

        class Note(EmbeddedText):
            text = models.TextField()
            embedding = VectorField(dimensions=3072, null=True, editable=False)     # of pgvector.django
            embedding_stamp = models.BigIntegerField(null=True, editable=False)
            embed_written = ("embedding", "embedding_stamp")

        notes = PgVectorSink("notes.Note", "embedding")     # EMBEDQUEUE = {"SINK": "notes.sinks.notes"}

    It updates rows that are there, and makes none: the vector of a row that was deleted goes nowhere. No signal is
    sent. Keys that are not of this model are left to others.

    Args:
        model: the model, or its name, ``app.Model``.
        field: that receives vectors; any that takes a list of floats, such as those of pgvector. Nullable.
        stamp_field: a nullable ``BigIntegerField`` that receives the stamp; None for the name of ``field`` and
            "_stamp".
        provenance_field: receives the line ``SPACE DIGEST STAMP``; None for the name of ``field`` and "_of", if the
            model has it.
        prefix: what keys of this model begin with; None for ``app.model:``, as :class:`EmbeddedText` names them.
        by: a unique field that holds what stands behind it.
        using: alias of the database; None for that to which the router sends writes.
    """

    def __init__(
        self,
        model: type[models.Model] | str,
        field: str,
        *,
        stamp_field: str | None = None,
        provenance_field: str | None = None,
        prefix: str | None = None,
        by: str = "pk",
        using: str | None = None,
    ) -> None:
        self._given = model
        self._names = (field, stamp_field or f"{field}_stamp", provenance_field or f"{field}_of")
        self._needs_provenance = provenance_field is not None
        self._prefix = prefix
        self._by = by
        self._using = using

    def __repr__(self) -> str:
        """Model and field."""
        name = self._given if isinstance(self._given, str) else self._given._meta.label
        return f"<PgVectorSink {name}.{self._names[0]}>"

    # -- what a queue calls ------------------------------------------------------------------------------------

    def write(self, rows: Sequence[SinkRow]) -> None:
        """See :class:`embedqueue.Sink`; one statement.

        Raises:
            TransientError: the database cannot be reached, or a lock was not to be had.
            ConfigurationError: there is no such table or column; or it holds vectors of another length.
        """
        with _told():
            found = [(key, row) for row in rows if (key := self._key(row.redis_key)) is not None]
            if found:
                with self._connected() as connection:
                    self._update(connection, found)

    def read(self, redis_keys: Sequence[str]) -> Mapping[str, SinkRow | None]:
        """Tell what the rows have; see docs/sinks.md. Keys without a row are none of ours."""
        keys = {key: name for name in redis_keys if (key := self._key(name)) is not None}
        found: dict[str, SinkRow | None] = {}
        with _told(), self._connected():
            names = [field.name for field in self._fields()]
            rows = self._model._base_manager.using(self._alias).filter(**{f"{self._by}__in": keys})
            for key, vector, stamp, *more in rows.values_list(self._by, *names):
                of = read_provenance(str(more[0] or "").encode()) if more else None
                found[keys[key]] = (
                    vector
                    if vector is None
                    else SinkRow(
                        keys[key],
                        np.asarray(vector.to_list() if hasattr(vector, "to_list") else vector, np.float32),
                        stamp or 0,
                        of.space if of else "",
                        of.digest if of else "",
                    )
                )
        return found

    def remove(self, redis_keys: Sequence[str], stamp: int) -> None:
        """Empty the columns, in the caller's thread and transaction; see docs/sinks.md."""
        with _told():
            fields = self._fields()
            keys = [key for name in redis_keys if (key := self._key(name)) is not None]
            older = Q(**{fields[1].name: None}) | Q(**{f"{fields[1].name}__lt": stamp})
            rows = self._model._base_manager.using(self._alias).filter(older, **{f"{self._by}__in": keys})
            empty: dict[str, Any] = {fields[0].name: None, fields[1].name: stamp}
            if len(fields) > 2:
                empty[fields[2].name] = None if fields[2].null else ""
            rows.update(**empty)

    # -- how -----------------------------------------------------------------------------------------------------

    @property
    def _model(self) -> Any:
        model = apps.get_model(self._given) if isinstance(self._given, str) else self._given
        return model._meta.concrete_model

    @property
    def _alias(self) -> str:
        return self._using or router.db_for_write(self._model)

    @property
    def _key_field(self) -> Any:
        meta = self._model._meta
        return meta.pk if self._by == "pk" else meta.get_field(self._by)

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        """The connection of this thread. Ours have no requests, at whose beginning and end Django looks at it."""
        connection = connections[self._alias]
        ours = threading.current_thread().name.startswith("embedqueue-")
        if ours:
            connection.close_if_unusable_or_obsolete()
        try:
            yield connection
        finally:
            if ours:  # elsewhere somebody may be reading rows on it just now
                connection.close_if_unusable_or_obsolete()

    def _fields(self) -> list[Any]:
        """The fields of the vector and the stamp, and that of the provenance if there is one."""
        meta = self._model._meta
        has = {field.name for field in meta.concrete_fields}
        wanted = self._names if self._needs_provenance or self._names[2] in has else self._names[:2]
        return [meta.get_field(name) for name in wanted]

    def _key(self, redis_key: str) -> Any:
        """What the key field holds; None where the key is not of this model."""
        prefix = f"{self._model._meta.label_lower}:" if self._prefix is None else self._prefix
        if not redis_key.startswith(prefix):
            return None
        try:
            return self._key_field.to_python(redis_key[len(prefix) :])
        except ValidationError:
            return None

    def _update(self, connection: Any, found: Sequence[tuple[Any, SinkRow]]) -> None:
        """Write all rows in one statement that leaves those alone which are newer."""
        if connection.vendor not in _VENDORS:
            raise ConfigurationError(f"PgVectorSink writes to PostgreSQL, not to {connection.vendor}")
        fields, key = self._fields(), self._key_field
        dimensions = getattr(fields[0], "dimensions", None)
        values: list[Any] = []
        for value, row in found:
            if dimensions not in (None, len(row.vector)):
                words = f"{fields[0]} holds vectors of {dimensions} numbers, and the model gives {len(row.vector)}"
                raise ConfigurationError(words)
            written = (row.vector.tolist(), row.stamp, row.provenance)
            values.append(key.get_db_prep_value(value, connection))
            values += [field.get_db_prep_save(one, connection) for field, one in zip(fields, written, strict=False)]
        quote = connection.ops.quote_name
        table, names = quote(self._model._meta.db_table), [f"c{i}" for i in range(len(fields) + 1)]
        sets = ", ".join(
            f"{quote(field.column)} = CAST(v.{name} AS {field.cast_db_type(connection)})"
            for field, name in zip(fields, names[1:], strict=True)
        )
        line = f"({', '.join(['%s'] * len(names))})"
        stamp = f"{table}.{quote(fields[1].column)}"
        statement = (
            f"WITH v ({', '.join(names)}) AS (VALUES {', '.join([line] * len(found))}) "
            f"UPDATE {table} SET {sets} FROM v "
            f"WHERE {table}.{quote(key.column)} = CAST(v.c0 AS {key.cast_db_type(connection)}) "
            f"AND ({stamp} IS NULL OR {stamp} <= CAST(v.c2 AS {fields[1].cast_db_type(connection)}))"
        )
        # Where somebody's transaction is open, as in tests, a fault must not break it.
        around = transaction.atomic(using=self._alias) if connection.in_atomic_block else nullcontext()
        with around, connection.cursor() as cursor:
            cursor.execute(statement, values)

    # -- Django's checks -----------------------------------------------------------------------------------------

    def check(self) -> list[CheckMessage]:
        """Whether model and fields exist, may be empty, and are left alone when an instance is saved."""
        from .models import EmbeddedText

        try:
            fields, model = self._fields(), self._model
            key = self._key_field
        except (LookupError, FieldDoesNotExist, ValueError) as error:
            return [Error(f"{self!r}: {error}", id="embedqueue.E007")]
        faults = [f"{field.name} must have null=True" for field in fields[:2] if not field.null]
        faults += [
            f"{field.name} is not in {model._meta.label}'s own table" for field in fields if field.model != model
        ]
        faults += [] if key.unique else [f"{key.name} is not unique"]
        if issubclass(model, EmbeddedText):
            bare = [field.name for field in fields if field.name not in model.embed_written]
            faults += [f"name {name} in embed_written, or saving an instance writes over it" for name in bare]
        return [Error(f"{self!r}: {fault}", id="embedqueue.E007") for fault in faults]


@contextmanager
def _told() -> Iterator[None]:
    """Say what is not a row's fault in the words of a sink."""
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        raise TransientError(f"the database failed: {error}") from error
    except (ProgrammingError, NotSupportedError, LookupError, FieldDoesNotExist) as error:
        raise ConfigurationError(f"the database cannot take vectors: {error}") from error
