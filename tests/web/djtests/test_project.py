"""The Django app: commits and rollbacks, checks and commands, without servers."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import unittest
from pathlib import Path

import pytest
import redis
from django.core.management import CommandError, call_command
from django.db import transaction
from django.test import override_settings

from embedqueue import EmbeddingBatchQueue
from embedqueue.contrib.django import enqueue_many_on_commit, enqueue_on_commit, queue, queues
from embedqueue.settings.settings import SettingsError
from embedqueue.values.errors import QueueStopped
from tests.parts import PROGRAM_SECONDS
from tests.web.djsite.notes.models import Note

# -- transactions ------------------------------------------------------------------------------------------------


def test_a_commit_enqueues_and_a_rollback_does_not(used):
    """Nothing is embedded for a note that was never saved."""
    with transaction.atomic():
        enqueue_on_commit("note:1", "kept")
        with pytest.raises(RuntimeError), transaction.atomic():
            enqueue_on_commit("note:2", "lost in a savepoint")
            raise RuntimeError
        assert not used.redis.exists("note:1")
    with pytest.raises(RuntimeError), transaction.atomic():
        enqueue_many_on_commit([("note:3", "lost"), ("note:4", "lost too")])
        raise RuntimeError
    assert sorted(used.redis.keys("note:*")) == [b"note:1"]


def test_outside_of_a_transaction_it_is_at_once(used):
    """Autocommit: there is nothing to wait for."""
    enqueue_on_commit("note:1", "now")
    enqueue_many_on_commit([("note:2", "now"), ("note:3", "now")])
    assert len(used.redis.keys("note:*")) == 3


def test_each_database_has_its_own_transaction(used):
    """`using` names the one whose commit counts."""
    with transaction.atomic(using="other"):
        enqueue_on_commit("note:1", "there", using="other")
        enqueue_on_commit("note:2", "here")
        assert used.redis.keys("note:*") == [b"note:2"]
    assert used.redis.exists("note:1")
    with pytest.raises(RuntimeError), transaction.atomic(using="other"):
        enqueue_many_on_commit([("note:3", "lost")], using="other")
        raise RuntimeError
    assert not used.redis.exists("note:3")


def test_what_can_never_work_ends_the_transaction(used):
    """After the commit it would be too late to refuse."""
    for call in (
        lambda: enqueue_on_commit("note:1", 5),
        lambda: enqueue_on_commit("embed_queue:pending", "x"),
        lambda: enqueue_on_commit("note:1", "x", queue="images"),
        lambda: enqueue_many_on_commit([("note:1", "x"), ("", "y")]),
    ):
        with pytest.raises((TypeError, ValueError)), transaction.atomic():
            Note.objects.create(body="goes with it")
            call()
    assert Note.objects.count() == 0 and used.redis.keys("note:*") == []


def test_a_request_may_go_on_without_redis(tmp_path, caplog):
    """robust=True, as with Django's own on_commit: the log says what to set."""
    with override_settings(EMBEDQUEUE={"REDIS_URL": f"unix://{tmp_path}/no", "PROVIDER": "local"}):
        with transaction.atomic():
            enqueue_on_commit("note:1", "a", robust=True)
            enqueue_many_on_commit([("note:2", "b")], robust=True)
        assert caplog.text.count('start it, or set EMBEDQUEUE["REDIS_URL"].') == 2
        with pytest.raises(redis.ConnectionError), transaction.atomic():
            enqueue_on_commit("note:1", "a")


def test_the_queue_stands_for_a_queue(used):
    """Type checks, `with`, and methods taken at import work before and after the first use."""
    enqueue, repr_before = queue.enqueue, repr(queue)
    assert isinstance(queue, EmbeddingBatchQueue)
    assert not queue.closed
    queue.stop()  # as in a shutdown hook: nothing was used, nothing is made
    assert repr(queue) == repr_before and "not used yet" in repr_before
    enqueue("note:1", "x").result(0)
    assert repr(queue).startswith("<EmbeddingBatchQueue 'embed_queue'")
    with queue as real:
        assert real is queues["default"]
    assert queue.closed
    with pytest.raises(QueueStopped):
        enqueue("note:2", "y")
    queue.start()
    assert not queue.closed and enqueue("note:2", "y").done()


IMPORTED_EARLY = """
import os
from embedqueue.contrib.django import enqueue_on_commit, queue, queues

save, on_commit, shown = queue.enqueue, enqueue_on_commit, repr(queue)
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.web.djsite.settings"
import django

django.setup()
from embedqueue.contrib.django.testing import eager

with eager() as used:
    save("note:1", "x")
    on_commit("note:2", "y")
    print(sorted(used.redis.keys("note:*")))
"""


def test_a_module_may_import_the_queue_before_there_are_settings():
    """settings.py itself, models.py, a module of a project's own: none has to wait for the apps."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED_EARLY], capture_output=True, text=True, timeout=PROGRAM_SECONDS
    )
    assert done.stdout == "[b'note:1', b'note:2']\n", done.stderr


def test_the_queue_can_be_imported_before_it_works():
    """Errors come at the first use, with a sentence."""
    assert "not used yet" in repr(queue)
    with override_settings(EMBEDQUEUE={"REDIS_ULR": "x"}):
        assert "not used yet" in repr(queue)
        with pytest.raises(SettingsError, match=r'did you mean EMBEDQUEUE\["REDIS_URL"\]\?'):
            queue.enqueue("a", "b")
    with override_settings(EMBEDQUEUE=["x"]), pytest.raises(SettingsError, match="must be a dictionary"):
        queue.enqueue("a", "b")


def test_no_redis_is_told_at_first_use(tmp_path):
    """redis-py's own error, with a note that names the setting."""
    with (
        override_settings(EMBEDQUEUE={"REDIS_URL": f"unix://{tmp_path}/no", "PROVIDER": "local"}),
        pytest.raises(redis.ConnectionError) as caught,
    ):
        queue.enqueue("a", "b")
    assert caught.value.__notes__[0].endswith('start it, or set EMBEDQUEUE["REDIS_URL"].')


# -- checks and commands -----------------------------------------------------------------------------------------


def _checks(*args):
    err = io.StringIO()
    try:
        call_command("check", "--tag", "embedqueue", *args, stderr=err, stdout=err)
    except Exception as error:
        return f"{err.getvalue()}{error}"
    return err.getvalue()


def test_checks_name_what_to_set():
    """`manage.py check` knows the settings without asking anybody."""
    with override_settings(EMBEDQUEUE={"PROVIDER": "local"}):
        assert "no issues" in _checks()
    with override_settings(EMBEDQUEUE={"PROVIDERR": "local"}):
        assert 'embedqueue.E001) EMBEDQUEUE["PROVIDERR"] is not a setting' in _checks()
    with override_settings(EMBEDQUEUE={"REDIS_URL": "localhost"}):
        assert 'EMBEDQUEUE["REDIS_URL"] must be redis://' in _checks()
    with override_settings(EMBEDQUEUE={"REDIS_URL": "redis://h/0?ssl=true"}):
        assert "for TLS write rediss://" in _checks()
    with override_settings(EMBEDQUEUE={"PROVIDER": "local", "ECONOMY": True}):
        assert 'embedqueue.E008) EMBEDQUEUE["ECONOMY"] needs an embedder whose provider has batch jobs' in _checks()
    with override_settings(EMBEDQUEUE={"PROVIDER": "local", "ECONOMY": True, "EAGER": True}):
        assert "no issues" in _checks(), "in tests there are no jobs"
    with override_settings(EMBEDQUEUE={"PROVIDER": "gemini"}):
        assert 'embedqueue.W001) There is no API key for gemini: set EMBEDQUEUE["API_KEY"]' in _checks()
    with override_settings(EMBEDQUEUE={"PROVIDER": "gemini", "WORKER": False}):
        assert "no issues" in _checks()


def test_checks_before_a_deployment_ask_redis_and_the_provider(real_settings, provider, tmp_path):
    """`manage.py check --deploy`: Redis, key and model."""
    from django.conf import settings

    good = settings.EMBEDQUEUE
    assert "no issues" in _checks("--deploy")
    with override_settings(EMBEDQUEUE={**good, "REDIS_URL": f"unix://{tmp_path}/no"}):
        assert "embedqueue.E002) Redis at" in _checks("--deploy")
    with override_settings(EMBEDQUEUE={"PROVIDER": "gemini"}):
        assert "embedqueue.E003) There is no API key" in _checks("--deploy")
    with override_settings(EMBEDQUEUE={**good, "API_KEY": "hunter2"}):
        told = _checks("--deploy")
        assert "embedqueue.E004) No call to openai" in told and 'EMBEDQUEUE["MODEL"]' in told and "hunter2" not in told


def test_commands(run, real_settings, redis_client, capsys):
    """Stats, flush, worker and check."""
    from django.conf import settings

    assert run("check") == "It works; the warnings say what may hurt.\n"  # nobody works yet
    with override_settings(EMBEDQUEUE={**settings.EMBEDQUEUE, "WORKER": False}):
        queue.enqueue("note:1", "a")
        assert "waiting    1" in run("stats")
        with pytest.raises(SystemExit, match="1"):
            run("workers")
        with pytest.raises(SystemExit, match="1"):
            run("check")
        assert "1 items wait, and no worker is running" in capsys.readouterr().err
        run("worker", "--burst")
        assert json.loads(run("stats", "--json"))["waiting"] == 0
        queue.enqueue("note:2", "b")
        run("flush")
    assert redis_client.hexists("note:1", "embedding") and redis_client.hexists("note:2", "embedding")
    with override_settings(EMBEDQUEUE={"PROVIDER": "gemini"}), pytest.raises(CommandError, match="no API key"):
        run("worker")


def test_a_command_without_redis_says_what_to_set(run, tmp_path):
    """One sentence, no traceback."""
    with override_settings(EMBEDQUEUE={"REDIS_URL": f"unix://{tmp_path}/no", "PROVIDER": "local"}):
        for command in (["stats"], ["flush"], ["dead", "list"], ["worker", "--burst"], ["backfill"]):
            if command == ["backfill"]:
                Note.objects.bulk_create([Note(body="x")])
            with pytest.raises(CommandError, match=r'does not answer .*: start it, or set EMBEDQUEUE\["REDIS_URL"\]'):
                run(*command)


def test_the_docs_help_for_tests_works_as_it_is_written():
    """The last block of docs/django.md is a test case: it passes."""
    page = (Path(__file__).parents[3] / "docs" / "django.md").read_text("utf-8")
    names: dict[str, object] = {"__name__": __name__, "Note": Note}
    exec(re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)[-1], names)
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(names["NoteTest"]).run(result)
    assert (result.testsRun, result.errors, result.failures) == (1, [], [])
