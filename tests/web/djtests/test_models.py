"""Models whose text follows them into the queue, and the backfill of what no signal told of."""

from __future__ import annotations

import contextlib
import json

import pytest
import redis
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.core.management.base import SystemCheckError
from django.db import connection, models, transaction
from django.db.models import Value
from django.db.models.functions import Concat
from django.db.models.signals import post_delete, post_save
from django.test import override_settings
from django.test.utils import isolate_apps

from embedqueue.contrib.django import enqueue_on_commit, queues
from embedqueue.contrib.django.models import EmbeddedText, check_model, deleted, saved
from tests.web.djsite.notes.models import Note, NoteProxy


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


def test_what_was_read_again_before_a_rollback_is_new(used):
    """It was there for a moment only: the queue has not got it."""
    note = Note.objects.create(body="first")
    with pytest.raises(RuntimeError), transaction.atomic():
        note.body = "second"
        note.save()
        note.refresh_from_db()
        raise RuntimeError
    note.body = "second"
    note.save()
    assert used.embedders["embed_queue"].texts == ["first", "second"]


def test_what_others_have_changed_is_not_known_when_it_is_read_again_before_a_commit(used):
    """Nobody has told the queue of it."""
    note = Note.objects.create(title="one", body="first")
    with transaction.atomic():
        note.body = "second"
        note.save(update_fields=["body"])
        Note.objects.filter(pk=note.pk).update(title="two")
        note.refresh_from_db()
        note.body = "third"
        note.save(update_fields=["body"])
    note.title = "one"
    note.save()
    assert used.embedders["embed_queue"].texts[-2:] == ["two\n\nthird", "one\n\nthird"]


def test_what_was_read_again_before_a_commit_is_known(used):
    note = Note.objects.create(body="first")
    with transaction.atomic():
        note.body = "second"
        note.save()
        note.refresh_from_db()
    note.save()
    note.refresh_from_db()
    note.save()
    assert used.embedders["embed_queue"].texts == ["first", "second"]


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


def test_an_emptied_text_leaves_no_vector(used):
    """A note without words must not be found by what it said before."""
    note = Note.objects.create(body="a secret")
    note.body = " "
    note.save()
    assert used.redis.keys("notes.note:*") == []
    note.body = "back"
    note.save()
    assert used.redis.hexists(note.embed_key(), "embedding")


def test_a_text_that_comes_back_before_the_commit_is_the_one_that_stays(used):
    """Changed and changed back in one transaction: the vector is the row's, not the one in between."""
    note = Note.objects.create(body="first")
    with transaction.atomic():
        for body in ("between", "first"):
            note.body = body
            note.save()
    assert used.embedders["embed_queue"].texts[-1] == "first"


def test_fetching_one_field_forgets_no_other(used):
    """A deferred field that is read, or a refresh of one field, comes between a change and its save."""
    made = Note.objects.create(title="Tea", body="green")
    note = Note.objects.defer("body").get(pk=made.pk)
    note.title = "Coffee"
    assert note.body == "green"  # fetched now
    note.save()
    assert used.embedders["embed_queue"].texts[-1] == "Coffee\n\ngreen"
    note.title = "Cocoa"
    note.refresh_from_db(fields=["body"])
    note.save()
    assert used.embedders["embed_queue"].texts[-1] == "Cocoa\n\ngreen"


def test_what_is_embedded_is_what_stands_in_the_database(used):
    """update_fields leaves a change behind, and an expression is known only there."""
    note = Note.objects.create(title="Tea", body="green")
    texts = used.embedders["embed_queue"].texts
    note.title, note.body = "Coffee", "black"
    note.save(update_fields=["title"])
    assert texts[-1] == "Coffee\n\ngreen"
    note.save()
    assert texts[-1] == "Coffee\n\nblack"
    note.body = Concat("body", Value(" and strong"))
    note.save(update_fields=["body"])
    assert texts[-1] == "Coffee\n\nblack and strong"
    assert len(texts) == 4


def test_a_proxy_has_the_vector_of_its_rows_model(used):
    """The same row is one hash, by whichever class it is saved."""
    note = Note.objects.create(body="green")
    proxy = NoteProxy.objects.get(pk=note.pk)
    proxy.body = "black"
    proxy.save()
    assert used.redis.keys("notes.*") == [note.embed_key().encode()]
    proxy.delete()
    assert used.redis.keys("notes.*") == []


def test_another_database_has_its_own_transactions(used, run):
    """The signal waits for the commit of the database in which the instance is saved."""
    with transaction.atomic(using="other"):
        with transaction.atomic():
            note = Note.objects.using("other").create(body="there")
        assert not used.redis.exists(note.embed_key())
    key = note.embed_key()
    assert used.redis.exists(key)
    with pytest.raises(RuntimeError), transaction.atomic(using="other"):
        note.delete()
        raise RuntimeError
    assert used.redis.exists(key)
    Note.objects.using("other").bulk_create([Note(body="two")])
    assert "0 enqueued" in run("backfill")
    assert "1 enqueued" in run("backfill", "--database", "other")


@pytest.mark.parametrize("robust", [False, True])
def test_redis_is_gone_when_an_instance_is_deleted(monkeypatch, tmp_path, robust, caplog):
    """Nothing but the log can tell whose vector is left."""
    [note] = Note.objects.bulk_create([Note(body="a secret")])
    redis_key = note.embed_key()
    monkeypatch.setattr(Note, "embed_robust", robust)
    with override_settings(EMBEDQUEUE={"REDIS_URL": f"unix://{tmp_path}/no", "PROVIDER": "local"}):
        with contextlib.nullcontext() if robust else pytest.raises(redis.ConnectionError):
            note.delete()
    assert f"a vector was to go and is left, of {redis_key}: queue.forget" in caplog.text


@pytest.mark.parametrize("robust", [False, True])
def test_redis_is_gone_when_an_instance_is_saved(monkeypatch, tmp_path, robust, caplog):
    """The row is there either way; whether the caller hears of it is the model's choice."""
    monkeypatch.setattr(Note, "embed_robust", robust)
    with override_settings(EMBEDQUEUE={"REDIS_URL": f"unix://{tmp_path}/no", "PROVIDER": "local"}):
        if robust:
            note = Note.objects.create(body="x")
            note.delete()
            assert "EMBEDQUEUE" in caplog.text
        else:
            with pytest.raises(redis.ConnectionError):
                Note.objects.create(body="x")
            assert Note.objects.count() == 1


def test_a_text_that_no_queue_takes_ends_the_save(used, monkeypatch):
    """While it can still be undone: after the commit, the hooks behind it would be lost as well."""
    queues.settings("default").options["max_text_chars"] = 9
    with pytest.raises(ValueError, match="more than max_text_chars"), transaction.atomic():
        Note.objects.create(body="much too long")
    assert Note.objects.count() == 0
    with transaction.atomic():
        Note.objects.create(body="short")
    assert used.embedders["embed_queue"].texts == ["short"]
    with pytest.raises(ValueError):
        enqueue_on_commit("doc:1", "\ud83d")


def test_a_text_waits_for_the_database_to_which_it_would_be_saved(used):
    """Not for the replica from which it was read."""

    class Replicas:
        def db_for_read(self, model, **hints):
            return "other"

        def db_for_write(self, model, **hints):
            return "default"

    Note.objects.using("other").bulk_create([Note(pk=1, body="read")])
    with override_settings(DATABASE_ROUTERS=[Replicas()]):
        note = Note.objects.get(pk=1)
        with pytest.raises(RuntimeError), transaction.atomic():
            note.enqueue_text()
            raise RuntimeError
    assert used.embedders == {} or used.embedders["embed_queue"].texts == []


def test_a_class_that_has_the_number_of_another_is_left_alone():
    """Django knows the senders of signals by numbers, which are given again."""
    saved(User, User(), created=True, using="default", update_fields=None)
    deleted(User, User(), using="default")


def test_no_other_model_is_followed():
    """Where somebody hears of each row that goes, Django loads it first: of all models, or of ours alone."""
    for signal in (post_save, post_delete):
        assert not signal.has_listeners(User)
        assert signal.has_listeners(Note) and signal.has_listeners(NoteProxy)


def test_a_fixture_is_loaded_before_its_texts_are_made(used, monkeypatch, tmp_path, caplog):
    """They may be made of rows that come later in it. One that no queue takes holds up no other."""
    queues.settings("default").options["max_text_chars"] = 20
    monkeypatch.setattr(Note, "embed_text", lambda self: f"{self.body} {Note.objects.get(pk=2).body}")
    rows = [{"model": "notes.note", "pk": pk, "fields": {"body": f"text {pk}"}} for pk in (1, 2)]
    path = tmp_path / "notes.json"
    path.write_text(json.dumps(rows))
    call_command("loaddata", path, verbosity=0)
    assert used.embedders["embed_queue"].texts == ["text 1 text 2", "text 2 text 2"]
    monkeypatch.setattr(Note, "embed_text", lambda self: self.body)
    rows[0]["fields"]["body"], rows[1]["fields"]["body"] = "much too long" * 2, "new"
    path.write_text(json.dumps(rows))
    call_command("loaddata", path, verbosity=0)
    assert used.embedders["embed_queue"].texts[2:] == ["new"]
    assert "notes.note:1 is loaded and not enqueued" in caplog.text


def test_a_row_of_two_models_has_two_keys_and_a_warning():
    """Of a child of another model with texts; not where it says itself what its key is."""
    with isolate_apps("tests.web.djsite.notes"):

        class Essay(Note):
            class Meta:
                app_label = "notes"

        class Poem(Note):
            def embed_key(self):
                return f"notes.note:{self.pk}"

            class Meta:
                app_label = "notes"

        assert [problem.id for problem in check_model(Essay)] == ["embedqueue.W002"]
        assert [*check_model(Poem), *check_model(NoteProxy)] == []


def test_checks_know_the_models(monkeypatch):
    """A field or a queue that is none is told by `manage.py check`, not by a failing save."""
    monkeypatch.setattr(Note, "embed_fields", ("title", "boddy"))
    monkeypatch.setattr(Note, "embed_queue", "images")
    with override_settings(EMBEDQUEUE={"PROVIDER": "local"}), pytest.raises(SystemCheckError) as caught:
        call_command("check")
    assert "(embedqueue.E005) embed_fields names 'boddy', which is no column" in str(caught.value)
    assert "(embedqueue.E006) embed_queue is 'images'\n\tHINT: There are: default." in str(caught.value)


def test_what_reads_every_model_finds_no_rows_of_ours(capsys):
    """The admin's stand-in has no table: `dumpdata` must not ask for it."""
    call_command("dumpdata", "--all")
    assert "embedqueue.queue" not in {row["model"] for row in json.loads(capsys.readouterr().out)}


def test_backfill_finds_what_bulk_operations_left_out(used, run):
    """And nothing twice; safely repeated."""
    Note.objects.create(body="known")
    Note.objects.bulk_create([Note(body=f"text {n}") for n in range(3)] + [Note(body=" ")])
    assert run("backfill").startswith("notes.Note: 3 enqueued, 1 left as they are\n")
    assert "0 enqueued" in run("backfill", "notes.Note")
    used.redis.hset(f"notes.note:{Note.objects.first().pk}", "embedding", b"short")
    assert "1 enqueued" in run("backfill")
    assert "4 enqueued" in run("backfill", "--all", "--wait")
    with pytest.raises(CommandError, match=r"there are notes\.note"):
        run("backfill", "notes.Nothing")
    with pytest.raises(CommandError, match="there is no queue 'images'"):
        run("backfill", "--queue", "images")


class Letter(EmbeddedText):
    """A text that depends on whose it is. Of no installed app, so that no other test meets it."""

    text = models.TextField()
    seen = models.IntegerField(default=0)
    author = models.ForeignKey(User, models.DO_NOTHING, null=True, related_name="+", db_constraint=False)
    embed_fields = ("text", "author")

    class Meta:
        app_label = "letters"

    def embed_text(self) -> str:
        return f"{self.text} by {self.author_id}"


@pytest.fixture
def letters():
    with connection.schema_editor() as editor:
        editor.create_model(Letter)
    yield
    with connection.schema_editor() as editor:
        editor.delete_model(Letter)


def test_a_foreign_key_counts_by_its_column_as_well(used, letters):
    """Which is how Django names what is loaded of an instance with deferred fields, and may be how its user does."""
    Letter.objects.create(text="Dear", author_id=1)
    texts = used.embedders["embed_queue"].texts
    deferred = Letter.objects.defer("seen").get()
    deferred.author_id = 2
    deferred.save()
    deferred.author_id = 3
    deferred.save(update_fields=["author_id"])
    fetched = Letter.objects.defer("author").get()
    assert fetched.author_id == 3
    fetched.save()
    assert texts == ["Dear by 1", "Dear by 2", "Dear by 3"]
