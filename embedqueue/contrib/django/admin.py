"""The admin's page: how each queue stands, and its dead letters with retry and discard."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.html import format_html
from redis.exceptions import RedisError

from embedqueue.settings.checks import explain_redis
from embedqueue.settings.settings import SettingsError
from embedqueue.values.stats import DeadLetter, QueueStats

from .access import queues
from .models import Queue

#: Dead letters on a page.
PAGE = 50
#: What the form of dead letters may say.
FORM = ("queue", "action", "scope", "key", "member")


@dataclass(frozen=True)
class Row:
    """A queue as the page shows it."""

    name: str
    stats: QueueStats | None = None
    problem: str = ""
    letters: tuple[tuple[DeadLetter, datetime], ...] = ()

    @property
    def oldest(self) -> datetime | None:
        """When the oldest waiting item was enqueued."""
        if self.stats is None or self.stats.oldest_age is None:
            return None
        return datetime.fromtimestamp(time.time() - self.stats.oldest_age, UTC)

    @property
    def paused_until(self) -> datetime | None:
        """When the provider is asked again; None for a pause without an end."""
        if self.stats is None or self.stats.paused_until in (None, math.inf):
            return None
        return datetime.fromtimestamp(self.stats.paused_until, UTC)


@admin.register(Queue)
class QueueAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # not generic when it runs
    """One page in place of a list of rows. Looking needs the permission to view, acting the one to change."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Queues are made in the settings."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Queues are made in the settings."""
        return False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The page; with POST, put dead letters back or drop them."""
        if not self.has_view_or_change_permission(request):
            raise PermissionDenied
        if request.method == "POST":
            if not self.has_change_permission(request):
                raise PermissionDenied
            return self._act(request)
        context = {
            **self.admin_site.each_context(request),
            "title": "Embedding queues",
            "rows": [_row(name) for name in _names(request)],
            "may_change": self.has_change_permission(request),
            "opts": self.model._meta,
            **(extra_context or {}),
        }
        return TemplateResponse(request, "admin/embedqueue/queue.html", context)

    def _act(self, request: HttpRequest) -> HttpResponse:
        """Retry at once; discard after a page that asks."""
        name, action, everything = (request.POST.get(field, "") for field in ("queue", "action", "scope"))
        try:  # whose members are not ours have no key: they stand in the form as they are, in hex
            chosen: list[str | bytes] = [
                *request.POST.getlist("key"),
                *(bytes.fromhex(it) for it in request.POST.getlist("member")),
            ]
        except ValueError:
            chosen = []
        which = None if everything == "all" else chosen
        try:
            queue = queues.look(name)
            if which is not None and not which:
                messages.warning(request, "No dead letter was chosen.")
            elif action == "retry":
                messages.success(request, f"{queue.retry_dead(which)} put back into the queue.")
            elif action == "discard" and "sure" in request.POST:
                messages.success(request, f"{queue.discard_dead(which)} discarded.")
            elif action == "discard":
                return self._ask(request, queue.stats().dead if which is None else len(which))
        except RedisError as error:
            messages.error(request, explain_redis(queues.settings(name), error))
        except SettingsError as error:
            messages.error(request, str(error))
        return HttpResponseRedirect(request.get_full_path())

    def _ask(self, request: HttpRequest, count: int) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": "Are you sure?",
            "opts": self.model._meta,
            "count": count,
            "given": [(field, value) for field in FORM for value in request.POST.getlist(field)],
        }
        return TemplateResponse(request, "admin/embedqueue/discard.html", context)


def _names(request: HttpRequest) -> list[str]:
    try:
        return list(queues)
    except SettingsError as error:
        messages.error(request, format_html("{}", str(error)))
        return []


def _row(name: str) -> Row:
    try:
        queue = queues.look(name)
        stats = queue.stats()
        letters = queue.dead_letters(limit=PAGE, max_bytes=0) if stats.dead else []
    except SettingsError as error:
        return Row(name, problem=str(error))
    except RedisError as error:
        return Row(name, problem=explain_redis(queues.settings(name), error))
    return Row(name, stats, "", tuple((letter, datetime.fromtimestamp(letter.died_at, UTC)) for letter in letters))
