"""Observers are told what happens, in the right order, and cannot break anything."""

from __future__ import annotations

import logging
import signal
import threading

import pytest
import redis

from embedqueue import (
    BatchFailed,
    BatchReport,
    CallReport,
    ConfigurationError,
    InputRejected,
    ItemRejected,
    Observer,
    QueueFull,
    RedisReport,
    TransientError,
)
from embedqueue.operating.run import beside
from embedqueue.settings.settings import SettingsError, read, read_environment
from embedqueue.testing import FakeEmbedder, eager_queue
from embedqueue.values.item import encode_member
from tests.inside import inside

EVENTS = [name for name in vars(Observer) if not name.startswith("_") and name != "bind"]


class Recorder(Observer):
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, tuple]] = []
        for event in EVENTS:
            setattr(self, event, lambda *facts, event=event: self.told.append((event, facts)))

    def of(self, event: str) -> list:
        return [facts[0] for name, facts in self.told if name == event]

    @property
    def order(self) -> list[str]:
        return [name for name, _ in self.told]


def test_an_item_on_its_way():
    """Enqueued, sent, written: each told once, with its figures."""
    seen = Recorder()
    queue = eager_queue(observers=[seen])
    queue.enqueue_many([("a", "same"), ("b", "same"), ("c", "other words")]).pop().result(timeout=45)
    assert seen.order == ["enqueuing", "accepted", "enqueued", "saved", "call_ended", "written"]
    assert seen.of("enqueued") == [["a", "b", "c"]]
    assert seen.of("accepted") == [3]
    (call,) = seen.of("call_ended")
    assert (call.texts, call.tokens, call.outcome, call.error) == (2, 5, "ok", None)
    (batch,) = seen.of("written")
    assert (set(batch.redis_keys), batch.items, batch.texts) == ({"a", "b", "c"}, 3, 2)
    assert batch.waited_seconds >= batch.seconds >= call.seconds >= 0
    (saving,) = seen.of("saved")
    assert (saving.texts, saving.tokens, saving.by) == (1, 2, "duplicate")


def test_what_the_cache_saves():
    """A text that was embedded before is not sent, and that is told."""
    seen = Recorder()
    queue = eager_queue(observers=[seen], cache_ttl=60)
    queue.enqueue("a", "once")
    queue.enqueue("b", "once")
    assert [(saving.texts, saving.by) for saving in seen.of("saved")] == [(1, "cache")]
    assert len(seen.of("call_ended")) == 1
    assert [batch.redis_keys for batch in seen.of("written")] == [("a",), ("b",)]


@pytest.mark.parametrize(
    ("error", "outcome", "status"),
    [
        (TransientError("busy", status=503), "transient", 503),
        (ConfigurationError("no credit"), "configuration", None),
        (RuntimeError("a fault of its own"), "transient", None),
    ],
)
def test_a_provider_that_fails(error, outcome, status, caplog):
    """The call is told with its outcome, and its items as given back; the log warns of what will pass by itself."""
    seen, errors = Recorder(), []
    embedder = FakeEmbedder(rule=lambda texts: error)
    queue = eager_queue(embedder, observers=[seen], on_error=errors.append)
    with pytest.raises(BatchFailed):
        queue.enqueue("a", "words").result(timeout=45)
    assert {(call.outcome, call.status) for call in seen.of("call_ended")} == {(outcome, status)}
    assert str(error) in seen.of("call_ended")[0].error
    (release,) = seen.of("released")
    assert release.redis_keys == ("a",)
    assert str(error) in release.reason
    assert errors == seen.of("call_ended")
    warned = [record.batch_size for record in caplog.records if "will be made again" in record.getMessage()]
    assert warned == ([] if outcome == "configuration" else [1])


def test_a_refused_text_is_told_as_a_dead_letter(caplog):
    """The dead letter is whole; what the provider says of the text is in no report of a call, in the log at DEBUG."""
    caplog.set_level(logging.DEBUG, logger="embedqueue")
    seen, dead = Recorder(), []
    embedder = FakeEmbedder(rule=lambda texts: InputRejected(f"bad: {texts[0]}") if "bad" in texts[0] else None)
    queue = eager_queue(embedder, observers=[seen], on_dead=dead.append)
    with pytest.raises(ItemRejected):
        queue.enqueue("a", "bad secret words").result(timeout=45)
    assert dead == seen.of("died")
    (letter,) = dead
    assert (letter.redis_key, letter.text, letter.deliveries) == ("a", "bad secret words", 0)
    assert letter.reason == "bad: bad secret words"
    assert "rejected" in {call.outcome for call in seen.of("call_ended")}
    assert not any("secret" in repr(call) for call in seen.of("call_ended"))
    words = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert words == ["embedqueue: a is a dead letter now; dead_letters() tells why"]
    assert "embedqueue: a was refused: bad: bad secret words" in caplog.messages


def test_a_member_that_is_not_ours(fake_redis):
    """What a claim has to bury is told as well."""
    dead = []
    queue = eager_queue(redis=fake_redis, on_dead=dead.append)
    fake_redis.zadd("embed_queue:pending", {"rubbish": 1})
    queue.flush_now()
    assert [(letter.redis_key, letter.text) for letter in dead] == [("", "rubbish")]
    assert "not our JSON" in dead[0].reason


def test_a_pair_that_cannot_be_ours(fake_redis, caplog):
    """What a worker finds among what it has claimed is told as well; the log speaks of it without its text."""
    dead = []
    queue = eager_queue(redis=fake_redis, on_dead=dead.append)
    fake_redis.zadd("embed_queue:pending", {encode_member("embed_queue:latest", "words"): 1})
    queue.flush_now()
    assert [(letter.redis_key, letter.text) for letter in dead] == [("embed_queue:latest", "words")]
    assert "namespace" in dead[0].reason
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage() == "embedqueue: 1 members of the queue cannot be ours and are dead letters now"


def test_an_enqueue_that_is_refused():
    """Not enqueued, and why."""
    seen = Recorder()
    embedder = FakeEmbedder(rule=lambda texts: TransientError("busy"))
    queue = eager_queue(embedder, observers=[seen], max_pending=1)
    queue.enqueue("a", "words")
    with pytest.raises(QueueFull):
        queue.enqueue("b", "words")
    (_, (redis_keys, error)) = seen.told[-1]
    assert seen.order[-1] == "not_enqueued"
    assert redis_keys == ["b"]
    assert isinstance(error, QueueFull)


def test_redis_that_does_not_answer(fake_redis):
    """The enqueue raises redis-py's error, and the observer gets its words."""
    errors = []
    queue = eager_queue(redis=fake_redis, on_error=errors.append)
    setattr(*inside(queue).place("write items"), _raise(redis.ConnectionError("gone")))
    with pytest.raises(redis.ConnectionError):
        queue.enqueue("a", "words")
    assert [(type(report), report.error, report.outcome) for report in errors] == [(RedisReport, "gone", "redis")]


def _raise(error: BaseException):
    def raising(*args, **kwargs):
        raise error

    return raising


class Broken(Observer):
    """Raises whatever it is told."""

    def __init__(self, kind: type[BaseException]) -> None:
        for event in [*EVENTS, "bind"]:
            setattr(self, event, _raise(kind("of the observer")))


@pytest.mark.parametrize("kind", [ValueError, SystemExit, GeneratorExit, BaseException])
def test_whatever_an_observer_raises_breaks_nothing(kind, caplog):
    """Every event raises; the items are embedded, buried and refused all the same, and the next observer is told."""
    seen = Recorder()
    embedder = FakeEmbedder(rule=lambda texts: InputRejected("bad") if texts == ["bad"] else None)
    functions = dict.fromkeys(("on_batch", "on_error", "on_dead"), _raise(kind("of a function")))
    queue = eager_queue(embedder, observers=[Broken(kind), seen], **functions)
    with caplog.at_level(logging.ERROR, "embedqueue"):
        for name in "abc":
            assert queue.enqueue(name, "words of " + name).result(timeout=45)
        with pytest.raises(ItemRejected):
            queue.enqueue("d", "bad").result(timeout=45)
    assert seen.order.count("written") == 3
    assert seen.order.count("died") == 1
    spoken = [record.getMessage() for record in caplog.records if "of an observer failed" in record.getMessage()]
    written = [message for message in spoken if "embedqueue: written of" in message]
    assert len(written) == 2, "once for the observer and once for on_batch, however often they fail"
    assert len(spoken) == len(set(spoken))


class WhenEnqueued(Observer):
    """Calls a function in the thread that enqueues."""

    def __init__(self, function) -> None:
        self.enqueued = function


def test_ctrl_c_passes():
    """What the user does is not swallowed, for it is not the observer's."""
    queue = eager_queue(observers=[WhenEnqueued(_raise(KeyboardInterrupt()))])
    with pytest.raises(KeyboardInterrupt):
        queue.enqueue("a", "words")


def test_ctrl_c_of_another_thread_is_an_error_like_any_other():
    """Only the main thread is ever interrupted: elsewhere it is an observer's own."""
    queue = eager_queue(observers=[WhenEnqueued(_raise(KeyboardInterrupt()))])
    vectors = []
    thread = threading.Thread(target=lambda: vectors.append(queue.enqueue("a", "words").result(timeout=45)))
    thread.start()
    thread.join(45)
    assert len(vectors) == 1


def test_what_a_signal_handler_raises_passes():
    """gunicorn ends a worker by SystemExit from a handler, wherever the main thread is just then."""

    def handler(number, frame):
        raise SystemExit(3)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        queue = eager_queue(observers=[WhenEnqueued(lambda keys: signal.raise_signal(signal.SIGUSR1))])
        with pytest.raises(SystemExit):
            queue.enqueue("a", "words")
    finally:
        signal.signal(signal.SIGUSR1, before)


class PerQueue(Observer):
    """Hands each queue an observer of its own."""

    def __init__(self) -> None:
        self.made: dict[str, Recorder] = {}

    def bind(self, namespace, client):
        self.made[namespace] = Recorder()
        return self.made[namespace]


def test_one_observer_may_serve_several_queues(fake_redis):
    """Each queue tells the one that was made for it."""
    shared = PerQueue()
    for namespace in ("one", "two"):
        eager_queue(redis=fake_redis, observers=[shared], namespace=namespace).enqueue(f"k:{namespace}", "words")
    assert {name: made.of("enqueued") for name, made in shared.made.items()} == {
        "one": [["k:one"]],
        "two": [["k:two"]],
    }


def test_no_lock_is_held_while_an_observer_runs():
    """An observer may use the queue itself, from another thread as well."""
    answers = []

    def ask(*_):
        def work():
            answers.append((queue.stats().waiting, queue.pending_count(), repr(queue), len(queue.dead_letters())))

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(45)
        assert not thread.is_alive()

    embedder = FakeEmbedder(rule=lambda texts: InputRejected("bad") if "bad" in texts else None)
    queue = eager_queue(embedder, on_batch=ask, on_error=ask, on_dead=ask)
    queue.enqueue_many([("a", "good"), ("b", "bad")])
    assert len(answers) >= 3


@pytest.mark.parametrize("name", ["on_batch", "on_error", "on_dead", "observers"])
def test_a_string_of_the_environment_is_refused_by_its_name(name):
    """A variable cannot hold a function; a framework's settings can."""
    with pytest.raises(SettingsError, match=f"EMBEDQUEUE_{name.upper()} must be a"):
        read_environment({f"EMBEDQUEUE_{name.upper()}": "print"})
    with pytest.raises(TypeError, match=name):
        eager_queue(**{name: "print"})


def test_functions_in_a_frameworks_settings():
    """What is no string is taken as it stands."""
    seen = Recorder()
    settings = read({"ON_DEAD": print, "OBSERVERS": [seen], "PROVIDER": "local"})
    assert settings.option("on_dead") is print
    assert settings.option("observers") == (seen,)


def test_reports_are_values():
    """They compare, and cannot be changed."""
    report = CallReport(texts=1, tokens=2, seconds=0.5, outcome="ok", time=1.0)
    assert report == CallReport(texts=1, tokens=2, seconds=0.5, outcome="ok", time=1.0)
    with pytest.raises(AttributeError):
        report.texts = 2
    assert BatchReport(redis_keys=("a", "b"), texts=1, seconds=0.1, waited_seconds=0.2).items == 2


def test_a_worker_adds_no_observer_of_a_kind_that_is_there():
    """Metrics of the settings and of the health endpoint would count twice."""
    own = Recorder()
    found = beside(read({"OBSERVERS": [own], "PROVIDER": "local"}), [Recorder(), PerQueue()])
    assert found[0] is own
    assert [type(one) for one in found] == [Recorder, PerQueue]
