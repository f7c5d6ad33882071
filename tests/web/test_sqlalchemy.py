"""Texts of SQLAlchemy's models go into the queue after the commit, and only then."""

from __future__ import annotations

import logging
import signal
import threading
from typing import Any

import pytest
import redis

from embedqueue import EmbeddingBatchQueue, QueueFull
from embedqueue.testing import FakeEmbedder, eager_queue
from tests.parts import in_thread, join

sqlalchemy = pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed: pip install embedqueue[sqlalchemy]")

from sqlalchemy import ForeignKey, create_engine, delete, event, func, select, text, update  # noqa: E402
from sqlalchemy.orm import (  # noqa: E402
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    relationship,
    scoped_session,
    sessionmaker,
)

from embedqueue.contrib.sqlalchemy import EmbeddedText, embedded_texts, enqueue_on_commit, follow  # noqa: E402


class Base(DeclarativeBase):
    pass


class Note(EmbeddedText, Base):
    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(default="")
    body: Mapped[str] = mapped_column(default="")
    seen: Mapped[int] = mapped_column(default=0)
    tags: Mapped[list[Tag]] = relationship(back_populates="note", cascade="all, delete-orphan")
    embed_fields = ("title", "body")


class Tag(Base):
    __tablename__ = "tag"
    id: Mapped[int] = mapped_column(primary_key=True)
    note_id: Mapped[int] = mapped_column(ForeignKey("note.id"))
    note: Mapped[Note] = relationship(back_populates="tags")
    word: Mapped[str]


class Shelf(Base):
    __tablename__ = "shelf"
    id: Mapped[int] = mapped_column(primary_key=True)
    books: Mapped[list[Book]] = relationship(cascade="all, delete-orphan")


class Book(EmbeddedText, Base):
    """It goes when it is taken off its shelf."""

    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)
    shelf_id: Mapped[int] = mapped_column(ForeignKey("shelf.id"))
    text: Mapped[str]


class Page(Base):
    __tablename__ = "page"
    id: Mapped[int] = mapped_column(primary_key=True)
    parts: Mapped[list[Part]] = relationship(back_populates="page", cascade="all, delete-orphan")


class Part(EmbeddedText, Base):
    """Its key is made of its page."""

    __tablename__ = "part"
    id: Mapped[int] = mapped_column(primary_key=True)
    page_id: Mapped[int] = mapped_column(ForeignKey("page.id"))
    text: Mapped[str]
    page: Mapped[Page] = relationship(back_populates="parts")
    embed_fields = ("text",)

    def embed_key(self):
        return f"part:{self.page.id}:{self.id}"


class Pair(EmbeddedText, Base):
    """A key of two columns, and a queue of its own."""

    __tablename__ = "pair"
    left: Mapped[int] = mapped_column(primary_key=True)
    right: Mapped[str] = mapped_column(primary_key=True)
    text: Mapped[str]
    embed_queue = "pairs"


@pytest.fixture
def engine(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path}/notes.db")

    # What SQLAlchemy's documentation says that savepoints of sqlite3 need.
    @event.listens_for(engine, "connect")
    def connect(connection: Any, record: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")

    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


class Watched:
    """A queue that is finished at once, and what was sent to its embedder."""

    def __init__(self, client: redis.Redis, **options: Any) -> None:
        self.embedder = FakeEmbedder()
        self.queue = eager_queue(self.embedder, client, **options)
        self.redis = client

    @property
    def sent(self) -> list[str]:
        return self.embedder.texts

    def has(self, key: str, of: str) -> bool:
        return self.redis.hget(key, "embedding") == self.embedder.bytes_of(of)


@pytest.fixture
def watched(fake_redis):
    found = Watched(fake_redis)
    yield found
    found.queue.stop()


@pytest.fixture
def sessions(engine, watched):
    made = sessionmaker(engine)
    follow(made, watched.queue)
    return made


def test_after_the_commit_and_not_before(sessions, watched):
    with sessions() as session:
        session.add(note := Note(title="one", body="two"))
        session.flush()
        assert watched.sent == []
        session.commit()
        assert watched.sent == ["one\n\ntwo"]
        assert watched.has(f"note:{note.id}", "one\n\ntwo")


def test_only_what_is_new(sessions, watched):
    """Other attributes, the same text again, and a text that was changed and changed back enqueue nothing."""
    with sessions() as session:
        session.add(note := Note(title="one"))
        session.commit()
        for change in (lambda: setattr(note, "seen", 7), lambda: setattr(note, "title", "one")):
            change()
            session.commit()
        note.title = "other"
        note.title = "one"
        session.commit()
        note.tags.append(Tag(word="x"))
        session.commit()
        assert watched.sent == ["one"]
        note.title = "two"
        session.commit()
    assert watched.sent == ["one", "two"]


def test_loaded_and_changed(sessions, watched):
    with sessions.begin() as session:
        session.add(Note(id=1, title="one"))
    with sessions.begin() as session:
        session.get(Note, 1).body = "more"
    assert watched.sent == ["one", "one\n\nmore"]
    assert watched.has("note:1", "one\n\nmore")


def test_a_rollback_enqueues_nothing(sessions, watched):
    with sessions() as session:
        session.add(Note(title="one"))
        session.flush()
        session.rollback()
        session.commit()
        with pytest.raises(ZeroDivisionError), session.begin():
            session.add(Note(title="two"))
            session.flush()
            raise ZeroDivisionError
        session.add(Note(title="three"))
        session.commit()
    assert watched.sent == ["three"]


def test_a_closed_session_enqueues_nothing(sessions, watched):
    with sessions() as session:
        session.add(Note(title="one"))
        session.flush()
    with sessions() as session:
        session.commit()
    assert watched.sent == []


def test_savepoints(sessions, watched):
    """What a savepoint has is enqueued with the whole; what it has rolled back is not; a key's last text counts."""
    with sessions() as session:
        session.add(kept := Note(id=1, title="before"))
        with session.begin_nested():
            kept.title = "within"
            session.add(Note(id=2, title="inner"))
            session.flush()
            with pytest.raises(ZeroDivisionError), session.begin_nested():
                kept.title = "dropped"
                session.add(Note(id=3, title="dropped too"))
                session.flush()
                raise ZeroDivisionError
            with session.begin_nested():
                session.add(Note(id=4, title="innermost"))
        assert watched.sent == []
        savepoint = session.begin_nested()
        kept.title = "dropped as well"
        session.flush()
        savepoint.rollback()
        session.commit()
    assert sorted(watched.sent) == ["inner", "innermost", "within"]
    assert watched.has("note:1", "within")
    assert not watched.redis.exists("note:3")


def test_the_whole_is_rolled_back_after_a_savepoint(sessions, watched):
    with sessions() as session:
        with session.begin_nested():
            session.add(Note(title="one"))
        session.rollback()
        session.add(Note(title="two"))
        session.commit()
    assert watched.sent == ["two"]


def test_several_flushes_of_a_transaction(sessions, watched):
    """Each text of a key but the last is left out: nobody pays for what is gone by the commit."""
    with sessions() as session:
        session.add(note := Note(title="one"))
        session.flush()
        note.title = "two"
        session.flush()
        note.seen = 1
        session.commit()
    assert watched.sent == ["two"]


def test_two_sessions(sessions, watched):
    """Each enqueues its own at its own commit, whichever was first to flush."""
    with sessions() as one:
        one.add(Note(id=1, title="one"))
        with sessions() as two:
            two.add(Note(id=2, title="two"))
            two.commit()
            assert watched.sent == ["two"]
        one.commit()
    assert watched.sent == ["two", "one"]


def test_a_text_that_the_database_makes(sessions, watched):
    """An expression is read back once it is written."""
    with sessions() as session:
        session.add(note := Note(id=1, title=func.upper("shout")))
        session.commit()
        note.title = func.lower(Note.title)
        session.commit()
    assert watched.sent == ["SHOUT", "shout"]


def test_deleted_and_emptied(sessions, watched):
    """The vector goes; also where the deletion cascades, or is of what was never committed."""
    with sessions() as session:
        session.add_all([Note(id=1, title="one"), Note(id=2, title="two"), Note(id=3, title="three")])
        session.commit()
        session.delete(session.get(Note, 1))
        session.get(Note, 2).title = " "
        doomed = session.get(Note, 3)
        session.delete(doomed)
        session.flush()
        assert watched.redis.hexists("note:1", "embedding")
        session.rollback()
        assert watched.redis.hexists("note:1", "embedding")
        session.delete(session.get(Note, 1))
        session.get(Note, 2).title = " "
        session.commit()
        session.add(gone := Note(id=9, title="never"))
        session.flush()
        session.delete(gone)
        session.commit()
    assert [watched.redis.hexists(f"note:{i}", "embedding") for i in (1, 2, 3, 9)] == [False, False, True, False]
    assert "never" not in watched.sent


def test_orphans(sessions, watched):
    """The vector goes with the row that its parent has let go; a text that was changed just before is not paid for."""
    with sessions() as session:
        session.add(shelf := Shelf(id=1, books=[Book(id=i, text=f"book {i}") for i in range(1, 5)]))
        session.commit()
        gone, changed, kept, back = shelf.books
        shelf.books.remove(gone)
        changed.text = "changed"
        shelf.books.remove(changed)
        savepoint = session.begin_nested()
        shelf.books.remove(back)
        session.flush()
        savepoint.rollback()
        session.commit()
        assert shelf.books == [kept, back]
    assert [watched.redis.hexists(f"book:{i}", "embedding") for i in range(1, 5)] == [False, False, True, True]
    assert "changed" not in watched.sent


def test_a_key_that_is_made_of_the_parent(engine, watched, caplog):
    """A row that goes with its parent takes its vector along; of an orphan nobody can tell the key, so it stays."""
    made = sessionmaker(engine)
    follow(made, watched.queue)
    with made() as session:
        session.add(page := Page(id=1, parts=[Part(id=i, text=f"part {i}") for i in (1, 2)]))
        session.commit()
        page.parts.pop()
        session.commit()
        assert "whose key nobody can tell" in caplog.text
        session.delete(page)
        session.commit()
    assert [watched.redis.hexists(f"part:1:{i}", "embedding") for i in (1, 2)] == [False, True]


def test_a_row_that_is_written_anew(sessions, watched):
    """Deleted and added with the same key in one flush, it is another text."""
    with sessions() as session:
        session.add(note := Note(id=1, title="one"))
        session.commit()
        session.delete(note)
        session.add(Note(id=1, title="two"))
        session.commit()
    assert watched.has("note:1", "two")


def test_keys_of_two_columns_and_queues_by_name(engine, fake_redis):
    plain, pairs = Watched(fake_redis), Watched(fake_redis, namespace="pairs")
    made = sessionmaker(engine)
    follow(made, {"default": plain.queue, "pairs": pairs.queue})
    with made.begin() as session:
        session.add_all([Note(id=1, title="one"), Pair(left=7, right="x", text="both")])
    assert (plain.sent, pairs.sent) == (["one"], ["both"])
    assert pairs.has("pair:7:x", "both")


def test_a_queue_that_is_none(engine, fake_redis):
    """It is refused at once, and a name that no queue has before the commit: after it, the text would be missing."""
    with pytest.raises(TypeError, match="not a queue"):
        follow(sessionmaker(engine), None)
    watched = Watched(fake_redis)
    for queue in (watched.queue, {"default": watched.queue}, lambda: {"default": watched.queue}):
        made = sessionmaker(engine)
        follow(made, queue)
        with made() as session:
            session.add(Pair(left=7, right="x", text="both"))
            with pytest.raises((ValueError, KeyError), match="pairs"):
                session.commit()
            session.rollback()
            enqueue_on_commit(session, "doc:1", "text", queue="images")
            with pytest.raises((ValueError, KeyError), match="images"):
                session.commit()
            session.rollback()
            assert session.get(Pair, (7, "x")) is None
    assert watched.sent == []


def test_pairs_of_ones_own(sessions, watched):
    with sessions() as session:
        enqueue_on_commit(session, "doc:1", "dropped")
        session.rollback()
        enqueue_on_commit(session, "doc:1", "kept")
        with pytest.raises(TypeError, match="must be str"):
            enqueue_on_commit(session, "doc:1", None)
        session.commit()
    assert watched.sent == ["kept"]


def test_what_may_be_followed(engine, watched):
    """A class, an object, and what Flask-SQLAlchemy has; and a queue that is made later."""

    class Own(Session):
        pass

    scoped = scoped_session(sessionmaker(engine))
    single = Session(engine)
    for sessions in (Own, scoped, single):
        follow(sessions, lambda: watched.queue)
    for i, session in enumerate((Own(engine), scoped, single)):
        session.add(Note(title=f"text {i}"))
        session.commit()
        session.close()
    assert watched.sent == ["text 0", "text 1", "text 2"]


def test_bulk_writes_are_found_by_verify(sessions, watched):
    """What sends no events is counted, and put right."""
    with sessions() as session:
        session.add_all([Note(id=i, title=f"text {i}") for i in range(1, 5)])
        session.commit()
        session.execute(update(Note).where(Note.id == 1).values(title="bulk"))
        session.execute(text("UPDATE note SET title = '' WHERE id = 2"))
        session.bulk_insert_mappings(Note, [{"id": 5, "title": "new"}])
        session.commit()
        found = watched.queue.verify(embedded_texts(session, Note))
        assert (found.checked, found.other_text, found.missing, found.faults) == (5, 2, 1, 3)
        watched.queue.verify(embedded_texts(session, Note), fix=True)
        assert watched.queue.verify(embedded_texts(session, Note)).faults == 0
        assert session.scalar(select(func.count()).select_from(Note)) == 5
    assert watched.has("note:1", "bulk")


def test_a_delete_statement_takes_no_vector_away(sessions, watched):
    """Nor where the session holds the instance, and takes its row for gone by what it knows of it."""
    with sessions() as session:
        session.add(note := Note(id=1, title="one"))
        session.commit()
        assert note.seen == 0
        session.connection().execute(text("UPDATE note SET seen = 1"))
        session.execute(delete(Note).where(Note.seen == 0))
        session.commit()
        assert session.scalar(select(func.count()).select_from(Note)) == 1
    assert watched.has("note:1", "one")


class Away:
    """A queue whose Redis does not answer."""

    class options:
        namespace, max_text_chars, provenance_field = "embed_queue", None, "embedding_of"

    def __init__(self) -> None:
        self.asked = 0

    def enqueue_many(self, *args: Any, **options: Any) -> None:
        self.asked += 1
        raise redis.ConnectionError("away")

    forget = enqueue_many


def test_redis_away(engine, caplog):
    """``commit`` raises and what it has committed stays; the session goes on. Or, robust, the log says so."""
    raising, robust = sessionmaker(engine), sessionmaker(engine)
    follow(raising, Away())
    follow(robust, Away(), robust=True)
    with raising() as session:
        session.add(Note(id=1, title="one"))
        with pytest.raises(redis.ConnectionError):
            session.commit()
        assert session.get(Note, 1).title == "one"
        session.get(Note, 1).seen = 3
        session.commit()
    with pytest.raises(redis.ConnectionError), raising.begin() as session:
        session.add(Note(id=2, title="two"))
    with robust() as session:
        session.add(Note(id=3, title="three"))
        session.commit()
        assert session.scalars(select(Note.title).order_by(Note.id)).all() == ["one", "two", "three"]
    assert "1 texts are committed and not enqueued" in caplog.text


def test_redis_away_and_a_handler_of_the_log_that_raises(engine, monkeypatch, capsys):
    """It costs the record; what is committed stays so, and ``commit`` returns."""

    class Full(logging.Handler):
        def handle(self, record):
            raise OSError("no space left on device")

    robust = sessionmaker(engine)
    follow(robust, Away(), robust=True)
    monkeypatch.setattr(logging.getLogger("embedqueue"), "handlers", [Full()])
    with robust() as session:
        session.add(Note(id=1, title="one"))
        session.commit()
        assert session.get(Note, 1).title == "one"


def test_a_queue_that_is_full(engine, fake_redis):
    """What was deleted in the same commit is forgotten all the same, and the other queue has its text."""
    plain, pairs = Watched(fake_redis), Watched(fake_redis, namespace="pairs")
    full = EmbeddingBatchQueue(FakeEmbedder(), fake_redis, worker=False, namespace="full", max_pending=1)
    followed = {"default": plain.queue, "pairs": pairs.queue}
    made = sessionmaker(engine)
    follow(made, followed)
    with made() as session:
        session.add_all([Note(id=1, title="one"), Note(id=2, title="two")])
        session.commit()
        full.start()
        full.enqueue("x", "fills it")
        followed["default"] = full
        session.delete(session.get(Note, 1))
        session.get(Note, 2).title = "changed"
        session.add(Pair(left=7, right="x", text="both"))
        with pytest.raises(QueueFull) as raised:
            session.commit()
    assert not fake_redis.hexists("note:1", "embedding")
    assert pairs.has("pair:7:x", "both")
    assert raised.value.__notes__ == ["1 texts are committed and not enqueued; verify finds them"]
    full.stop()


def test_a_deletion_that_fails_is_told_by_its_key(engine, watched, caplog):
    """For ``verify`` cannot find it. It keeps no other from being done, unless Redis is away: one wait is enough."""
    queues = {"default": watched.queue}
    made = sessionmaker(engine)
    follow(made, queues, robust=True)
    with made() as session:
        session.add_all([Note(id=i, title="text") for i in range(1, 64)])
        session.commit()
        watched.redis.delete("note:1")
        watched.redis.set("note:1", "no hash")
        for i in (1, 2):
            session.delete(session.get(Note, i))
        session.commit()
        assert "are left, of note:1: queue.forget" in caplog.text
        assert not watched.redis.hexists("note:2", "embedding")
        queues["default"] = away = Away()
        for i in range(3, 64):
            session.delete(session.get(Note, i))
        session.commit()
    assert away.asked == 1
    assert "note:3, note:4" in caplog.text
    assert "note:52 and 11 more" in caplog.text


@pytest.mark.parametrize("robust", [False, True])
@pytest.mark.parametrize("method", ["forget", "enqueue_many"])
def test_a_limit_of_time_ends_it_at_once(engine, watched, monkeypatch, method, robust):
    """As of Celery or RQ, whose handler of a signal raises: what is left is told, and no more of it is done."""

    class TimeLimit(Exception):
        pass

    def strike(*_):
        raise TimeLimit

    made, forgotten = sessionmaker(engine), []
    follow(made, watched.queue, robust=robust)
    with made() as session:
        session.add_all([Note(id=i, title="text") for i in (1, 2)])
        session.commit()
        forget = watched.queue.forget
        monkeypatch.setattr(watched.queue, "forget", lambda key, **more: (forgotten.append(key), forget(key, **more)))
        plain = getattr(watched.queue, method)
        hit = lambda *args, **more: (signal.raise_signal(signal.SIGUSR1), plain(*args, **more))  # noqa: E731
        monkeypatch.setattr(watched.queue, method, hit)
        usual = signal.signal(signal.SIGUSR1, strike)
        try:
            for i in (1, 2):
                session.delete(session.get(Note, i))
            session.add(Note(id=3, title="new"))
            with pytest.raises(TimeLimit) as raised:
                session.commit()
        finally:
            signal.signal(signal.SIGUSR1, usual)
    [told] = raised.value.__notes__
    assert "1 texts are committed and not enqueued" in told
    assert ("note:1, note:2" in told) == (method == "forget") == (forgotten == [])


def test_threads(engine, watched):
    """Sessions side by side, each in its own thread."""
    made = sessionmaker(engine)
    follow(made, watched.queue)
    lock = threading.Lock()

    def work(i: int) -> None:
        for j in range(5):
            with lock, made.begin() as session:  # SQLite has one writer
                session.add(Note(title=f"text {i} {j}"))

    join(*(in_thread(lambda i=i: work(i)) for i in range(4)))
    assert len(watched.sent) == 20


def test_flask_sqlalchemy(clean_environment, fake_redis):
    """``db.session`` and the extension, as docs/sqlalchemy.md has it."""
    flask = pytest.importorskip("flask")
    flask_sqlalchemy = pytest.importorskip("flask_sqlalchemy", reason="pip install flask-sqlalchemy")
    from embedqueue.contrib.flask import EmbedQueue, eager

    class Model(DeclarativeBase):
        pass

    db, embeddings = flask_sqlalchemy.SQLAlchemy(model_class=Model), EmbedQueue()

    class Post(EmbeddedText, db.Model):
        id: Mapped[int] = mapped_column(primary_key=True)
        text: Mapped[str]

    follow(db.session, embeddings)
    app = flask.Flask("notes")
    app.config.update(SQLALCHEMY_DATABASE_URI="sqlite://", EMBEDQUEUE_PROVIDER="local")
    db.init_app(app)
    embeddings.init_app(app)

    @app.post("/posts")
    def save():
        db.session.add(Post(text=flask.request.form["text"]))
        db.session.commit()
        return "saved"

    with eager(app, FakeEmbedder(8), fake_redis):
        with app.app_context():
            db.create_all()
        assert app.test_client().post("/posts", data={"text": "hello"}).text == "saved"
        assert fake_redis.hget("post:1", "embedding") == FakeEmbedder(8).bytes_of("hello")
        with app.app_context():
            db.engine.dispose()


def test_nothing_is_kept_of_what_has_ended(sessions):
    """A long-lived session holds no notes of its past."""
    with sessions() as session:
        for i in range(5):
            session.add(Note(title=f"text {i}"))
            session.commit()
            session.rollback()
        pad = session.info["embedqueue"]
        assert (pad.open, pad.ready, pad.flushed) == ({}, {}, {})


def test_a_text_that_no_queue_takes_holds_back_no_other(engine, fake_redis):
    """It is found too late, when all is committed; the others are embedded, and the error says how many are not."""
    watched = Watched(fake_redis, max_text_chars=9)
    made = sessionmaker(engine)
    follow(made, watched.queue)
    with made() as session:
        session.add_all([Note(id=1, title="short"), Note(id=2, title="much too long"), Note(id=3, title="brief")])
        with pytest.raises(ValueError, match="more than max_text_chars") as raised:
            session.commit()
    assert watched.has("note:1", "short") and watched.has("note:3", "brief")
    assert raised.value.__notes__ == ["1 texts are committed and not enqueued; verify finds them"]
    watched.queue.stop()


@pytest.mark.parametrize("pair", [("", "text"), ("doc:1", "\ud83d"), ("\ud83d", "text")])
def test_what_no_queue_takes_is_refused_at_the_call(sessions, watched, pair):
    with sessions() as session, pytest.raises(ValueError):
        enqueue_on_commit(session, *pair)


def test_a_session_of_several_databases(engine, watched):
    """It has no connection of its own, and need not: its commit is what counts."""
    other = create_engine("sqlite://")
    Base.metadata.create_all(other)
    made = sessionmaker(binds={Note: engine, Pair: other})
    follow(made, watched.queue)
    with made() as session:
        enqueue_on_commit(session, "doc:1", "one")
        session.commit()
    assert watched.has("doc:1", "one")
    other.dispose()


@pytest.mark.parametrize("lazy", ["joined", "subquery", "selectin", "select"])
def test_all_texts_of_a_model_whose_collections_come_with_it(fake_redis, lazy):
    """However they are loaded, a row is one text."""

    class Own(DeclarativeBase):
        pass

    class Doc(EmbeddedText, Own):
        __tablename__ = "doc"
        id: Mapped[int] = mapped_column(primary_key=True)
        words: Mapped[list[Any]] = relationship("Word", lazy=lazy)
        embed_fields = ()

        def embed_text(self):
            return " ".join(word.word for word in self.words)

    class Word(Own):
        __tablename__ = "word"
        id: Mapped[int] = mapped_column(primary_key=True)
        doc_id: Mapped[int] = mapped_column(ForeignKey("doc.id"))
        word: Mapped[str]

    engine = create_engine("sqlite://")
    Own.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Doc(id=i, words=[Word(word="a"), Word(word="b")]) for i in (1, 2)])
        session.commit()
        assert list(embedded_texts(session, Doc)) == [("doc:1", "a b"), ("doc:2", "a b")]
    engine.dispose()


def test_a_session_that_begins_nothing_by_itself(engine, watched):
    """Nobody would commit what is enqueued outside of a transaction."""
    made = sessionmaker(engine, autobegin=False)
    follow(made, watched.queue)
    with made() as session:
        with pytest.raises(sqlalchemy.exc.InvalidRequestError):
            enqueue_on_commit(session, "doc:1", "one")
        with session.begin():
            enqueue_on_commit(session, "doc:1", "one")
    assert watched.has("doc:1", "one")


def test_a_scoped_session_is_one_and_an_async_one_is_not(engine, watched):
    made = scoped_session(sessionmaker(engine))
    follow(made, watched.queue)
    enqueue_on_commit(made, "doc:1", "one")
    made.commit()
    assert watched.has("doc:1", "one")
    made.remove()
    with pytest.raises(TypeError, match="sync_session"):
        enqueue_on_commit(object(), "doc:1", "one")


def test_one_wait_for_a_redis_that_is_away_though_a_text_is_too_long(engine, caplog):
    queue = Away()
    queue.options = type("options", (), {"namespace": "n", "max_text_chars": 9, "provenance_field": None})
    made = sessionmaker(engine)
    follow(made, {"default": queue}, robust=True)
    with made() as session:
        session.add_all([Note(title="much too long"), *(Note(title=f"text {place}") for place in range(5))])
        session.commit()
    assert queue.asked == 1
    assert "6 texts are committed and not enqueued" in caplog.text
