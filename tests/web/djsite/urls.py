"""A view that enqueues and waits, one that only enqueues, and the admin."""

import os

from django.contrib import admin
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from embedqueue.contrib.django import queue


@csrf_exempt
def save(request: HttpRequest, key: str) -> JsonResponse:
    """Save, and wait for the vector if told to."""
    future = queue.enqueue(key, request.POST["text"])
    wait = "wait" in request.POST
    if "flush" in request.POST:
        queue.flush_now()
    return JsonResponse({"pid": os.getpid(), "numbers": len(future.result(timeout=45)) if wait else None})


urlpatterns = [path("save/<key>", save), path("admin/", admin.site.urls)]
