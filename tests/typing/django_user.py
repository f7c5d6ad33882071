"""The Django application as a user writes it. Type checkers read this; nothing runs it."""

from __future__ import annotations

from typing import assert_type

from django.db import models
from django.http import HttpRequest, HttpResponse

from embedqueue import EmbeddingBatchQueue, EmbeddingFuture
from embedqueue.contrib.django import enqueue_many_on_commit, enqueue_on_commit, queue, queues
from embedqueue.contrib.django.dashboard import dashboard_urls
from embedqueue.contrib.django.models import EmbeddedText
from embedqueue.contrib.django.testing import eager


class Note(EmbeddedText):
    title: models.CharField[str, str] = models.CharField(max_length=200)
    body: models.TextField[str, str] = models.TextField()

    embed_fields = ("title", "body")
    embed_robust = True

    def embed_text(self) -> str:
        return f"{self.title}\n{self.body}"


def save(request: HttpRequest) -> HttpResponse:
    note = Note(body=request.POST["body"])
    note.save()
    enqueue_on_commit(note.embed_key(), note.embed_text(), using="default", robust=True)
    enqueue_many_on_commit((f"note:{at}", "text") for at in range(3))
    assert_type(queue, EmbeddingBatchQueue)
    assert_type(queue.enqueue("note:7", "hello"), EmbeddingFuture)
    assert_type(queues["images"], EmbeddingBatchQueue)
    return HttpResponse("saved")


urlpatterns = [*dashboard_urls(show_texts=True, prices={"gemini-embedding-001": 0.15})]


def test_of_the_users_own() -> None:
    with eager() as used:
        queue.enqueue("note:1", "Hello")
        assert used.redis.hget("note:1", "embedding")
