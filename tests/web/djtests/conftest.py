"""A Django project for the tests, set up once, and what its tests share."""

from __future__ import annotations

import io
import os

import pytest

django = pytest.importorskip("django", reason="Django is not installed: pip install embedqueue[django]")

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.web.djsite.settings")
django.setup()

from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.test import override_settings  # noqa: E402
from django.test.utils import setup_test_environment  # noqa: E402

from embedqueue.contrib.django import queues  # noqa: E402
from embedqueue.contrib.django.testing import eager  # noqa: E402
from tests.web.djsite.notes.models import Note  # noqa: E402

setup_test_environment()


@pytest.fixture(scope="module", autouse=True)
def database():
    """Tables in memory, in both databases."""
    for alias in ("default", "other"):
        call_command("migrate", run_syncdb=True, verbosity=0, database=alias)


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """No rows, no queues, and none of the machine's own settings and keys."""
    for name in list(os.environ):
        if name.startswith("EMBEDQUEUE_") or name.endswith("_API_KEY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("EMBEDQUEUE_EAGER", "0")  # this project's tests say so, for they try the real thing
    queues.reset()
    with eager():
        for alias in ("default", "other"):
            Note.objects.using(alias).all().delete()
        User.objects.all().delete()
    yield
    queues.reset()


@pytest.fixture
def used():
    """Eager queues on a fake Redis."""
    with eager() as found:
        yield found


@pytest.fixture
def real_settings(redis_client, redis_server, provider):
    """A real Redis and a real provider."""
    with override_settings(
        EMBEDQUEUE={
            "REDIS_URL": redis_server.url,
            "PROVIDER": "openai",
            "BASE_URL": provider.openai_url,
            "API_KEY": "test-key",
            "DIMENSIONS": 16,
        }
    ):
        yield


@pytest.fixture
def run():
    """``manage.py embedqueue ...``; what it prints."""

    def manage(*args):
        out = io.StringIO()
        call_command("embedqueue", *args, stdout=out)
        return out.getvalue()

    return manage
