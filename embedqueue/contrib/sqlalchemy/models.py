"""Models whose text follows them into the queue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from sqlalchemy import inspect, select
from sqlalchemy.orm import Session, selectinload

#: Instances that are loaded at a time where all of a model are read.
READ_ROWS = 500


class EmbeddedText:
    """A mixin: the text of an instance is enqueued when it is committed and is new, in sessions that are followed.

    ::

        class Note(EmbeddedText, Base):
            __tablename__ = "note"
            id: Mapped[int] = mapped_column(primary_key=True)
            text: Mapped[str]
            embed_fields = ("text",)

    The vector ends up in the hash ``note:ID``. Deleting the instance, or emptying its text, takes it away.
    """

    #: The attributes whose texts are embedded, together. Where ``embed_text`` is your own: those that it is made of.
    embed_fields: ClassVar[tuple[str, ...]] = ("text",)
    #: The name of the queue, where there are several.
    embed_queue: ClassVar[str] = "default"

    def embed_key(self) -> str:
        """The hash that receives the vector. Override it as you like; it must not change while the instance lives."""
        state: Any = inspect(self)
        return ":".join([state.mapper.local_table.name, *map(str, state.identity)])

    def embed_text(self) -> str:
        """What is embedded. Override it as you like, and name in ``embed_fields`` what it is made of."""
        return "\n\n".join(str(value) for name in self.embed_fields if (value := getattr(self, name)))


def embedded_texts(session: Session, model: type[EmbeddedText]) -> Iterator[tuple[str, str]]:
    """The (redis_key, text) pairs of all rows of a model, for ``queue.verify`` and whatever else takes pairs.

    Args:
        session: reads them, some hundred at a time.
        model: mapped, with :class:`EmbeddedText`.
    """
    mapper: Any = inspect(model)
    # Collections that come by a join, or a second query of all rows, cannot be read some hundred rows at a time.
    eager = [one for one in mapper.relationships if one.uselist and one.lazy in ("joined", False, "subquery")]
    rows = select(model).order_by(*mapper.primary_key).execution_options(yield_per=READ_ROWS)
    for instance in session.scalars(rows.options(*(selectinload(one.class_attribute) for one in eager))):
        yield instance.embed_key(), instance.embed_text()
