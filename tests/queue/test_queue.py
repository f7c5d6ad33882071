"""The queue as its users see it, on fakeredis with its worker's threads: fast, no network."""

from __future__ import annotations

import inspect
import json
import logging
import threading
from collections.abc import Iterator

import fakeredis
import pytest
import redis

from embedqueue import (
    EMBED_DIMENSIONS,
    EmbeddingBatchQueue,
    EmbedQueueError,
    InputRejected,
    ItemRejected,
    Observer,
    QueueFull,
    QueueStopped,
    TransientError,
)
from embedqueue.testing import FakeEmbedder
from embedqueue.values.item import encode_member
from embedqueue.values.options import Options, QueueOptions
from embedqueue.values.vectors import to_floats
from tests.inside import ASK_SECONDS, GROUP_LIMIT, inside
from tests.parts import PATIENCE_SECONDS, eventually, in_thread, join

PENDING = "embed_queue:pending"


@pytest.fixture
def embedder() -> Iterator[FakeEmbedder]:
    fake = FakeEmbedder()
    yield fake
    fake.release()


@pytest.fixture
def make_queue(fake_redis, embedder):
    """Makes queues that are stopped in the end."""
    made = []

    def make(*, start=True, **options):
        queue = EmbeddingBatchQueue(options.pop("embedder", embedder), options.pop("redis", fake_redis), **options)
        made.append(queue)
        return queue.start() if start else queue

    yield make
    embedder.release()
    for queue in made:
        queue.stop(timeout=1)


def result(future):
    return future.result(PATIENCE_SECONDS)


def wait_for_vectors(client, *redis_keys):
    """Without asking for them: what nobody waits for comes all the same."""
    eventually(lambda: all(client.hexists(redis_key, "embedding") for redis_key in redis_keys), "they arrive")


# -- enqueue -----------------------------------------------------------------------------------------------------


def test_newcomer(fake_redis, embedder):
    """The README's promise in one example: the future has the floats, the hash the bytes, and the queue is empty."""
    queue = EmbeddingBatchQueue(embedder, fake_redis, model="google/gemini-embedding-001")
    with queue:
        future = queue.enqueue("msg:abc-123", "Hello world")
        vector = future.result(timeout=45)
        assert fake_redis.hget("msg:abc-123", "embedding") == embedder.bytes_of("Hello world")
    assert vector == to_floats(embedder.bytes_of("Hello world"))
    assert fake_redis.zcard(PENDING) == fake_redis.zcard("embed_queue:inflight") == 0
    assert fake_redis.hlen("embed_queue:latest") == fake_redis.hlen("embed_queue:claims") == 0


def test_durable_when_it_returns(make_queue, fake_redis):
    """The member stands in the ZSET as docs/design.md shows it, scored with the time, before anything else happens."""
    queue = make_queue(start=False)
    queue.enqueue("doc:1", 'say "hi"')
    seconds, micros = fake_redis.time()
    [(member, score)] = fake_redis.zrange(PENDING, 0, -1, withscores=True)
    assert member == b'{"redis_key":"doc:1","text":"say \\"hi\\""}'
    assert 0 <= seconds + micros / 1e6 - score < 60


@pytest.mark.parametrize("text", ["", " ", "\n\t ", "\u2003\u3000", "\x1c"])
def test_blank(make_queue, fake_redis, embedder, text):
    """A blank text has the zero vector at once; nothing is stored and nobody is called."""
    future = make_queue().enqueue("doc:1", text)
    assert future.done()
    assert future.result(0) == [0.0] * 8
    assert fake_redis.keys("doc:*") == []
    assert fake_redis.zcard(PENDING) == 0
    assert embedder.calls == []


@pytest.mark.parametrize(
    ("redis_key", "text", "error"),
    [
        (b"doc", "text", TypeError),
        ("doc", b"text", TypeError),
        (None, "text", TypeError),
        ("doc", None, TypeError),
        (5, "text", TypeError),
        ("", "text", ValueError),
        ("", "", ValueError),
        ("doc", "\ud800", ValueError),
        ("\ud800", "text", ValueError),
        ("\ud800", "", ValueError),
        ("embed_queue:pending", "text", ValueError),
        ("embed_queue:cache:x", "text", ValueError),
    ],
)
def test_bad_arguments(make_queue, fake_redis, redis_key, text, error):
    """Bad arguments are refused at once, before anything is written; alone and among good ones."""
    queue = make_queue(start=False)
    with pytest.raises(error):
        queue.enqueue(redis_key, text)
    with pytest.raises(error):
        queue.enqueue_many([("good", "text"), (redis_key, text), ("fine", "text")])
    assert fake_redis.keys() == []
    assert queue.stats().enqueued == 0


@pytest.mark.parametrize(
    "items", [None, 5, ["ab"], "ab", [b"ab"], {"ab": "text"}, [("a",)], [("a", "b", "c")], [None], [("a", "b"), 5]]
)
def test_bad_items(make_queue, fake_redis, items):
    """``enqueue_many`` takes pairs, and nothing that only looks like them: two letters are no key and text."""
    queue = make_queue(start=False)
    with pytest.raises(TypeError):
        queue.enqueue_many(items)
    assert fake_redis.keys() == []


@pytest.mark.parametrize("items", [[], (), iter([]), {}.items()])
def test_nothing(make_queue, fake_redis, items):
    """Nothing to enqueue is nothing to do."""
    assert make_queue(start=False).enqueue_many(items) == []
    assert fake_redis.keys() == []


def test_enqueue_many(make_queue, fake_redis, embedder):
    """Futures come in order, blank and equal ones included; an iterator or a dict's items will do."""
    queue = make_queue()
    texts = {"doc:1": "one", "doc:2": "", "doc:3": "three"}
    one, blank, three = queue.enqueue_many(texts.items())
    assert blank.result(0) == [0.0] * 8
    assert result(three) == to_floats(embedder.bytes_of("three"))
    assert result(one) == to_floats(embedder.bytes_of("one"))


def test_order(make_queue, embedder):
    """What was enqueued first is embedded first, within one call and across."""
    queue = make_queue(start=False, api_batch_limit=5, max_concurrency=1)
    queue.enqueue("doc:first", "first")
    queue.enqueue_many((f"doc:{i}", f"text {i}") for i in range(8))
    queue.start().flush(PATIENCE_SECONDS)
    assert [text for call in embedder.calls for text in call] == ["first", *(f"text {i}" for i in range(8))]


def test_same_key_same_text(make_queue, fake_redis, embedder):
    """The same key and text while unfinished is the same future and one item, and keeps its place."""
    queue = make_queue(start=False)
    first = queue.enqueue("doc:1", "text")
    score = fake_redis.zrange(PENDING, 0, -1, withscores=True)[0][1]
    assert queue.enqueue("doc:1", "text") is first
    assert queue.enqueue_many([("doc:1", "text"), ("doc:1", "text")]) == [first, first]
    assert fake_redis.zrange(PENDING, 0, -1, withscores=True) == [(encode_member("doc:1", "text"), score)]
    queue.start()
    assert result(first) == to_floats(embedder.bytes_of("text"))
    assert queue.enqueue("doc:1", "text") is not first


def test_new_text_wins(make_queue, fake_redis, embedder):
    """The newer text is the one that is embedded, and every future of the key has its vector."""
    queue = make_queue(start=False)
    old, new = queue.enqueue("doc:1", "old"), queue.enqueue("doc:1", "new")
    assert queue.pending_count() == 1
    queue.start()
    assert result(old) == result(new) == to_floats(embedder.bytes_of("new"))
    assert fake_redis.hget("doc:1", "embedding") == embedder.bytes_of("new")
    assert "old" not in embedder.sent


def test_new_text_wins_in_flight(make_queue, fake_redis, embedder):
    """So it is when the older text's call is under way: its vector is never written."""
    queue = make_queue()
    embedder.hold()
    old = queue.enqueue("doc:1", "old")
    queue.flush_now()
    assert embedder.arrived.wait(PATIENCE_SECONDS)
    new = queue.enqueue("doc:1", "new")
    embedder.release()
    assert result(new) == result(old) == to_floats(embedder.bytes_of("new"))
    assert fake_redis.hget("doc:1", "embedding") == embedder.bytes_of("new")


def test_blank_withdraws(make_queue, fake_redis, embedder):
    """Blank is a newer text: the older one is not embedded any more, its future has zeros."""
    queue = make_queue(start=False)
    old = queue.enqueue("doc:1", "old")
    queue.enqueue("doc:1", "")
    assert old.result(0) == [0.0] * 8
    assert queue.pending_count() == 0
    queue.start().flush(PATIENCE_SECONDS)
    assert embedder.calls == []
    assert fake_redis.keys("doc:*") == []


@pytest.mark.parametrize("text", ["\0", "a\0b", "🎉" * 10, "a\u2028b", "ˈ", '"}', "\\", "x" * 100_000, "\x7f\x85"])
def test_strange_texts(make_queue, fake_redis, embedder, text):
    """Any text and any key that UTF-8 can say arrive at the embedder and at the hash as they are."""
    queue = make_queue(api_batch_tokens=100)
    redis_key = f"doc:{text[:50]}"
    assert result(queue.enqueue(redis_key, text)) == to_floats(embedder.bytes_of(text))
    assert embedder.sent[text] == 1
    assert sorted(fake_redis.hkeys(redis_key)) == [b"embedding", b"embedding_of"]


def test_max_text_chars(make_queue, fake_redis):
    """A text over the user's own limit is refused before anything is written."""
    queue = make_queue(start=False, max_text_chars=5)
    queue.enqueue("doc:1", "12345")
    with pytest.raises(ValueError, match="max_text_chars=5"):
        queue.enqueue("doc:2", "123456")
    assert queue.pending_count() == 1


def test_max_pending(make_queue, fake_redis):
    """A full queue refuses, all or nothing; what waits already, what replaces it, and blank texts still go in."""
    queue = make_queue(start=False, max_pending=3)
    queue.enqueue_many([("a", "t"), ("b", "t")])
    with pytest.raises(QueueFull) as refusal:
        queue.enqueue_many([("c", "t"), ("d", "t")])
    assert refusal.value.max_pending == 3
    assert queue.pending_count() == 2
    queue.enqueue("c", "t")
    with pytest.raises(QueueFull):
        queue.enqueue("d", "t")
    queue.enqueue("a", "t")
    queue.enqueue("a", "newer")
    queue.enqueue("d", " ")
    queue.enqueue("b", " ")
    assert queue.enqueue("d", "t")
    assert queue.pending_count() == 3
    assert result(queue.start().enqueue("a", "newer"))
    queue.flush(PATIENCE_SECONDS)
    queue.enqueue("e", "t")


def test_redis_is_down(make_queue, fake_redis, embedder):
    """``enqueue`` raises redis-py's own error and accepts nothing; when Redis is back the queue goes on."""
    server = fakeredis.FakeServer()
    queue = make_queue(redis=fakeredis.FakeRedis(server=server))
    server.connected = False
    with pytest.raises(redis.ConnectionError):
        queue.enqueue("doc:1", "text")
    server.connected = True
    assert queue.pending_count() == 0
    assert result(queue.enqueue("doc:1", "text"))


# -- when a drain starts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "limit"), [(5, 50), (10, 4), (7, 3), (1, 50)])
def test_size(make_queue, fake_redis, embedder, size, limit):
    """A full batch is drained without anybody waiting; one item less is not."""
    queue = make_queue(max_batch_size=size, api_batch_limit=limit)
    queue.enqueue_many((f"doc:{i}", f"text {i}") for i in range(size - 1))
    assert not embedder.arrived.wait(0.03)
    queue.enqueue("doc:last", "last")
    wait_for_vectors(fake_redis, "doc:last", *(f"doc:{i}" for i in range(size - 1)))
    assert max(map(len, embedder.calls)) <= limit


def test_what_is_no_full_call_of_a_drain_for_size_goes_after_it(make_queue, fake_redis, embedder):
    """Nobody understands why the last ten of sixty wait for an hour."""
    queue = make_queue(max_batch_size=50)
    queue.enqueue_many((f"doc:{i}", f"text {i}") for i in range(60))
    wait_for_vectors(fake_redis, *(f"doc:{i}" for i in range(60)))
    assert sorted(len(texts) for texts in embedder.calls) == [10, 50]


def test_time(make_queue, fake_redis, embedder):
    """What waits longer than the interval is drained."""
    queue = make_queue(flush_interval=0.05)
    queue.enqueue("doc:1", "text")
    wait_for_vectors(fake_redis, "doc:1")


def test_demand(make_queue, embedder):
    """Whoever waits is served long before the timer, and only what they wait for must be; others may come along."""
    queue = make_queue()
    futures = queue.enqueue_many((f"doc:{i}", f"text {i}") for i in range(3))
    assert result(futures[1])
    assert len(embedder.calls) == 1


def test_no_demand(make_queue, embedder):
    """With ``flush_on_wait=False`` waiting is only waiting; a flush ends it."""
    queue = make_queue(flush_on_wait=False)
    future = queue.enqueue("doc:1", "text")
    with pytest.raises(TimeoutError):
        future.result(0.05)
    assert embedder.calls == []
    queue.flush_now()
    assert result(future)


def test_leftovers(make_queue, fake_redis, embedder):
    """``start()`` drains what an earlier run left, that of the asyncio design included."""
    fake_redis.zadd(PENDING, {json.dumps({"redis_key": "old:1", "text": "Grüße"}): 1_600_000_000.5})
    fake_redis.zadd(PENDING, {encode_member("old:2", "left"): 1_700_000_000})
    make_queue()
    wait_for_vectors(fake_redis, "old:1", "old:2")
    assert fake_redis.hget("old:1", "embedding") == embedder.bytes_of("Grüße")


def test_flush_now(make_queue, fake_redis, embedder):
    """``flush_now`` does not wait for the call."""
    queue = make_queue()
    embedder.hold()
    queue.enqueue("doc:1", "text")
    queue.flush_now()
    assert embedder.arrived.wait(PATIENCE_SECONDS)
    embedder.release()
    wait_for_vectors(fake_redis, "doc:1")


def test_flush(make_queue, fake_redis, embedder):
    """After ``flush`` everything that was pending is in its hash and every future has ended."""
    queue = make_queue()
    futures = queue.enqueue_many((f"doc:{i}", f"text {i}") for i in range(230))
    queue.flush(PATIENCE_SECONDS)
    assert all(future.done() for future in futures)
    assert queue.pending_count() == 0
    assert len(fake_redis.keys("doc:*")) == 230
    assert len(embedder.calls) == 5
    queue.flush()  # of nothing


def test_a_flush_is_not_ended_by_what_is_left_of_an_old_outage(make_queue, fake_redis):
    """Its pause is over: the next claim tests the provider, which is well."""
    fake_redis.set("embed_queue:pause:level", 3, ex=600)
    queue = make_queue(start=False)
    queue.enqueue("doc:1", "text")
    join(in_thread(queue.flush))
    assert fake_redis.hexists("doc:1", "embedding")


def test_whoever_is_told_finds_it_counted(make_queue, monkeypatch):
    """``stats`` counts what a flush that ends, or a callback, calls done, although Redis had it before we knew."""
    monkeypatch.setattr(*ASK_SECONDS, PATIENCE_SECONDS)
    queue = make_queue()
    complete, written, go_on = inside(queue).store.complete, threading.Event(), threading.Event()

    def late(*args):
        answer = complete(*args)
        written.set()
        assert go_on.wait(PATIENCE_SECONDS)
        return answer

    monkeypatch.setattr(inside(queue).store, "complete", late)
    counted: list[int] = []
    queue.enqueue("doc:1", "hello")
    queue.flush_now()
    assert written.wait(PATIENCE_SECONDS)
    flushing = in_thread(lambda: (queue.flush(PATIENCE_SECONDS), counted.append(queue.stats().embedded)))
    flushing.join(0.2)  # it would have ended
    go_on.set()
    join(flushing)
    future = queue.enqueue("doc:2", "hello")
    future.add_done_callback(lambda _: counted.append(queue.stats().embedded))
    queue.flush_now()
    future.result(PATIENCE_SECONDS)
    eventually(lambda: counted == [1, 2])


def test_flush_times_out(make_queue, embedder):
    """A flush that cannot be finished in time says so, and loses nothing."""
    queue = make_queue()
    embedder.hold()
    future = queue.enqueue("doc:1", "text")
    with pytest.raises(TimeoutError):
        queue.flush(0.05)
    embedder.release()
    assert result(future)


# -- life --------------------------------------------------------------------------------------------------------


def test_life(make_queue):
    """Started, stopped, started again; everything twice."""
    queue = make_queue(start=False)
    assert not queue.closed
    assert queue.start() is queue
    assert queue.start() is queue
    with queue as same:
        assert same is queue
        queue.enqueue("doc:1", "text")
    assert queue.closed
    queue.stop()
    queue.stop(drain=True)
    for use in (
        lambda: queue.enqueue("a", "b"),
        lambda: queue.enqueue_many([("a", "b")]),
        queue.flush,
        queue.flush_now,
    ):
        with pytest.raises(QueueStopped):
            use()
    assert queue.pending_count() == 1  # looking is allowed
    assert queue.stats().waiting == 1
    assert not queue.start().closed
    queue.flush(PATIENCE_SECONDS)


def test_stop(make_queue, fake_redis, embedder):
    """``stop`` cancels what is unfinished and gives back what is in flight, at its old place."""
    queue = make_queue()
    embedder.hold()
    claimed = queue.enqueue("doc:1", "text")
    score = fake_redis.zscore(PENDING, encode_member("doc:1", "text"))
    queue.flush_now()
    assert embedder.arrived.wait(PATIENCE_SECONDS)
    waiting = queue.enqueue("doc:2", "text")
    queue.stop(timeout=0.1)
    assert claimed.cancelled()
    assert waiting.cancelled()
    assert queue.pending_count() == 2
    assert fake_redis.zscore(PENDING, encode_member("doc:1", "text")) == score
    assert fake_redis.zcard("embed_queue:inflight") == 0


def test_stop_and_drain(make_queue, embedder):
    """``stop(drain=True)`` embeds everything first."""
    queue = make_queue()
    futures = queue.enqueue_many((f"doc:{i}", f"text {i}") for i in range(120))
    queue.stop(drain=True)
    assert all(result(future) for future in futures)
    assert queue.pending_count() == 0


def test_threads_are_daemons(make_queue):
    """No thread of ours keeps an interpreter from ending."""
    before = set(threading.enumerate())
    queue = make_queue()
    result(queue.enqueue("doc:1", "text"))
    ours = set(threading.enumerate()) - before
    assert ours
    assert all(thread.daemon for thread in ours)
    assert all(thread.name.startswith("embedqueue") for thread in ours)


def test_repr(embedder):
    """A repr shows name and state, and no secret of the client, the key or the URL."""
    client = redis.Redis.from_url("redis://user:hunter2@localhost:1/0")
    embedder.api_key = "sk-very-secret"
    queue = EmbeddingBatchQueue(embedder, client, namespace="mine")
    assert "mine" in repr(queue)
    assert "hunter2" not in repr(queue) + repr(vars(queue))
    assert "sk-very" not in repr(queue)
    queue.stop()
    assert "closed" in repr(queue)


def test_signature():
    """The first five parameters have the names, order and defaults of docs/design.md."""
    parameters = list(inspect.signature(EmbeddingBatchQueue).parameters.values())[:5]
    assert [parameter.name for parameter in parameters] == [
        "embedder",
        "redis",
        "model",
        "flush_interval",
        "max_batch_size",
    ]
    assert [parameter.default for parameter in parameters[2:]] == ["google/gemini-embedding-001", 3600.0, 50]
    assert EMBED_DIMENSIONS == 3072


def test_signature_tells_the_options():
    """Whoever asks Python for help sees every option and its default."""
    options = list(inspect.signature(EmbeddingBatchQueue).parameters.values())[5:]
    assert {option.kind for option in options} == {inspect.Parameter.KEYWORD_ONLY}
    shown = {option.name: option.default for option in options}
    assert shown["namespace"] == "embed_queue"
    assert shown == {name: getattr(Options, name) for name in QueueOptions.__annotations__}


@pytest.mark.parametrize(
    ("embedder", "client"),
    [(None, None), (object(), None), (FakeEmbedder(), None), (FakeEmbedder(), "redis://localhost")],
    ids=["nothing", "object", "no client", "url"],
)
def test_wrong_parts(fake_redis, embedder, client):
    """What is no embedder or no synchronous client is refused when the queue is made."""
    with pytest.raises(TypeError):
        EmbeddingBatchQueue(embedder, client)


def test_asyncio_client(embedder):
    """An asyncio client is not synchronous."""
    with pytest.raises(TypeError, match="synchronous"):
        EmbeddingBatchQueue(embedder, redis.asyncio.Redis())


def test_not_started(make_queue, caplog):
    """Enqueuing on a queue that nobody started works, and is said once."""
    queue = make_queue(start=False)
    with caplog.at_level(logging.WARNING, "embedqueue"):
        queue.enqueue("doc:1", "text")
        queue.enqueue("doc:2", "text")
    assert len([record for record in caplog.records if "not started" in record.message]) == 1


# -- looking -----------------------------------------------------------------------------------------------------


def test_stats(make_queue, embedder):
    """Every figure moves when its event happens."""
    queue = make_queue(start=False)
    empty = queue.stats()
    assert (empty.waiting, empty.in_flight, empty.dead, empty.oldest_age) == (0, 0, 0, None)
    assert (empty.paused_until, empty.pause_reason, empty.last_progress) == (None, None, None)
    queue.enqueue_many([("doc:1", "text"), ("doc:2", "bad"), ("doc:3", "")])
    waiting = queue.stats()
    assert (waiting.waiting, waiting.enqueued) == (2, 3)
    assert 0 <= waiting.oldest_age < 60
    embedder.rule = lambda texts: InputRejected("no") if "bad" in texts else None
    queue.start().flush(PATIENCE_SECONDS)
    eventually(lambda: queue.stats().rejected, "counted")  # Redis knows of it a moment earlier
    done = queue.stats()
    assert (done.waiting, done.in_flight, done.dead, done.embedded, done.rejected) == (0, 0, 1, 1, 1)
    assert done.calls == len(embedder.calls)
    assert done.texts_sent == sum(map(len, embedder.calls))
    assert done.failed_calls >= 1
    assert done.last_progress


def test_stats_in_flight(make_queue, embedder):
    """What a worker holds is in flight, not waiting."""
    queue = make_queue()
    embedder.hold()
    queue.enqueue("doc:1", "text")
    queue.flush_now()
    assert embedder.arrived.wait(PATIENCE_SECONDS)
    assert (queue.stats().waiting, queue.stats().in_flight, queue.pending_count()) == (0, 1, 0)


# -- dead letters ------------------------------------------------------------------------------------------------


@pytest.fixture
def dead(make_queue, embedder):
    """A queue with three dead letters; the embedder would take them now."""
    queue = make_queue()
    embedder.rule = lambda texts: InputRejected("too rude") if any("bad" in text for text in texts) else None
    for i in range(3):
        with pytest.raises(ItemRejected):
            result(queue.enqueue(f"doc:{i}", f"bad {i}"))
    embedder.rule = None
    return queue


def names(letters):
    return [letter.redis_key for letter in letters]


def test_dead_letters(dead, fake_redis):
    """Each tells its key, text, reason and time, the latest first; pages do not overlap."""
    letters = dead.dead_letters()
    assert names(letters) == ["doc:2", "doc:1", "doc:0"]
    assert letters[0].text == "bad 2"
    assert "too rude" in letters[0].reason
    assert letters[0].deliveries == 0
    assert abs(letters[0].died_at - fake_redis.time()[0]) < 60
    assert letters[0].member == encode_member("doc:2", "bad 2")
    assert names(dead.dead_letters(2)) == ["doc:2", "doc:1"]
    assert names(dead.dead_letters(limit=2, offset=2)) == ["doc:0"]
    assert dead.dead_letters(limit=0) == []
    assert dead.dead_letters(offset=3) == []
    assert dead.stats().dead == 3
    assert fake_redis.keys("doc:*") == []


@pytest.mark.parametrize(("limit", "offset", "max_bytes"), [(-1, 0, None), (1, -1, None), (1, 0, -1)])
def test_dead_letters_arguments(dead, limit, offset, max_bytes):
    """A negative number is a mistake, not a wish for something else."""
    with pytest.raises(ValueError):
        dead.dead_letters(limit, offset, max_bytes=max_bytes)


@pytest.mark.parametrize(
    ("redis_keys", "count"),
    [
        (None, 3),
        ("doc:1", 1),
        (b"doc:1", 1),
        (["doc:0", "doc:2"], 2),
        (("doc:0", "doc:0"), 1),
        pytest.param(iter(["doc:1"]), 1, id="iterator"),  # its repr differs between the processes that run tests
        ([b"doc:1"], 1),
        (["nobody"], 0),
        ("nobody", 0),
        ([], 0),
        ("doc:", 0),
    ],
    ids=repr,
)
@pytest.mark.parametrize("what", ["retry_dead", "discard_dead"])
def test_retry_and_discard(dead, embedder, redis_keys, count, what):
    """Put back or dropped: one key, some, or all; the answer counts them."""
    if not isinstance(redis_keys, str | bytes | list | tuple | None):
        redis_keys = ["doc:1"]  # an iterator serves one test only
    assert getattr(dead, what)(redis_keys) == count
    assert len(dead.dead_letters()) == 3 - count
    assert dead.pending_count() <= count
    dead.flush(PATIENCE_SECONDS)
    assert dead.stats().dead == 3 - count
    assert dead.stats().embedded == (count if what == "retry_dead" else 0)


def test_a_newer_text_of_another_program_keeps_a_letter_out(dead, embedder, fake_redis):
    """Also while nobody has adopted it: the older text must not come back as the newer one."""
    fake_redis.zadd(PENDING, {encode_member("doc:1", "newer"): fake_redis.time()[0]})
    assert dead.retry_dead("doc:1") == 0
    dead.flush(PATIENCE_SECONDS)
    assert fake_redis.hget("doc:1", "embedding") == embedder.bytes_of("newer")
    assert names(dead.dead_letters()) == ["doc:2", "doc:0"]


def test_enqueue_after_death(dead, fake_redis, embedder):
    """A newer text of a dead key supersedes its dead letter, for good."""
    assert result(dead.enqueue("doc:1", "better"))
    assert names(dead.dead_letters()) == ["doc:2", "doc:0"]
    assert dead.retry_dead("doc:1") == 0
    assert fake_redis.hget("doc:1", "embedding") == embedder.bytes_of("better")


def test_enqueue_dead_text_again(dead, fake_redis, embedder):
    """The very text that died may be tried again by enqueuing it."""
    assert result(dead.enqueue("doc:1", "bad 1")) == to_floats(embedder.bytes_of("bad 1"))
    assert names(dead.dead_letters()) == ["doc:2", "doc:0"]


@pytest.mark.parametrize(
    "member",
    [
        b"junk",
        b"\xff\xfe",
        b"{}",
        b'{"redis_key":"","text":"a"}',
        b'{"redis_key":"doc:x","text":5}',
        b'{"redis_key":"doc:x","text":"\\ud800"}',
        b'{"redis_key":"doc:\xff","text":"a"}',
        b'{"redis_key":"doc:x","text":"\xff"}',
        b"[" * 2000,
    ],
    ids=lambda member: repr(member[:40]),
)
def test_foreign_member(make_queue, fake_redis, embedder, member):
    """A member that is not ours becomes a dead letter as it stands, with a reason; its neighbours are served."""
    queue = make_queue(start=False)
    fake_redis.zadd(PENDING, {member: 1})
    future = queue.enqueue("doc:1", "text")
    queue.start()
    assert result(future)
    queue.flush(PATIENCE_SECONDS)
    [letter] = queue.dead_letters()
    assert (letter.redis_key, letter.member) == ("", member)
    assert "not our JSON" in letter.reason
    assert letter.text == member.decode("utf-8", "replace")
    assert fake_redis.zcard(PENDING) == fake_redis.zcard("embed_queue:inflight") == 0
    assert queue.discard_dead(letter.member) == 1
    assert queue.dead_letters() == []
    assert fake_redis.hlen("embed_queue:dead:info") == 0


@pytest.mark.parametrize(
    ("redis_key", "text", "reason"),
    [
        ("embed_queue:pending", "text", "namespace"),
        ("embed_queue:latest", "text", "namespace"),
        ("doc:x", " ", "blank"),
    ],
)
def test_foreign_pair(make_queue, fake_redis, embedder, redis_key, text, reason):
    """A pair that enqueue() would not have taken is a dead letter: the queue's own keys never become hashes."""
    queue = make_queue(start=False)
    fake_redis.zadd(PENDING, {encode_member(redis_key, text): 1})
    assert result(queue.start().enqueue("doc:1", "text"))
    queue.flush(PATIENCE_SECONDS)
    [letter] = queue.dead_letters()
    assert (letter.redis_key, letter.text) == (redis_key, text)
    assert reason in letter.reason
    assert embedder.sent == {"text": 1}
    assert result(queue.enqueue("doc:2", "another"))


# -- options that change what is done ----------------------------------------------------------------------------


def test_equal_texts(make_queue, fake_redis, embedder):
    """Equal texts that wait together are sent once, also across the calls of one drain."""
    queue = make_queue(start=False, api_batch_limit=10)
    queue.enqueue_many((f"doc:{i}", f"text {i % 7}") for i in range(300))
    queue.start().flush(PATIENCE_SECONDS)
    assert set(embedder.sent.values()) == {1}
    assert len(embedder.sent) == 7
    assert fake_redis.hget("doc:299", "embedding") == embedder.bytes_of(f"text {299 % 7}")


def test_vectors_of_a_long_backlog_are_kept_for_equal_texts_up_to_a_number(make_queue, embedder):
    """The oldest give way."""
    queue = make_queue(start=False, api_batch_limit=100, max_concurrency=1)
    queue.enqueue_many((f"doc:{i}", f"text {i}") for i in range(1000))
    queue.start().flush(PATIENCE_SECONDS)
    assert len(embedder.sent) == 1000
    assert set(embedder.sent.values()) == {1}


def test_equal_texts_in_flight(make_queue, embedder):
    """An equal text that comes while the first one's call is under way rides along."""
    rides = threading.Event()

    class Saved(Observer):
        def saved(self, report):
            rides.set()

    queue = make_queue(observers=[Saved()])
    embedder.hold()
    first = queue.enqueue("doc:1", "text")
    queue.flush_now()
    assert embedder.arrived.wait(PATIENCE_SECONDS)
    second = queue.enqueue("doc:2", "text")
    queue.flush_now()
    assert rides.wait(PATIENCE_SECONDS)
    embedder.release()
    assert result(first) == result(second)
    assert embedder.sent == {"text": 1}


def test_api_batch_limit(make_queue, embedder):
    """No call holds more texts than allowed, and no more calls are made than needed."""
    queue = make_queue(start=False, api_batch_limit=10)
    queue.enqueue_many((f"doc:{i}", f"text {i}") for i in range(95))
    queue.start().flush(PATIENCE_SECONDS)
    assert sorted(map(len, embedder.calls)) == [5] + [10] * 9


def test_api_batch_tokens(make_queue, embedder):
    """Estimates cut calls; a text that looks too long travels alone and is not refused."""
    queue = make_queue(start=False, api_batch_tokens=100)
    queue.enqueue_many([("a", "x" * 1000), *((f"doc:{i}", f"{i} " + "y" * 90) for i in range(8))])
    queue.start().flush(PATIENCE_SECONDS)
    assert ["x" * 1000] in embedder.calls
    assert all(len(call) <= 4 for call in embedder.calls)
    assert queue.stats().embedded == 9


def test_embedder_limits(make_queue, embedder):
    """An embedder that knows its provider's limits is heard."""
    embedder.max_texts = 7
    queue = make_queue(start=False)
    queue.enqueue_many((f"doc:{i}", f"text {i}") for i in range(20))
    queue.start().flush(PATIENCE_SECONDS)
    assert max(map(len, embedder.calls)) == 7


def test_max_concurrency(make_queue, embedder):
    """As many calls as allowed run side by side, and no more."""
    queue = make_queue(start=False, api_batch_limit=1, max_concurrency=3)
    embedder.hold()
    queue.enqueue_many((f"doc:{i}", f"text {i}") for i in range(10))
    queue.start()
    assert embedder.wait_for_calls(3, PATIENCE_SECONDS)
    assert not embedder.wait_for_calls(4, 0.05)
    embedder.release()
    queue.flush(PATIENCE_SECONDS)
    assert len(embedder.calls) == 10


def test_embedding_field(make_queue, fake_redis, embedder):
    """The vector goes to the field that was asked for; the others stay."""
    fake_redis.hset("doc:1", mapping={"title": "kept", "embedding": "mine"})
    queue = make_queue(embedding_field="vektor é")
    result(queue.enqueue("doc:1", "text"))
    found = fake_redis.hgetall("doc:1")
    assert found.pop("vektor é_of".encode())
    assert found == {b"title": b"kept", b"embedding": b"mine", "vektor é".encode(): embedder.bytes_of("text")}


@pytest.mark.parametrize(("if_missing", "created"), [("create", True), ("skip", False)])
def test_if_missing(make_queue, fake_redis, embedder, if_missing, created):
    """A hash that is gone when its vector arrives is made anew or left alone; the future has the vector either way."""
    queue = make_queue(if_missing=if_missing)
    fake_redis.hset("doc:there", "title", "kept")
    gone, there = queue.enqueue_many([("doc:gone", "text"), ("doc:there", "text")])
    assert result(gone) == result(there) == to_floats(embedder.bytes_of("text"))
    assert bool(fake_redis.exists("doc:gone")) == created
    assert fake_redis.hget("doc:there", "embedding") == embedder.bytes_of("text")
    assert queue.stats().waiting == queue.stats().in_flight == queue.stats().dead == 0


def test_namespaces_apart(make_queue, fake_redis, embedder):
    """Queues of two namespaces share a Redis and nothing else."""
    one, two = make_queue(start=False, namespace="one"), make_queue(start=False, namespace="two")
    one.enqueue("doc:1", "text")
    assert (one.pending_count(), two.pending_count()) == (1, 0)
    assert {key.decode().split(":")[0] for key in fake_redis.keys()} == {"one"}
    two.start().flush(PATIENCE_SECONDS)
    assert one.pending_count() == 1
    one.enqueue("two:pending", "another queue's key is any key")
    one.enqueue("embed_queue:x", "so is the default's")
    with pytest.raises(ValueError):
        one.enqueue("one:x", "text")


def test_cache(make_queue, fake_redis, embedder):
    """With the cache on, an equal text is sent once for as long as it lasts, whichever queue asks."""
    queue = make_queue(cache_ttl=60)
    assert result(queue.enqueue("doc:1", "text"))
    assert result(queue.enqueue("doc:2", "text")) == to_floats(embedder.bytes_of("text"))
    assert result(make_queue(cache_ttl=60).enqueue("doc:3", "text"))
    assert embedder.sent == {"text": 1}
    [entry] = fake_redis.keys("embed_queue:cache:*")
    assert 0 < fake_redis.ttl(entry) <= 60
    assert "text" not in entry.decode()
    assert fake_redis.hget("doc:3", "embedding") == embedder.bytes_of("text")


def test_cache_knows_the_model(make_queue, fake_redis, embedder):
    """Another model, or other dimensions, is another vector, once somebody has decided that it shall be another."""
    wide = FakeEmbedder(16)
    for place, (model, kind) in enumerate([("one", embedder), ("two", embedder), ("one", wide)]):
        queue = make_queue(cache_ttl=60, model=model, embedder=kind)
        assert len(result(queue.enqueue(f"doc:{place}", "text"))) == kind.dimensions
        queue.stop()
        fake_redis.hdel("embed_queue:settings", "model", "dimensions")
    assert (embedder.sent, wide.sent) == ({"text": 2}, {"text": 1})


def test_no_cache(make_queue, fake_redis, embedder):
    """Without it, nothing is kept: a text that is enqueued later is sent again."""
    queue = make_queue()
    result(queue.enqueue("doc:1", "text"))
    result(queue.enqueue("doc:2", "text"))
    assert embedder.sent == {"text": 2}
    assert fake_redis.keys("embed_queue:cache:*") == []


def test_cache_keeps_no_failures(make_queue, fake_redis, embedder):
    """A text that failed leaves no reservation behind that would keep others from it."""
    queue = make_queue(cache_ttl=60)
    embedder.rule = lambda texts: InputRejected("no") if "bad" in texts else None
    with pytest.raises(ItemRejected):
        result(queue.enqueue("doc:1", "bad"))
    embedder.rule = None
    assert result(queue.enqueue("doc:2", "bad"))


def test_wrong_type(make_queue, fake_redis, embedder):
    """A key that holds no hash: a dead letter with the reason; its neighbours of the same call are served."""
    fake_redis.set("doc:1", "a string")
    queue = make_queue()
    bad, good = queue.enqueue_many([("doc:1", "one"), ("doc:2", "two")])
    with pytest.raises(ItemRejected, match="WRONGTYPE"):
        result(bad)
    assert result(good)
    assert fake_redis.get("doc:1") == b"a string"
    assert names(queue.dead_letters()) == ["doc:1"]


def test_worker_elsewhere(make_queue, embedder):
    """A queue without a worker enqueues and waits; another process' worker is woken and its end is heard of."""
    producer, worker = make_queue(worker=False), make_queue()
    future = producer.enqueue("doc:1", "text")
    assert result(future) == to_floats(embedder.bytes_of("text"))
    lazy = producer.enqueue("doc:2", "later")
    producer.flush(PATIENCE_SECONDS)
    assert lazy.done()
    eventually(lambda: worker.stats().embedded == 2)


def test_errors_are_ours(make_queue, embedder):
    """Whatever ends a future, users catch it by one base."""
    queue = make_queue()
    embedder.rule = lambda texts: InputRejected("no") if "bad" in texts else None
    assert isinstance(queue.enqueue("doc:1", "bad").exception(PATIENCE_SECONDS), EmbedQueueError)
    assert issubclass(TransientError, EmbedQueueError)


def test_counters_begin_at_zero_and_count_one_by_one(make_queue, embedder):
    """Figures that somebody pays by."""
    queue = make_queue(start=False)
    stats = queue.stats()
    counted = (stats.enqueued, stats.embedded, stats.rejected, stats.released, stats.calls, stats.texts_sent)
    assert (counted, stats.last_progress) == ((0,) * 6, None)
    queue.start()
    result(queue.enqueue("a", "good"))
    embedder.rule = lambda texts: InputRejected("no") if "bad" in texts else None
    with pytest.raises(ItemRejected):
        result(queue.enqueue("b", "bad"))
    stats = queue.stats()
    assert (stats.enqueued, stats.embedded, stats.rejected, stats.released) == (2, 1, 1, 0)
    assert stats.last_progress is not None


def test_whatever_is_given_up_counts_as_rejected(make_queue, fake_redis):
    """What has killed its worker too often, and what cannot be ours."""
    queue = make_queue(start=False, max_deliveries=1)
    queue.enqueue("doc:1", "kills")
    member = encode_member("doc:1", "kills")
    fake_redis.zrem("embed_queue:pending", member)
    fake_redis.zadd("embed_queue:inflight", {member: 1.0})
    fake_redis.hset("embed_queue:claims", "doc:1", "1.0 0 w:1/60:")
    fake_redis.zadd("embed_queue:pending", {b"no JSON": 1.0})
    queue.start()
    eventually(lambda: queue.stats().rejected == queue.stats().dead == 2)


def test_many_pairs_go_in_parts(fake_redis, make_queue, monkeypatch):
    """So Redis serves others in between. What is raised on the way says how many pairs are in."""
    monkeypatch.setattr(*GROUP_LIMIT, 100)
    queue = make_queue(worker=False, max_pending=105)
    pairs = [(f"doc:{place}", f"text {place}") for place in range(110)]
    with pytest.raises(QueueFull) as raised:
        queue.enqueue_many(pairs)
    assert raised.value.__notes__ == ["embedqueue: the first 100 of 110 pairs are enqueued"]
    assert fake_redis.zcard("embed_queue:pending") == 100
    assert len(queue.enqueue_many(pairs[:105])) == 105
    assert fake_redis.zcard("embed_queue:pending") == 105
