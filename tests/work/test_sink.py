"""A sink takes each vector before its item is acknowledged, and nothing that it does loses an item or pays twice."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from embedqueue import (
    BatchFailed,
    ConfigurationError,
    EmbeddingBatchQueue,
    InputRejected,
    ItemRejected,
    SinkRow,
    Sinks,
    TransientError,
)
from embedqueue.testing import FakeEmbedder, eager_queue
from embedqueue.values.provenance import digest
from tests.inside import inside
from tests.parts import DIMENSIONS, PATIENCE_SECONDS, eventually, expected, in_flight, renewed, start_held, stored

SPACE = f"gemini-embedding-001/{DIMENSIONS}/-"


class Table:
    """A sink that is fenced as it should be, does as it is told, and tells of each write."""

    def __init__(self, rule: Callable[[Sequence[SinkRow]], BaseException | None] | None = None) -> None:
        self.rows: dict[str, SinkRow] = {}
        self.stamps: dict[str, int] = {}
        self.writes: list[list[str]] = []
        self.rule = rule
        self.arrived = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()
        self._lock = threading.Lock()

    def write(self, rows: Sequence[SinkRow]) -> None:
        with self._lock:
            self.writes.append([row.redis_key for row in rows])
            rule = self.rule
        self.arrived.set()
        assert self.go_on.wait(PATIENCE_SECONDS)
        if rule is not None and (error := rule(rows)) is not None:
            raise error
        with self._lock:
            for row in rows:
                if row.stamp >= self.stamps.get(row.redis_key, 0):
                    self.rows[row.redis_key], self.stamps[row.redis_key] = row, row.stamp

    def remove(self, redis_keys: Sequence[str], stamp: int) -> None:
        with self._lock:
            for key in redis_keys:
                if self.stamps.get(key, 0) < stamp:
                    self.rows.pop(key, None)
                    self.stamps[key] = stamp

    def has(self, key: str, text: str) -> bool:
        return key in self.rows and self.rows[key].digest == digest(text)


def failing(error: BaseException, times: int) -> Callable[[Sequence[SinkRow]], BaseException | None]:
    left = [error] * times
    return lambda rows: left.pop() if left else None


@pytest.fixture(autouse=True)
def _quickly(monkeypatch):
    monkeypatch.setattr("embedqueue.work.sinking.QUICK_SECONDS", 0.001)
    monkeypatch.setattr("embedqueue.work.sinking.RETRY_SECONDS", (0.05, 0.2))
    monkeypatch.setattr("embedqueue.work.sinking.LOOK_SECONDS", 0.01)


def test_a_row_says_what_it_is_of(make_queue, redis_client):
    """The vector, its stamp and its provenance are those that the hash has; and the hash is written as ever."""
    queue = make_queue(sink=(table := Table()))
    assert queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS) == expected("one")
    row = table.rows["doc:1"]
    assert row.vector.dtype == np.float32
    assert row.vector.shape == (DIMENSIONS,)
    assert row.vector.tobytes() == stored("one") == redis_client.hget("doc:1", "embedding")
    assert (row.space, row.digest) == (SPACE, digest("one"))
    assert row.provenance.encode() == redis_client.hget("doc:1", "embedding_of")


def test_half_floats_come_as_float32(make_queue):
    queue = make_queue(sink=(table := Table()), vector_type="float16")
    vector = queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS)
    assert table.rows["doc:1"].vector.dtype == np.float32
    assert table.rows["doc:1"].vector.tolist() == vector


def test_many_rows_a_write(make_queue, embedder):
    """What one call brings goes to the sink at once."""
    queue = make_queue(sink=(table := Table()), start=False)
    queue.enqueue_many((f"doc:{i}", f"text {i}") for i in range(40))
    with queue:
        queue.flush(PATIENCE_SECONDS)
    assert [len(keys) for keys in table.writes] == [40]


def test_the_sink_comes_first(make_queue, redis_client, embedder):
    """While the sink is at it, the item is in flight and no future has ended; a slow one loses no lease."""
    table = Table()
    table.go_on.clear()
    queue = make_queue(sink=table, lease_seconds=12.0)
    other = make_queue(sink=table, lease_seconds=12.0)
    future = queue.enqueue("doc:1", "one")
    queue.flush_now()
    assert table.arrived.wait(PATIENCE_SECONDS)
    renewed(redis_client)  # the other one would claim what had run out
    assert not future.done()
    assert not redis_client.exists("doc:1")
    table.go_on.set()
    assert future.result(PATIENCE_SECONDS) == expected("one")
    assert embedder.sent["one"] == 1
    eventually(lambda: queue.stats().embedded + other.stats().embedded == 1)


def test_a_glitch_goes_unnoticed(make_queue, embedder):
    """Two failures in a row are tried again in place, whatever was raised."""
    queue = make_queue(sink=(table := Table(failing(RuntimeError("glitch"), 2))))
    assert queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS) == expected("one")
    assert queue.stats().pause_reason is None
    assert len(table.writes) == 3
    assert embedder.sent["one"] == 1


@pytest.mark.parametrize(
    "error",
    [TransientError("no room"), ConfigurationError("no such table"), ConnectionRefusedError("refused"), KeyError("x")],
    ids=lambda error: type(error).__name__,
)
def test_a_sink_that_is_down(make_queue, redis_client, embedder, error, monkeypatch):
    """Who waits is answered, the queue pauses for all, no delivery is charged, and nothing is paid for again."""
    monkeypatch.setattr("embedqueue.work.sinking.PAUSE_FACTOR", 1000.0)  # it ends when the sink is well, not before
    down = threading.Event()
    down.set()
    table = Table(lambda rows: error if down.is_set() else None)
    queue, other = make_queue(sink=table), make_queue(worker=False)
    futures = queue.enqueue_many([("doc:1", "one"), ("doc:2", "two")])
    waiter = other.enqueue("doc:1", "one")  # in another process, as it were
    with pytest.raises(BatchFailed, match="the sink failed.*still queued"):
        futures[0].result(PATIENCE_SECONDS)
    with pytest.raises(BatchFailed, match="the sink failed"):
        waiter.result(PATIENCE_SECONDS)
    eventually(lambda: (queue.stats().pause_reason or "").startswith("the sink failed"), "all are told why")
    assert in_flight(redis_client) == 2
    assert not redis_client.exists("doc:1")
    table.go_on.clear()
    table.arrived.clear()
    assert table.arrived.wait(PATIENCE_SECONDS)  # no try fails between the two that follow, and tells who waits
    again = queue.enqueue("doc:2", "two")
    down.clear()
    table.go_on.set()
    assert again.result(PATIENCE_SECONDS) == expected("two")
    eventually(lambda: table.has("doc:1", "one") and in_flight(redis_client) == 0, "all is written")
    eventually(lambda: queue.stats().paused_until is None, "the pause is over")
    assert queue.enqueue("doc:3", "three").result(PATIENCE_SECONDS) == expected("three")
    assert set(embedder.sent.values()) == {1}
    assert queue.stats().dead == 0
    assert redis_client.hlen("embed_queue:claims") == 0


def test_a_pause_of_people_stays(make_queue, redis_client):
    """Neither the failure nor its end touches a pause that somebody has made."""
    down = threading.Event()
    down.set()
    table = Table(lambda rows: TransientError("down") if down.is_set() else None)
    table.go_on.clear()
    queue = make_queue(sink=table)
    future = queue.enqueue("doc:1", "one")
    queue.flush_now()
    assert table.arrived.wait(PATIENCE_SECONDS)
    redis_client.set("embed_queue:pause", "by hand")
    table.go_on.set()
    with pytest.raises(BatchFailed):
        future.result(PATIENCE_SECONDS)
    assert redis_client.get("embed_queue:pause") == b"by hand"
    down.clear()
    eventually(lambda: table.has("doc:1", "one") and in_flight(redis_client) == 0, "it is written")
    assert redis_client.get("embed_queue:pause") == b"by hand"


def test_a_refused_row_is_named(make_queue, embedder):
    """A row that the sink names is a dead letter; the others of its call are written, once."""

    def rule(rows):
        for i, row in enumerate(rows):
            if row.redis_key == "doc:7":
                return InputRejected("no such document", index=i)
        return None

    queue = make_queue(sink=(table := Table(rule)), start=False)
    futures = queue.enqueue_many((f"doc:{i}", f"text {i}") for i in range(20))
    with queue:
        with pytest.raises(ItemRejected, match="the sink refused it: no such document"):
            futures[7].result(PATIENCE_SECONDS)
        queue.flush(PATIENCE_SECONDS)
    assert len(table.rows) == 19
    assert [letter.redis_key for letter in queue.dead_letters()] == ["doc:7"]
    assert len(table.writes) == 2
    assert set(embedder.sent.values()) == {1}


@pytest.mark.parametrize("error", [InputRejected("bad"), ValueError("bad")], ids=["refused", "unknown"])
@pytest.mark.parametrize("bad", [{0}, {19}, {7}, {0, 7, 8}], ids=str)
def test_a_bad_row_is_found(make_queue, embedder, error, bad):
    """A row for which the sink fails while it takes others stands alone at last, and is a dead letter."""
    bad = {f"doc:{i}" for i in bad}
    rule = lambda rows: error if bad & {row.redis_key for row in rows} else None  # noqa: E731
    queue = make_queue(sink=(table := Table(rule)), start=False)
    queue.enqueue_many((f"doc:{i}", f"text {i}") for i in range(20))
    with queue:
        queue.flush(PATIENCE_SECONDS)
    assert {letter.redis_key for letter in queue.dead_letters()} == bad
    assert set(table.rows) == {f"doc:{i}" for i in range(20)} - bad
    assert set(embedder.sent.values()) == {1}


@pytest.mark.parametrize("bad", [{0, 19}, set(range(19))], ids=str)
def test_a_good_row_is_found_among_bad_ones(make_queue, embedder, bad):
    """Which rows tell whether the sink is well changes from try to try."""
    bad = {f"doc:{i}" for i in bad}
    rule = lambda rows: ValueError("bad") if bad & {row.redis_key for row in rows} else None  # noqa: E731
    queue = make_queue(sink=(table := Table(rule)), start=False)
    queue.enqueue_many((f"doc:{i}", f"text {i}") for i in range(20))
    with queue:
        eventually(lambda: queue.stats().dead == len(bad), "they are found")
        eventually(lambda: len(table.rows) == 20 - len(bad), "the others are written")
    assert {letter.redis_key for letter in queue.dead_letters()} == bad
    assert set(embedder.sent.values()) == {1}


def test_a_bad_row_alone(make_queue, embedder):
    """Nothing tells a bad row from a bad sink until others are taken, again and again: then the queue goes on."""
    queue = make_queue(sink=Table(lambda rows: ValueError("bad") if rows[0].redis_key == "doc:bad" else None))
    future = queue.enqueue("doc:bad", "bad")
    with pytest.raises(BatchFailed):
        future.result(PATIENCE_SECONDS)
    assert queue.dead_letters() == []
    number = itertools.count()

    def given_up() -> bool:
        queue.enqueue(f"doc:{next(number)}", f"good {next(number)}")
        queue.flush_now()
        return [letter.redis_key for letter in queue.dead_letters()] == ["doc:bad"]

    eventually(given_up, "it is given up")
    queue.flush(PATIENCE_SECONDS)
    assert set(embedder.sent.values()) == {1}


@pytest.mark.parametrize("up", [{2}, {2, 20}, {2, 9, 30}], ids=str)
def test_a_sink_that_comes_and_goes(make_queue, embedder, up):
    """It takes a row and is down again, in a way of its own: no row is to blame for that."""
    count = itertools.count(1)
    rule = lambda _: OverflowError("down") if 40 > next(count) not in up else None  # noqa: E731
    queue = make_queue(sink=(table := Table(rule)), start=False)
    queue.enqueue_many((f"doc:{i}", f"text {i}") for i in range(20))
    with queue:
        eventually(lambda: len(table.rows) == 20, "all are written in the end")
        queue.flush(PATIENCE_SECONDS)
    assert queue.dead_letters() == []
    assert set(embedder.sent.values()) == {1}


def test_a_sink_that_takes_another_and_is_down_again(make_queue, embedder):
    """One row waits for the sink, which takes that of another call, and fails again before it is offered the first."""
    down, taken = threading.Event(), threading.Event()
    down.set()

    def rule(rows):
        if rows[0].redis_key == "doc:2":
            taken.set()
            return None
        return OverflowError("down") if down.is_set() else None

    queue = make_queue(sink=(table := Table(rule)))
    queue.enqueue("doc:1", "one")
    queue.flush_now()
    eventually(lambda: len(table.writes) >= 3, "the queue has begun to rest")
    queue.enqueue("doc:2", "two")
    queue.flush_now()
    assert taken.wait(PATIENCE_SECONDS)
    before = len(table.writes)
    eventually(lambda: len(table.writes) >= before + 2, "it was offered again")
    assert queue.dead_letters() == []
    down.clear()
    eventually(lambda: table.has("doc:1", "one"), "it is written")
    queue.flush(PATIENCE_SECONDS)
    assert queue.dead_letters() == []
    assert set(embedder.sent.values()) == {1}


def test_a_newer_text_while_the_sink_is_down(make_queue, redis_client, embedder, monkeypatch):
    """The vector of an older text that was kept is never written any more."""
    monkeypatch.setattr("embedqueue.work.sinking.PAUSE_FACTOR", 1000.0)  # nothing new is claimed meanwhile
    down = threading.Event()
    down.set()
    queue = make_queue(sink=(table := Table(lambda rows: TransientError("down") if down.is_set() else None)))
    with pytest.raises(BatchFailed):
        queue.enqueue("doc:1", "old").result(PATIENCE_SECONDS)
    queue.enqueue("doc:1", "new")
    eventually(lambda: inside(queue).held == 0, "the old one is let go")
    written = len(table.writes)
    down.clear()
    inside(queue).store.unhold()
    queue.flush_now()
    eventually(lambda: table.has("doc:1", "new"), "the new one is written")
    eventually(lambda: redis_client.hget("doc:1", "embedding") == stored("new"), "in Redis, too, which comes after it")
    assert len(table.writes) == written + 1


def test_superseded_on_the_way(make_queue, redis_client):
    """A text that is superseded while the sink writes the older one: the newer one's vector ends up in both."""
    table = Table()
    table.go_on.clear()
    queue = make_queue(sink=table)
    first = queue.enqueue("doc:1", "old")
    queue.flush_now()
    assert table.arrived.wait(PATIENCE_SECONDS)
    second = queue.enqueue("doc:1", "new")
    table.go_on.set()
    assert first.result(PATIENCE_SECONDS) == second.result(PATIENCE_SECONDS) == expected("new")
    assert table.has("doc:1", "new")
    assert redis_client.hget("doc:1", "embedding") == stored("new")


def test_an_older_write_that_comes_last(make_queue, redis_client):
    """What a stalled worker writes after a newer text's vector is fenced by its stamp."""
    table, late = Table(), Table()
    late.go_on.clear()
    slow, quick = make_queue(sink=Sinks(late, table)), make_queue(sink=table, start=False)
    slow.enqueue("doc:1", "old")
    slow.flush_now()
    assert late.arrived.wait(PATIENCE_SECONDS)
    inside(slow).claim_nothing_more()
    quick.start()
    assert quick.enqueue("doc:1", "new").result(PATIENCE_SECONDS) == expected("new")
    late.go_on.set()
    eventually(lambda: len(table.writes) == 2, "the old one comes")
    assert table.has("doc:1", "new")


def test_forget_takes_it_out_of_the_sink(make_queue):
    """``forget(vector=True)`` removes; and what was on its way then is not written afterwards."""
    table = Table()
    queue = make_queue(sink=table)
    queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS)
    queue.forget("doc:1")
    assert table.has("doc:1", "one")
    table.go_on.clear()
    table.arrived.clear()
    queue.enqueue("doc:2", "two")
    queue.flush_now()
    assert table.arrived.wait(PATIENCE_SECONDS)
    queue.forget("doc:1", vector=True)
    queue.forget("doc:2", vector=True)
    table.go_on.set()
    eventually(lambda: inside(queue).held == 0, "the call is over")
    assert table.rows == {}
    assert queue.enqueue("doc:2", "three").result(PATIENCE_SECONDS) == expected("three")
    assert table.has("doc:2", "three")


def test_verify_empties_the_sink_too(make_queue):
    """A text that is blank now, and has a vector still: ``verify(fix=True)`` takes it out of both."""
    queue = make_queue(sink=(table := Table()))
    queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS)
    assert queue.verify([("doc:1", " ")], fix=True).fixed == 1
    assert table.rows == {}


def test_without_remove(make_queue, redis_client):
    """A sink that only writes is no obstacle to forgetting."""

    class Plain:
        def write(self, rows):
            pass

    queue = make_queue(sink=Plain())
    queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS)
    queue.forget("doc:1", vector=True)
    assert not redis_client.exists("doc:1")


def test_no_hash_at_all(make_queue, redis_client, embedder):
    """With ``if_missing="skip"`` and no hash, the sink alone has the vector, and the future has it as well."""
    queue = make_queue(sink=(table := Table()), if_missing="skip")
    assert queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS) == expected("one")
    assert table.has("doc:1", "one")
    assert not redis_client.exists("doc:1")


@pytest.mark.parametrize("sinks", [False, True])
def test_a_look_just_before_the_vector_is_handed_over(make_queue, monkeypatch, sinks):
    """Redis knows the item no more, and no hash has its vector: the thread that has it tells, not the look."""
    queue = make_queue(sink=Table() if sinks else None, if_missing="skip")
    engine = inside(queue)
    complete, looked = engine.store.complete, []

    def complete_and_look(*arguments):
        words = complete(*arguments)
        engine.outcomes.find_out(None)
        looked.append(future.done())
        return words

    monkeypatch.setattr(engine.store, "complete", complete_and_look)
    future = queue.enqueue("doc:1", "one")
    assert future.result(PATIENCE_SECONDS) == expected("one")
    assert looked == [False]


def test_stop_while_the_sink_is_down(make_queue, redis_client, monkeypatch):
    """A stop does not wait for the sink: what is kept goes back, and the next worker writes it."""
    monkeypatch.setattr("embedqueue.work.sinking.RETRY_SECONDS", (60.0, 60.0))
    table = Table(lambda rows: TransientError("down"))
    queue = make_queue(sink=table)
    with pytest.raises(BatchFailed):
        queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS)
    queue.stop(timeout=PATIENCE_SECONDS)
    assert in_flight(redis_client) == 0
    assert queue.pending_count() == 1
    eventually(lambda: not [t for t in threading.enumerate() if t.name.startswith("embedqueue-call")], "no thread")
    redis_client.delete("embed_queue:pause")
    make_queue(sink=(well := Table()))
    eventually(lambda: well.has("doc:1", "one"), "the next one writes it")


def test_redis_away_while_the_sink_is_asked(fresh_redis_server, make_queue, embedder):
    """Redis goes down while the sink writes, and comes back: acknowledged then, and paid for once."""
    table = Table()
    table.go_on.clear()
    queue = make_queue(fresh_redis_server.client(), sink=table)
    future = queue.enqueue("doc:1", "one")
    queue.flush_now()
    assert table.arrived.wait(PATIENCE_SECONDS)
    fresh_redis_server.stop()
    table.go_on.set()
    eventually(lambda: table.has("doc:1", "one"), "the sink has it")
    fresh_redis_server.start()
    assert future.result(PATIENCE_SECONDS) == expected("one")
    assert embedder.sent["one"] == 1


def test_killed_between_sink_and_acknowledgement(redis_client, redis_server, make_queue, embedder):
    """At least once: who comes after writes it again, under the same stamp."""
    child = os.fork()
    if child == 0:
        try:

            class Deadly:
                def write(self, rows):
                    redis_server.client().set("stamp", rows[0].stamp)
                    os.kill(os.getpid(), signal.SIGKILL)

            queue = EmbeddingBatchQueue(
                FakeEmbedder(DIMENSIONS), redis_server.client(), sink=Deadly(), lease_seconds=1
            ).start()
            queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert in_flight(redis_client) == 1
    make_queue(sink=(table := Table()), lease_seconds=1)
    eventually(lambda: table.has("doc:1", "one"), "it is written")
    assert table.rows["doc:1"].stamp == int(redis_client.get("stamp"))


def test_another_space_is_not_written(make_queue, redis_client):
    """A worker that has come to be at odds with its namespace while its call was under way writes to no sink."""
    table = Table()
    queue = make_queue(sink=table, start=False)
    queue.enqueue("doc:1", "one")
    entered, go_on = threading.Event(), threading.Event()
    write = inside(queue).sinking.write

    def late(owner, pairs, **options):
        entered.set()
        assert go_on.wait(PATIENCE_SECONDS)
        return write(owner, pairs, **options)

    inside(queue).sinking.write = late
    queue.start()
    assert entered.wait(PATIENCE_SECONDS)
    redis_client.hset("embed_queue:settings", "model", "another")
    go_on.set()
    eventually(lambda: in_flight(redis_client) == 0, "it goes back")
    assert table.writes == []


def test_what_the_sink_was_not_offered_is_not_acknowledged(make_queue, embedder, redis_client, monkeypatch):
    """A text is edited and edited back while its vector is on its way to the sink: by then it is claimed once more."""
    queue = make_queue(sink=(table := Table()), if_missing="skip")
    engine, ended = queue._engine, threading.Event()
    stamps, write, asked = engine.settle.sinking._stalls.stamps, engine.settle.write, []

    def overtaken(items, terms):
        asked.append(items)
        if len(asked) > 1:
            return stamps(items, terms)
        queue.enqueue("doc:1", "edited")
        again.append(queue.enqueue("doc:1", "one"))
        found = stamps(items, terms)
        embedder.hold()
        queue.flush_now()
        embedder.wait_for_calls(2)
        return found

    monkeypatch.setattr(engine.settle.sinking._stalls, "stamps", overtaken)
    monkeypatch.setattr(engine.settle, "write", lambda *arguments: (write(*arguments), ended.set()))
    again: list = []
    queue.enqueue("doc:1", "one")
    queue.flush_now()
    assert ended.wait(PATIENCE_SECONDS)
    assert in_flight(redis_client) == 1
    assert not again[0].done()
    embedder.release()
    assert again[0].result(PATIENCE_SECONDS) == expected("one")
    assert table.has("doc:1", "one")


def test_eager_queues_have_sinks(fake_redis):
    """In tests the sink is written at once; and where it fails, that is told at once."""
    table = Table()
    queue = eager_queue(FakeEmbedder(DIMENSIONS), fake_redis, sink=table)
    queue.enqueue("doc:1", "one").result(0)
    assert table.has("doc:1", "one")
    table.rule = failing(KeyError("x"), 1)
    with pytest.raises(BatchFailed, match="the sink failed"):
        queue.enqueue("doc:2", "two").result(0)
    queue.flush(1)
    assert table.has("doc:2", "two")


def test_a_sink_of_another_kind_is_refused(make_queue):
    for bad in (object(), Table, "myapp.sinks.table"):
        with pytest.raises(TypeError, match=r"sink must be an object with write\(rows\)"):
            make_queue(sink=bad)
    with pytest.raises(TypeError, match="Sinks takes objects"):
        Sinks(object())


def test_two_stalled_calls_end_together(make_queue, embedder, monkeypatch):
    """The first that finds the sink well has all others try at once."""
    monkeypatch.setattr("embedqueue.work.sinking.RETRY_SECONDS", (60.0, 60.0))
    down = threading.Event()
    down.set()
    table = Table(lambda rows: TransientError("down") if down.is_set() else None)
    queue = start_held(make_queue, embedder, ["text 0", "text 1", "text 2"], calls=3, sink=table)
    pause, pauses = inside(queue).agenda.paused, threading.Semaphore(0)
    monkeypatch.setattr(inside(queue).agenda, "paused", lambda seconds: pause(seconds) or pauses.release())
    embedder.release()
    assert all(pauses.acquire(timeout=PATIENCE_SECONDS) for _ in range(3)), "each has paused the queue"
    assert len(table.writes) == 9, "after three tries each"
    down.clear()
    inside(queue).store.unhold()
    inside(queue).refresh()
    queue.enqueue("doc:new", "new").result(PATIENCE_SECONDS)
    eventually(lambda: len(table.rows) == 4, "all are written")
    assert set(embedder.sent.values()) == {1}


class Readable(Table):
    """A table that tells what it has of documents; notes are none of its own."""

    away = False

    def read(self, redis_keys: Sequence[str]) -> dict[str, SinkRow | None]:
        if self.away:
            raise TransientError("away")
        return {key: self.rows.get(key) for key in redis_keys if key.startswith("doc:")}


def test_who_waits_elsewhere_is_told_by_the_sink(make_queue, redis_client, embedder):
    """With no hash at all: a process that waits for another's worker reads the vector where it is."""
    table = Readable()
    worker = make_queue(sink=table, if_missing="skip")
    waits = make_queue(sink=Sinks(table), if_missing="skip", worker=False)
    assert waits.enqueue("doc:1", "one").result(PATIENCE_SECONDS) == expected("one")
    assert not redis_client.exists("doc:1")
    future = waits.enqueue("note:1", "a note")  # which this sink does not tell of
    with pytest.raises(ItemRejected):
        future.result(PATIENCE_SECONDS)
    eventually(lambda: worker.stats().embedded == 2)  # it counts a moment after Redis has it


def test_a_sink_that_cannot_be_read_for_a_while(make_queue, monkeypatch):
    """Whoever waits goes on waiting, and is told once it can."""
    table = Readable()
    make_queue(sink=table, if_missing="skip")
    waits = make_queue(sink=table, if_missing="skip", worker=False)
    table.away = True
    future = waits.enqueue("doc:1", "one")
    with pytest.raises(TimeoutError):
        future.result(0.5)
    eventually(lambda: table.has("doc:1", "one"), "it is written")
    inside(waits).outcomes.find_out(None)
    assert not future.done()
    table.away = False
    inside(waits).outcomes.find_out(None)
    assert future.result(PATIENCE_SECONDS) == expected("one")


def test_an_older_row_is_no_answer(make_queue):
    """The vector of the text before is not taken for that of a text that is gone."""
    table = Readable()
    waits = make_queue(sink=table, worker=False)
    table.rows["doc:1"] = SinkRow("doc:1", np.zeros(DIMENSIONS, np.float32), 17, SPACE, digest("old"))
    future = waits.enqueue("doc:1", "new")
    inside(waits).client.delete("embed_queue:pending")  # another program takes it
    inside(waits).outcomes.find_out(None)
    with pytest.raises(ItemRejected):
        future.result(PATIENCE_SECONDS)


def test_verify_looks_where_vectors_belong(make_queue, redis_client):
    """What a sink has decides for its keys, whatever the hashes have; the hashes for all others."""
    table = Readable()
    queue = make_queue(sink=table)
    texts = [("doc:1", "one"), ("doc:2", "two"), ("note:1", "a note")]
    for future in queue.enqueue_many(texts):
        future.result(PATIENCE_SECONDS)
    redis_client.delete("doc:1")
    assert queue.verify(texts).faults == 0
    del table.rows["doc:2"], table.stamps["doc:2"]
    assert queue.verify(texts).missing == 1
    assert queue.verify([("doc:1", "other")]).other_text == 1
    table.rows["doc:1"] = SinkRow("doc:1", table.rows["doc:1"].vector, 1, "", "")
    assert queue.verify(texts).unlabelled == 1
    assert queue.verify(texts, fix=True).fixed == 1
    queue.flush(PATIENCE_SECONDS)
    assert table.has("doc:2", "two")
