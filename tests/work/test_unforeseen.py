"""What should not happen, happens: a thread goes on, a lease runs out, and nothing is lost."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading

import pytest
import redis
from redis.sentinel import Sentinel

from embedqueue import BatchFailed, ConfigurationError, InputRejected, ItemRejected, TransientError
from embedqueue.store.clients import private_client
from tests.inside import THREADS, inside
from tests.parts import ONE_TRY, PATIENCE_SECONDS, eventually, expected, in_flight, stored
from tests.proof.test_invariants import LOOKS_LIKE_OURS


def once(monkeypatch, owner, name, error):
    """The method raises this the first time."""
    method, errors = getattr(owner, name), [error]

    def call(*args, **kwargs):
        if errors:
            raise errors.pop()
        return method(*args, **kwargs)

    monkeypatch.setattr(owner, name, call)


def test_a_write_that_fails_in_an_unforeseen_way(make_queue, redis_client, monkeypatch, caplog):
    """The lease runs out, and the item is embedded again."""
    queue = make_queue(lease_seconds=0.3)
    once(monkeypatch, inside(queue).store, "complete", TypeError("unforeseen"))
    assert queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS) == expected("one")
    assert "its leases will run out" in caplog.text
    assert redis_client.hget("doc:1", "embedding") == stored("one")


def test_a_call_that_fails_in_an_unforeseen_way(make_queue, redis_client, monkeypatch, caplog):
    """The same: nothing that nobody works on has its lease renewed."""
    queue = make_queue(lease_seconds=0.3)
    once(monkeypatch, *inside(queue).place("call"), TypeError("unforeseen"))
    assert queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS) == expected("one")
    assert "its leases will run out" in caplog.text


def test_a_claim_that_fails_in_an_unforeseen_way(make_queue, monkeypatch, caplog):
    """The worker says so and goes on."""
    queue = make_queue()
    once(monkeypatch, inside(queue).store, "claim", TypeError("unforeseen"))
    assert queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS) == expected("one")
    assert "the worker failed in a way that it should not, going on" in caplog.text


def test_no_thread_for_the_listener(make_queue, monkeypatch, caplog):
    """The next enqueue tries again."""
    make_queue()
    producer = make_queue(worker=False)
    with monkeypatch.context() as patched:

        def start(self):
            raise RuntimeError("can't start new thread")

        patched.setattr(threading.Thread, "start", start)
        first = producer.enqueue("doc:1", "one")
    assert "nobody listens to other processes" in caplog.text
    second = producer.enqueue("doc:2", "two")
    assert second.result(PATIENCE_SECONDS) == expected("two")
    assert first.result(PATIENCE_SECONDS) == expected("one")


def test_a_listener_that_fails_in_an_unforeseen_way(make_queue, monkeypatch, caplog):
    """It says so and listens on."""
    make_queue()
    producer = make_queue(worker=False)
    once(monkeypatch, inside(producer).store.events, "listen", TypeError("unforeseen"))
    assert producer.enqueue("doc:1", "one").result(PATIENCE_SECONDS) == expected("one")
    eventually(lambda: "a notice could not be handled" in caplog.text, "it says so")
    listen, heard = inside(producer).store.events.listen, []
    monkeypatch.setattr(inside(producer).store.events, "listen", lambda *args: (heard.append(1), listen(*args))[1])
    producer.enqueue("doc:2", "two").result(PATIENCE_SECONDS)
    eventually(lambda: heard, "it listens")


def test_a_stop_that_cuts_the_listener_short_is_no_fault(make_queue, monkeypatch, caplog):
    """redis-py raises a TypeError where the connection is closed while it asks whether there is something to read."""
    producer = make_queue(worker=False)
    reached = threading.Event()

    def listen(*args):
        reached.set()
        assert inside(producer).wait_for_stopped_listening(PATIENCE_SECONDS)
        raise TypeError("argument must be an int, or have a fileno() method.")

    monkeypatch.setattr(inside(producer).store.events, "listen", listen)
    producer.enqueue("doc:1", "one")
    assert reached.wait(PATIENCE_SECONDS)
    producer.stop()
    eventually(lambda: not inside(producer).listens, "its thread ends")
    assert "could not be handled" not in caplog.text


def test_a_probe_of_nothing_but_foreign_members_lets_the_next_one_probe(make_queue, redis_client):
    """It could not put the provider to the test."""
    queue = make_queue(start=False)
    redis_client.set("embed_queue:pause:level", 1)
    redis_client.zadd("embed_queue:pending", {LOOKS_LIKE_OURS: 1})
    queue.start()
    queue.flush(PATIENCE_SECONDS)
    eventually(lambda: redis_client.get("embed_queue:pause:probe") is None, "the probe is let go, a moment later")
    assert queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS) == expected("one")
    assert not redis_client.exists("embed_queue:pause:level")


def test_a_bad_text_that_was_replaced_while_it_was_refused(make_queue, redis_client, embedder):
    """It is nobody's dead letter; who waits gets the newer text's vector."""
    queue = make_queue()
    queue.enqueue("doc:0", "good").result(PATIENCE_SECONDS)
    embedder.rule = lambda texts: InputRejected("no") if "bad" in texts else None
    embedder.hold()
    old = queue.enqueue("doc:1", "bad")
    queue.flush_now()
    embedder.wait_for_calls(2)
    new = queue.enqueue("doc:1", "fine")
    embedder.release()
    assert new.result(PATIENCE_SECONDS) == old.result(PATIENCE_SECONDS) == expected("fine")
    assert queue.dead_letters() == []
    assert queue.stats().rejected == 0


def test_the_same_fault_of_the_account_is_told_once(make_queue, redis_client, embedder, caplog):
    """Not at each probe for a night long; but again when all was well meanwhile."""
    queue = make_queue()
    for times_told in (1, 2):
        embedder.rule = lambda texts: ConfigurationError("no credit")
        for place in range(3):
            with pytest.raises(BatchFailed):
                queue.enqueue(f"doc:{place}", "x").result(PATIENCE_SECONDS)
            eventually(lambda: in_flight(redis_client) == 0, "given back")
            redis_client.delete("embed_queue:pause")
            inside(queue).refresh()
        assert caplog.text.count("until somebody acts") == times_told
        embedder.rule = None
        queue.flush(PATIENCE_SECONDS)
        eventually(lambda: inside(queue).calls == 0, "the call is over")
    assert "will be made again" not in caplog.text


def test_a_redis_that_is_always_late(make_queue, monkeypatch):
    """Nothing is accepted of which nobody could wait for the answer; the error says so."""
    queue = make_queue(start=False)
    monkeypatch.setattr(*inside(queue).place("patience"), -1000.0)  # seconds: it is always too late
    with pytest.raises(redis.TimeoutError, match="longer for a command"):
        queue.enqueue("doc:1", "one")
    assert queue.pending_count() == 0


def test_a_client_of_sentinel_stays_one():
    """Ours asks the same sentinels for the master, in bytes."""
    theirs = Sentinel([("127.0.0.1", 9)]).master_for("mymaster", decode_responses=True, password="p")
    ours = private_client(theirs, socket_timeout=3).connection_pool
    assert (ours.service_name, ours.is_master) == ("mymaster", True)
    assert ours.sentinel_manager is theirs.connection_pool.sentinel_manager
    assert not ours.connection_kwargs.get("decode_responses")
    assert ours.connection_kwargs["password"] == "p"
    assert theirs.connection_pool.connection_kwargs["decode_responses"]


class NoContext(logging.Filter):
    """As a filter that reads ``flask.g``: it raises in every thread but that of a request. Notes which it was."""

    def __init__(self):
        super().__init__()
        self.threads = set()

    def filter(self, record):
        if record.name == "embedqueue":
            self.threads.add(threading.current_thread().name)
            raise RuntimeError("Working outside of application context.")
        return True


@pytest.fixture(params=["filter of the logger", "filter of a root handler", "root handler"])
def no_context(request):
    """A filter or handler that raises at every record of ours."""
    no_context, handler = NoContext(), logging.NullHandler()
    handler.handle = no_context.filter if request.param == "root handler" else handler.handle
    at = {"filter of the logger": logging.getLogger("embedqueue"), "filter of a root handler": logging.StreamHandler()}
    at = at.get(request.param, handler)
    if at is not handler:
        at.addFilter(no_context)
    if isinstance(at, logging.Handler):
        logging.getLogger().addHandler(at)
    level = logging.getLogger("embedqueue").level
    logging.getLogger("embedqueue").setLevel(logging.DEBUG)
    yield no_context
    logging.getLogger("embedqueue").setLevel(level)
    at.removeFilter(no_context)
    logging.getLogger().removeHandler(at)


def test_records_that_raise_in_every_thread(make_queue, redis_client, embedder, monkeypatch, no_context):
    """Everything fails once and would be told of: all items are embedded, and no call hangs."""
    queue = make_queue(start=False, lease_seconds=1, retry=ONE_TRY, flush_interval=0.01)
    producer = make_queue(worker=False)
    faults = [TransientError("down"), ValueError("of its own")]
    embedder.rule = lambda texts: faults.pop() if faults else None
    store = inside(queue).store
    once(monkeypatch, store, "claim", redis.ConnectionError("gone"))
    once(monkeypatch, store, "complete", redis.ConnectionError("gone"))
    once(monkeypatch, inside(producer).store.events, "listen", TypeError("unforeseen"))
    once(monkeypatch, *inside(producer).place("ask"), TypeError("unforeseen"))
    inside(producer).look_after(["doc:0"])
    queue.enqueue("doc:0", "zero")  # told in the user's thread: nobody works it
    queue.start()
    futures = [producer.enqueue(f"doc:{i}", f"text {i}") for i in range(1, 4)]
    futures[0].add_done_callback(lambda future: sys.exit("a callback"))
    eventually(lambda: redis_client.delete("embed_queue:pause") or not queue.pending_count(), "all are embedded")
    for i, future in enumerate(futures, 1):
        with contextlib.suppress(BatchFailed):  # while the provider was down; the item is still queued
            assert future.result(PATIENCE_SECONDS) == expected(f"text {i}")
    eventually(lambda: all(redis_client.hexists(f"doc:{i}", "embedding") for i in range(4)), "all are written")
    eventually(lambda: inside(queue).calls == 0, "no call slot is kept")
    assert queue.dead_letters() == [] and in_flight(redis_client) == 0
    assert queue.enqueue("doc:9", "nine").result(PATIENCE_SECONDS) == expected("nine")
    told = {name.partition("-")[2].partition("-")[0] for name in no_context.threads if name.startswith("embedqueue")}
    assert told >= THREADS, no_context.threads
    assert threading.current_thread().name in no_context.threads


@pytest.mark.parametrize("error", [ValueError, TransientError, InputRejected])
def test_words_of_an_embedder_without_measure(make_queue, redis_client, embedder, error):
    """An embedder of one's own says all it knows: Redis keeps the beginning, in pause, letter and notices."""
    embedder.rule = lambda texts: error("x" * 1_000_000) if texts == ["bad"] else None
    queue = make_queue(retry=ONE_TRY)
    queue.enqueue("doc:0", "good").result(PATIENCE_SECONDS)
    with pytest.raises((BatchFailed, ItemRejected)):
        queue.enqueue("doc:1", "bad").result(PATIENCE_SECONDS)
    kept = [redis_client.get("embed_queue:pause") or b"", *redis_client.hvals("embed_queue:dead:info")]
    kept += [body for _, fields in redis_client.xrange("embed_queue:events") for body in fields.values()]
    assert any(b"xxx" in words for words in kept)
    assert max(map(len, kept)) < 5000


def test_a_dead_letter_that_somebody_spoilt_hides_no_other(make_queue, redis_client, embedder):
    """What is known beside it is lost; the letters are all there."""
    embedder.rule = lambda texts: InputRejected("no") if "bad" in texts[0] else None
    queue = make_queue()
    for name in ("a", "b", "c"):
        assert queue.enqueue(name, f"bad {name}").exception(PATIENCE_SECONDS)
    redis_client.hset("embed_queue:dead:info", mapping={"a": "{oops", "b": "[" * 100_000})
    assert {letter.redis_key: letter.reason for letter in queue.dead_letters()} == {"a": "", "b": "", "c": "no"}
    assert [letter.redis_key for letter in inside(queue).store.dead.find(["a", "b", "c"])] == ["c"]
