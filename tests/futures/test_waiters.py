"""Futures by key, without Redis: who gets which end, and that only those wait who care."""

from __future__ import annotations

import concurrent.futures
import gc
import threading
import time
import traceback
from concurrent.futures import CancelledError

import pytest

from embedqueue.futures.future import EmbeddingFuture
from embedqueue.futures.waiters import Waiters
from embedqueue.values.errors import BatchFailed, ItemRejected, QueueStopped
from embedqueue.values.item import encode_member
from tests.parts import PATIENCE_SECONDS

ONE, TWO = b"\0\0\x80?", b"\0\0\0@"  # 1.0 and 2.0


def member(redis_key="a", text="text"):
    return encode_member(redis_key, text)


@pytest.fixture
def wanted():
    return []


@pytest.fixture
def waiters(wanted):
    return Waiters(lambda: wanted.append)


def enter(waiters, *pairs):
    """Register and commit; the futures."""
    futures, entries = waiters.register([(redis_key, member(redis_key, text)) for redis_key, text in pairs])
    waiters.commit(entries)
    return futures


def test_written(waiters):
    """A written vector ends the future with floats, and leaves nothing behind."""
    [future] = enter(waiters, ("a", "text"))
    assert waiters.written("a", member(), ONE)
    assert future.result(0) == [1.0]
    assert type(future.result(0)) is list
    assert future.result(0) is future.result(0)
    assert len(waiters) == 0


def test_same_text(waiters):
    """The same key and text while unfinished is the same future; afterwards it is a new one."""
    [first], [again] = enter(waiters, ("a", "text")), enter(waiters, ("a", "text"))
    assert first is again
    waiters.written("a", member(), ONE)
    [later] = enter(waiters, ("a", "text"))
    assert later is not first
    assert not later.done()


def test_newer_text(waiters):
    """A newer text's vector ends all futures of the key, an older text's only those before it."""
    [old], [new] = enter(waiters, ("a", "old")), enter(waiters, ("a", "new"))
    assert old is not new
    assert not waiters.written("a", member("a", "old"), ONE), (
        "only Redis knows whether old was enqueued elsewhere again"
    )
    assert old.result(0) == [1.0]
    assert not new.done()
    waiters.written("a", member("a", "new"), TWO)
    assert new.result(0) == [2.0]
    [old], [new] = enter(waiters, ("a", "old")), enter(waiters, ("a", "new"))
    waiters.written("a", member("a", "new"), TWO)
    assert old.result(0) == new.result(0) == [2.0]


def test_text_that_comes_back(waiters):
    """A, then B, then A again: the second A is not the first one's future, and its vector ends all three."""
    [first], [other], [second] = enter(waiters, ("a", "A")), enter(waiters, ("a", "B")), enter(waiters, ("a", "A"))
    assert first is not second
    assert waiters.written("a", member("a", "A"), ONE)
    assert [future.result(0) for future in (first, other, second)] == [[1.0]] * 3


def test_text_that_comes_back_elsewhere(waiters):
    """A, then B here; A's vector: whether another process has enqueued A again after B, only Redis knows."""
    [first], [other] = enter(waiters, ("a", "A")), enter(waiters, ("a", "B"))
    assert not waiters.written("a", member("a", "A"), ONE)
    assert first.result(0) == [1.0]
    assert not other.done()


def test_unknown_text(waiters):
    """A vector of a text that nobody here waits for ends nobody: which text came first, only Redis knows."""
    [future] = enter(waiters, ("a", "ours"))
    assert not waiters.written("a", member("a", "theirs"), ONE)
    assert not future.done()
    assert waiters.written("b", member("b"), ONE)


def test_fail(waiters):
    """A failed call ends its own keys, or all; each future has the error."""
    a, b, c = enter(waiters, ("a", "t"), ("b", "t"), ("c", "t"))
    waiters.fail(waiters.snapshot(["a", "nobody"]), BatchFailed("down"))
    with pytest.raises(BatchFailed, match="down"):
        a.result(0)
    assert not b.done()
    waiters.fail(waiters.snapshot(), BatchFailed("still down"))
    assert isinstance(b.exception(0), BatchFailed)
    assert isinstance(c.exception(0), RuntimeError)
    assert len(waiters) == 0


def test_uncommitted_is_spared(waiters):
    """Nobody ends a future whose enqueue is not through: what Redis says is older than it."""
    [future], entries = waiters.register([("a", member())])
    waiters.fail(waiters.snapshot(), BatchFailed("down"))
    assert waiters.snapshot() == {}
    assert not future.done()
    waiters.commit(entries)
    assert list(waiters.snapshot()) == ["a"]


def test_resolve_once(waiters):
    """An entry ends once, whoever comes second; a snapshot that is old by now harms nobody."""
    [future] = enter(waiters, ("a", "text"))
    entries = waiters.snapshot()["a"]
    waiters.written("a", member(), ONE)
    waiters.resolve(entries, ItemRejected("a", "late"))
    assert future.result(0) == [1.0]
    [later] = enter(waiters, ("a", "text"))
    waiters.resolve(entries, TWO)
    assert not later.done()


def test_forget(waiters):
    """What never reached Redis leaves no trace."""
    _, entries = waiters.register([("a", member())])
    waiters.forget(entries)
    assert len(waiters) == 0


def test_cancelled(waiters):
    """A cancelled future is left alone, and the next enqueue of its text makes a new one."""
    [future] = enter(waiters, ("a", "text"))
    assert future.cancel()
    assert future.cancel() is True
    [again] = enter(waiters, ("a", "text"))
    assert again is not future
    waiters.written("a", member(), ONE)
    assert again.result(0) == [1.0]
    with pytest.raises(CancelledError):
        future.result(0)


def test_what_two_have_neither_can_cancel(waiters):
    """It is the same future, and the other one waits; a stop ends it all the same."""
    [future], [same] = enter(waiters, ("a", "text")), enter(waiters, ("a", "text"))
    assert same is future
    assert not future.cancel()
    assert not future.done()
    waiters.cancel_all()
    assert future.cancelled()
    assert future.cancel()


def test_cancel_after_the_end(waiters):
    """A future that has ended cannot be cancelled."""
    [future] = enter(waiters, ("a", "text"))
    waiters.written("a", member(), ONE)
    assert not future.cancel()
    assert future.result(0) == [1.0]


def test_cancel_all(waiters):
    """A stopping queue cancels everything, whatever a callback raises, and takes no more."""
    futures = enter(waiters, ("a", "t"), ("b", "t"))
    ended = []
    futures[0].add_done_callback(lambda future: 1 / 0)
    futures[1].add_done_callback(ended.append)
    waiters.cancel_all()
    assert all(future.cancelled() for future in futures)
    assert ended == [futures[1]]
    with pytest.raises(QueueStopped):
        waiters.register([("c", member("c"))])


@pytest.mark.parametrize("wait", ["result", "exception", "wait", "as_completed"])
def test_demand(waiters, wanted, wait):
    """Waiting in any way tells that the item is wanted; looking does not."""
    [future] = enter(waiters, ("a", "text"))
    future.done()
    future.running()
    future.cancelled()
    future.add_done_callback(lambda _: None)
    assert wanted == []
    with pytest.raises(TimeoutError):
        if wait == "wait":
            assert concurrent.futures.wait([future], 0).not_done
            raise TimeoutError
        if wait == "as_completed":
            next(concurrent.futures.as_completed([future], 0))
        getattr(future, wait)(timeout=0)
    assert set(wanted) == {"a"}


def test_no_demand_for_what_is_done(waiters, wanted):
    """A finished future makes nothing urgent."""
    [future] = enter(waiters, ("a", "text"))
    waiters.written("a", member(), ONE)
    assert future.result() == [1.0]
    assert future.exception() is None
    concurrent.futures.wait([future])
    assert wanted == []


def test_whoever_waits_gets_an_error_of_his_own(waiters):
    """Of the same kind, with the same facts; nobody's traceback shows another's variables, or grows."""
    futures = enter(waiters, ("a", "t"), ("b", "t"))
    error = ItemRejected("a", "too rude")
    error.__cause__ = ValueError("the cause")
    waiters.fail(waiters.snapshot(), error)

    def wait(future, secret):
        with pytest.raises(ItemRejected) as raised:
            future.result(0)
        return raised.value

    caught = [wait(future, f"secret {i}") for i in range(3) for future in futures]
    caught += [future.exception(0) for future in futures]
    assert len({id(one) for one in [error, *caught]}) == 9
    for one in caught:
        assert (str(one), one.args, one.redis_key, one.reason) == (str(error), error.args, "a", "too rude")
        assert one.__cause__ is error.__cause__
    traces = [list(traceback.walk_tb(one.__traceback__)) for one in caught]
    assert [len(trace) for trace in traces] == [len(traces[0])] * 6 + [0, 0]
    for trace in traces[:6]:
        assert len({frame.f_locals["secret"] for frame, _ in trace if "secret" in frame.f_locals}) == 1


def test_wanted_entries(waiters):
    """Only what is waited for is swept for those who wait."""
    kept = enter(waiters, ("a", "t"), ("b", "t"))
    assert not waiters.any_wanted()
    assert waiters.mark_wanted("b") == member("b", "t")
    assert waiters.mark_wanted("nobody") is None
    assert waiters.any_wanted()
    assert [list(part) for part in waiters.slices(wanted=True)] == [["b"]]
    assert set(waiters.snapshot()) == {"a", "b"}
    assert len(waiters.futures()) == len(kept) == 2


@pytest.mark.parametrize("end", ["written", "failed", "dropped", "cancelled"])
def test_nothing_is_wanted_of_what_has_ended(waiters, end):
    """However it ended; and a newer text of the key is wanted only by those who wait for it."""
    kept = enter(waiters, ("a", "t"))
    waiters.mark_wanted("a")
    kept += enter(waiters, ("a", "newer"))
    assert waiters.any_wanted()
    if end == "written":
        waiters.written("a", member("a", "t"), ONE)
    elif end == "failed":
        waiters.resolve(waiters.snapshot()["a"][:1], BatchFailed("down"))
    elif end == "dropped":
        del kept[0]
        gc.collect()
    else:
        waiters.cancel_all()
    assert not waiters.any_wanted()
    assert list(waiters.slices(wanted=True)) == []
    assert len(waiters) == (end != "cancelled")


def test_an_enqueue_gets_between_the_slices(waiters, monkeypatch):
    """However many futures are held: who looks at all of them lets others in again and again."""
    monkeypatch.setattr("embedqueue.futures.waiters.AT_ONCE", 2)
    kept = enter(waiters, *((f"doc:{i}", "t") for i in range(7)))
    for name in ("doc:1", "doc:5", "doc:6"):
        waiters.mark_wanted(name)
    lock, between = waiters._lock, []

    class Free:
        """The lock; whenever it is let go, somebody enqueues."""

        def __enter__(self):
            lock.acquire()

        def __exit__(self, *error):
            lock.release()
            monkeypatch.setattr(waiters, "_lock", lock)
            between.append(enter(waiters, (f"new:{len(between)}", "t")))
            monkeypatch.setattr(waiters, "_lock", self)

    monkeypatch.setattr(waiters, "_lock", Free())
    looks = {
        "snapshot": lambda: waiters.snapshot(),
        "futures": lambda: waiters.futures(),
        "slices": lambda: list(waiters.slices()),
        "wanted": lambda: list(waiters.slices(wanted=True)),
    }
    for name, look in looks.items():
        before = len(between)
        found = look()
        assert len(between) - before >= (3 if name == "wanted" else 5), name
        assert len(found) >= (2 if name == "wanted" else 4)
    assert {key for part in found for key in part} == {"doc:1", "doc:5", "doc:6"}
    before = len(between)
    waiters.any_wanted()
    assert len(between) == before, "to ask whether anything is wanted looks at nothing"
    del kept


@pytest.mark.parametrize("oldest_first", [True, False])
def test_many_texts_of_one_key(waiters, oldest_first):
    """Waited for, with a callback, dropped, ended: what one of them costs does not grow with their number."""
    count, ended = 20_000, []
    futures = enter(waiters, *(("hot", str(i)) for i in range(count)))
    began = time.monotonic()
    for future in futures[::2]:
        future.add_done_callback(ended.append)
        waiters.mark_wanted("hot")
    del future
    if oldest_first:
        futures.reverse()
    futures.clear()  # which drops the last one first
    assert len(waiters.futures()) == count / 2
    waiters.written("hot", member("hot", str(count - 2)), ONE)
    assert len(ended) == count / 2
    assert len(waiters) == 0
    assert time.monotonic() - began < PATIENCE_SECONDS  # else it is minutes


def test_dropped_future(waiters):
    """A future that nobody holds is forgotten; one with a callback is kept until it ends."""
    ended = []
    enter(waiters, ("a", "t"))
    enter(waiters, ("b", "t"))[0].add_done_callback(lambda future: ended.append(future.result()))
    gc.collect()
    assert len(waiters) == 1
    waiters.written("a", member("a", "t"), ONE)
    waiters.written("b", member("b", "t"), TWO)
    assert ended == [[2.0]]


def test_callbacks_may_come_back(waiters):
    """A callback that enqueues, waits or looks runs without the registry's lock."""
    [future] = enter(waiters, ("a", "t"))
    seen = []
    future.add_done_callback(lambda done: seen.extend(enter(waiters, ("a", "t"), ("b", "t"))))
    done = threading.Event()

    def write():
        waiters.written("a", member("a", "t"), ONE)
        done.set()

    threading.Thread(target=write, daemon=True).start()
    assert done.wait(45)
    assert seen[0] is not future
    assert len(waiters) == 2


def test_a_future_of_nobody():
    """A future can be made and ended without a queue: that of a blank text."""
    future = EmbeddingFuture()
    future.set_result(ONE)
    assert future.result() == [1.0]
    assert future.exception() is None


def test_callbacks_of_dropped_futures_of_one_key(waiters):
    """Whoever adds a callback need not keep the future, whichever of a key's texts it is of."""
    called = []
    [older] = enter(waiters, ("a", "older"))
    [newer] = enter(waiters, ("a", "newer"))
    newer.add_done_callback(lambda future: called.append("newer"))
    older.add_done_callback(lambda future: called.append("older"))
    del older, newer
    gc.collect()
    waiters.written("a", member(text="newer"), ONE)
    assert sorted(called) == ["newer", "older"]


def test_dropped_future_with_an_older_text(waiters):
    """Whoever drops a future takes away nobody else's of that key."""
    [older] = enter(waiters, ("a", "older"))
    [newer] = enter(waiters, ("a", "newer"))
    del newer
    gc.collect()
    assert len(waiters) == 1
    assert waiters.written("a", member(text="older"), ONE)
    assert older.result(0) == [1.0]


def test_many_threads(waiters):
    """Registering, ending and dropping from many threads at once loses no future and ends each once."""
    ended = []

    def work(name):
        for i in range(200):
            key = f"{name % 4}:{i}"
            [future] = enter(waiters, (key, str(name)))
            future.add_done_callback(lambda future: ended.append(id(future)))
            waiters.written(key, member(key, str(name)), ONE)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for result in [pool.submit(work, name) for name in range(8)]:
            result.result(45)
    assert len(ended) == 8 * 200
    assert len(waiters) == 0


def test_nothing_is_kept_after_the_stop(waiters):
    """Nor can anything that comes late end a future twice."""
    [future] = enter(waiters, ("a", "text"))
    late = waiters.snapshot()["a"]
    waiters.cancel_all()
    assert len(waiters) == 0
    assert waiters.snapshot() == {}
    waiters.resolve(late, ONE)
    assert future.cancelled()


def test_a_cancel_in_the_last_moment_comes_too_late(waiters, monkeypatch):
    """Between the decision to end a future and its end, cancel() answers False, and the result stays."""
    [future] = enter(waiters, ("a", "text"))
    answers = []
    set_result = future.set_result

    def cancel_first(value):
        answers.append(future.cancel())
        set_result(value)

    monkeypatch.setattr(future, "set_result", cancel_first)
    waiters.written("a", member(), ONE)
    assert answers == [False]
    assert future.result(0) == [1.0]


def test_a_callback_that_exits_is_told_of_and_ends_no_thread(waiters, caplog):
    """In a thread of ours; in the main thread Ctrl-C must come through."""
    [future] = enter(waiters, ("a", "text"))

    def leave(_):
        raise SystemExit

    future.add_done_callback(leave)
    thread = threading.Thread(target=waiters.written, args=("a", member(), ONE))
    thread.start()
    thread.join(45)
    assert future.result(0) == [1.0]
    assert "a callback of a ended in a way that it should not" in caplog.text
    [future] = enter(waiters, ("a", "again"))
    future.add_done_callback(leave)
    with pytest.raises(SystemExit):
        waiters.written("a", member(text="again"), ONE)
    assert future.result(0) == [1.0]


def test_dropped_futures_are_forgotten_by_whoever_looks(waiters):
    """A snapshot does not ask Redis for what nobody waits for."""
    enter(waiters, ("a", "text"), ("b", "text"))
    gc.collect()
    assert waiters.snapshot() == {}
    assert waiters.futures() == []


def test_futures_are_light(waiters):
    """Of each future of a big call the garbage collector has two objects to look at: it and who waits for it."""
    pairs = [(str(i), member(str(i))) for i in range(1000)]
    gc.collect()
    gc.disable()
    try:
        before = len(gc.get_objects())
        kept = waiters.register(pairs)
        assert len(gc.get_objects()) - before < 2.1 * len(pairs)
    finally:
        gc.enable()
    assert len(kept[0]) == 1000


@pytest.mark.parametrize("end", ["written", "cancel_all", "resolve"])
def test_a_callback_that_is_added_while_others_are_called(waiters, end):
    """It is called as well, though its future is dropped right after."""
    first, second = enter(waiters, ("a", "one"), ("a", "two"))
    inside, go, called = threading.Event(), threading.Event(), []

    def hold(future):
        inside.set()
        go.wait(PATIENCE_SECONDS)

    entries = waiters.snapshot()["a"]
    ends = {
        "written": lambda: waiters.written("a", member(text="two"), ONE),
        "cancel_all": waiters.cancel_all,
        "resolve": lambda: waiters.resolve(entries, ONE),
    }
    first.add_done_callback(hold)
    ending = threading.Thread(target=ends[end], daemon=True)
    ending.start()
    assert inside.wait(PATIENCE_SECONDS)
    second.add_done_callback(called.append)
    del second
    go.set()
    ending.join(PATIENCE_SECONDS)
    assert len(called) == 1


def test_whoever_looks_at_the_result_sees_floats(waiters):
    """As asyncio does from Python 3.14 on, which does not call ``result()`` (python/cpython#134173)."""
    [future] = enter(waiters, ("a", "text"))
    waiters.written("a", member(), ONE)
    assert future._result == [1.0]
    assert future.result(0) is future._result


def test_forget_the_newer_text(waiters):
    """What never reached Redis is nobody's newest text: the older one is what is waited for."""
    [old] = enter(waiters, ("a", "old"))
    _, entries = waiters.register([("a", member(text="new"))])
    waiters.forget(entries)
    assert waiters.mark_wanted("a") == member(text="old")
    assert waiters.written("a", member(text="old"), ONE)
    assert old.result(0) == [1.0]
    assert len(waiters) == 0


def test_a_handler_in_between(waiters):
    """What it enqueues while its own thread is in here is known as soon as that goes on; it ends nothing itself."""
    [older] = enter(waiters, ("a", "older"))
    called = threading.Event()
    with waiters._lock:
        [newer] = enter(waiters, ("a", "newer"))
        enter(waiters, ("b", "text"))[0].add_done_callback(lambda _: called.set())
        for entries in waiters.snapshot().values():
            waiters.resolve(entries, ONE)
        assert not older.done()
    assert waiters.written("a", member(text="newer"), ONE)
    assert older.result(0) == newer.result(0) == [1.0]
    waiters.written("b", member("b"), TWO)
    assert called.is_set()
    assert len(waiters) == 0


def test_a_handler_that_stops_in_between(waiters):
    """All futures are cancelled, those of the handler itself and of what it interrupts included."""
    futures = enter(waiters, ("a", "text"), ("b", "text"))
    with waiters._lock:
        futures += enter(waiters, ("a", "of the handler"))
        waiters.cancel_all()
        with pytest.raises(QueueStopped):
            enter(waiters, ("c", "text"))
    assert all(future.cancelled() for future in futures)
    assert not waiters.written("a", member(text="unknown"), ONE)
