"""What was done lately, as it stands in Redis: added up over processes, bounded, never in anybody's way."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest
import redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError

from embedqueue import OpenAIEmbedder
from embedqueue.observers import history
from embedqueue.observers.history import LATENCY_SECONDS, Period, Recorder
from embedqueue.store.figures import Figures
from embedqueue.store.keys import Keys
from embedqueue.values.errors import InputRejected, TransientError
from embedqueue.values.observer import CallReport
from embedqueue.values.tokens import estimated_tokens
from tests.inside import HISTORY_WRITE_SECONDS, inside
from tests.parts import PATIENCE_SECONDS, eventually

HISTORY = "embed_queue:history:*"


@pytest.fixture
def soon(monkeypatch):
    """Figures are written at once."""
    monkeypatch.setattr(*HISTORY_WRITE_SECONDS, 0.01)


def _figures(client) -> Figures:
    return Figures(client, Keys("embed_queue"))


def _today(figures: Figures) -> Period:
    return history.read_history(figures, 1, 1).days[-1]


def test_processes_add_up(make_queue, redis_client, embedder):
    """What two workers and a producer did stands in a minute and a day, once they have stopped."""
    one, producer = make_queue(model="model-a"), make_queue(worker=False)
    one.enqueue("doc:1", "equal"), one.enqueue("doc:2", "equal")
    producer.enqueue("doc:3", "different")
    one.flush(PATIENCE_SECONDS)
    one.stop()
    redis_client.hdel("embed_queue:settings", "model")  # somebody decides that it is another from now on
    with make_queue(model="model-b") as two:
        two.enqueue("doc:4", "more").result(PATIENCE_SECONDS)
    producer.stop()
    found = make_queue(start=False).history(minutes=2)
    day = found.days[-1]
    assert (day.enqueued, day.embedded, day.dead, day.texts) == (4, 4, 0, 3)
    assert (day.saved_texts, set(day.tokens)) == (1, {"model-a", "model-b"})
    assert sum(day.latencies) == day.calls >= 2
    assert sum(minute.embedded for minute in found.minutes) == 4
    assert found.now - 60 < found.minutes[-1].start <= found.now
    assert abs(found.now - time.time()) < 60


def test_failures_and_deaths_are_counted_by_cause(make_queue, redis_client, embedder):
    """A 503, a timeout and a refused text, each under its name, whatever the words; no text stands in Redis."""
    faults = [TransientError("busy", status=503), TransientError("too slow", cause="timeout")]

    def fault(texts):
        if faults:
            return faults.pop(0)
        return InputRejected("no SECRETTEXT here", status=400) if "SECRETTEXT" in texts else None

    embedder.rule = fault
    queue = make_queue()
    futures = queue.enqueue_many([("doc:1", "fine"), ("doc:2", "SECRETTEXT")])
    assert futures[1].exception(PATIENCE_SECONDS) is not None
    queue.stop()
    day = make_queue(start=False).history().days[-1]
    assert (day.embedded, day.dead) == (1, 1)
    assert day.failures["transient 503"] == day.failures["transient timeout"] == 1
    assert day.failures["rejected 400"] >= 1
    stored = repr([redis_client.hgetall(key) for key in redis_client.keys(HISTORY)])
    assert "SECRETTEXT" not in stored
    assert "doc:" not in stored


def test_figures_are_written_while_the_queue_runs_and_nothing_when_it_is_idle(make_queue, redis_client, soon):
    """A few moments after something was done it can be read; then the thread is gone and Redis hears nothing."""
    queue = make_queue()
    queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS)
    eventually(lambda: queue.history().days[-1].embedded == 1, "written")
    eventually(lambda: not inside(queue).writes_history, "the thread ended")
    queue.enqueue("doc:2", "two").result(PATIENCE_SECONDS)
    eventually(lambda: queue.history().days[-1].embedded == 2, "written again")


def test_keys_expire_and_are_few(make_queue, redis_client):
    """A minute is kept for two hours, a day for 400 days, whatever happens in them."""
    with make_queue() as queue:
        queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS)
    kept = {key.split(b":")[2]: redis_client.ttl(key) for key in redis_client.keys(HISTORY)}
    assert 7100 < kept[b"m"] <= 7200
    assert 399 * 86_400 < kept[b"d"] <= 400 * 86_400


@pytest.mark.parametrize("status", [299, 1000, -1, "odd", None])
def test_a_key_stays_small_whatever_an_embedder_says(status, soon):
    """A failure is named after an HTTP status only where it has one: there are few names."""
    written: list[dict[str, int]] = []
    recorder = Recorder(written.append, "model", "embedqueue-history-test")
    recorder.call_ended(CallReport(texts=1, tokens=1, seconds=0.1, outcome="transient", status=status, error="odd"))
    recorder.stop()
    name = "failed transient 299" if status == 299 else "failed transient"
    assert written == [{"calls": 1, name: 1, "enqueued": 0}]


@pytest.mark.parametrize("rubbish", [b"", b"\xff many", b"-1", b"1e999", b"NaN", b"1" * 16, b"1" * 5000])
def test_rubbish_in_a_key_counts_as_nothing(redis_client, rubbish):
    """Somebody else's value breaks no reading, beside what is well."""
    figures = _figures(redis_client)
    figures.add({"enqueued": 1, "embedded": 1})
    for key in redis_client.keys(HISTORY):
        redis_client.hset(key, "enqueued", rubbish)
    assert (_today(figures).enqueued, _today(figures).embedded) == (0, 1)
    for key in redis_client.keys(HISTORY):
        redis_client.set(key, "no hash")
    assert _today(figures).embedded == 0


def test_a_read_that_redis_refuses_is_an_error(redis_client, redis_server):
    """Not a day on which nothing was done."""
    redis_client.acl_setuser("reader", enabled=True, passwords=["+secret"], keys=["*"], commands=["+time"])
    reader = redis.Redis.from_url(redis_server.url, username="reader", password="secret")
    with pytest.raises(NoPermissionError):
        _today(_figures(reader))
    reader.close()
    redis_client.acl_deluser("reader")


def test_without_history_nothing_is_written(make_queue, redis_client):
    """The option turns it off."""
    with make_queue(history=False) as queue:
        queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS)
    assert redis_client.keys(HISTORY) == []


def test_a_redis_that_does_not_take_figures_costs_none_and_stops_nothing(soon):
    """What could not be written is written with what comes next."""
    written: list[dict[str, int]] = []
    failures = threading.Semaphore(2)
    done = threading.Event()

    def write(figures):
        if failures.acquire(blocking=False):
            raise RedisConnectionError("gone")
        written.append(dict(figures))
        done.set()

    recorder = Recorder(write, "model", "embedqueue-history-test")
    recorder.accepted(2)
    assert done.wait(PATIENCE_SECONDS)
    recorder.stop()
    assert written == [{"enqueued": 2}]


@pytest.mark.quiet
def test_stopping_does_not_wait_long_for_a_redis_that_hangs(monkeypatch):
    """Figures are not worth more than a second."""
    monkeypatch.setattr("embedqueue.observers.history.LAST_WRITE_SECONDS", 1.0)
    release = threading.Event()
    recorder = Recorder(lambda figures: release.wait(PATIENCE_SECONDS), "model", "embedqueue-history-test")
    recorder.accepted(1)
    began_mono = time.monotonic()
    recorder.stop()
    assert time.monotonic() - began_mono < 5
    release.set()


def test_latencies_fall_into_their_classes():
    """The upper end belongs to the class; what is longer than all of them has one of its own."""
    figures: dict[str, int] = {}
    done = threading.Event()
    recorder = Recorder(lambda found: (figures.update(found), done.set()), "m" * 500, "embedqueue-history-test")
    for seconds in (0.01, LATENCY_SECONDS[0], LATENCY_SECONDS[0] + 0.001, 999.0):
        recorder.call_ended(CallReport(texts=1, tokens=10, seconds=seconds, outcome="ok"))
    recorder.stop()
    assert done.wait(PATIENCE_SECONDS)
    period = Period.of(0, 60, figures)
    assert (period.latencies[0], period.latencies[1], period.latencies[-1]) == (2, 1, 1)
    assert period.tokens == {"m" * 100: 40}


FORKING = """
import os, sys, redis
from embedqueue import EmbeddingBatchQueue
from embedqueue.testing import FakeEmbedder

queue = EmbeddingBatchQueue(FakeEmbedder(), redis.Redis.from_url(sys.argv[1]), worker=False)
queue.enqueue("doc:parent", "text")  # not written yet when the process forks
if os.fork() == 0:
    queue.enqueue("doc:child", "text")
    queue.stop()
    os._exit(0)
os.wait()
queue.stop()
"""


def test_a_fork_takes_no_figures_along(redis_client, redis_server):
    """What the parent did is counted once, by the parent."""
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKING, redis_server.url], check=True, timeout=PATIENCE_SECONDS * 2
    )
    assert _today(_figures(redis_client)).enqueued == 2


def test_tokens_measured_and_estimated_are_kept_apart(make_queue, provider):
    """By model, as the provider has counted them; estimated where it has not said."""
    provider.settings.tokens_per_text = 7
    for tokens, key in ((7, "doc:1"), (None, "doc:2")):
        provider.settings.tokens_per_text = tokens
        with make_queue(embedder=OpenAIEmbedder("test-key", provider.openai_url, 16), model="m") as queue:
            queue.enqueue(key, f"the text of {key}").result(PATIENCE_SECONDS)
    (sent,) = make_queue(start=False).history().days[-1].sent
    assert (sent.model, sent.lane, sent.texts, sent.measured) == ("m", "live", 2, 7)
    assert sent.estimated == estimated_tokens("the text of doc:2")
    assert sent.tokens == make_queue(start=False).history().days[-1].tokens["m"]


def test_what_if_changed_leaves_out_is_saved(make_queue, embedder):
    """As many texts as were left out, with their tokens, under their own name."""
    with make_queue() as queue:
        pairs = [(f"doc:{i}", f"the text of document {i}") for i in range(3)]
        queue.enqueue_many(pairs)
        queue.flush(PATIENCE_SECONDS)
        queue.enqueue_many([*pairs, ("doc:new", "new")], if_changed=True)
        queue.enqueue(*pairs[0], if_changed=True)
        queue.flush(PATIENCE_SECONDS)
    day = make_queue(start=False).history().days[-1]
    (saved,) = day.saved
    assert (saved.by, saved.texts, day.saved_texts) == ("unchanged", 4, 4)
    assert saved.tokens == 4 * estimated_tokens(pairs[0][1])


def test_figures_of_an_earlier_release_are_read():
    """Its tokens were estimated, and it did not say what has saved."""
    period = Period.of(
        0, 60, {"tokens m": 5, "estimated:live m": 1, "sent:live m": 1, "saved_texts": 2, "saved_tokens": 9}
    )
    assert [(one.model, one.estimated, one.measured) for one in period.sent] == [("m", 6, 0)]
    assert (period.saved_texts, period.saved_tokens) == (2, 9)


@pytest.mark.parametrize("told", ["5", -1, True, 10**13, RuntimeError("no")], ids=repr)
def test_a_meter_that_says_nonsense_is_not_believed(make_queue, embedder, told):
    """The tokens are estimated, and the item is embedded."""

    class Odd:
        dimensions = embedder.dimensions
        embed_batch = embedder.embed_batch

        def take_tokens(self):
            if isinstance(told, Exception):
                raise told
            return told

    with make_queue(embedder=Odd()) as queue:
        queue.enqueue("doc:1", "a text").result(PATIENCE_SECONDS)
    (sent,) = make_queue(start=False).history().days[-1].sent
    assert (sent.measured, sent.estimated) == (0, estimated_tokens("a text"))


def test_texts_that_may_have_been_paid_for_without_an_answer_are_counted(fake_redis):
    """By what the caller says of the try; the others fail for nothing."""
    written = []
    recorder = Recorder(written.append, "m", "test")
    for maybe_paid in (True, False):
        recorder.call_ended(
            CallReport(texts=3, tokens=1, seconds=1.0, outcome="transient", cause="timeout", maybe_paid=maybe_paid)
        )
    recorder.stop()
    assert Period.of(0.0, 60, written[0]).unanswered == 3


def test_no_more_is_told_than_is_kept(make_queue):
    """Else a large number, meant to ask for everything, would take as much memory as it says."""
    history = make_queue(start=False).history(minutes=1000, days=1000)
    assert (len(history.minutes), len(history.days)) == (120, 400)
