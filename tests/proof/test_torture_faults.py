"""The torture rig's faults do what their names say."""

from __future__ import annotations

import json
import logging
import random
import signal
import subprocess
import sys
import threading

import pytest
import redis

from embedqueue import BatchFailed, EmbeddingBatchQueue
from embedqueue.store.records import named_member
from embedqueue.testing import FakeEmbedder
from embedqueue.values.item import encode_member
from embedqueue.values.log import QueueLog
from tests.parts import PATIENCE_SECONDS, eventually
from tests.proof.torture.actor import make_queue as rig_queue
from tests.proof.torture.failpoints import RigLogError, RigMemoryError, spoil_logs
from tests.proof.torture.history import read_hashes
from tests.proof.torture.models import ModelChanges, embed_anew
from tests.proof.torture.others import KEYS, OtherProgram, fate_of
from tests.proof.torture.signals import DEEDS, Handler
from tests.proof.torture.texts import MODELS, SETTINGS, digest, space_of, text_of, vector_by

PENDING, LATEST = "embed_queue:pending", "embed_queue:latest"


@pytest.mark.parametrize("size", [1, 1_000_000], ids=["small", "in several parts"])
def test_a_copy_comes_after_its_client_was_reset(slow_way, redis_client, size):
    near = redis.Redis(port=slow_way.port, socket_timeout=PATIENCE_SECONDS, retry=None)
    near.ping()
    delivered = threading.Event()
    slow_way.hold_and_reset(b"held", PATIENCE_SECONDS, delivered.set)
    with pytest.raises(redis.ConnectionError):
        near.rpush("list", "held" + "x" * size)
    assert near.rpush("list", "newer") == 1
    slow_way.heal()  # it does not come to whoever is at rest
    assert delivered.is_set()
    eventually(lambda: redis_client.llen("list") == 2, "the copy has come")
    assert redis_client.lindex("list", 1) == b"held" + b"x" * size
    near.close()


class Lines:
    def __init__(self):
        self.name = "p1"
        self.lines = []

    def write(self, event, **facts):
        self.lines.append((event, facts))

    def of(self, event):
        return [facts for found, facts in self.lines if found == event]


@pytest.fixture
def lines():
    return Lines()


@pytest.fixture
def other(redis_client, lines):
    return OtherProgram(lambda: redis_client, random.Random(3), lines.write)


@pytest.fixture
def queue(redis_client):
    queue = EmbeddingBatchQueue(FakeEmbedder(16), redis_client, worker=False)
    yield queue
    queue.stop()


def key_of(fate):
    return next(key for key in (f"doc:p1:{number}" for number in range(100)) if fate_of(key) == fate)


@pytest.mark.parametrize("fate", ["embedded", "dropped", "put back"])
def test_another_program_takes_members_that_stand_in_the_books(redis_client, other, lines, queue, fate):
    key = key_of(fate)
    queue.enqueue(key, text_of(key, 4))
    score = redis_client.zscore(PENDING, encode_member(key, text_of(key, 4)))
    assert other.take() == "members taken away"
    assert redis_client.zcard(PENDING) == 0
    assert redis_client.hexists(LATEST, key)
    (taken,) = lines.of("taken")
    assert (taken["key"], taken["version"], "vector" in taken) == (key, 4, fate == "embedded")
    assert redis_client.hexists(key, "embedding") == (fate == "embedded")
    assert other.put_back() == ("members put back" if fate == "put back" else None)
    assert redis_client.zrange(PENDING, 0, -1, withscores=True) == (
        [(encode_member(key, text_of(key, 4)), score)] if fate == "put back" else []
    )


def test_another_program_does_not_take_what_was_superseded(redis_client, other, lines, queue):
    key = key_of("put back")
    queue.enqueue(key, text_of(key, 1))
    other.take()
    queue.enqueue(key, text_of(key, 2))
    other.put_back()
    other.take()
    assert [taken["version"] for taken in lines.of("taken")] == [1, 2]
    assert redis_client.zrange(PENDING, 0, -1) == [encode_member(key, text_of(key, 1))]


def test_another_program_leaves_members_of_its_own(redis_client, other, lines):
    for _ in range(10):
        assert other.leave() == "members left"
    left = [json.loads(member) for member in redis_client.zrange(PENDING, 0, -1)]
    accepted = {(key, version) for line in lines.of("accepted") for key, version in line["versions"].items()}
    assert {(pair["redis_key"], pair["text"]) for pair in left} == {(key, text_of(key, v)) for key, v in accepted}
    assert {key for key, _ in accepted} <= set(KEYS)
    for number in range(20):
        assert other.junk() == "members that are not ours left"
        assert len(lines.of("junk")) == number + 1
    assert redis_client.zcard(PENDING) == len(left) + 20


def test_a_spoiled_log_raises_now_and_then(monkeypatch):
    logger, root = logging.getLogger("embedqueue"), logging.getLogger()
    monkeypatch.setattr(logging, "raiseExceptions", True)
    for owner, place in ((logger, "filters"), (root, "handlers")):
        monkeypatch.setattr(owner, place, list(getattr(owner, place)))
    spoil_logs(random.Random(1))
    raised = 0
    for _ in range(100):
        try:
            logger.warning("a word")
        except (RigLogError, RigMemoryError):
            raised += 1
    assert 50 < raised < 90
    for _ in range(100):
        QueueLog("x").warning("a word")  # ours bear it


@pytest.mark.parametrize("deed", sorted(set(DEEDS)))
def test_a_handler_does_what_it_says(redis_client, lines, queue, deed, monkeypatch):
    stopped = []
    handler = Handler(queue, lines, "1", lambda: stopped.append(deed))
    monkeypatch.setattr(handler._rng, "choice", lambda deeds: deed)
    ends = deed.endswith(("stop", "exit"))
    if deed.endswith("exit"):
        with pytest.raises(SystemExit):
            handler.user()
    else:
        handler.user()
    assert [fault["name"] for fault in lines.of("fault")] == [f"{deed} in a handler"]
    assert bool(stopped) == bool(lines.of("leaving")) == ends
    assert queue.closed == deed.startswith("stop")
    keys = {key for line in lines.of("accepted") for key in line["versions"]}
    assert len(keys) == len(handler.kept) == redis_client.zcard(PENDING)
    assert {named_member(redis_client.hget(LATEST, key)) for key in keys} == set(redis_client.zrange(PENDING, 0, -1))
    assert len(keys) == {"enqueue": 1, "enqueue_many": 3}.get(deed, 0)
    if ends:
        handler.user()  # once it leaves, it does nothing more
        assert len(lines.of("fault")) == 1


class Fleet:
    """A worker, a producer, and nobody of the new model."""

    model = MODELS[0]
    comes = False

    def __init__(self):
        self.processes = [subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) for _ in range(2)]

    def has_worker(self):
        return self.comes

    def of_other_models(self):
        roles = zip(("p2", "p3"), self.processes, ("producer", "worker"), strict=True)
        return [(name, process.pid, role) for name, process, role in roles if process.poll() is None]


def test_a_model_changes_in_three_steps(redis_server, redis_client, provider, lines):
    """A worker makes room for one of the new model, which is adopted; then the others of the old one end."""
    redis_client.hset("embed_queue:settings", mapping=SETTINGS)
    fleet, steps, looks = Fleet(), [], []

    def look():
        looks.append((kept(), provider.in_flight))

    def kept():
        return redis_client.hget("embed_queue:settings", "model").decode()

    def later(_, step):
        steps.append(step)

    producer, worker = fleet.processes
    changes = ModelChanges(redis_server.url, fleet, random.Random(1), lines.write, provider, look)
    try:
        assert changes.deploy(later) == ("processes with another model come up", None)
        assert worker.wait(PATIENCE_SECONDS) == -signal.SIGTERM
        assert producer.poll() is None
        assert fleet.model in MODELS[1:]
        assert changes.ruling == kept() == MODELS[0]
        assert changes.deploy(later) is None, "one change at a time"
        with rig_queue(redis_server.url, provider.openai_url, worker=True, lease_seconds=PATIENCE_SECONDS) as queue:
            provider.hold()
            future = queue.enqueue("doc:p1:0", text_of("doc:p1:0", 1))
            assert provider.wait_for_calls(1, PATIENCE_SECONDS)
            assert steps.pop()() is None, "nobody of the new model is there"
            assert kept() == MODELS[0]
            fleet.comes = True
            assert steps.pop()() == ("space adopt", None)
            assert looks == [(fleet.model, 1)], "a call was under way, and all was looked at before it was answered"
            with pytest.raises(BatchFailed, match="claims nothing"):
                future.result(PATIENCE_SECONDS)
        assert not redis_client.exists("doc:p1:0")
        assert changes.ruling == kept() == fleet.model
        assert [event for event, facts in lines.lines if facts == {"model": fleet.model}] == ["adopts", "adopted"]
        assert producer.poll() is None
        assert steps.pop()() == ("processes of the old model end", None)
        assert producer.wait(PATIENCE_SECONDS) == -signal.SIGTERM
    finally:
        for process in fleet.processes:
            process.kill()
            process.communicate()


def test_after_the_last_change_all_texts_are_embedded_anew(redis_server, redis_client, provider, lines):
    """But for those of the ruling space: they are not sent again, and not counted as asked for again."""
    provider.settings.apart = MODELS[1:]
    keys = ["doc:p1:0", "doc:p1:1"]
    for model, named in ((MODELS[0], keys), (MODELS[1], keys[:1])):
        redis_client.hset("embed_queue:settings", "model", model)
        options = {"worker": True, "lease_seconds": PATIENCE_SECONDS, "model": model}
        with rig_queue(redis_server.url, provider.openai_url, **options) as queue:
            for future in queue.enqueue_many([(key, text_of(key, 1)) for key in named]):
                future.result(PATIENCE_SECONDS)
            if model == MODELS[1]:
                sent = [{"versions": dict.fromkeys(keys, 1)}]
                embed_anew(queue, redis_client, model, sent, lines.write)
                queue.flush(PATIENCE_SECONDS)
    assert lines.lines == [(event, {"versions": {keys[1]: 1}}) for event in ("try", "accepted")]
    for key, (vector, line, others) in read_hashes(redis_client).items():
        assert vector == digest(vector_by(MODELS[1], text_of(key, 1)))
        assert (line.split()[0], others) == (space_of(MODELS[1]), ())
    assert provider.sent[text_of(keys[0], 1)] == provider.sent[text_of(keys[1], 1)] == 2
