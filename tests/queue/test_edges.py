"""Corners of a queue's life: the end of a process, flushes that overlap with an end, options, warnings, observers."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import redis

from embedqueue import (
    BatchFailed,
    EmbeddingBatchQueue,
    InputRejected,
    ItemRejected,
    Observer,
    OpenAIEmbedder,
    TransientError,
)
from embedqueue.observers.observers import Functions
from embedqueue.settings.checks import check_call, check_key, check_redis, explain_redis
from embedqueue.settings.settings import read
from embedqueue.testing import FakeEmbedder
from embedqueue.values.item import encode_member
from tests.inside import ASK_SECONDS, END_FUTURES, RECENT_BYTES, inside
from tests.parts import DIMENSIONS, ONE_TRY, PATIENCE_SECONDS, eventually, expected, in_thread, join


def test_at_the_end_of_a_process_a_second_signal_shortens_the_grace(make_queue, monkeypatch):
    """The handler's exit comes out of stop(); the items are given back all the same."""
    queue = make_queue(start=False)
    stop, asked, errors = queue.stop, [], [SystemExit(), KeyboardInterrupt()]

    def interrupted(timeout=None):
        asked.append(timeout)
        if errors:
            raise errors.pop(0)
        stop(timeout)

    monkeypatch.setattr(queue, "stop", interrupted)
    inside(queue).stop_at_exit()
    assert asked == [None, 0.0, 0.0]
    assert queue.closed
    errors[:] = [SystemExit()] * 9
    inside(queue).stop_at_exit()  # whoever signals without end is not fought for ever
    assert len(asked) == 6


def test_who_waits_does_not_start_a_stopped_queue(make_queue):
    queue = make_queue()
    queue.stop()
    inside(queue).start_unless_stopped()
    assert queue.closed
    assert not inside(queue).works


def test_flush_now_starts_a_queue_that_was_not(make_queue, embedder):
    queue = make_queue(start=False)
    future = queue.enqueue("doc:1", "one")
    queue.flush_now()
    embedder.wait_for_calls(1)
    assert future.result(PATIENCE_SECONDS) == expected("one")


def test_options_can_be_read(make_queue):
    assert make_queue(start=False, max_batch_size=7).options.max_batch_size == 7


def test_a_flush_asks_again_where_nobody_has_claimed(make_queue, redis_client):
    """The worker that heard of it may have died."""
    queue = make_queue(worker=False)
    queue.enqueue("doc:1", "one")
    with pytest.raises(TimeoutError, match="1 items"):
        queue.flush(1.6)
    kinds = [fields[b"kind"] for _, fields in redis_client.xrange("embed_queue:events")]
    assert kinds.count(b"flush") >= 2


@pytest.mark.parametrize("in_time", [True, False])
def test_a_flush_waits_for_ends_under_way(make_queue, monkeypatch, in_time):
    """What Redis calls finished is in the futures when flush returns, unless somebody's callback takes too long."""
    if in_time:
        monkeypatch.setattr(*ASK_SECONDS, PATIENCE_SECONDS)
    queue = make_queue()
    go, reached, end = threading.Event(), threading.Event(), getattr(*END_FUTURES)

    def slow(entry, outcome):
        reached.set()
        assert go.wait(PATIENCE_SECONDS)
        end(entry, outcome)

    monkeypatch.setattr(*END_FUTURES, slow)
    outcomes = inside(queue).outcomes
    find_out = outcomes.find_out

    def find_out_later(*arguments, **options):  # else flush might be the one to end the future
        assert reached.wait(PATIENCE_SECONDS)
        find_out(*arguments, **options)

    monkeypatch.setattr(outcomes, "find_out", find_out_later)
    future = queue.enqueue("doc:1", "one")
    flushed = in_thread(lambda: queue.flush(PATIENCE_SECONDS))
    assert reached.wait(PATIENCE_SECONDS)
    if in_time:
        go.set()
    join(flushed)
    assert future.done() == in_time
    go.set()
    assert future.result(PATIENCE_SECONDS) == expected("one")


@pytest.mark.parametrize("arguments", [{"minutes": 0}, {"days": 0}])
def test_no_history_of_nothing(make_queue, arguments):
    with pytest.raises(ValueError, match="at least 1"):
        make_queue(start=False).history(**arguments)


def test_a_policy_that_may_evict_the_queue_is_warned_of(make_queue, redis_client, caplog):
    redis_client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        make_queue()
    finally:
        redis_client.config_set("maxmemory-policy", "noeviction")
    assert "allkeys-lru may evict" in caplog.text


def test_a_blank_text_from_another_process_ends_the_futures_here(make_queue):
    """With the zero vector: that is what the key's newest text has."""
    here, there = make_queue(worker=False), make_queue(worker=False)
    future = here.enqueue("doc:1", "text")
    there.enqueue("doc:1", " ")
    assert future.result(PATIENCE_SECONDS) == [0.0] * DIMENSIONS


class Ear(Observer):
    def __init__(self):
        self.outcomes = []

    def call_ended(self, report):
        self.outcomes.append(report.outcome)


def test_rows_that_are_not_fit_to_be_written_make_a_partial_call(make_queue, embedder):
    """The good ones are written at once; the others travel again."""
    ear, spoilt = Ear(), ["bad"]

    class Spoils:
        dimensions = DIMENSIONS

        def embed_batch(self, texts, model):
            rows = embedder.embed_batch(texts, model)
            return np.stack(
                [
                    row * np.nan if text in spoilt and spoilt.pop() else row
                    for text, row in zip(texts, rows, strict=True)
                ]
            )

    queue = make_queue(embedder=Spoils(), observers=[ear])
    futures = queue.enqueue_many([("doc:1", "good"), ("doc:2", "bad")])
    assert [future.result(PATIENCE_SECONDS) for future in futures] == [expected("good"), expected("bad")]
    eventually(lambda: ear.outcomes == ["partial", "ok"], f"{ear.outcomes}")
    assert embedder.sent == {"good": 1, "bad": 2}


def test_functions_that_were_not_given_are_not_called(make_queue, embedder):
    """Each of the three options stands alone."""
    told = []
    queue = make_queue(on_dead=told.append)
    embedder.rule = lambda texts: InputRejected("no") if "bad" in texts else None
    queue.enqueue("doc:0", "good").result(PATIENCE_SECONDS)
    assert queue.enqueue("doc:1", "bad").exception(PATIENCE_SECONDS)
    eventually(lambda: [letter.redis_key for letter in told] == ["doc:1"], "told")
    nothing = Functions(None, None, None)
    for tell in (nothing.written, nothing.call_ended, nothing.redis_failed, nothing.died):
        tell(None)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (redis.exceptions.NoPermissionError("NOPERM"), "grant it"),
        (redis.exceptions.NoPermissionError("no permissions to run the 'evalsha' command"), "run no scripts"),
        (redis.exceptions.ClusterCrossSlotError("Keys in request"), "redis+cluster://HOST:PORT,HOST:PORT in REDIS_URL"),
        (redis.exceptions.MovedError("15495 127.0.0.1:7001"), "is a node of a Redis Cluster"),
        (redis.exceptions.ReadOnlyError("You can't write"), "name its master in REDIS_URL"),
        (redis.exceptions.OutOfMemoryError("command not allowed"), "raise its maxmemory"),
        (redis.ResponseError("unknown command 'EVALSHA'"), "something stands in between"),
        (redis.AuthenticationError("Authentication required."), "wants a password"),
        (redis.AuthenticationError("WRONGPASS"), "refuses the password"),
        (redis.ConnectionError("refused"), "start it"),
        (redis.TimeoutError("slow"), "start it"),
        (redis.ResponseError("MISCONF"), "answers with an error"),
    ],
)
def test_what_an_error_of_redis_means(error, words):
    """With the setting to change, and without the password, which a server may quote."""
    error.args = (f"{error}, with args beginning with: `AUTH` `user` `hunter2`",)
    said = explain_redis(read({"REDIS_URL": "redis://user:hunter2@host/0"}), error)
    assert words in said
    assert "hunter2" not in said


def test_a_check_finds_nothing_where_all_is_well(redis_server, redis_client, provider, monkeypatch):
    settings = read(
        {"REDIS_URL": redis_server.url, "PROVIDER": "openai", "BASE_URL": provider.openai_url, "API_KEY": "test-key",
         "DIMENSIONS": 16}
    )  # fmt: skip
    assert check_redis(settings) == check_key(settings) == check_call(settings) == []
    wrong = read({"PROVIDER": "openai", "BASE_URL": provider.openai_url, "API_KEY": "k", "DIMENSIONS": 16})
    assert "No call to" in check_call(wrong)[0]
    provider.settings.require_key = False
    monkeypatch.setattr(type(settings), "embedder", lambda self: Broken())
    assert "failed" in check_call(settings)[0]
    assert check_key(read({"PROVIDER": "local"})) == []


class Broken:
    def embed_batch(self, texts, model):
        raise TransientError("down")


def test_who_is_told_of_deaths_is_told_without_redis_too(make_queue, embedder, monkeypatch):
    """What Redis would add is not worth a wait."""
    told = []
    queue = make_queue(on_dead=told.append)
    embedder.rule = lambda texts: InputRejected("no") if "bad" in texts else None
    queue.enqueue("doc:0", "good").result(PATIENCE_SECONDS)

    def gone(names):
        raise redis.ConnectionError("gone")

    monkeypatch.setattr(inside(queue).store.dead, "find", gone)
    queue.enqueue("doc:1", "bad").exception(PATIENCE_SECONDS)
    eventually(lambda: [(letter.redis_key, letter.text) for letter in told] == [("doc:1", "bad")], "told")
    assert "no" in told[0].reason


def test_a_local_model_that_is_not_installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install" in check_key(read({"PROVIDER": "local"}))[0]


def test_a_fake_that_is_held_for_ever_fails_its_test(monkeypatch):
    """Instead of hanging it."""
    monkeypatch.setattr("embedqueue.testing.PATIENCE_SECONDS", 0.01)
    fake = FakeEmbedder()
    fake.hold()
    with pytest.raises(AssertionError, match="not released"):
        fake.embed_batch(["x"], "m")


def test_texts_that_all_wait_twice_are_sent_once(make_queue, embedder):
    """A thousand other texts lie between the two."""
    queue = make_queue(start=False, max_concurrency=2)
    texts = [f"text {i}" for i in range(1000)]
    queue.enqueue_many((f"{name}:{i}", text) for name in ("a", "b") for i, text in enumerate(texts))
    queue.start()
    queue.flush(PATIENCE_SECONDS)
    assert embedder.sent == dict.fromkeys(texts, 1)


def test_calls_that_may_be_larger_than_any_claim(make_queue, redis_client):
    """Of short texts, more fit into a call than Lua can answer a claim with."""
    queue = make_queue(start=False, api_batch_limit=20_000, api_batch_tokens=10**9)
    queue.enqueue_many((f"doc:{i}", f"text {i}") for i in range(8200))
    queue.start()
    queue.flush(PATIENCE_SECONDS)
    assert queue.stats().dead == 0
    assert redis_client.exists(*(f"doc:{i}" for i in range(8200))) == 8200


@pytest.mark.parametrize(("kept_bytes", "times"), [(30 * 1000, 1), (1000, 2)])
def test_vectors_for_equal_texts_further_behind_are_kept_up_to_a_size(
    make_queue, embedder, monkeypatch, kept_bytes, times
):
    """While more waits, an equal text that comes soon is not sent again; what is kept for it is bounded."""
    monkeypatch.setattr(*RECENT_BYTES, kept_bytes)
    queue = make_queue(start=False, max_concurrency=1, api_batch_limit=4)
    texts = ["same", *(f"text {i}" for i in range(30)), "same"]
    queue.enqueue_many((f"doc:{i}", text) for i, text in enumerate(texts))
    queue.start()
    queue.flush(PATIENCE_SECONDS)
    assert embedder.sent == dict.fromkeys(texts, 1) | {"same": times}


def test_a_full_redis_is_not_asked_for_smaller_parts(make_queue, monkeypatch):
    """It would refuse these, too; only what is refused for its size is cut."""
    queue, asked = make_queue(worker=False), []

    def full(part, *_):
        asked.append(len(part))
        raise redis.ResponseError("OOM command not allowed when used memory > 'maxmemory'.")

    monkeypatch.setattr(queue, "_submit", full)
    with pytest.raises(redis.ResponseError, match="OOM"):
        queue.enqueue_many([("doc:1", "one"), ("doc:2", "two")])
    assert asked == [2]


def test_a_flush_puts_the_books_in_order_slice_by_slice(make_queue, redis_client, monkeypatch):
    """Where nobody works yet; it hears between the slices when its time is up, or its queue stops."""
    monkeypatch.setattr("embedqueue.flushing.POLL_SECONDS", 0.0)
    monkeypatch.setattr("embedqueue.store.adoption.SLICE", 1)
    for number in range(3):
        redis_client.zadd("embed_queue:pending", {encode_member(f"doc:{number}", "old"): 1.0 + number})
    producer = make_queue(worker=False)
    flush = in_thread(lambda: producer.flush(PATIENCE_SECONDS))
    eventually(lambda: redis_client.hlen("embed_queue:latest") == 3, "all are adopted")
    make_queue()
    join(flush)
    assert all(redis_client.hexists(f"doc:{number}", "embedding") for number in range(3))


def test_a_queue_that_nobody_observes(make_queue, embedder, redis_client):
    """Not even its history: everything ends as it does where somebody is told."""
    queue = make_queue(history=False, retry=ONE_TRY, start=False)
    redis_client.zadd("embed_queue:pending", {b"rubbish": 1.0})
    same = queue.enqueue_many([("doc:1", "same"), ("doc:2", "same")])
    queue.start()
    assert [future.result(PATIENCE_SECONDS) for future in same] == [expected("same")] * 2
    embedder.rule = lambda texts: InputRejected("too bad") if "odd" in texts else None
    with pytest.raises(ItemRejected, match="too bad"):
        queue.enqueue("doc:3", "odd").result(PATIENCE_SECONDS)
    embedder.rule = lambda texts: TransientError("away")
    with pytest.raises(BatchFailed, match="away"):
        queue.enqueue("doc:4", "well").result(PATIENCE_SECONDS)
    assert queue.stats().dead == 2


@pytest.mark.parametrize(("timeout", "error"), [("1", TypeError), (True, TypeError), (float("nan"), ValueError)])
def test_no_number_of_seconds_stops_nothing(make_queue, embedder, timeout, error):
    """It is refused at once: before anything is stopped, asked for or paid."""
    queue = make_queue(start=False)
    future = queue.enqueue("doc:1", "text")
    calls = [lambda: queue.stop(timeout), lambda: queue.stop(timeout, drain=True), lambda: queue.flush(timeout)]
    for call in (*calls, lambda: queue.embed_query("query", timeout)):
        with pytest.raises(error, match="timeout must be a number of seconds"):
            call()
    assert not queue.closed
    assert not future.done()
    assert embedder.calls == []


def test_a_stop_that_may_take_for_ever_comes_to_its_end(make_queue):
    """No thread can wait for infinite seconds; one that tried would leave a queue that is stopped by half."""
    queue = make_queue()
    future = queue.enqueue("doc:1", "text")
    queue.stop(timeout=float("inf"))
    assert queue.closed
    assert future.cancelled()
    assert queue.start().enqueue("doc:1", "text").result(PATIENCE_SECONDS) == expected("text")
    queue.flush(timeout=float("inf"))


@pytest.mark.parametrize("do", ["retry_dead", "discard_dead"])
def test_what_names_no_dead_letter_is_refused(make_queue, embedder, do):
    """A letter itself is no name: Redis would tell that there is no such letter, and nothing would become of any."""
    embedder.rule = lambda texts: InputRejected("bad") if "bad" in texts else None
    queue = make_queue()
    with pytest.raises(ItemRejected):
        queue.enqueue("doc:1", "bad").result(PATIENCE_SECONDS)
    letters = queue.dead_letters()
    for names in (letters, ["doc:1", None]):
        with pytest.raises(TypeError, match="named by its redis_key"):
            getattr(queue, do)(names)
    assert queue.dead_letters() == letters
    assert getattr(queue, do)([letter.redis_key for letter in letters]) == 1


def test_no_name_of_an_index_costs_no_query(make_queue, embedder):
    with pytest.raises(TypeError, match="index must be the name of an index"):
        make_queue().search("query", index=None)
    assert embedder.calls == []


def test_verify_takes_pairs_alone(make_queue):
    """As enqueue_many() does: a word of two letters is none."""
    with pytest.raises(TypeError, match="pairs, not str"):
        make_queue().verify(["ab"])


def test_a_model_that_is_no_string_is_refused_before_its_embedder_hears_of_it(redis_client):
    embedder = OpenAIEmbedder("key")
    before = embedder.dimensions
    with pytest.raises(TypeError, match="model"):
        EmbeddingBatchQueue(embedder, redis_client, model=5)
    assert embedder.dimensions == before
