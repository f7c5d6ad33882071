"""``embed_query``: who shares a call with whom, what is kept, and how it ends when something fails."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import redis

from embedqueue import (
    BatchFailed,
    Budget,
    ConfigurationError,
    InputRejected,
    Observer,
    QueueStopped,
    TransientError,
)
from embedqueue.store.change import FINISHING
from embedqueue.testing import FakeEmbedder, eager_queue
from tests.inside import LONGEST_QUERY_SECONDS, inside
from tests.parts import ONE_TRY, PATIENCE_SECONDS, GatedEmbedder, Strikes, eventually, expected, in_thread


class TwoRoles(GatedEmbedder):
    """Embeds queries otherwise than documents; ``calls`` tells which those were."""

    def embed_queries(self, texts, model):
        return super().embed_batch([f"? {text}" for text in texts], model)


def query_threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name.startswith("embedqueue-query-") and one.is_alive()]


def asked(queue, *texts, timeout=PATIENCE_SECONDS):
    """All texts at once, each in a thread of its own: their vectors, or what was raised, in order."""

    def ask(text):
        try:
            return queue.embed_query(text, timeout)
        except Exception as error:
            return error

    pool = ThreadPoolExecutor(len(texts))
    futures = [pool.submit(ask, text) for text in texts]
    pool.shutdown(wait=False)
    return futures


def joined(queue) -> threading.Semaphore:
    """Released each time that a query has joined those that wait, or are under way."""
    queries, one_more = inside(queue).queries, threading.Semaphore(0)
    join = queries._join

    def tell(text):
        query = join(text)
        one_more.release()
        return query

    queries._join = tell
    return one_more


def together(make_queue, embedder, *texts, **options):
    """All texts in one call: they come while another is under way, and there may be one at a time."""
    queue = make_queue(start=False, max_concurrency=1, wait_linger=0, **options)
    embedder.hold()
    first = asked(queue, "the first")
    embedder.wait_for_calls(1)
    others = asked(queue, *texts)
    eventually(lambda: inside(queue).waiting_queries == len(set(texts)), "all have come")
    eventually(lambda: len(query_threads()) == 1, "one sender, and those of tests before have ended")
    return queue, first[0], others


@pytest.mark.parametrize("options", [{"start": False}, {"worker": False}, {}])
def test_a_query_has_its_vector_and_leaves_nothing_behind(make_queue, redis_client, options):
    """Whether the queue was started or not: nothing is enqueued, no hash is written, no thread stays."""
    queue = make_queue(history=False, **options)
    before = set(redis_client.keys("*"))
    assert queue.embed_query("where is it?") == expected("where is it?")
    worked = {b"embed_queue:settings", b"embed_queue:workers"}  # of a worker that has looked
    assert set(redis_client.keys("*")) - before <= worked
    assert queue.pending_count() == 0
    eventually(lambda: not query_threads(), "the sender ends")


def test_queries_have_their_own_role_and_documents_theirs(make_queue, redis_client):
    """The embedder's, if it has one; with the cache on, they are kept apart."""
    embedder = TwoRoles()
    queue = make_queue(embedder=embedder, cache_ttl=60)
    assert queue.embed_query("a text") == expected("? a text")
    eventually(lambda: redis_client.keys("embed_queue:cache:*"), "it is kept")
    assert queue.enqueue("doc:1", "a text").result(PATIENCE_SECONDS) == expected("a text")
    assert queue.embed_query("a text") == expected("? a text")
    assert embedder.calls == [["? a text"], ["a text"]]


def test_without_a_role_of_their_own_the_cache_keeps_them_apart_all_the_same(make_queue, redis_client, embedder):
    """A query never waits for a worker that embeds the same text, nor a worker for a query."""
    queue = make_queue(cache_ttl=60)
    embedder.hold()
    future = queue.enqueue("doc:1", "a text")
    queue.flush_now()
    embedder.wait_for_calls(1)
    [query] = asked(queue, "a text")
    embedder.wait_for_calls(2)
    embedder.release()
    assert query.result(PATIENCE_SECONDS) == future.result(PATIENCE_SECONDS) == expected("a text")


def test_what_is_kept_is_not_sent_again(make_queue, redis_client, embedder):
    """Also by another process, also in a pause; observers are told what that has saved."""
    saved = []

    class Saved(Observer):
        def saved(self, report):
            saved.append((report.texts, report.by))

    make_queue(cache_ttl=60).embed_query("one")
    eventually(lambda: redis_client.keys("embed_queue:cache:*"), "it is kept")
    [key] = redis_client.keys("embed_queue:cache:*")
    assert 50_000 < redis_client.pttl(key) <= 60_000
    redis_client.set("embed_queue:pause", "by hand")
    another = make_queue(cache_ttl=60, observers=[Saved()])
    assert another.embed_query("one") == expected("one")
    redis_client.delete("embed_queue:pause")
    assert another.embed_query("one") == expected("one")
    eventually(lambda: not query_threads(), "the senders have done all that they do")
    assert embedder.calls == [["one"]]
    assert saved == [(1, "cache")] * 2


def test_who_comes_together_shares_a_call_and_equal_texts_are_sent_once(make_queue, embedder):
    """Twenty callers of four texts, of which the four come within the linger: one call."""
    queue = make_queue(start=False, wait_linger=8.0)
    one_more = joined(queue)
    embedder.hold()
    texts = [f"text {i % 4}" for i in range(20)]
    futures = asked(queue, *texts)
    for _ in texts:
        assert one_more.acquire(timeout=PATIENCE_SECONDS)
    embedder.release()
    assert [future.result(PATIENCE_SECONDS) for future in futures] == [expected(text) for text in texts]
    assert [sorted(call) for call in embedder.calls] == [["text 0", "text 1", "text 2", "text 3"]]


def test_whoever_asks_for_what_is_under_way_waits_for_that(make_queue, embedder):
    """And who asks for something else meanwhile does not wait for it."""
    queue = make_queue(start=False)
    one_more = joined(queue)
    embedder.hold()
    first = asked(queue, "one")
    embedder.wait_for_calls(1)
    again = asked(queue, "one", "one")
    other = asked(queue, "two")
    embedder.wait_for_calls(2)
    for _ in range(4):
        assert one_more.acquire(timeout=PATIENCE_SECONDS)
    embedder.release()
    assert [one.result(PATIENCE_SECONDS) for one in (*first, *again)] == [expected("one")] * 3
    assert other[0].result(PATIENCE_SECONDS) == expected("two")
    assert embedder.calls == [["one"], ["two"]]


def test_no_more_calls_at_a_time_than_max_concurrency(make_queue, embedder):
    """Who comes when all are under way goes with the next, together, as far as a call holds them."""
    texts = [f"text {i}" for i in range(9)]
    _, first, others = together(make_queue, embedder, *texts, api_batch_limit=5)
    embedder.release()
    assert first.result(PATIENCE_SECONDS) == expected("the first")
    assert [future.result(PATIENCE_SECONDS) for future in others] == [expected(text) for text in texts]
    assert [len(call) for call in embedder.calls] == [1, 5, 4]


def test_queries_do_not_wait_for_documents(make_queue, embedder):
    """All calls of the drain are under way and have no answer."""
    queue = make_queue(max_concurrency=1, api_batch_limit=1)
    embedder.hold()
    queue.enqueue_many((f"doc:{i}", f"text {i}") for i in range(3))
    queue.flush_now()
    embedder.wait_for_calls(1)
    [query] = asked(queue, "now")
    embedder.wait_for_calls(2)
    assert embedder.calls[1] == ["now"]
    embedder.release()
    assert query.result(PATIENCE_SECONDS) == expected("now")


@pytest.mark.parametrize(
    ("text", "error"),
    [(None, TypeError), (b"bytes", TypeError), ("", ValueError), (" \n", ValueError), ("\ud800", ValueError)],
)
def test_what_is_no_query(make_queue, embedder, text, error):
    """A blank one included: unlike a blank document, it can be told to whoever asks."""
    with pytest.raises(error):
        make_queue(start=False).embed_query(text)
    assert embedder.calls == []


def test_a_query_longer_than_texts_may_be(make_queue):
    with pytest.raises(ValueError, match="max_text_chars=5"):
        make_queue(start=False, max_text_chars=5).embed_query("longer")


def test_a_pause_says_why(make_queue, redis_client, embedder):
    redis_client.set("embed_queue:pause", "the provider is being changed")
    with pytest.raises(BatchFailed, match="paused: the provider is being changed"):
        make_queue(start=False).embed_query("a text")
    assert embedder.calls == []


@pytest.mark.parametrize("budget", [None, Budget(usd_per_day=1000)], ids=["without a budget", "with one"])
def test_queries_go_on_while_a_change_of_the_model_is_finished(make_queue, redis_client, budget):
    """Its queue stands still for a moment then; who searches must not notice."""
    redis_client.set("embed_queue:pause", FINISHING)
    queue = make_queue(start=False, budget=budget, prices={"gemini-embedding-001": 1.0})
    assert queue.embed_query("a text") == expected("a text")


def test_a_failing_provider_is_tried_again(make_queue, embedder):
    """As for documents; the cause is what the embedder raised. Nothing is paused for that."""
    import tenacity

    queue = make_queue(start=False, retry=tenacity.Retrying(stop=tenacity.stop_after_attempt(3)))
    embedder.fail_with(TransientError("not now", status=503), times=2)
    assert queue.embed_query("one") == expected("one")
    embedder.fail_with(TransientError("not now", status=503), times=3)
    with pytest.raises(BatchFailed, match="not now") as failed:
        queue.embed_query("two")
    assert isinstance(failed.value.__cause__, TransientError)
    assert len(embedder.calls) == 6
    assert queue.stats().pause_reason is None
    assert (queue.stats().calls, queue.stats().failed_calls, queue.stats().texts_sent) == (6, 5, 6)


def test_a_wrong_key_is_told_to_all_who_share_the_call(make_queue, embedder):
    """Each gets an error of its own, caused by what the embedder raised; there is one try."""
    _, _, others = together(make_queue, embedder, "one", "two")
    embedder.fail_with(ConfigurationError("the key is wrong"))
    embedder.release()
    errors = [future.result(PATIENCE_SECONDS) for future in others]
    for error in errors:
        assert isinstance(error, BatchFailed)
        assert "the key is wrong" in str(error)
        assert isinstance(error.__cause__, ConfigurationError)
    assert errors[0] is not errors[1]
    assert len(embedder.calls) == 2


def test_a_refused_query_leaves_others_alone(make_queue, embedder):
    """The call is halved, and nobody becomes a dead letter."""
    queue, _, (good, bad) = together(make_queue, embedder, "good", "bad")
    embedder.rule = lambda texts: InputRejected("too rude") if "bad" in texts else None
    embedder.release()
    assert good.result(PATIENCE_SECONDS) == expected("good")
    error = bad.result(PATIENCE_SECONDS)
    assert isinstance(error, InputRejected)
    assert "too rude" in str(error)
    assert queue.stats().dead == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_a_vector_that_nobody_can_search_with_is_not_returned(make_queue, embedder, monkeypatch, value):
    """NaN, infinity, zeros: as for documents."""
    usual = embedder.embed_batch

    def embed(texts, model):
        rows = np.array(usual(texts, model))
        rows[[i for i, text in enumerate(texts) if text == "odd"]] = value
        return rows

    monkeypatch.setattr(embedder, "embed_batch", embed)
    with pytest.raises(InputRejected, match="all zeros"):
        make_queue(start=False, retry=ONE_TRY).embed_query("odd")


def test_a_wrong_width_names_both(make_queue):
    narrow = FakeEmbedder(4)
    narrow.embed_batch = lambda texts, model: np.ones((len(texts), 3))
    with pytest.raises(BatchFailed, match="3 dimensions.* 4"):
        make_queue(start=False, embedder=narrow, retry=ONE_TRY).embed_query("one")


def test_a_timeout_ends_the_wait_and_nothing_else(make_queue, embedder):
    queue = make_queue(start=False)
    embedder.hold()
    with pytest.raises(TimeoutError, match=r"0\.05 s"):
        queue.embed_query("one", timeout=0.05)
    one_more = joined(queue)
    [again] = asked(queue, "one")
    assert one_more.acquire(timeout=PATIENCE_SECONDS)
    embedder.release()
    assert again.result(PATIENCE_SECONDS) == expected("one")
    assert embedder.calls == [["one"]]


def test_a_call_that_hangs_is_given_up(make_queue, embedder, monkeypatch):
    """Its place is another's then, and whoever asks for the same text has it sent anew."""
    monkeypatch.setattr(*LONGEST_QUERY_SECONDS, 0.1)
    queue = make_queue(start=False, max_concurrency=1)
    embedder.hold()
    with pytest.raises(BatchFailed, match="no answer"):
        queue.embed_query("one")
    embedder.wait_for_calls(1)
    monkeypatch.setattr(*LONGEST_QUERY_SECONDS, 600.0)
    inside(queue).age_queries(600.0)
    [again] = asked(queue, "one")
    embedder.wait_for_calls(2)
    embedder.release()
    assert again.result(PATIENCE_SECONDS) == expected("one")


def test_stopping_ends_queries(make_queue, embedder):
    """At once, whatever the provider does; a stopped queue takes none, and one that is started again does."""
    queue = make_queue(start=False)
    embedder.hold()
    [query] = asked(queue, "one")
    embedder.wait_for_calls(1)
    queue.stop()
    assert isinstance(query.result(PATIENCE_SECONDS), QueueStopped)
    with pytest.raises(QueueStopped):
        queue.embed_query("two")
    embedder.release()
    eventually(lambda: not query_threads(), "the sender ends")
    assert queue.start().embed_query("three") == expected("three")


def test_stopping_ends_the_waits_between_tries(make_queue, embedder):
    """No thread stays behind until the provider's time is over."""
    queue = make_queue(start=False)
    embedder.fail_with(TransientError("not now", retry_after=15))
    [query] = asked(queue, "one")
    embedder.wait_for_calls(1)
    queue.stop()
    assert isinstance(query.result(PATIENCE_SECONDS), QueueStopped)
    eventually(lambda: not query_threads(), "the sender ends", 10)


def test_who_asks_just_after_a_stop_does_not_wait(make_queue, embedder):
    """It was not stopped yet when this one looked."""
    queries = inside(make_queue(start=False)).queries
    queries.stop()
    with pytest.raises(QueueStopped):
        queries.ask("one", PATIENCE_SECONDS)
    assert embedder.calls == []


def test_what_no_code_should_raise_is_told_and_leaves_nobody_waiting(make_queue, embedder, monkeypatch, caplog):
    queue = make_queue(start=False)
    with monkeypatch.context() as broken:
        broken.setattr(inside(queue).store, "pause_reason", lambda: {}["a fault of ours"])
        with pytest.raises(BatchFailed, match="in a way that it should not") as failed:
            queue.embed_query("one")
    assert isinstance(failed.value.__cause__, KeyError)
    assert "a query failed in a way" in caplog.text
    assert queue.embed_query("one") == expected("one")


def test_a_vector_that_cannot_be_kept_is_returned_all_the_same(make_queue, embedder, monkeypatch):
    queue = make_queue(start=False, cache_ttl=60)

    def away(*_):
        raise redis.ConnectionError("gone")

    monkeypatch.setattr(inside(queue).store.cache, "put", away)
    assert queue.embed_query("one") == expected("one")
    assert queue.embed_query("one") == expected("one")
    assert embedder.calls == [["one"], ["one"]]


def test_a_redis_that_is_away_is_told(make_queue, embedder):
    """Nobody knows then whether there is a pause, and a search needs it anyway."""
    away = redis.Redis(unix_socket_path="/nowhere/redis.sock")
    with pytest.raises(redis.ConnectionError):
        make_queue(away, start=False).embed_query("one")
    assert embedder.calls == []


def test_from_asyncio(make_queue, embedder):
    """Ten searches side by side, in threads of asyncio's own."""
    queue = make_queue(start=False)

    async def search():
        return await asyncio.gather(*(asyncio.to_thread(queue.embed_query, f"text {i}") for i in range(10)))

    assert asyncio.run(search()) == [expected(f"text {i}") for i in range(10)]


def test_an_observer_must_not_wait_for_its_queue(make_queue, embedder):
    """The thread that tells it would wait for itself."""
    raised = []

    class Asks(Observer):
        def call_ended(self, report):
            try:
                queue.embed_query("another")
            except RuntimeError as error:
                raised.append(str(error))

    queue = make_queue(start=False, observers=[Asks()])
    assert queue.embed_query("one") == expected("one")
    assert len(raised) == 1


def test_without_threads_to_be_had(make_queue, embedder, monkeypatch):
    """It is sent in the thread of whoever asks."""
    queue = make_queue(start=False)

    def no_more(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as none:
        none.setattr(threading.Thread, "start", no_more)
        assert queue.embed_query("one") == expected("one")
    assert queue.embed_query("two") == expected("two")


def test_a_handler_that_python_takes_for_a_fault_of_locks_gets_through(make_queue, embedder, monkeypatch):
    """Ctrl-C while a thread starts ends the program, and is not taken for a lack of threads."""
    queue = make_queue(start=False)

    def interrupted(thread):
        try:
            raise KeyboardInterrupt
        finally:
            threading.Lock().release()

    with monkeypatch.context() as busy:
        busy.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            queue.embed_query("one")
    assert embedder.calls == []
    assert queue.embed_query("two") == expected("two")


@pytest.fixture
def on_signal():
    """Calls a function at a signal that the test sends to itself."""

    def install(function):
        signal.signal(signal.SIGUSR1, lambda *_: function())
        return lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

    usual = signal.getsignal(signal.SIGUSR1)
    yield install
    signal.signal(signal.SIGUSR1, usual)


def test_a_handler_may_stop_the_queue_that_its_thread_asks(make_queue, embedder):
    """The query ends, and so does the handler."""
    queue = make_queue(start=False)
    embedder.hold()
    with Strikes(lambda: queue.stop(timeout=0)) as strikes:
        in_thread(lambda: (embedder.wait_for_calls(1), strikes.strike()))
        with pytest.raises(QueueStopped):
            queue.embed_query("one")


def test_a_handler_may_ask_while_its_thread_waits_but_not_where_it_has_interrupted(make_queue, embedder):
    """There it would wait for ever."""
    queue = make_queue(start=False)
    found = []
    embedder.hold()
    with Strikes(lambda: found.append(queue.embed_query("of the handler"))) as strikes:
        in_thread(
            lambda: (embedder.wait_for_calls(1), strikes.strike(), embedder.wait_for_calls(2), embedder.release())
        )
        assert queue.embed_query("one") == expected("one")
    assert found == [expected("of the handler")]
    lock, name = inside(queue).locks_of_users()["queries"]
    with getattr(lock, name), pytest.raises(RuntimeError, match="would wait for ever"):
        queue.embed_query("two")


# A handler that raises within Thread.start() may break the new thread, in Python itself; what it raises within a
# __del__ is lost.
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:Exception ignored in thread:pytest.PytestUnraisableExceptionWarning")
def test_what_a_handler_raises_leaves_no_query_behind(make_queue, embedder, on_signal):
    """Ctrl-C at any moment: those who come later are served."""
    queue = make_queue(start=False, wait_linger=0)
    strikes = []

    def interrupt():
        if strikes:
            strikes.clear()
            raise KeyboardInterrupt

    send = on_signal(interrupt)

    def strike(seconds, heard):
        time.sleep(seconds)
        while not heard.is_set():
            strikes.append(seconds)
            send()
            heard.wait(PATIENCE_SECONDS / 4)

    for i in range(100):
        heard = threading.Event()
        with pytest.raises(KeyboardInterrupt):
            in_thread(lambda i=i, heard=heard: strike(i / 100 * 0.003, heard))
            queue.embed_query(f"text {i}", PATIENCE_SECONDS)
            while True:  # one long wait may begin just after the signal, and would not hear of it
                time.sleep(0.001)
        heard.set()
    assert queue.embed_query("the last", PATIENCE_SECONDS) == expected("the last")
    eventually(lambda: not query_threads(), "the senders end")


def test_eager_queues_ask_in_the_callers_thread(monkeypatch):
    """No thread, no linger; after a failure there is no pause; Ctrl-C gets through."""

    def interrupt():
        raise KeyboardInterrupt

    with eager_queue(wait_linger=60.0) as queue:
        threads = set(threading.enumerate())
        embedder = queue._embedder
        assert queue.embed_query("a cat") == embedder.vector_of("a cat").tolist()
        embedder.fail_with(ConfigurationError("the key is wrong"))
        assert isinstance(queue.enqueue("doc:1", "a text").exception(1), BatchFailed)
        embedder.fail_with(ConfigurationError("the key is wrong"))
        with pytest.raises(BatchFailed, match="the key is wrong"):
            queue.embed_query("a dog")
        assert queue.embed_query("a dog") == embedder.vector_of("a dog").tolist()
        with monkeypatch.context() as interrupted:
            interrupted.setattr(inside(queue).store, "pause_reason", interrupt)
            with pytest.raises(KeyboardInterrupt):
                queue.embed_query("a bird")
        assert queue.embed_query("a bird") == embedder.vector_of("a bird").tolist()
        assert set(threading.enumerate()) <= threads
