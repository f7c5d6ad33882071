"""The dashboard in a Django project (extra ``dashboard``), for those whom the admin lets see or change queues.

::

    urlpatterns = [path("embeddings/", include(dashboard_urls())), ...]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import URLPattern, path
from django.views.decorators.csrf import csrf_exempt
from flask import request as inner_request
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Response

from embedqueue.dashboard import dashboard_app

from .access import queues

#: Where a user's permission to change queues stands while the application inside answers.
MAY_CHANGE = "embedqueue.may_change"


def dashboard_urls(*, show_texts: bool = False, prices: Mapping[str, float] | None = None) -> list[URLPattern]:
    """Patterns to be included under a path of the project's.

    Looking needs the permission ``embedqueue.view_queue``, acting ``embedqueue.change_queue``.

    Args:
        show_texts: whether texts are shown, of items that wait as well as of dead letters.
        prices: dollars for a million tokens, by model.
    """
    app = dashboard_app(
        queues,
        authenticate=lambda: MAY_CHANGE in inner_request.environ,  # the view below has looked
        allow_changes=lambda: bool(inner_request.environ[MAY_CHANGE]),
        show_texts=show_texts,
        prices=prices,
    )

    @csrf_exempt  # the page has tokens of its own
    def page(request: HttpRequest, rest: str = "") -> HttpResponseBase:
        user: Any = request.user
        if not user.is_authenticated:
            return redirect_to_login(request.get_full_path())
        may_change = user.has_perm("embedqueue.change_queue")
        if not (may_change or user.has_perm("embedqueue.view_queue")):
            raise PermissionDenied
        root = request.path[: len(request.path) - len(rest)]
        builder = EnvironBuilder(
            path="/" + rest,
            base_url=request.build_absolute_uri(root),
            query_string=request.META.get("QUERY_STRING", ""),
            method=request.method or "GET",
            headers=list(request.headers.items()),
            data=request.body,
            environ_base={MAY_CHANGE: may_change},
        )
        answer = Response.from_app(app, builder.get_environ(), buffered=True)
        cookies = answer.headers.getlist("Set-Cookie")
        del answer.headers["Set-Cookie"]
        found = HttpResponse(answer.get_data(), status=answer.status_code, headers=dict(answer.headers))
        for cookie in cookies:
            found.cookies.load(cookie)
        return found

    return [path("", page), path("<path:rest>", page)]
