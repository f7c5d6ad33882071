"""The admin's page: how each queue stands, its dead letters, and buttons, each of which asks first."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import BadRequest, PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.html import format_html
from redis.exceptions import RedisError

from embedqueue.operating import shown
from embedqueue.operating.estimate import estimate
from embedqueue.operating.hiding import Reader
from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.settings.checks import explain_redis
from embedqueue.settings.settings import SettingsError

from . import board
from .access import queues
from .models import Queue

#: What the forms may say, and take along to the page of the question.
FORM = ("queue", "action", "scope", "id", "reason_id")
#: For how long the page offers to pause: seconds, and words.
PAUSES = (("", "until somebody resumes"), ("300", "5 minutes"), ("3600", "an hour"), ("86400", "a day"))
#: Characters of the reason of a pause.
PAUSE_REASON_CHARS = 200


@admin.register(Queue)
class QueueAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # not generic when it runs
    """One page in place of a list of rows.

    Looking needs the permission to view, acting the one to change, and seeing texts ``embedqueue.view_text``.
    """

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Queues are made in the settings."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Queues are made in the settings."""
        return False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The page; with POST, what its buttons do."""
        if not self.has_view_or_change_permission(request):
            raise PermissionDenied
        if request.method == "POST":
            if not self.has_change_permission(request):
                raise PermissionDenied
            return self._act(request)
        names, show_texts = _names(request), _shows_texts(request)
        try:
            wanted = board.read(request.GET.dict(), names)
            rows = [board.row(name, wanted, show_texts) for name in names]
        except ValueError as error:
            raise BadRequest(str(error)) from None
        context = {
            "title": "Embedding queues",
            "rows": rows,
            "wanted": wanted,
            "may_change": self.has_change_permission(request),
            "show_texts": show_texts,
            **(extra_context or {}),
        }
        return self._page(request, "queue.html", context)

    def _page(self, request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
        context = {**self.admin_site.each_context(request), "opts": self.model._meta, **context}
        return TemplateResponse(request, f"admin/embedqueue/{template}", context)

    def _act(self, request: HttpRequest) -> HttpResponse:
        """Do what a form says, once the page that asks was answered."""
        name, action = (request.POST.get(field, "") for field in ("queue", "action"))
        try:
            queue = queues.look(name)
            if action in ("pause", "resume"):
                return self._pause(request, queue, action)
            which = _chosen(request, queue)
            if which is not None and not which:
                messages.warning(request, "No dead letter was chosen.")
            elif action not in ("retry", "discard"):
                messages.warning(request, "The form does not say what to do.")
            elif "sure" not in request.POST:
                return self._ask(request, queue, action, which)
            elif action == "retry":
                messages.success(request, f"{queue.retry_dead(which)} put back into the queue.")
            else:
                messages.success(request, f"{queue.discard_dead(which)} discarded.")
        except RedisError as error:
            messages.error(request, explain_redis(queues.settings(name), error))
        except SettingsError as error:
            messages.error(request, str(error))
        return HttpResponseRedirect(request.get_full_path())

    def _ask(
        self, request: HttpRequest, queue: EmbeddingBatchQueue, action: str, which: list[str | bytes] | None
    ) -> HttpResponse:
        told = estimate(queue, which, {}) if action == "retry" else None
        count = told.letters if told is not None else queue.stats().dead if which is None else len(which)
        looked = shown.RETRIED_LETTERS if request.POST.get("scope") == "reason" else None
        context = {"title": "Are you sure?", "action": action, "count": count, "estimate": told, "looked": looked}
        return self._page(request, "ask.html", {**context, "given": _given(request)})

    def _pause(self, request: HttpRequest, queue: EmbeddingBatchQueue, action: str) -> HttpResponse:
        if "sure" not in request.POST:
            stats = queue.stats()
            context = {"title": "Are you sure?", "action": action, "stats": stats, "pauses": PAUSES}
            return self._page(
                request, "pause.html", {**context, "most_chars": PAUSE_REASON_CHARS, "given": _given(request)}
            )
        store = queue._engine.store
        if action == "resume":
            messages.success(request, "The pause is over." if store.unhold() else "There was no pause to end.")
        else:
            seconds, reason = request.POST.get("seconds", ""), " ".join(request.POST.get("reason", "").split())
            if seconds not in dict(PAUSES) or len(reason) > PAUSE_REASON_CHARS:
                raise BadRequest("the pause is none that the page offers")
            store.hold(float(seconds) if seconds else None, reason or f"paused by {request.user}")
            messages.success(request, "Paused: nothing is claimed any more.")
        return HttpResponseRedirect(request.get_full_path())


def _shows_texts(request: HttpRequest) -> bool:
    user: Any = request.user
    return bool(user.has_perm("embedqueue.view_text"))


def _given(request: HttpRequest) -> list[tuple[str, str]]:
    """What a form says, for the form of the question."""
    return [(field, value) for field in FORM for value in request.POST.getlist(field)]


def _chosen(request: HttpRequest, queue: EmbeddingBatchQueue) -> list[str | bytes] | None:
    """Names of the letters that a form means; None for all."""
    scope = request.POST.get("scope", "")
    if scope == "all":
        return None
    if scope == "reason":
        return shown.of_reason(queue, Reader(_shows_texts(request)), request.POST.get("reason_id", ""))
    return shown.names(queue, request.POST.getlist("id"))


def _names(request: HttpRequest) -> list[str]:
    try:
        return list(queues)
    except SettingsError as error:
        messages.error(request, format_html("{}", str(error)))
        return []
