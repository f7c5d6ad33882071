"""What a project's own tests do that never heard of us: nothing reaches the Redis of its settings."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from django.core.management import CommandError, call_command

from embedqueue.contrib.django import queue, queues
from tests import nursery
from tests.parts import PROGRAM_SECONDS
from tests.web.djsite.notes.models import Note
from tests.web.servers import DJANGO, OF_DJANGO, OURS

TESTS = """
from django.test import TestCase
from embedqueue.contrib.django import queue

class Tests(TestCase):
    def test_enqueue(self):
        self.assertEqual(len(queue.enqueue("doc:1", "text").result(45)), 16)
        queue.flush(5)
"""


@pytest.mark.parametrize("eager", [None, "0"])
def test_manage_py_test_leaves_redis_alone(env, redis_client, provider, tmp_path, eager):
    """But where the project says otherwise."""
    (tmp_path / "test_ours.py").write_text(TESTS)
    path = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, **env, **DJANGO, "PYTHONPATH": path}
    environment.pop("EMBEDQUEUE_EAGER")
    if eager is not None:
        environment["EMBEDQUEUE_EAGER"] = eager
    if eager is None:
        command = [sys.executable, "-m", "django", "test", str(tmp_path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PROGRAM_SECONDS)
    else:
        imported = [*OURS, *OF_DJANGO, "django.test"]
        done = nursery.run("django", "test", str(tmp_path), env=environment, timeout=PROGRAM_SECONDS, imported=imported)
    assert done.returncode == 0, done.stderr
    assert redis_client.exists("doc:1") == (eager is not None)
    assert bool(redis_client.keys("*")) == bool(provider.sent) == (eager is not None)


def test_models_and_commands_too(real_settings, redis_client, provider, run, monkeypatch):
    monkeypatch.delenv("EMBEDQUEUE_EAGER")
    queues.reset()
    Note.objects.create(body="hello")
    run("backfill")
    assert queue.stats().embedded >= 1
    assert (redis_client.keys("*"), provider.sent) == ([], {})


@pytest.mark.parametrize(
    "words",
    [
        *("pause", "resume", "check", "budget show", "dead show doc:1", "space show", "economy try"),
        "reembed --match doc:* --text-field text --to-field v2 --model text-embedding-3-small",
    ],
)
def test_no_command_goes_past_the_eager_queues(real_settings, redis_client, provider, run, monkeypatch, words):
    """To the Redis or the provider of the settings."""
    monkeypatch.delenv("EMBEDQUEUE_EAGER")
    queues.reset()
    with pytest.raises(CommandError, match="the queues are eager, as in tests"):
        run(*words.split())
    run("flush")
    assert (redis_client.keys("*"), provider.calls) == ([], [])


def test_no_check_does_either(redis_client, real_settings, provider, monkeypatch):
    """Of those before a deployment: each would be a real call."""
    monkeypatch.delenv("EMBEDQUEUE_EAGER")
    queues.reset()
    monkeypatch.setattr("embedqueue.contrib.django.checks.check_redis", lambda settings: ["Redis was asked"])
    call_command("check", "--tag", "embedqueue", deploy=True)
    assert provider.calls == []


def test_a_mail_that_is_kept_in_memory_begins_no_test():
    """Django's locmem backend sets ``mail.outbox`` itself: a site that uses it goes on with its Redis."""
    code = """
import django
from django.conf import settings
settings.configure(
    EMAIL_BACKEND="django.core.mail.backends.locmem.EmailBackend",
    INSTALLED_APPS=["embedqueue.contrib.django"],
    EMBEDQUEUE={"EMBEDDER": "embedqueue.testing.FakeEmbedder", "MODEL": "m"},
)
django.setup()
from django.core import mail
from embedqueue.contrib.django import queues
before = queues.look()
mail.send_mail("subject", "body", "a@example.org", ["b@example.org"])
assert mail.outbox
assert queues.look() is before and not before.closed
from django.test.utils import setup_test_environment
setup_test_environment()
assert queues.look() is not before
"""
    env = {name: value for name, value in os.environ.items() if not name.startswith("EMBEDQUEUE_")}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PROGRAM_SECONDS, env=env)
