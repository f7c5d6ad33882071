"""What should not happen, happens: a thread goes on, no lease runs out while its process lives, and nothing is lost."""

from __future__ import annotations

import contextlib
import itertools
import logging
import sys
import threading

import pytest
import redis
from redis.sentinel import Sentinel

from embedqueue import BatchFailed, ConfigurationError, InputRejected, ItemRejected, TransientError
from embedqueue.store.clients import private_client
from tests.inside import FIRST_PAUSE_SECONDS, REWRITE_SECONDS, THREADS, inside
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


class Speechless(Exception):
    def __str__(self):
        raise RuntimeError("not even its words can be had")


#: What no code of ours should raise: each takes another way through what tells of it.
UNFORESEEN = [
    lambda: TypeError("unforeseen"),
    MemoryError,
    Speechless,
    lambda: OverflowError("\ud800"),
    lambda: SystemExit(3),
]


def test_a_write_that_fails_once_in_an_unforeseen_way_is_tried_again(make_queue, redis_client, embedder, monkeypatch):
    """What gets at a password may have failed, or memory was short: the vector that is paid for is written."""
    queue = make_queue()
    once(monkeypatch, inside(queue).store, "complete", TypeError("unforeseen"))
    assert queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS) == expected("one")
    assert redis_client.hget("doc:1", "embedding") == stored("one")
    assert embedder.sent == {"one": 1}


@pytest.mark.parametrize("error", UNFORESEEN, ids=["type", "memory", "speechless", "surrogate", "exit"])
@pytest.mark.parametrize(("step", "text"), [("call", "one"), ("complete", "one"), ("reject", "bad")])
def test_whatever_a_call_raises_its_items_wait_again(
    make_queue, redis_client, embedder, monkeypatch, step, text, error
):
    """Under a pause, with no delivery counted: these are of processes that died. Then all is well again."""
    monkeypatch.setattr(*FIRST_PAUSE_SECONDS, 60.0)  # so that it stands while it is looked at
    queue = make_queue(max_deliveries=2, flush_on_wait=False)
    embedder.rule = lambda texts: InputRejected("no") if "bad" in texts else None
    queue.enqueue("doc:0", "good")
    queue.flush(PATIENCE_SECONDS)

    def fail(*args, **kwargs):
        raise error()

    with monkeypatch.context() as patched:
        patched.setattr(*(inside(queue).place("call") if step == "call" else (inside(queue).store, step)), fail)
        future = queue.enqueue("doc:1", text)
        for _ in range(3):  # one more than it may be delivered
            queue.flush_now()
            eventually(lambda: redis_client.exists("embed_queue:pause"), "a pause")
            eventually(lambda: inside(queue).calls == 0, "the call is over")
            assert in_flight(redis_client) == inside(queue).held == 0
            assert redis_client.zcard("embed_queue:pending") == 1
            assert redis_client.hget("embed_queue:claims", "doc:1") is None, "no delivery is counted"
            redis_client.delete(*redis_client.keys("embed_queue:pause*"))
            inside(queue).refresh()
    queue.flush(PATIENCE_SECONDS)
    assert redis_client.hget("doc:1", "embedding") == (stored(text) if text == "one" else None)
    assert [letter.deliveries for letter in queue.dead_letters()] == ([0] if text == "bad" else [])
    assert isinstance(future.exception(PATIENCE_SECONDS), BatchFailed)


def test_a_letter_of_whose_end_nobody_could_be_told_makes_no_pause(make_queue, redis_client, embedder, monkeypatch):
    """Nothing is left of the call. Who waits is told by the next look."""
    queue = make_queue()
    embedder.rule = lambda texts: InputRejected("no") if "bad" in texts else None
    queue.enqueue("doc:0", "good").result(PATIENCE_SECONDS)
    find_out, raised = inside(queue).outcomes.find_out, threading.Event()

    def fail(redis_keys, **facts):
        if redis_keys is not None:
            raised.set()
            raise TypeError("unforeseen")
        return find_out(redis_keys, **facts)

    monkeypatch.setattr(inside(queue).outcomes, "find_out", fail)
    with pytest.raises(ItemRejected):
        queue.enqueue("doc:1", "bad").result(PATIENCE_SECONDS)
    assert raised.is_set()
    assert not redis_client.exists("embed_queue:pause")


def test_a_pause_whose_reason_cannot_be_told_is_made_in_plain_words(make_queue, redis_client, embedder, monkeypatch):
    """The call's items wait again under it, and who waits is told the true reason."""
    monkeypatch.setattr(*FIRST_PAUSE_SECONDS, 60.0)  # so that it stands while it is looked at
    queue = make_queue(retry=ONE_TRY)
    give_back = inside(queue).store.fail

    def only_plain(owner, items, *, reason, **facts):
        if "down" in reason:
            reason.encode("ascii", "no such handler")
        return give_back(owner, items, reason=reason, **facts)

    monkeypatch.setattr(inside(queue).store, "fail", only_plain)
    embedder.rule = lambda texts: TransientError("down \xe4")
    with pytest.raises(BatchFailed, match="down"):
        queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS)
    assert redis_client.get("embed_queue:pause") == b"a call failed"
    assert redis_client.zcard("embed_queue:pending") == 1
    assert in_flight(redis_client) == 0


@pytest.mark.parametrize(("name", "times"), [("fail", 6), ("release", 20)])
def test_items_are_released_whatever_their_pause_or_release_raises(
    make_queue, redis_client, embedder, monkeypatch, name, times
):
    """Without a pause, if there can be none; in the end, if it takes long."""
    queue = make_queue(retry=ONE_TRY)
    monkeypatch.setattr(*REWRITE_SECONDS, (0.001, 0.01))
    method, tries = getattr(inside(queue).store, name), []

    def fail(*args, **kwargs):
        tries.append(1)
        if name == "fail" or len(tries) < times:
            raise ValueError("unforeseen")
        return method(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(inside(queue).store, name, fail)
        embedder.rule = lambda texts: TransientError("down")
        future = queue.enqueue("doc:1", "one")
        queue.flush_now()
        eventually(lambda: len(tries) >= times, "tried")
        eventually(lambda: redis_client.zcard("embed_queue:pending") == 1, "it waits again")
        embedder.rule = None
    redis_client.delete(*redis_client.keys("embed_queue:pause*") or ["none"])
    inside(queue).refresh()
    with contextlib.suppress(BatchFailed):
        future.result(PATIENCE_SECONDS)
    queue.flush(PATIENCE_SECONDS)
    assert redis_client.hget("doc:1", "embedding") == stored("one")
    assert queue.dead_letters() == []


def test_a_claim_that_cannot_be_sent_on_its_way_is_released(make_queue, redis_client, embedder, monkeypatch):
    """Nobody renews its leases, and an equal text that comes later waits for no call that never was."""
    queue = make_queue(start=False)
    queue.enqueue("doc:1", "one")

    def fail(call):
        redis_client.set("embed_queue:pause", "by hand")  # so that it is not claimed again before we have looked
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(*inside(queue).place("submit"), fail)
        queue.start()
        eventually(lambda: redis_client.exists("embed_queue:pause"), "claimed")
        eventually(lambda: redis_client.zcard("embed_queue:pending") == 1, "released")
        assert inside(queue).held == 0
    redis_client.delete("embed_queue:pause")
    queue.flush(PATIENCE_SECONDS)
    assert queue.enqueue("doc:2", "one").result(PATIENCE_SECONDS) == expected("one")
    assert redis_client.hget("doc:1", "embedding") == stored("one")
    eventually(lambda: inside(queue).held == in_flight(redis_client) == 0)


@pytest.mark.parametrize(
    ("asked", "least_ms", "most_ms"),
    [
        (float("inf"), 290_000, 300_000),
        (1e300, 290_000, 300_000),
        (float("nan"), 1, 15_000),
        (-5, 1, 15_000),
        ("30", 20_000, 30_000),
        ("soon", 1, 15_000),
        (object(), 1, 15_000),
    ],
)
def test_a_wait_that_is_no_number(make_queue, redis_client, embedder, monkeypatch, asked, least_ms, most_ms):
    """An embedder of one's own gives what it was given. The items wait again, under a pause that has an end."""
    monkeypatch.setattr(*FIRST_PAUSE_SECONDS, 15.0)  # so that it stands while it is looked at
    embedder.rule = lambda texts: TransientError("busy", retry_after=asked)
    queue = make_queue(retry=ONE_TRY)
    with pytest.raises(BatchFailed, match="busy"):
        queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS)
    assert least_ms <= redis_client.pttl("embed_queue:pause") <= most_ms
    assert redis_client.zcard("embed_queue:pending") == 1


@pytest.mark.parametrize("error", [Speechless(), OSError("caf\udce9"), ConfigurationError("\ud800"), KeyError()])
def test_words_that_cannot_be_told(make_queue, redis_client, embedder, monkeypatch, error):
    """They have no form in UTF-8, or there are none: what can be told is told, and the items wait again."""
    monkeypatch.setattr(*FIRST_PAUSE_SECONDS, 60.0)  # so that it stands while it is looked at
    embedder.rule = lambda texts: error
    queue = make_queue(retry=ONE_TRY)
    with pytest.raises(BatchFailed) as failed:
        queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS)
    assert str(failed.value).isprintable()
    assert redis_client.get("embed_queue:pause").startswith(b"the provider failed: ")
    assert redis_client.zcard("embed_queue:pending") == 1


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
    """Not at each probe for a night long, though each has a number; but again when all was well meanwhile."""
    queue, numbers = make_queue(), itertools.count(1)
    for times_told in (1, 2):
        embedder.rule = lambda texts: ConfigurationError(f"no credit (request req_{next(numbers)})")
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


def test_one_call_decides_whether_it_goes_on(make_queue, redis_client, embedder, monkeypatch):
    """However many calls the items of its claim would take: the others are not sent, and wait."""
    monkeypatch.setattr(*FIRST_PAUSE_SECONDS, 60.0)  # none ends by itself
    queue = make_queue(start=False, retry=ONE_TRY, api_batch_tokens=1000)
    embedder.rule = lambda texts: TransientError("down", status=503)
    futures = queue.enqueue_many([(f"doc:{place}", f"text {place} {'word ' * 700}") for place in range(12)])
    queue.start()
    eventually(lambda: redis_client.exists("embed_queue:pause") and in_flight(redis_client) == 0)
    level, calls = int(redis_client.get("embed_queue:pause:level")), len(embedder.calls)
    redis_client.delete("embed_queue:pause")
    inside(queue).refresh()
    eventually(lambda: int(redis_client.get("embed_queue:pause:level")) > level and in_flight(redis_client) == 0)
    assert len(embedder.calls) == calls + 1
    embedder.rule = None
    redis_client.delete("embed_queue:pause")
    inside(queue).refresh()
    eventually(lambda: redis_client.zcard("embed_queue:pending") == in_flight(redis_client) == 0)
    eventually(lambda: queue.stats().embedded == len(futures))


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
    queue = make_queue(start=False, max_concurrency=1, retry=ONE_TRY, flush_interval=0.01)
    producer = make_queue(worker=False)
    faults = [TransientError("down"), ValueError("of its own")]  # not beside a good call: then a text is to blame
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

    def written() -> bool:
        redis_client.delete("embed_queue:pause")  # for the time when the provider was down
        return all(redis_client.hexists(f"doc:{i}", "embedding") for i in range(4))

    eventually(written, "all are written")
    for i, future in enumerate(futures, 1):
        with contextlib.suppress(BatchFailed):  # while the provider was down; the item was still queued
            assert future.result(PATIENCE_SECONDS) == expected(f"text {i}")
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


def test_books_that_cannot_be_put_in_order_cost_no_claim(make_queue, redis_client, embedder, monkeypatch):
    """What the same claim has brought is on its way, and is not released: it would be sent twice."""
    queue = make_queue(start=False)
    queue.enqueue("gone:1", "text")
    redis_client.delete("embed_queue:pending")  # another program has taken it
    future = queue.enqueue("doc:1", "one")
    failed = threading.Event()

    def fail(*args):
        failed.set()
        raise redis.ConnectionError("cut")

    monkeypatch.setattr(inside(queue).store.adoption, "rounds", fail)
    embedder.hold()
    queue.start()
    embedder.wait_for_calls(1)
    assert failed.wait(PATIENCE_SECONDS)
    failed.clear()
    queue.flush_now()
    assert failed.wait(PATIENCE_SECONDS), "the next claim has come, after what is lost was released"
    assert in_flight(redis_client) == 1
    embedder.release()
    assert future.result(PATIENCE_SECONDS) == expected("one")
    assert embedder.sent["one"] == 1
