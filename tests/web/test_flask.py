"""The Flask extension: its form, its errors, its commands and its help for users' tests, without servers."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest
import redis

flask = pytest.importorskip("flask", reason="Flask is not installed: pip install embedqueue[flask]")

from embedqueue import EmbeddingBatchQueue, ItemRejected  # noqa: E402
from embedqueue.contrib.flask import EmbedQueue, eager  # noqa: E402
from embedqueue.settings.settings import SettingsError  # noqa: E402
from embedqueue.values.errors import InputRejected, QueueStopped  # noqa: E402

pytestmark = pytest.mark.usefixtures("clean_environment")


def test_both_forms_of_the_constructor_set_an_app_up():
    """EmbedQueue(app) and init_app(app) leave all state in the app."""
    app = flask.Flask("a")
    embeddings = EmbedQueue(app)
    assert vars(embeddings) == {}
    first = app.extensions["embedqueue"]
    EmbedQueue().init_app(app)
    assert app.extensions["embedqueue"] is first


def test_an_app_can_go_away():
    """Nothing of ours keeps an application alive."""
    app = flask.Flask("a")
    EmbedQueue(app)
    seen = weakref.ref(app)
    del app
    gc.collect()
    assert seen() is None


def test_two_apps_have_two_queues(app):
    """One extension object serves each app by its context."""
    embeddings, other = EmbedQueue(app), flask.Flask("other")
    embeddings.init_app(other)
    other.config.update(EMBEDQUEUE_PROVIDER="local", EMBEDQUEUE_NAMESPACE="other")
    with eager(app) as one, eager(other) as two:
        with app.app_context():
            embeddings.enqueue("note:1", "red bicycle")
        with other.app_context():
            embeddings.enqueue("note:2", "green tea")
        assert (one.redis.keys("note:*"), two.redis.keys("note:*")) == ([b"note:1"], [b"note:2"])


def test_outside_of_an_app_flask_says_so(app):
    """The message is Flask's own; without init_app it is ours."""
    with pytest.raises(RuntimeError, match="application context"):
        EmbedQueue().enqueue("a", "b")
    with flask.Flask("bare").app_context(), pytest.raises(RuntimeError, match=r"call init_app\(app\)"):
        EmbedQueue().enqueue("a", "b")


def test_nothing_happens_before_the_first_use():
    """Setting an app up reads nothing, connects nothing, and starts no thread."""
    before = set(threading.enumerate())
    app = flask.Flask("quiet")
    app.config["EMBEDQUEUE_REDIS_URL"] = "nonsense"
    EmbedQueue(app)
    assert set(threading.enumerate()) <= before
    with app.app_context(), pytest.raises(SettingsError, match="EMBEDQUEUE_REDIS_URL must be redis://"):
        EmbedQueue().enqueue("a", "b")


def test_a_missing_key_is_told_at_first_use(app):
    """The sentence names the setting and the provider's own variable."""
    app.config["EMBEDQUEUE_PROVIDER"] = "openrouter"
    with app.app_context(), pytest.raises(SettingsError, match="EMBEDQUEUE_API_KEY, or OPENROUTER_API_KEY"):
        EmbedQueue().enqueue("a", "b")


def test_no_redis_is_told_at_first_use(app, tmp_path):
    """The error is redis-py's own, with a note that names the setting; the next use tries again."""
    app.config["EMBEDQUEUE_REDIS_URL"] = f"unix://{tmp_path}/none"
    for _ in range(2):
        with app.app_context(), pytest.raises(redis.ConnectionError) as caught:
            EmbedQueue().enqueue("a", "b")
        assert caught.value.__notes__[0].endswith("start it, or set EMBEDQUEUE_REDIS_URL.")


def test_a_process_without_worker_needs_no_key(real_app):
    """Web processes that leave the work to `flask embedqueue worker` need not know the key."""
    real_app.config.update(EMBEDQUEUE_WORKER=False, EMBEDQUEUE_API_KEY="")
    with real_app.app_context():
        EmbedQueue().enqueue("note:1", "hello")
        assert EmbedQueue().pending_count() == 1


def test_a_request_enqueues_and_waits(real_app):
    """The ten lines of the docs."""
    embeddings = EmbedQueue()

    @real_app.post("/notes")
    def save():
        future = embeddings.enqueue("note:1", flask.request.form["text"])
        return {"numbers": len(future.result(timeout=45))}

    client = real_app.test_client()
    assert client.post("/notes", data={"text": "hello"}).json == {"numbers": 16}
    with real_app.app_context():
        assert embeddings.redis.hstrlen("note:1", "embedding") == 64


def test_threads_that_come_at_once_share_one_queue(real_app):
    """The first use is in many threads of gunicorn at the same time."""
    gate, found = threading.Barrier(8), []

    def use():
        gate.wait(45)
        with real_app.app_context():
            found.append(EmbedQueue().queue)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(45)
    assert len(found) == 8
    assert len(set(map(id, found))) == 1


def test_named_queues_have_their_own_settings(app):
    """EMBEDQUEUE_QUEUES names more queues; each has its own keys in Redis."""
    app.config["EMBEDQUEUE_QUEUES"] = {"titles": {"DIMENSIONS": 64}}
    embeddings = EmbedQueue()
    with eager(app) as used, app.app_context():
        embeddings.enqueue("note:1", "a long text")
        embeddings["titles"].enqueue("title:1", "a title")
        assert used.redis.hstrlen("note:1", "embedding") == 256 * 4
        assert used.redis.hstrlen("title:1", "embedding") == 64 * 4
        assert set(used.embedders) == {"embed_queue", "embed_queue_titles"}
        with pytest.raises(SettingsError, match="there are default, titles"):
            embeddings["other"]


def test_eager_tests_are_offline_and_finished_at_once(app):
    """No key, no Redis, no waiting; texts that share words are near each other."""
    app.config["EMBEDQUEUE_PROVIDER"] = "gemini"
    embeddings = EmbedQueue()
    with eager(app) as used, app.app_context():
        first, second = embeddings.enqueue_many([("a", "the red bicycle"), ("b", "green tea")])
        assert first.done() and second.done()
        near = embeddings.enqueue("c", "my red bicycle").result(0)
        assert sum(map(float.__mul__, near, first.result(0))) > sum(map(float.__mul__, near, second.result(0)))
        assert embeddings.stats().embedded == 3
        assert used.redis.hexists("a", "embedding")
    with app.app_context(), pytest.raises(SettingsError):
        embeddings.enqueue("a", "b")  # what was eager is over


def test_eager_tests_may_bring_a_failing_embedder(app):
    """How an application behaves when a text is refused can be tested too."""

    class Picky:
        dimensions = 4

        def embed_batch(self, texts, model):
            if any("bad" in text for text in texts):
                raise InputRejected("no such words here")
            return [[1.0, 0.0, 0.0, 0.0] for _ in texts]

    embeddings = EmbedQueue()
    with eager(app, Picky()), app.app_context():
        embeddings.enqueue("good", "fine").result(0)
        assert isinstance(embeddings.enqueue("note:1", "bad").exception(0), ItemRejected)
        assert [letter.redis_key for letter in embeddings.dead_letters()] == ["note:1"]
        assert embeddings.discard_dead("note:1") == 1


def test_stop_and_start(app):
    """A shutdown hook may stop what was never used; what was stopped says so until it is started."""
    embeddings = EmbedQueue()
    with eager(app), app.app_context():
        embeddings.stop()
        assert app.extensions["embedqueue"].made() is None and not embeddings.closed
        with embeddings as queue:
            assert queue is embeddings.queue
        assert embeddings.closed
        with pytest.raises(QueueStopped):
            embeddings.enqueue("a", "b")
        assert embeddings.start().enqueue("a", "b").done()


def test_the_queue_itself_works_in_threads_without_a_context(real_app):
    """A thread of the application's own takes the queue along."""
    with real_app.app_context():
        queue = EmbedQueue().queue
    assert isinstance(queue, EmbeddingBatchQueue)
    found = []
    thread = threading.Thread(target=lambda: found.append(queue.enqueue("note:1", "x").result(45)))
    thread.start()
    thread.join(45)
    assert len(found[0]) == 16
