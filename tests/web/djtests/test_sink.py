"""``PgVectorSink``: on a real Postgres with pgvector, and on SQLite for what is not pgvector's."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from django.db import connection, connections, models, transaction
from django.test import override_settings

from embedqueue import ConfigurationError, EmbeddingBatchQueue, SinkRow, Sinks, TransientError
from embedqueue.contrib.django import PgVectorSink, queue, queues
from embedqueue.contrib.django.checks import check_settings
from embedqueue.contrib.django.models import EmbeddedText
from embedqueue.contrib.django.testing import eager
from embedqueue.testing import FakeEmbedder
from embedqueue.values.provenance import digest
from tests.parts import PATIENCE_SECONDS, eventually, join

pgvector = pytest.importorskip("pgvector.django", reason="pgvector is not installed: pip install pgvector")
SPACE = "some-model/3/-"


class Page(EmbeddedText):
    """Vectors in a column of pgvector's. Of no installed app, so that no other test meets it."""

    text = models.TextField()
    title = models.TextField(default="")
    embedding = pgvector.VectorField(dimensions=3, null=True, editable=False)
    embedding_stamp = models.BigIntegerField(null=True, editable=False)
    embedding_of = models.TextField(null=True, editable=False)
    embed_written = ("embedding", "embedding_stamp", "embedding_of")

    class Meta:
        app_label = "vectors"


class Slip(EmbeddedText):
    """The same where there is no pgvector, with a key of its own and without provenance."""

    slug = models.SlugField(unique=True)
    text = models.TextField()
    title = models.TextField(default="")
    embedding = models.JSONField(null=True)
    embedding_stamp = models.BigIntegerField(null=True)
    embed_written = ("embedding", "embedding_stamp")

    class Meta:
        app_label = "vectors"

    def embed_key(self) -> str:
        return f"slip:{self.slug}"


def _row(key: str, vector: list[float], stamp: int, text: str = "x") -> SinkRow:
    return SinkRow(key, np.asarray(vector, np.float32), stamp, SPACE, digest(text))


@contextlib.contextmanager
def _table(model: type[models.Model], alias: str) -> Iterator[None]:
    with connections[alias].schema_editor() as editor:
        editor.create_model(model)
    try:
        yield
    finally:
        with connections[alias].schema_editor() as editor:
            editor.delete_model(model)


@pytest.fixture
def postgres(postgres_url):
    """The alias of a database on a real Postgres."""
    import psycopg.conninfo

    facts = psycopg.conninfo.conninfo_to_dict(postgres_url)
    given = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": facts["dbname"],
        "USER": facts["user"],
        "HOST": facts["host"],
    }
    connections.settings["pg"] = connections.configure_settings({"default": {}, "pg": given})["pg"]
    yield "pg"
    connections["pg"].close()
    del connections["pg"]
    del connections.settings["pg"]


@pytest.fixture(params=["postgres", "sqlite"])
def place(request):
    """A sink, its model and its database."""
    if request.param == "postgres":
        alias = request.getfixturevalue("postgres")
        sink = PgVectorSink(Page, "embedding", using=alias)
        with _table(Page, alias):
            yield sink, Page, alias, lambda number: Page.objects.using(alias).create(pk=number, text="x")
    else:
        sink = PgVectorSink(Slip, "embedding", prefix="slip:", by="slug")
        with _table(Slip, "default"):
            yield sink, Slip, "default", lambda number: Slip.objects.create(slug=number, text="x")


def _key(model: type[models.Model], number: int) -> str:
    return f"vectors.page:{number}" if model is Page else f"slip:{number}"


def _now(instance: models.Model, alias: str) -> tuple[list[float] | None, int | None]:
    instance = type(instance)._base_manager.using(alias).get(pk=instance.pk)
    return None if instance.embedding is None else [float(x) for x in instance.embedding], instance.embedding_stamp


def test_rows_are_written_in_one_statement(place):
    """Many rows; those that are not there, and those of other models, are left out."""
    sink, model, alias, make = place
    with eager():
        made = [make(i) for i in range(1, 6)]
    rows = [_row(_key(model, i), [i, 0, 1], 100 + i) for i in (1, 2, 3, 99)]
    with _counted(alias) as statements:
        sink.write([*rows, _row("other.model:1", [9, 9, 9], 500), _row(_key(model, "no-number!"), [9, 9, 9], 500)])
    assert len(statements) == 1
    assert [_now(one, alias) for one in made] == [
        *(([float(i), 0.0, 1.0], 100 + i) for i in (1, 2, 3)),
        (None, None),
        (None, None),
    ]
    if model is Page:
        assert Page.objects.using(alias).get(pk=1).embedding_of == f"{SPACE} {digest('x')} 101"


@contextlib.contextmanager
def _counted(alias: str) -> Iterator[list[str]]:
    seen: list[str] = []

    def note(execute, sql, params, many, context):
        seen.append(sql)
        return execute(sql, params, many, context)

    with connections[alias].execute_wrapper(note):
        yield seen


def test_fenced_by_the_stamp(place):
    """An older text's vector never overwrites a newer one's; the same one again may."""
    sink, model, alias, make = place
    with eager():
        one = make(1)
    key = _key(model, 1)
    for stamp, vector, left in ((200, [2, 2, 2], 200), (100, [1, 1, 1], 200), (200, [3, 3, 3], 200)):
        sink.write([_row(key, vector, stamp)])
        assert _now(one, alias)[1] == left
    assert _now(one, alias)[0] == [3, 3, 3]


def test_remove_is_fenced_as_well(place):
    """What is newer stays, and what is older does not come back."""
    sink, model, alias, make = place
    with eager():
        one = make(1)
    key = _key(model, 1)
    sink.write([_row(key, [1, 1, 1], 100)])
    sink.remove([key, "other.model:1"], 100)
    assert _now(one, alias) == ([1, 1, 1], 100)
    sink.remove([key], 150)
    assert _now(one, alias) == (None, 150)
    sink.write([_row(key, [1, 1, 1], 149)])
    assert _now(one, alias) == (None, 150)
    sink.write([_row(key, [2, 2, 2], 151)])
    assert _now(one, alias) == ([2, 2, 2], 151)


def test_what_rows_have_is_told(place):
    """Of rows that are there; of Page, what their vectors are of."""
    sink, model, alias, make = place
    with eager():
        make(1), make(2)
    sink.write([_row(_key(model, 1), [1, 2, 3], 100, "text")])
    found = sink.read([_key(model, 1), _key(model, 2), _key(model, 3), "other.model:1"])
    assert set(found) == {_key(model, 1), _key(model, 2)}
    assert found[_key(model, 2)] is None
    row = found[_key(model, 1)]
    assert (row.vector.tolist(), row.vector.dtype, row.stamp) == ([1, 2, 3], np.float32, 100)
    assert (row.space, row.digest) == ((SPACE, digest("text")) if model is Page else ("", ""))


def test_a_backfill_reads_rows_and_vectors_on_one_connection(postgres, run, redis_client, redis_server):
    """What was written in bulk has no vectors in the table, and gets them; a second time, there is nothing to do."""
    sink = PgVectorSink(Page, "embedding", using=postgres)
    embedder = FakeEmbedder(3)
    own = {"SINK": sink, "EMBEDDER": embedder, "REDIS_URL": redis_server.url, "IF_MISSING": "skip", "WORKER": False}
    with _table(Page, postgres), override_settings(EMBEDQUEUE=own):
        Page.objects.using(postgres).bulk_create(Page(pk=i, text=f"text {i}") for i in range(1200))
        look = queues.look()
        pages = Page.objects.using(postgres).order_by("pk").iterator(chunk_size=100)
        found = look.verify(((page.embed_key(), page.embed_text()) for page in pages), fix=True)
        assert (found.missing, found.fixed) == (1200, 1200)
        run("worker", "--burst")
        pages = Page.objects.using(postgres).order_by("pk").iterator(chunk_size=100)
        assert look.verify((page.embed_key(), page.embed_text()) for page in pages).faults == 0
        assert len(embedder.texts) == 1200
        assert not redis_client.exists("vectors.page:1")


def test_saving_leaves_the_vector_alone(place):
    """An instance that was made, or loaded, before the vector came does not write over it; unless it is told to."""
    sink, model, alias, make = place
    with eager():
        made = make(1)
        loaded = model._base_manager.using(alias).get(pk=made.pk)
        sink.write([_row(_key(model, 1), [1, 1, 1], 100)])
        for instance in (made, loaded):
            instance.title = "new"
            instance.save(using=alias)
            assert _now(made, alias) == ([1, 1, 1], 100)
        assert model._base_manager.using(alias).get(pk=made.pk).title == "new"
        loaded.embedding = None
        loaded.save(using=alias, update_fields=["embedding"])
    assert _now(made, alias) == (None, 100)


@pytest.mark.parametrize("deferred", ["title", "embedding"])
def test_saving_an_instance_with_deferred_fields_leaves_the_vector_alone(place, deferred):
    """Django names the fields of such a one that are loaded by itself; that is no wish of who saves it."""
    sink, model, alias, make = place
    with eager():
        made = make(1)
        loaded = model.objects.using(alias).defer(deferred).get(pk=made.pk)
        sink.write([_row(_key(model, 1), [1, 2, 3], 100)])
        loaded.text = "new"
        loaded.save(using=alias)
        assert _now(made, alias) == ([1.0, 2.0, 3.0], 100)
        assert model.objects.using(alias).get(pk=made.pk).text == "new"
        only = model.objects.using(alias).only("embedding_stamp").get(pk=made.pk)
        only.embedding_stamp = 7
        only.save(using=alias, update_fields=["embedding_stamp"])
    assert _now(made, alias) == ([1.0, 2.0, 3.0], 7)


def test_two_writers_at_once(postgres):
    """Of two that write the same rows side by side, the newer one's stand in the end, whoever is first."""
    sink = PgVectorSink(Page, "embedding", using=postgres)
    with _table(Page, postgres):
        Page.objects.using(postgres).bulk_create(Page(pk=i, text="x") for i in range(200))
        barrier, errors = threading.Barrier(4), []

        def write(stamp: int, order: int) -> None:
            rows = [_row(f"vectors.page:{i}", [stamp, 0, 0], stamp) for i in range(200)][::order]
            barrier.wait(PATIENCE_SECONDS)
            for _ in range(20):
                try:
                    sink.write(rows)
                    break
                except TransientError as error:  # a deadlock, which the queue would try again
                    errors.append(error)
            connections[postgres].close()

        threads = [threading.Thread(target=write, args=(stamp, 1 if stamp % 2 else -1)) for stamp in (1, 2, 3, 4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive()
        assert set(Page.objects.using(postgres).values_list("embedding_stamp", flat=True)) == {4}


def test_from_the_queue_to_postgres(postgres, make_queue, redis_client):
    """A real queue: the vector stands in the row when the future ends, and pgvector finds it."""
    from pgvector.django import CosineDistance

    embedder = FakeEmbedder(3)
    sink = PgVectorSink(Page, "embedding", using=postgres)
    with _table(Page, postgres):
        Page.objects.using(postgres).bulk_create(Page(pk=i, text=f"text {i}") for i in range(30))
        queue = make_queue(sink=sink, embedder=embedder)
        futures = queue.enqueue_many((f"vectors.page:{i}", f"text {i}") for i in range(30))
        for future in futures:
            future.result(PATIENCE_SECONDS)
        near = Page.objects.using(postgres).order_by(CosineDistance("embedding", embedder.vector_of("text 7").tolist()))
        assert near.first().pk == 7
        hashed = redis_client.hget("vectors.page:7", "embedding_of").decode()
        assert Page.objects.using(postgres).get(pk=7).embedding_of == hashed
        queue.forget("vectors.page:7", vector=True)
        assert Page.objects.using(postgres).get(pk=7).embedding is None
        queue.stop()


def test_a_connection_that_was_cut(postgres, postgres_url):
    """The database drops our connection between two writes: the next try has a new one."""
    import psycopg

    sink = PgVectorSink(Page, "embedding", using=postgres)
    with _table(Page, postgres):
        Page.objects.using(postgres).bulk_create(Page(pk=i, text="x") for i in range(2))
        connections[postgres].close()
        connections.settings[postgres]["CONN_MAX_AGE"] = None
        told: list[str] = []

        def call() -> None:
            sink.write([_row("vectors.page:0", [0, 0, 1], 1)])
            with psycopg.connect(postgres_url, autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
            try:
                sink.write([_row("vectors.page:1", [0, 0, 1], 1)])
            except TransientError as error:
                told.append(str(error))
            sink.write([_row("vectors.page:1", [0, 0, 1], 1)])
            connections[postgres].close()

        thread = threading.Thread(target=call, name="embedqueue-call-test")  # as a queue names its own
        thread.start()
        join(thread)
        assert told
        assert Page.objects.using(postgres).get(pk=1).embedding_stamp == 1


def test_no_connection_is_left_open(postgres, make_queue):
    """As after a request, a connection of a call's thread is closed where the project keeps none (CONN_MAX_AGE)."""
    sink = PgVectorSink(Page, "embedding", using=postgres)
    with _table(Page, postgres):
        Page.objects.using(postgres).bulk_create([Page(pk=1, text="x")])
        queue = make_queue(sink=sink, embedder=FakeEmbedder(3))
        queue.enqueue("vectors.page:1", "one").result(PATIENCE_SECONDS)
        with connections[postgres].cursor() as cursor:

            def others() -> int:
                ours = "backend_type = 'client backend' AND pid <> pg_backend_pid()"
                cursor.execute(f"SELECT count(*) FROM pg_stat_activity WHERE {ours}")
                return cursor.fetchone()[0]

            eventually(lambda: others() == 0, "all others are closed")


def test_what_is_wrong_is_said(postgres, monkeypatch):
    """A table that is missing, a column that is narrower, a database that is away."""
    sink = PgVectorSink(Page, "embedding", using=postgres)
    with pytest.raises(ConfigurationError, match="does not exist"):
        sink.write([_row("vectors.page:1", [1, 2, 3], 1)])
    with _table(Page, postgres):
        with pytest.raises(ConfigurationError, match="holds vectors of 3 numbers, and the model gives 2"):
            sink.write([_row("vectors.page:1", [1, 2], 1)])
    connections[postgres].close()
    monkeypatch.setitem(connections.settings[postgres], "HOST", "/nowhere")
    del connections[postgres]
    with pytest.raises(TransientError, match="the database failed"):
        sink.write([_row("vectors.page:1", [1, 2, 3], 1)])
    with pytest.raises(ConfigurationError, match="No installed app"):
        PgVectorSink("nowhere.Model", "embedding").write([_row("nowhere.model:1", [1], 1)])


def test_a_fault_breaks_no_transaction_of_the_application():
    """An eager queue writes in the test's own transaction, which goes on."""
    sink = PgVectorSink(Slip, "embedding", prefix="slip:", by="slug")
    with transaction.atomic():
        with pytest.raises((ConfigurationError, TransientError)):
            sink.write([_row("slip:1", [1], 1)])  # there is no table
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")


def test_checks():
    """``manage.py check`` says what would fail later."""

    class Bare(EmbeddedText):
        text = models.TextField()
        vector = models.JSONField()
        vector_stamp = models.BigIntegerField(null=True)

        class Meta:
            app_label = "vectors"

    def told(sink) -> str:
        with override_settings(EMBEDQUEUE={"SINK": sink, "PROVIDER": "local"}):
            return " ".join(fault.msg for fault in check_settings(None) if fault.id == "embedqueue.E007")

    assert told(PgVectorSink(Page, "embedding")) == ""
    words = told(Sinks(PgVectorSink(Page, "embedding"), PgVectorSink(Bare, "vector", by="text")))
    assert "vector must have null=True" in words
    assert "text is not unique" in words
    assert "name vector_stamp in embed_written" in words
    assert "has no field named 'nothing'" in told(PgVectorSink(Bare, "nothing"))
    assert "No installed app" in told(PgVectorSink("no.Such", "vector"))


def test_a_project_with_a_sink():
    """From ``save()`` to the row, by settings, and back out when the text is emptied; in eager tests."""
    sink = PgVectorSink(Slip, "embedding", prefix="slip:", by="slug")
    with override_settings(EMBEDQUEUE={"SINK": sink, "PROVIDER": "local"}), _table(Slip, "default"), eager():
        slip = Slip.objects.create(slug="a", text="hello")
        assert _now(slip, "default")[0] == pytest.approx(queue.enqueue("other", "hello").result(0))
        slip.text = ""
        slip.save()
        assert _now(slip, "default")[0] is None
        assert isinstance(queues["default"], EmbeddingBatchQueue)
