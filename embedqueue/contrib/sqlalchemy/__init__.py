"""embedqueue for SQLAlchemy and Flask-SQLAlchemy.

::

    class Note(EmbeddedText, Base):
        __tablename__ = "note"
        id: Mapped[int] = mapped_column(primary_key=True)
        text: Mapped[str]

    follow(Session, queue)      # a sessionmaker; or db.session of Flask-SQLAlchemy and its EmbedQueue

A text goes into the queue once its transaction is committed, if it is new; ``docs/sqlalchemy.md`` has the rest.
"""

from .following import enqueue_on_commit, follow
from .models import EmbeddedText, embedded_texts

__all__ = ["EmbeddedText", "follow", "enqueue_on_commit", "embedded_texts"]
