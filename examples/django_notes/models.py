"""A note: its text is enqueued by itself when a transaction that saved it is committed."""

from django.db import models

from embedqueue.contrib.django.models import EmbeddedText


class Note(EmbeddedText):
    """What somebody wrote down."""

    text = models.TextField()

    embed_fields = ("text",)

    def embed_key(self) -> str:
        """The hash that receives the vector."""
        return f"note:{self.pk}"
