"""A note."""

from django.db import models

from embedqueue.contrib.django.models import EmbeddedText


class Note(EmbeddedText):
    """What the tests save."""

    title = models.CharField(max_length=100, blank=True)
    body = models.TextField(blank=True)
    seen = models.IntegerField(default=0)
    embed_fields = ("title", "body")


class NoteProxy(Note):
    """The same rows under another name."""

    class Meta:
        """No table of its own."""

        proxy = True
