"""Group commit: who leads, who follows, and that nobody's error or Ctrl-C harms another."""

from __future__ import annotations

import signal
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from embedqueue.futures.intake import GROUP_BYTES, GROUP_LIMIT, Intake
from embedqueue.futures.replication import Replication
from embedqueue.futures.waiters import Waiters
from embedqueue.observers.observers import Observers
from embedqueue.store.records import Taken, Terms
from embedqueue.values.errors import ConfigurationError, EmbedQueueError, NotReplicated, QueueFull, QueueStopped
from embedqueue.values.item import encode_member
from embedqueue.values.log import QueueLog
from embedqueue.values.options import Options
from tests import nursery
from tests.parts import PATIENCE_SECONDS, Keyworded, Strikes, eventually

ZERO = bytes(8)


class BlockingStore:
    """A store whose writes arrive and wait until they are told what to do."""

    def __init__(self):
        self.writes: list[list[list[bytes]]] = []
        self.answer: BaseException | Taken | list[bool] | None = None
        self._arrived = threading.Semaphore(0)
        self._go_on = threading.Semaphore(0)

    def enqueue(self, groups, *, max_pending, tell_at, tell_first, unless, within):
        self.writes.append([list(group) for group in groups])
        self.within = within
        self._arrived.release()
        assert self._go_on.acquire(timeout=PATIENCE_SECONDS), "the test forgot a write"
        answer, self.answer = self.answer, None
        if isinstance(answer, Taken):
            return answer
        if isinstance(answer, BaseException):
            raise answer
        return Taken(sum(map(len, groups)) // 2, answer or [True] * len(groups), len(self.writes))

    def learned(self, terms):
        return terms

    def await_write(self):
        assert self._arrived.acquire(timeout=PATIENCE_SECONDS), "no write came"

    def go_on(self, answer=None):
        self.answer = answer
        self._go_on.release()


class Rig:
    """An intake over a blocking store, and threads that submit."""

    def __init__(self, max_pending=None, min_replicas=0):
        options = Options(max_pending=max_pending, min_replicas=min_replicas)
        self.store, self.spares = BlockingStore(), []
        self.told: list[int] = []
        self.waiters = Waiters(lambda: None)
        self.looked_after: list[str] = []
        self.intake = Intake(
            self.store,
            self.make_spare,
            self.waiters,
            lambda: ZERO,
            SimpleNamespace(
                works=True, enqueuing=lambda: None, enqueued=lambda waiting, within=None: self.told.append(waiting)
            ),
            Observers(),
            options,
            self.looked_after.extend,
            lambda: self.waiters.entered,
            lambda: Terms("embedding", "embedding_of", "m", 2, "m/2/-", "create"),
            Replication(options, QueueLog("embed_queue")),
        )
        self.pool = ThreadPoolExecutor(32)

    def make_spare(self):
        self.spares.append(BlockingStore())
        self.spares[-1].go_on()
        return self.spares[-1]

    def submit(self, *pairs, within=None) -> Future:
        return self.pool.submit(self.intake.submit, list(pairs), None, within)

    def lead(self, *pairs) -> Future:
        """Submit, and wait until its write is under way."""
        future = self.submit(*pairs)
        self.store.await_write()
        return future

    def follow(self, *pairs, within=None) -> Future:
        """Submit behind a leader, and wait until it stands in line."""
        before = len(self.intake._followers)
        future = self.submit(*pairs, within=within)
        eventually(lambda: len(self.intake._followers) > before, "it stands in line")
        return future

    def check_free(self):
        """The line is whole: the next caller leads at once."""
        free = self.lead(pair("free"))
        self.store.go_on()
        assert len(free.result(PATIENCE_SECONDS)) == 1
        assert self.intake._followers == []


@pytest.fixture
def rig():
    made = Rig()
    yield made
    made.pool.shutdown(wait=True)


@pytest.fixture
def limited_rig():
    made = Rig(max_pending=10)
    yield made
    made.pool.shutdown(wait=True)


def pair(redis_key, text="text"):
    return redis_key, encode_member(redis_key, text) if text else b""


def keys(write):
    return [[key.decode() for key in group[::2]] for group in write]


def test_alone(rig):
    """One caller, one round trip, and it returns only after it."""
    one = rig.lead(pair("a"))
    assert not one.done()
    rig.store.go_on()
    [future] = one.result(PATIENCE_SECONDS)
    assert not future.done()
    assert rig.store.writes == [[[b"a", encode_member("a", "text")]]]
    assert rig.told == [1]


def test_a_notice_that_is_quicker_than_the_answer(rig):
    """Another process has embedded the item before its enqueue returns: the look that found nobody is made again."""
    one = rig.lead(pair("a"))
    assert list(rig.waiters.slices(["a"])) == []  # nobody knows yet whether it was taken
    rig.store.go_on()
    one.result(PATIENCE_SECONDS)
    assert rig.looked_after == ["a"]
    assert list(rig.waiters.slices(["a"]))


def test_followers_share_a_round_trip(rig):
    """Whoever arrives while a write is under way waits for the next one, and all of them share it."""
    leader = rig.lead(pair("a"))
    followers = [rig.follow(pair(f"b{i}")) for i in range(10)]
    rig.store.go_on()
    leader.result(PATIENCE_SECONDS)
    rig.store.await_write()
    assert not any(follower.done() for follower in followers)
    rig.store.go_on()
    futures = [follower.result(PATIENCE_SECONDS) for follower in followers]
    assert keys(rig.store.writes[1]) == [[f"b{i}" for i in range(10)]]
    assert len(rig.store.writes) == 2
    assert len({id(future) for [future] in futures}) == 10
    rig.check_free()


def test_three_generations(rig):
    """The line is handed on as long as somebody comes."""
    first = rig.lead(pair("a"))
    second = rig.follow(pair("b"))
    rig.store.go_on()
    rig.store.await_write()
    third = rig.follow(pair("c"))
    rig.store.go_on()
    rig.store.await_write()
    rig.store.go_on()
    for future in (first, second, third):
        assert len(future.result(PATIENCE_SECONDS)) == 1
    assert [keys(write) for write in rig.store.writes] == [[["a"]], [["b"]], [["c"]]]
    rig.check_free()


def test_last_text_of_a_key_wins(rig):
    """Two texts for one key in one group: Redis gets the later one only, and both futures live."""
    leader = rig.lead(pair("x"))
    older, newer = rig.follow(pair("a", "old")), rig.follow(pair("a", "new"))
    rig.store.go_on()
    rig.store.await_write()
    rig.store.go_on()
    [[old]], [[new]] = [older.result(PATIENCE_SECONDS)], [newer.result(PATIENCE_SECONDS)]
    assert rig.store.writes[1] == [[b"a", encode_member("a", "new")]]
    assert old is not new
    rig.waiters.written("a", encode_member("a", "new"), b"\0\0\x80?")
    assert old.result(0) == new.result(0) == [1.0]
    leader.result(PATIENCE_SECONDS)


@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        ([("a", 0.0), ("a", 86_400.0)], 0.0),
        ([("a", 86_400.0), ("a", None)], None),
        ([("a", None), ("a", 60.0)], 60.0),
        ([("a", 0.0), ("b", 86_400.0)], 86_400.0),
        ([("a", 0.0), ("b", None), ("a", 86_400.0)], 86_400.0),
    ],
)
def test_of_the_same_text_the_sooner_time_holds(rig, wishes, expected):
    """In one group, as if its callers had come one after another."""
    leader = rig.lead(pair("x"))
    others = [rig.follow(pair("k", text), within=within) for text, within in wishes]
    rig.store.go_on()
    rig.store.await_write()
    rig.store.go_on()
    for one in (leader, *others):
        one.result(PATIENCE_SECONDS)
    assert rig.store.within.seconds == [expected]


def test_same_text_same_future(rig):
    """The same key and text, twice in a call and once more in the group, is one future."""
    leader = rig.lead(pair("x"))
    twice, once = rig.follow(pair("a"), pair("a")), rig.follow(pair("a"))
    rig.store.go_on()
    rig.store.await_write()
    rig.store.go_on()
    first, second = twice.result(PATIENCE_SECONDS)
    assert first is second is once.result(PATIENCE_SECONDS)[0]
    leader.result(PATIENCE_SECONDS)


def test_blank_ends_older_texts(rig):
    """A blank text is done at once after the write, and so are the futures of the key's older texts."""
    one = rig.lead(pair("a", "old"))
    rig.store.go_on()
    [old] = one.result(PATIENCE_SECONDS)
    two = rig.lead(pair("a", ""))
    assert not old.done()
    rig.store.go_on()
    [blank] = two.result(PATIENCE_SECONDS)
    assert blank.result(0) == old.result(0) == [0.0, 0.0]
    assert rig.store.writes[1] == [[b"a", b""]]


def test_blank_and_text_in_one_call(rig):
    """In one call the last text of a key counts: blank and then text is text."""
    one = rig.lead(pair("a", ""), pair("a", "new"))
    rig.store.go_on()
    blank, new = one.result(PATIENCE_SECONDS)
    assert blank.result(0) == [0.0, 0.0]
    assert not new.done()
    assert rig.store.writes == [[[b"a", encode_member("a", "new")]]]


@pytest.mark.parametrize(
    ("error", "words"),
    [(RedisConnectionError("gone"), "gone"), (Keyworded("no token", status=503), "answered: no token")],
    ids=["of Redis", "of credentials"],
)
def test_error_reaches_each(rig, error, words):
    """An error reaches everybody of the group, each as an object of its own, and no future stays behind."""
    leader = rig.lead(pair("a"))
    followers = [rig.follow(pair(f"b{i}")) for i in range(3)]
    rig.store.go_on()
    leader.result(PATIENCE_SECONDS)
    rig.store.await_write()
    rig.store.go_on(error)
    errors = [follower.exception(PATIENCE_SECONDS) for follower in followers]
    assert [(type(one), str(one)) for one in errors] == [(type(error), words)] * 3
    assert len({id(one) for one in errors}) == 3
    assert len(rig.waiters) == 1  # that of "a"
    rig.check_free()


def test_what_a_handler_raises_is_the_main_threads_alone(rig):
    """A soft time limit of the one who writes is none of those whom it writes for: they may enqueue again."""

    class TimeLimit(Exception):
        pass

    def end():
        raise TimeLimit

    def write_and_strike():
        eventually(lambda: len(rig.intake._followers) == 1, "the main thread stands in line")
        follower = rig.follow(pair("b"))
        rig.store.go_on()
        rig.store.await_write()
        strikes.strike()
        return follower.exception(PATIENCE_SECONDS)

    with Strikes(end) as strikes:
        rig.lead(pair("a"))
        helper = rig.pool.submit(write_and_strike)
        with pytest.raises(TimeLimit):
            rig.intake.submit([pair("main")])
    error = helper.result(PATIENCE_SECONDS)
    assert isinstance(error, EmbedQueueError)
    assert "enqueue again" in str(error)
    rig.check_free()


def test_whose_text_is_blank_asks_for_the_length_alone(rig):
    """An embedder may have to ask its provider: nobody stands in line meanwhile, nor gets the provider's error."""
    asked, answer = threading.Event(), threading.Event()

    def slow():
        asked.set()
        assert answer.wait(PATIENCE_SECONDS)
        raise ConfigurationError("no key")

    rig.intake._zero = slow
    blank = rig.submit(pair("blank", ""))
    assert asked.wait(PATIENCE_SECONDS)
    other = rig.lead(pair("a"))
    rig.store.go_on()
    assert len(other.result(PATIENCE_SECONDS)) == 1
    answer.set()
    assert isinstance(blank.exception(PATIENCE_SECONDS), ConfigurationError)
    rig.check_free()


def test_error_spares_the_next(rig):
    """Who arrived while a write failed is written by the next one."""
    leader = rig.lead(pair("a"))
    follower = rig.follow(pair("b"))
    rig.store.go_on(RedisConnectionError("gone"))
    assert isinstance(leader.exception(PATIENCE_SECONDS), RedisConnectionError)
    rig.store.await_write()
    rig.store.go_on()
    assert len(follower.result(PATIENCE_SECONDS)) == 1


def test_failed_write_keeps_older_futures(rig):
    """A failed enqueue of a text that waits already does not end the future of the first one."""
    one = rig.lead(pair("a"))
    rig.store.go_on()
    [future] = one.result(PATIENCE_SECONDS)
    two = rig.lead(pair("a"))
    rig.store.go_on(RedisConnectionError("gone"))
    two.exception(PATIENCE_SECONDS)
    rig.waiters.written("a", encode_member("a", "text"), b"\0\0\x80?")
    assert future.result(0) == [1.0]


def test_queue_full_for_one(limited_rig):
    """With max_pending each caller is taken or refused by itself; the refused one's futures are forgotten."""
    rig = limited_rig
    leader = rig.lead(pair("a"))
    small, large, other = rig.follow(pair("b")), rig.follow(*(pair(f"c{i}") for i in range(20))), rig.follow(pair("d"))
    rig.store.go_on()
    leader.result(PATIENCE_SECONDS)
    rig.store.await_write()
    assert [len(group) for group in keys(rig.store.writes[1])] == [1, 20, 1]
    rig.store.go_on([True, False, True])
    assert len(small.result(PATIENCE_SECONDS)) == len(other.result(PATIENCE_SECONDS)) == 1
    error = large.exception(PATIENCE_SECONDS)
    assert isinstance(error, QueueFull)
    assert error.max_pending == 10
    assert len(rig.waiters) == 3
    rig.check_free()


def test_not_replicated_as_a_group():
    """One write and one wait for all, and each gets an error of its own."""
    rig = Rig(min_replicas=1)
    leader = rig.lead(pair("a"))
    followers = [rig.follow(pair(f"b{i}")) for i in range(3)]
    rig.store.go_on(Taken(1, [True], 1, replicas=1))
    assert len(leader.result(PATIENCE_SECONDS)) == 1
    rig.store.await_write()
    rig.store.go_on(Taken(4, [True], 2, replicas=0))
    errors = [follower.exception(PATIENCE_SECONDS) for follower in followers]
    assert [(type(error), error.replicas) for error in errors] == [(NotReplicated, 0)] * 3
    assert len({id(error) for error in errors}) == 3
    rig.check_free()
    rig.pool.shutdown(wait=True)


def test_not_replicated():
    """Each of a group gets an error of its own, but for who was refused; whoever has the same future keeps it."""
    rig = Rig(max_pending=10, min_replicas=2)
    leader = rig.lead(pair("a"))
    again, refused, other = rig.follow(pair("a")), rig.follow(pair("b")), rig.follow(pair("c"))
    rig.store.go_on(Taken(1, [True], 1, replicas=2))
    [future] = leader.result(PATIENCE_SECONDS)
    rig.store.await_write()
    rig.store.go_on(Taken(2, [True, False, True], 2, replicas=1))
    errors = [one.exception(PATIENCE_SECONDS) for one in (again, refused, other)]
    assert [type(error) for error in errors] == [NotReplicated, QueueFull, NotReplicated]
    assert errors[0] is not errors[2]
    assert rig.intake.accepted == 3
    rig.waiters.written(*pair("a"), b"\0\0\x80?")
    assert future.result(0) == [1.0]
    rig.pool.shutdown(wait=True)


def test_not_replicated_but_there():
    """A vector that is in the hash already ends the futures of its text, though it may not be in the replicas."""
    rig = Rig(min_replicas=1)
    leader = rig.lead(pair("a"))
    rig.store.go_on(Taken(1, [True], 1, replicas=1))
    [future] = leader.result(PATIENCE_SECONDS)
    again = rig.pool.submit(rig.intake.submit, [pair("a")], ["digest"])
    rig.store.await_write()
    rig.store.go_on(Taken(0, [True], 2, [bytes(4) + b"\0\0\x80?"], replicas=0))
    assert isinstance(again.exception(PATIENCE_SECONDS), NotReplicated)
    assert future.result(0) == [0.0, 1.0]
    rig.pool.shutdown(wait=True)


def test_interrupt_in_the_leader(rig):
    """Ctrl-C in the leader's write reaches the leader only; followers in its group get an error and can go on."""
    first = rig.lead(pair("x"))
    leader, follower = rig.follow(pair("a")), rig.follow(pair("b"))
    rig.store.go_on()
    first.result(PATIENCE_SECONDS)
    rig.store.await_write()
    rig.store.go_on(KeyboardInterrupt())
    assert isinstance(leader.exception(PATIENCE_SECONDS), KeyboardInterrupt)
    error = follower.exception(PATIENCE_SECONDS)
    assert isinstance(error, EmbedQueueError)
    assert "enqueue again" in str(error)
    rig.check_free()


def interrupted_follower(rig, when_in_line):
    """Let the main thread follow, and be interrupted once ``when_in_line`` has run."""
    before = len(rig.intake._followers)

    def interrupt():
        eventually(lambda: len(rig.intake._followers) > before, "it stands in line")
        when_in_line()
        strikes.strike()

    with Strikes(lambda: signal.default_int_handler(signal.SIGINT, None)) as strikes:
        helper = rig.pool.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            rig.intake.submit([pair("main")])
    helper.result(PATIENCE_SECONDS)


def test_interrupt_in_a_follower(rig):
    """Ctrl-C in line leaves the line: the others are written, the one who left is not."""
    leader, other = rig.lead(pair("a")), rig.follow(pair("b"))
    interrupted_follower(rig, lambda: None)
    rig.store.go_on()
    rig.store.await_write()
    rig.store.go_on()
    assert len(leader.result(PATIENCE_SECONDS)) == len(other.result(PATIENCE_SECONDS)) == 1
    assert [keys(write) for write in rig.store.writes] == [[["a"]], [["b"]]]
    rig.check_free()


def test_interrupt_in_a_follower_being_written(rig):
    """Ctrl-C in somebody whose items are under way: they stay in, and nobody waits for the one who left."""
    first, leader = rig.lead(pair("x")), rig.follow(pair("a"))
    interrupted_follower(rig, lambda: (rig.store.go_on(), rig.store.await_write()))
    assert keys(rig.store.writes[1]) == [["a", "main"]]
    rig.store.go_on()
    assert len(first.result(PATIENCE_SECONDS)) == len(leader.result(PATIENCE_SECONDS)) == 1
    rig.check_free()


@pytest.mark.parametrize("what", ["0", "4", "users", "enqueue", "stop"])
def test_interrupts_at_any_instruction(what, tmp_path):
    """Ctrl-C may come between any two steps of leading or following: nobody else hangs, and the line stays whole.

    So with the other locks that a user's thread takes: none is left locked, and the worker works on. And so may a
    handler that enqueues or stops.
    """
    with open(tmp_path / "said", "w+b") as said:
        child = nursery.start("tests.futures.interrupts", what, output=said)
        try:
            assert child.wait(180) == 0, (tmp_path / "said").read_text()
        finally:
            child.kill()


def test_group_limit(rig):
    """A round trip carries so much; who does not fit stays in line, in order; one caller's own items are never cut."""
    half = GROUP_LIMIT // 2 + 1
    leader = rig.lead(pair("x"))
    one = rig.follow(*(pair(f"a{i}") for i in range(half)))
    two = rig.follow(*(pair(f"b{i}") for i in range(half)))
    three = rig.follow(*(pair(f"c{i}") for i in range(2 * GROUP_LIMIT)))
    rig.store.go_on()
    for expected in (half, half, 2 * GROUP_LIMIT):
        rig.store.await_write()
        assert sum(map(len, keys(rig.store.writes[-1]))) == expected
        rig.store.go_on()
    for future in (leader, one, two, three):
        future.result(PATIENCE_SECONDS)
    rig.check_free()


def test_large_texts_go_alone(rig):
    """What one caller's size brings upon it, small ones behind and before it do not share."""
    leader = rig.lead(pair("x"))
    small = [rig.follow(pair("a")), rig.follow(pair("b"))]
    large, last = rig.follow(pair("c", "t" * GROUP_BYTES)), rig.follow(pair("d"))
    rig.store.go_on()
    for expected, error in ((["a", "b"], None), (["c"], RedisConnectionError("too large")), (["d"], None)):
        rig.store.await_write()
        assert keys(rig.store.writes[-1]) == [expected]
        rig.store.go_on(error)
    for future in (leader, *small, last):
        assert len(future.result(PATIENCE_SECONDS)) == 1
    assert isinstance(large.exception(PATIENCE_SECONDS), RedisConnectionError)
    rig.check_free()


def test_refused_beside_the_same_text(limited_rig):
    """Who was refused takes no future with him that another caller of the group has."""
    rig = limited_rig
    leader = rig.lead(pair("x"))
    refused, taken = rig.follow(pair("a"), pair("b")), rig.follow(pair("a"))
    rig.store.go_on()
    leader.result(PATIENCE_SECONDS)
    rig.store.await_write()
    rig.store.go_on([False, True])
    assert isinstance(refused.exception(PATIENCE_SECONDS), QueueFull)
    [future] = taken.result(PATIENCE_SECONDS)
    rig.waiters.written(*pair("a"), b"\0\0\x80?")
    assert future.result(0) == [1.0]


def test_a_handler_does_not_wait_in_line(rig):
    """It has interrupted its own thread while that held what the leader, or the next one, needs to go on."""
    leader = rig.lead(pair("a"))
    with rig.waiters._lock:
        [future] = rig.intake.submit([pair("b")])
    assert not leader.done()
    assert [keys(write) for write in rig.spares[0].writes] == [[["b"]]]
    rig.waiters.written(*pair("b"), b"\0\0\x80?")
    assert future.result(0) == [1.0]
    rig.store.go_on()
    leader.result(PATIENCE_SECONDS)
    rig.check_free()


def test_a_handler_in_a_follower(rig):
    """Nor while its own thread stands in line, who may have to lead the next ones."""
    leader, before = rig.lead(pair("a")), len(rig.intake._followers)
    handled = []

    def handle():
        rig.store.go_on()  # now the line is the follower's, who cannot go on before we are back
        leader.result(PATIENCE_SECONDS)
        handled.extend(rig.intake.submit([pair("of the handler")]))

    def interrupt():
        eventually(lambda: len(rig.intake._followers) > before, "it stands in line")
        strikes.strike()
        rig.store.await_write()
        rig.store.go_on()

    with Strikes(handle) as strikes:
        helper = rig.pool.submit(interrupt)
        assert len(rig.intake.submit([pair("main")])) == 1
        helper.result(PATIENCE_SECONDS)
    assert len(handled) == 1
    assert [keys(write) for write in rig.store.writes] == [[["a"]], [["main"]]]
    rig.check_free()


def test_a_handler_whose_write_fails(rig):
    """It gets the error, and nobody else does; the next one writes over the same connection."""
    with rig.waiters._lock:
        held = rig.intake.submit([pair("a")])
        rig.spares[0].go_on(RedisConnectionError("gone"))
        with pytest.raises(RedisConnectionError):
            rig.intake.submit([pair("b")])
    assert len(rig.spares) == 1
    assert rig.waiters.futures() == held
    rig.check_free()


def test_stopped(rig):
    """After the futures' registry has closed, nothing is written that nobody would end."""
    rig.waiters.cancel_all()
    with pytest.raises(QueueStopped):
        rig.intake.submit([pair("a")])
    assert rig.store.writes == []


def test_crowd(rig):
    """A crowd over an impatient store: everybody returns with what it asked for, in few round trips."""
    rig.store._go_on = threading.Semaphore(10**6)
    results = [rig.submit(pair(f"k{i}"), pair(f"k{i}:b")) for i in range(400)]
    futures = [future for result in results for future in result.result(PATIENCE_SECONDS)]
    assert len({id(future) for future in futures}) == 800
    written = [key for write in rig.store.writes for group in keys(write) for key in group]
    assert sorted(written) == sorted(name for i in range(400) for name in (f"k{i}", f"k{i}:b"))
    assert rig.intake._followers == []
    assert rig.intake._leader is None
