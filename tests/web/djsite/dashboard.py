"""The dashboard in Django, tried in a process of its own, since URLs are set once a process."""

from __future__ import annotations

import os
import re

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.web.djsite.settings")
django.setup()

from django.conf import settings  # noqa: E402
from django.contrib import admin  # noqa: E402
from django.contrib.auth.models import Permission, User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.test import Client  # noqa: E402
from django.test.utils import setup_test_environment  # noqa: E402
from django.urls import include, path  # noqa: E402

from embedqueue.contrib.django import queues  # noqa: E402
from embedqueue.contrib.django.dashboard import dashboard_urls  # noqa: E402

urlpatterns = [path("ops/embeddings/", include(dashboard_urls())), path("admin/", admin.site.urls)]
PAGE = "/ops/embeddings/"


def browser(*permissions: str) -> Client:
    """Somebody who is logged in."""
    user = User.objects.create_user(f"user{User.objects.count()}")
    user.user_permissions.add(*Permission.objects.filter(codename__in=permissions))
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)
    return client


def main() -> None:
    """Each assertion is one promise."""
    settings.ROOT_URLCONF = __name__ if __name__ != "__main__" else "tests.web.djsite.dashboard"
    setup_test_environment()
    call_command("migrate", run_syncdb=True, verbosity=0)
    queues.redis().set("string", "x")
    with queues.idle(worker=True, flush_interval=0.0) as queue:
        queue.enqueue("string", "a text").exception(20)
        assert queue.stats().dead == 1

    nobody = Client().get(PAGE + "?page=1")
    assert nobody.status_code == 302, nobody
    assert nobody["Location"].startswith("/accounts/login/?next=/ops/embeddings/"), nobody["Location"]
    assert browser().get(PAGE).status_code == 403

    viewer, changer = browser("view_queue"), browser("change_queue")
    seen = viewer.get(PAGE)
    assert seen.status_code == 200
    text = seen.content.decode()
    assert ">string</code>" in viewer.get(PAGE + "dead").content.decode()
    assert "<button name" not in text
    assert 'href="/ops/embeddings/static/dashboard.css"' in text
    assert "default-src 'none'" in seen["Content-Security-Policy"]
    style = viewer.get(PAGE + "static/dashboard.css")
    assert (style.status_code, style["Content-Type"]) == (200, "text/css; charset=utf-8")
    assert viewer.get(PAGE + "live?queue=default").status_code == 200

    form = changer.get(PAGE + "dead").content.decode()
    token = re.search(r'name="csrf_token" value="([\w-]+)"', form).group(1)
    posted = {"csrf_token": token, "queue": "default", "do": "discard:all", "sure": "yes"}
    assert viewer.post(PAGE + "dead", posted).status_code == 403
    assert changer.post(PAGE + "dead", {**posted, "csrf_token": "wrong"}).status_code == 403
    assert queue.stats().dead == 1
    done = changer.post(PAGE + "dead", posted)
    assert (done.status_code, done["Location"].partition("?")[0]) == (303, PAGE + "dead")
    assert viewer.post(PAGE + "pause", {**posted, "do": "pause"}).status_code == 403
    assert changer.post(PAGE + "pause", {**posted, "do": "pause"}).status_code == 303
    assert queue.stats().paused_until is not None
    assert queue.stats().dead == 0
    print("fine")


if __name__ == "__main__":
    main()
