"""The page, and what its forms do."""

from __future__ import annotations

from collections.abc import Sequence

from django.contrib import admin
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import include, path
from django.views.decorators.http import require_GET, require_POST

from embedqueue.contrib.django import queue, queues
from embedqueue.contrib.django.dashboard import dashboard_urls
from examples import notes

from .models import Note

#: Notes that the page lists.
SHOWN = 50


@require_GET
def page(request: HttpRequest) -> HttpResponse:
    """Everything there is to see."""
    keys = [note.embed_key() for note in Note.objects.order_by("-pk")[:SHOWN]]
    shown = notes.show(queue, queues.redis(), keys, read, request.GET.get("q", "").strip())
    return render(request, "notes.html", {"powered_by": "Django", "dashboard": True, **shown})


def read(keys: Sequence[str]) -> dict[str, str]:
    """The texts of notes by key."""
    found = Note.objects.filter(pk__in=[key.rpartition(":")[2] for key in keys])
    return {note.embed_key(): note.text for note in found}


@require_POST
def save_note(request: HttpRequest) -> HttpResponse:
    """Save; the model does the rest."""
    text = request.POST.get("text", "").strip()[:4000]
    return _back(f"#{Note.objects.create(text=text).embed_key()}" if text else "")


@require_POST
def save_samples(request: HttpRequest) -> HttpResponse:
    """All in one transaction: they are enqueued once it is committed."""
    with transaction.atomic():
        for text in notes.SAMPLES:
            Note.objects.create(text=text)
    return _back()


@require_POST
def flush(request: HttpRequest) -> HttpResponse:
    """Embed what waits, without waiting for it."""
    queue.flush_now()
    return _back()


def _back(anchor: str = "") -> HttpResponse:
    answer = HttpResponseRedirect(f"/{anchor}")
    answer.status_code = 303  # See Other: reloading the page must not post again
    return answer


urlpatterns = [
    path("", page),
    path("notes", save_note),
    path("samples", save_samples),
    path("flush", flush),
    path("queue/", include(dashboard_urls())),  # for users with the admin's permissions
    path("admin/", admin.site.urls),
]
