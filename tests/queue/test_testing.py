"""The help for users' own tests keeps its own promises."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from embedqueue import (
    BatchFailed,
    ConfigurationError,
    Embedder,
    EmbeddingBatchQueue,
    InputRejected,
    ItemRejected,
    Limits,
    QueueStopped,
    TransientError,
)
from embedqueue.settings.eager import Eager
from embedqueue.settings.settings import read
from embedqueue.testing import FakeEmbedder, eager_queue
from embedqueue.values.observer import Observer
from embedqueue.values.vectors import to_floats
from tests.inside import inside
from tests.parts import PROGRAM_SECONDS


def test_vectors_depend_on_the_text_alone():
    """Deterministic unit vectors, the same in every process; other texts have others."""
    fake, other = FakeEmbedder(), FakeEmbedder()
    assert np.array_equal(fake.vector_of("a"), other.vector_of("a"))
    assert not np.array_equal(fake.vector_of("a"), fake.vector_of("b"))
    assert np.linalg.norm(FakeEmbedder(64).vector_of("text")) == pytest.approx(1.0)
    assert FakeEmbedder(3072).vector_of("\ud800").shape == (3072,)
    script = "from embedqueue.testing import FakeEmbedder; print(FakeEmbedder().bytes_of('a').hex())"
    printed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=PROGRAM_SECONDS
    )
    assert printed.stdout.strip() == fake.bytes_of("a").hex()


def test_is_an_embedder():
    """It keeps to the protocol, and its rows are those of its texts."""
    fake = FakeEmbedder(5)
    assert isinstance(fake, Embedder)
    rows = fake.embed_batch(["a", "b"], "model")
    assert rows.shape == (2, 5)
    assert rows[1].tobytes() == fake.bytes_of("b")
    assert fake.calls == [["a", "b"]]
    assert fake.sent == {"a": 1, "b": 1}


def test_a_queue_at_odds_with_its_namespace_does_not_embed_for_ever(fake_redis):
    """Two queues of a test that share a Redis, and forgot that they have different models."""
    fake = FakeEmbedder()
    fake.rule = lambda texts: ConfigurationError("again and again") if len(fake.calls) > 5 else None
    eager_queue(fake, fake_redis, model="one").enqueue("doc:1", "text").result(0)
    with pytest.raises(BatchFailed, match="model"):
        eager_queue(fake, fake_redis, model="two").enqueue("doc:2", "text").result(0)
    assert len(fake.calls) <= 2


def test_scripted_failures():
    """Failures come as often as told, before the rule, and then no more."""
    fake = FakeEmbedder(rule=lambda texts: InputRejected("bad") if "bad" in texts else None)
    fake.fail_with(TransientError("down"), times=2)
    for _ in range(2):
        with pytest.raises(TransientError):
            fake.embed_batch(["bad"], "model")
    with pytest.raises(InputRejected):
        fake.embed_batch(["bad"], "model")
    fake.embed_batch(["good"], "model")
    assert len(fake.calls) == 4


def test_hold_and_release():
    """A held call arrives, is recorded, and waits."""
    fake = FakeEmbedder()
    fake.hold()
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(fake.embed_batch, [text], "model") for text in "ab"]
        assert fake.arrived.wait(45)
        assert fake.wait_for_calls(2)
        assert not any(call.done() for call in calls)
        fake.release()
        for call in calls:
            call.result(45)
    assert not fake.wait_for_calls(3, timeout=0)
    fake.hold()
    assert not fake.arrived.is_set()


def test_eager():
    """A view that enqueues finds the vector in the hash at once: no network, no real Redis, no thread."""
    queue = eager_queue(embedder := FakeEmbedder())
    before = set(threading.enumerate())
    future = queue.enqueue("note:1", "Hello")
    assert future.done()
    assert queue.redis.hget("note:1", "embedding") == embedder.bytes_of("Hello")
    assert future.result() == to_floats(embedder.bytes_of("Hello"))
    futures = queue.enqueue_many((f"note:{i}", f"text {i}") for i in range(120))
    assert all(future.done() for future in futures)
    assert [len(call) for call in embedder.calls] == [1, 50, 50, 20]
    assert set(threading.enumerate()) <= before
    assert isinstance(queue, EmbeddingBatchQueue)


def test_eager_life():
    """What an application does with its queue works and starts nothing."""
    before = set(threading.enumerate())
    with eager_queue(worker=False, max_batch_size=3, namespace="mine", min_replicas=1) as queue:
        queue.enqueue("a", "text")
        queue.flush_now()
        queue.flush(timeout=45)
        assert queue.pending_count() == 0
        assert queue.stats().embedded == 1
        assert set(threading.enumerate()) <= before
    assert queue.closed
    with pytest.raises(QueueStopped):
        queue.enqueue("a", "text")
    assert queue.start().enqueue("a", "again").done()
    queue.stop(drain=True)


def test_eager_failure():
    """A failure of the provider is there at once, without a wait; the next enqueue does what was left, too."""
    queue = eager_queue(embedder := FakeEmbedder())
    embedder.fail_with(ConfigurationError("no key"))
    with pytest.raises(BatchFailed, match="no key"):
        queue.enqueue("a", "text a").result(0)
    assert queue.pending_count() == 1
    assert queue.enqueue("b", "text b").result(0)
    assert queue.pending_count() == 0
    assert queue.redis.hget("a", "embedding") == embedder.bytes_of("text a")
    embedder.fail_with(TransientError("down", retry_after=100))
    assert isinstance(queue.enqueue("c", "text c").exception(0), BatchFailed)
    queue.flush(timeout=45)
    assert queue.redis.hget("c", "embedding") == embedder.bytes_of("text c")


def test_eager_failure_with_a_pause_of_a_moment():
    """There is one try, also where the pause is over before anybody looks."""

    class Over(Observer):
        def released(self, report):
            queue.redis.delete("embed_queue:pause")

    queue = eager_queue(embedder := FakeEmbedder(), observers=[Over()])
    embedder.fail_with(TransientError("down"))
    assert isinstance(queue.enqueue("a", "text a").exception(0), BatchFailed)
    assert len(embedder.calls) == 1


def test_eager_rejection():
    """A bad text is rejected at once, and its dead letter can be looked at."""
    queue = eager_queue(FakeEmbedder(rule=lambda texts: InputRejected("too rude") if "bad" in texts else None))
    good, bad = queue.enqueue_many([("a", "good"), ("b", "bad")])
    assert good.result(0)
    with pytest.raises(ItemRejected, match="too rude"):
        bad.result(0)
    assert [letter.redis_key for letter in queue.dead_letters()] == ["b"]
    assert queue.retry_dead("b") == 1
    queue.flush(timeout=45)
    assert len(queue.dead_letters()) == 1


def test_eager_observers_may_enqueue():
    """In the middle of a call, in its thread: both calls are over then."""
    queue = eager_queue(on_batch=lambda report: "b" in report.redis_keys or queue.enqueue("b", "second"))
    queue.enqueue("a", "first")
    assert queue.redis.hexists("b", "embedding")
    assert inside(queue).calls == inside(queue).held == 0


def test_flush_is_told_what_to_do_with_batch_jobs():
    with pytest.raises(ValueError, match='"leave", "wait" or "pull", not \'later\''):
        eager_queue().flush(outsourced="later")


@pytest.mark.timeout(20)
def test_eager_embedders_may_enqueue():
    """Before the call of their own is answered, too."""

    def rule(texts):
        if texts == ["first"]:
            queue.enqueue("b", "second")

    queue = eager_queue(embedder := FakeEmbedder())
    embedder.rule = rule
    queue.enqueue("a", "first")
    assert queue.redis.hexists("a", "embedding")
    assert queue.redis.hexists("b", "embedding")
    assert inside(queue).calls == 0


def test_eager_callbacks():
    """Callbacks run in the thread that enqueues, find the vector in the hash, and may enqueue again."""
    queue = eager_queue()
    seen = []

    def callback(future):
        seen.append((threading.get_ident(), future.result() != [], queue.enqueue("b", "second").done()))

    queue.enqueue("a", "first").add_done_callback(callback)
    assert seen == [(threading.get_ident(), True, True)]


def test_eager_threads():
    """Many threads of a test server may use one queue; each finds its item done."""
    queue = eager_queue()
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda i: queue.enqueue(f"doc:{i}", f"text {i % 10}").done(), range(80)))
    assert all(done)
    assert len(queue.redis.keys("doc:*")) == 80


def test_queues_apart():
    """Each eager queue has a Redis of its own, unless one is given."""
    one, two = eager_queue(), eager_queue()
    one.enqueue("a", "text")
    assert two.redis.keys() == []
    assert eager_queue(redis=one.redis).redis.exists("a")


def test_without_a_fake_redis_it_says_what_to_install(monkeypatch):
    """Also where fakeredis is there and the Lua for its scripts is not."""
    monkeypatch.setitem(sys.modules, "lupa", None)
    with pytest.raises(ImportError, match=r"fakeredis\[lua\]"):
        eager_queue()


def test_an_eager_queue_has_no_limits():
    """A test has no time to wait for them; an application's settings may have some."""
    queue = eager_queue(limits=Limits(requests_per_day=1))
    futures = [queue.enqueue(f"doc:{place}", f"text {place}") for place in range(3)]
    assert all(future.done() for future in futures)
    assert queue.options.limits is None


def test_economy_of_the_settings_is_left_out():
    """The embedder of a test has no batch jobs."""
    with eager_queue(economy=True) as queue:
        assert queue.enqueue("doc:1", "text", within=86_400).done()


def test_an_eager_successor(fake_redis):
    """While the model is being changed, texts are in both fields when ``enqueue`` returns; searches follow."""
    settings = read({"MODEL": "old", "DIMENSIONS": 8, "SUCCESSOR": "EMBEDDING_FIELD=v2 MODEL=new DIMENSIONS=16"})
    eager = Eager(None, fake_redis)
    with eager.queue(settings) as queue:
        old, new = eager.embedders["embed_queue"], eager.embedders["embed_queue:v2"]
        change = inside(queue).store.change
        change.begin("v2", "v2_of")
        assert queue.enqueue("note:1", "Hello").done()
        assert queue.enqueue_many([("note:2", "other words"), ("note:3", "more of them")])[1].done()
        assert fake_redis.hget("note:1", "embedding") == old.bytes_of("Hello")
        assert fake_redis.hget("note:1", "v2") == new.bytes_of("Hello")
        assert len(queue.embed_query("Hello")) == 8
        queue.create_index("notes", "note:")
        queue.options.successor.create_index("notes:v2", "note:")
        assert queue.search("Hello", 1, index="notes")[0].redis_key == "note:1"
        change.read_from({"field": "v2", "aliases": [("notes", "notes", "notes:v2")]})
        assert len(queue.embed_query("Hello")) == 16
        assert queue.search("Hello", 1, index="notes")[0].redis_key == "note:1"
        assert new.sent["Hello"] == 3
    assert queue.options.successor.closed


def test_an_eager_queue_that_is_stopped_from_within_makes_no_more_calls(fake_redis):
    """The one under way is written; the others are left to the next queue."""
    embedder = FakeEmbedder(rule=lambda texts: queue.stop(timeout=0))
    queue = eager_queue(embedder, fake_redis, api_batch_limit=1)
    futures = queue.enqueue_many([("doc:1", "one"), ("doc:2", "two")])
    assert all(future.cancelled() for future in futures)
    assert embedder.calls == [["one"]]
    assert fake_redis.hget("doc:1", "embedding") == embedder.bytes_of("one")
    assert fake_redis.zcard("embed_queue:pending") + fake_redis.zcard("embed_queue:inflight") == 1


def test_an_eager_queue_takes_a_clock_that_was_set(fake_redis):
    """It learns the time from the first answer, which comes too late by the time that it knew."""
    queue = eager_queue(redis=fake_redis)
    queue.enqueue("doc:1", "one")
    inside(queue).store._ahead -= 3600
    assert queue.enqueue("doc:2", "two").result(0) == to_floats(FakeEmbedder().bytes_of("two"))
