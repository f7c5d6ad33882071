"""The Django app: commits and rollbacks, the mixin, checks, commands and the admin, without servers."""

from __future__ import annotations

import io
import json
import os
import re
import unittest
from pathlib import Path

import pytest
import redis

django = pytest.importorskip("django", reason="Django is not installed: pip install embedqueue[django]")

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.web.djsite.settings")
django.setup()

from django.contrib.auth.models import Permission, User  # noqa: E402
from django.core.management import CommandError, call_command  # noqa: E402
from django.db import transaction  # noqa: E402
from django.test import Client, override_settings  # noqa: E402
from django.test.utils import setup_test_environment  # noqa: E402

from embedqueue.config import SettingsError  # noqa: E402
from embedqueue.contrib.django import enqueue_many_on_commit, enqueue_on_commit, queue, queues  # noqa: E402
from embedqueue.contrib.django.testing import eager  # noqa: E402
from embedqueue.errors import InputRejected  # noqa: E402
from tests.web.djsite.notes.models import Note  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def database():
    """Tables in memory, for this module."""
    setup_test_environment()
    call_command("migrate", run_syncdb=True, verbosity=0)


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """No rows, no queues, and none of the machine's own settings and keys."""
    for name in list(os.environ):
        if name.startswith("EMBEDQUEUE_") or name.endswith("_API_KEY"):
            monkeypatch.delenv(name)
    queues.reset()
    with eager():
        Note.objects.all().delete()
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


def _run(*args):
    out = io.StringIO()
    call_command("embedqueue", *args, stdout=out)
    return out.getvalue()


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


# -- the mixin ---------------------------------------------------------------------------------------------------


def test_a_saved_text_is_embedded_once_and_again_when_it_changes(used):
    """Saving without a change of the text costs nothing."""
    note = Note.objects.create(title="Tea", body="green")
    texts = used.embedders["embed_queue"].texts
    assert texts == ["Tea\n\ngreen"]
    assert used.redis.hexists(f"notes.note:{note.pk}", "embedding")
    note.seen = 1
    note.save()
    again = Note.objects.get(pk=note.pk)
    again.seen = 2
    again.save()
    again.body = "black"
    again.save(update_fields=["seen"])
    assert len(texts) == 1
    again.save()
    assert texts[1:] == ["Tea\n\nblack"]
    note.refresh_from_db()
    note.save()
    assert len(texts) == 2


def test_a_rollback_leaves_the_text_new(used):
    """The object in memory must not believe that the queue has its text."""
    note = Note(body="first")
    with pytest.raises(RuntimeError), transaction.atomic():
        note.save()
        raise RuntimeError
    assert used.redis.keys("notes.note:*") == []
    note.save(force_insert=True)
    assert used.redis.hexists(f"notes.note:{note.pk}", "embedding")


def test_deferred_fields_are_not_fetched(used):
    """The mixin adds no query."""
    Note.objects.create(body="long")
    note = Note.objects.defer("body").get()
    assert "body" in note.get_deferred_fields()


def test_a_deleted_instance_leaves_nothing(used):
    """Neither by delete() nor by a queryset's delete."""
    first, second = Note.objects.create(body="a"), Note.objects.create(body="b")
    assert len(used.redis.keys("notes.note:*")) == 2
    first.delete()
    Note.objects.filter(pk=second.pk).delete()
    assert used.redis.keys("notes.note:*") == []


def test_backfill_finds_what_bulk_operations_left_out(used):
    """And nothing twice; safely repeated."""
    Note.objects.create(body="known")
    Note.objects.bulk_create([Note(body=f"text {n}") for n in range(3)] + [Note(body=" ")])
    assert "notes.Note: 3\n3 enqueued" in _run("backfill")
    assert "0 enqueued" in _run("backfill", "notes.Note")
    used.redis.hset(f"notes.note:{Note.objects.first().pk}", "embedding", b"short")
    assert "1 enqueued" in _run("backfill")
    assert "4 enqueued" in _run("backfill", "--all", "--wait")
    with pytest.raises(CommandError, match=r"there are notes\.note"):
        _run("backfill", "notes.Nothing")


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
        assert "embedqueue.E004) openai refuses" in told and 'EMBEDQUEUE["MODEL"]' in told and "hunter2" not in told


def test_commands(real_settings, redis_client):
    """Stats, flush, worker and check."""
    from django.conf import settings

    assert _run("check") == "All is well.\n"
    with override_settings(EMBEDQUEUE={**settings.EMBEDQUEUE, "WORKER": False}):
        queue.enqueue("note:1", "a")
        assert "waiting    1" in _run("stats")
        _run("worker", "--burst")
        assert json.loads(_run("stats", "--json"))["waiting"] == 0
        queue.enqueue("note:2", "b")
        _run("flush")
    assert redis_client.hexists("note:1", "embedding") and redis_client.hexists("note:2", "embedding")
    with override_settings(EMBEDQUEUE={"PROVIDER": "gemini"}), pytest.raises(CommandError, match="no API key"):
        _run("worker")


# -- the admin ---------------------------------------------------------------------------------------------------

PAGE = "/admin/embedqueue/queue/"


class Picky:
    """Refuses what is bad."""

    dimensions = 4

    def embed_batch(self, texts, model):
        """See Embedder."""
        if any("bad" in text for text in texts):
            raise InputRejected("refused <here>")
        return [[1.0, 0.0, 0.0, 0.0] for _ in texts]


@pytest.fixture
def dead_letters():
    """A good item and two dead ones."""
    with eager(Picky()) as found:
        queue.enqueue("note:0", "good")
        queue.enqueue("note:1", "bad <script>alert(1)</script>")
        queue.enqueue("note:2", "bad too")
        yield found


def _client(*permissions: str) -> Client:
    user = User.objects.create_user("u", is_staff=True, is_superuser=not permissions)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


def test_the_page_shows_the_queue_and_its_dead_letters(dead_letters):
    """Numbers, reasons and texts, escaped."""
    page = _client().get(PAGE).content.decode()
    assert "<strong>2</strong> dead" in page
    assert "note:1" in page and "refused &lt;here&gt;" in page
    assert "&lt;script&gt;alert" in page and "<script>alert" not in page


def test_dead_letters_are_put_back_and_discarded(dead_letters):
    """The chosen ones, or all."""
    client = _client()
    told = client.post(PAGE, {"queue": "default", "action": "discard", "key": ["note:2"]}, follow=True)
    assert "1 discarded." in told.content.decode()
    assert [letter.redis_key for letter in queue.dead_letters()] == ["note:1"]
    told = client.post(PAGE, {"queue": "default", "action": "retry", "scope": "all"}, follow=True)
    assert "1 put back into the queue." in told.content.decode()
    told = client.post(PAGE, {"queue": "default", "action": "retry"}, follow=True)
    assert "No dead letter was chosen." in told.content.decode()


def test_looking_and_acting_are_permissions(dead_letters):
    """Who may only view gets no buttons and cannot act; strangers get nothing."""
    client = _client("view_queue")
    page = client.get(PAGE).content.decode()
    assert "note:1" in page and "Discard" not in page
    assert client.post(PAGE, {"queue": "default", "action": "discard", "scope": "all"}).status_code == 403
    assert len(queue.dead_letters()) == 2
    assert Client().get(PAGE).status_code == 302
    User.objects.all().delete()
    assert _client("add_user").get(PAGE).status_code == 403


def test_acting_needs_the_csrf_token(dead_letters):
    """A form on another site cannot drop anything."""
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create_superuser("root"))
    assert client.post(PAGE, {"queue": "default", "action": "discard", "scope": "all"}).status_code == 403
    assert len(queue.dead_letters()) == 2


def test_the_page_says_when_redis_is_gone(tmp_path):
    """The admin does not break with the queue."""
    with override_settings(EMBEDQUEUE={"REDIS_URL": f"unix://{tmp_path}/no", "PROVIDER": "local"}):
        page = _client().get(PAGE)
    assert page.status_code == 200
    assert "start it, or set EMBEDQUEUE[&quot;REDIS_URL&quot;]." in page.content.decode()
    with override_settings(EMBEDQUEUE={"REDIS_URLL": "x"}):
        User.objects.all().delete()
        assert "did you mean" in _client().get(PAGE).content.decode()


def test_the_index_of_the_admin_leads_to_the_page(dead_letters):
    """And models have no table of ours: makemigrations finds nothing to do."""
    assert PAGE in _client().get("/admin/").content.decode()
    call_command("makemigrations", "embedqueue", check=True, dry_run=True, verbosity=0)


def test_the_docs_help_for_tests_works_as_it_is_written():
    """The last block of docs/django.md is a test case: it passes."""
    page = (Path(__file__).parents[2] / "docs" / "django.md").read_text("utf-8")
    names: dict[str, object] = {"__name__": __name__, "Note": Note}
    exec(re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)[-1], names)
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(names["NoteTest"]).run(result)
    assert (result.testsRun, result.errors, result.failures) == (1, [], [])
