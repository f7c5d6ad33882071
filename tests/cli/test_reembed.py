"""The model is changed: all texts embedded anew into a second field, the change-over, the way back, and the end."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import threading
from collections import Counter

import pytest

from embedqueue import BatchFailed, EmbeddingBatchQueue, InputRejected
from embedqueue.operating.reembed import Reembedding
from embedqueue.operating.reembed_run import Work
from embedqueue.operating.runs import NamedRun
from embedqueue.settings.settings import read_environment
from embedqueue.store.store import Store
from embedqueue.testing import FakeEmbedder
from embedqueue.values.provenance import digest
from tests.parts import PATIENCE_SECONDS, eventually, in_thread, join
from tests.provider import fail, poison

COUNT = 30
WHAT = ("--match", "doc:*", "--text-field", "body", "--to-field", "v2")
NEW = ("--model", "text-embedding-3-small", "--dimensions", "8")
SLOWLY = ("--set", "api_batch_limit=3", "--set", "lease_seconds=1", "--set", "max_concurrency=1")
SPACE = "text-embedding-3-small/8/-"


def text(i: int) -> str:
    return f"the text {i:04}"


@pytest.fixture
def first(env, redis_client):
    """A queue of the old model, as applications have it, and hashes with its vectors."""
    queue = EmbeddingBatchQueue(FakeEmbedder(16), redis_client, model="text-embedding-3-large")
    for i in range(COUNT):
        redis_client.hset(f"doc:{i}", "body", text(i))
    queue.enqueue_many([(f"doc:{i}", text(i)) for i in range(COUNT)])
    with queue:
        queue.flush(PATIENCE_SECONDS)
        yield queue


@pytest.fixture
def process(command):
    """Starts a reembed in a process of its own."""
    return lambda *arguments: command("reembed", *WHAT, *NEW, *arguments)


def of(client, key: str, field: str = "v2") -> tuple[str, str]:
    """Of which space and text the vector in a field is."""
    space, of_text, _ = client.hget(key, f"{field}_of").decode().split()
    return space, of_text


def all_in_both(client, count: int = COUNT) -> None:
    for i in range(count):
        body = client.hget(f"doc:{i}", "body").decode()
        assert of(client, f"doc:{i}") == (SPACE, digest(body)), f"doc:{i}"
        assert of(client, f"doc:{i}", "embedding")[1] == digest(body)
        assert client.hstrlen(f"doc:{i}", "v2") == 4 * 8


def keys_of_second(client) -> set[bytes]:
    return {key for key in client.keys("embed_queue:v2:*") if b":history:" not in key}


def test_the_plan_comes_first(run, redis_client, first, provider, monkeypatch):
    """How much, what for, how long at the limits; a dry run calls nobody and writes nothing."""
    monkeypatch.setenv("EMBEDQUEUE_LIMITS", "texts_per_minute=10")

    def settings() -> dict[bytes, bytes | None]:
        """But for the number of a process' last command: the first queue's worker goes on looking for work."""
        found = redis_client.hgetall("embed_queue:settings")
        return {name: None if name.endswith(b":") else value for name, value in found.items()}

    before = settings()
    plan = json.loads(run("reembed", *WHAT, *NEW, "--dry-run", "--json"))
    assert plan == {
        "texts": COUNT,
        "tokens": 4 * COUNT,
        "usd": pytest.approx(4 * COUNT * 0.02 / 1e6),
        "seconds": 180.0,
        "total": COUNT,
        "done": 0,
        "waiting": 0,
        "model": "text-embedding-3-small",
        "field": "v2",
    }
    assert "30 texts of about 120 tokens, about $0.0000024, at least 3 min" in run("reembed", *WHAT, *NEW, "--dry-run")
    assert provider.calls == []
    assert settings() == before
    assert not redis_client.keys("embed_queue:v2:*")
    assert not redis_client.exists("embed_queue:runs")


def test_from_the_beginning_to_the_end(run, redis_client, first, provider):
    """Each step, and what it refuses before its time; afterwards there is one field in one space, and no other key."""
    assert "run reembed without further options first" in run("reembed", *WHAT, *NEW, "--cut-over", code=1)
    said = run("reembed", *WHAT, *NEW, "--wait")
    assert "Every text has its vector in v2" in said
    all_in_both(redis_client)
    assert max(provider.sent.values()) == 1
    one = json.loads(run("runs", "--json").splitlines()[0])
    assert (one["name"], one["kind"], one["state"], one["done"], one["total"]) == (
        "reembed:v2", "reembed", "done", COUNT, COUNT
    )  # fmt: skip

    # New texts go to both, also blank ones and such as are forgotten.
    redis_client.hset("doc:0", "body", "new")
    first.enqueue("doc:0", "new").result(PATIENCE_SECONDS)
    assert redis_client.zrange("embed_queue:v2:pending", 0, -1) == [b'{"redis_key":"doc:0","text":"new"}']
    assert "1 of them on their way" in run("reembed", *WHAT, *NEW, "--cut-over", "--timeout", "0.5", code=1)
    first.enqueue("doc:1", "")
    first.forget("doc:2", vector=True)
    redis_client.hset("doc:1", "body", "")
    redis_client.delete("doc:2")
    run("reembed", *WHAT, *NEW, "--wait")
    assert of(redis_client, "doc:0") == (SPACE, digest("new"))
    assert not redis_client.hexists("doc:1", "v2"), "of a blank text there is no vector"
    assert not redis_client.exists("doc:2")

    assert "not read yet" in run("reembed", *WHAT, *NEW, "--finish", code=1)
    assert "v2 is read from now on" in run("reembed", *WHAT, *NEW, "--cut-over")
    assert "v2 is read already" in json.loads(run("reembed", *WHAT, *NEW, "--cut-over", "--json"))["said"]
    assert "first field is read again" in json.loads(run("reembed", *WHAT, *NEW, "--roll-back", "--json"))["said"]
    run("reembed", *WHAT, *NEW, "--cut-over")
    assert "Nobody can be asked here" in run("reembed", *WHAT, *NEW, "--finish", code=1)
    redis_client.hset("embed_queue:v2:jobs", ":quota", 1000)  # as its batch jobs leave it
    assert redis_client.hexists("doc:3", "embedding")
    assert "has one field, v2" in json.loads(run("reembed", *WHAT, *NEW, "--finish", "--yes", "--json"))["said"]
    assert not redis_client.hexists("doc:3", "embedding")
    assert not redis_client.hexists("doc:3", "embedding_of")
    assert of(redis_client, "doc:3") == (SPACE, digest(text(3)))
    assert keys_of_second(redis_client) == set()
    assert Store(redis_client, "embed_queue").change.second() is None
    new = EmbeddingBatchQueue(
        FakeEmbedder(8), redis_client, model="text-embedding-3-small", embedding_field="v2", max_batch_size=1
    )
    with new:
        new.enqueue("doc:9", "after it").result(PATIENCE_SECONDS)
    assert of(redis_client, "doc:9") == (SPACE, digest("after it"))


def test_taking_it_back(run, redis_client, first):
    """Texts go to one field again, and another reembed goes on from the vectors that are there."""
    run("reembed", *WHAT, *NEW, "--wait")
    assert "first field alone" in run("reembed", *WHAT, *NEW, "--roll-back")
    first.enqueue("doc:0", "new").result(PATIENCE_SECONDS)
    assert keys_of_second(redis_client) == set()
    redis_client.hset("doc:0", "body", "new")
    assert json.loads(run("reembed", *WHAT, *NEW, "--dry-run", "--json"))["texts"] == 1


def sent_once(provider, texts) -> bool:
    return all(provider.sent[one] == 1 for one in texts)


def written(client) -> set[str]:
    """The texts that have their vectors in the second field."""
    return {text(i) for i in range(COUNT) if client.hexists(f"doc:{i}", "v2")}


def is_lost(client) -> None:
    """Time passes: nobody has heard of the run for long."""
    entry = client.hget("embed_queue:runs", "reembed:v2").split(b" ", 3)
    client.hset("embed_queue:runs", "reembed:v2", b" ".join([entry[0], b"1.0", *entry[2:]]))


def test_killed_in_the_middle_with_writes_going_on(run, redis_client, first, process, provider):
    """The same command goes on; no text that has its vector is sent again, and every new text is in both in the end."""
    stop = threading.Event()
    provider.latency = 1.0
    victim = process("--wait", *SLOWLY)
    eventually(lambda: len(written(redis_client)) >= 6)
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait(PATIENCE_SECONDS)
    before = written(redis_client)
    assert len(before) < COUNT

    def write() -> None:
        for i in range(10_000):
            key, body = f"doc:{10 + i % COUNT}", f"written {i}"
            redis_client.hset(key, "body", body)
            first.enqueue(key, body)
            if stop.wait(0.01) and i > COUNT:
                return

    writer = in_thread(write)
    is_lost(redis_client)
    assert json.loads(run("runs", "--json").splitlines()[0])["state"] == "lost"
    provider.latency = 0.0
    run("reembed", *WHAT, *NEW, "--no-work", *SLOWLY)
    stop.set()
    join(writer)
    first.flush(PATIENCE_SECONDS)
    run("reembed", *WHAT, *NEW, "--wait", *SLOWLY)
    all_in_both(redis_client, 10 + COUNT)
    assert sent_once(provider, before)
    run("reembed", *WHAT, *NEW, "--cut-over")


def test_what_waits_already_counts_when_it_has_its_vector(run, redis_client, first, provider):
    """A run that finds everything enqueued, by an earlier one, tells how much of it is done."""
    run("reembed", *WHAT, *NEW, "--no-work")
    plan = json.loads(run("reembed", *WHAT, *NEW, "--dry-run", "--json"))
    assert (plan["texts"], plan["waiting"], plan["done"]) == (COUNT, COUNT, 0)
    said: list[str] = []
    first_settings = read_environment()
    second = first_settings.second(EMBEDDING_FIELD="v2", MODEL="text-embedding-3-small", DIMENSIONS="8")
    with Reembedding(first_settings, second, "doc:*", "body") as work:
        run_ = NamedRun(work.store.runs, "mine", "reembed")
        with run_, second.queue(max_concurrency=1, api_batch_limit=3) as queue:
            at_work = Work(work, work.plan(), run_, queue, 60.0, 1000, say=said.append, say_seconds=0.0)
            assert at_work.until_complete() == 0
    counts = [int(line.split(" of ")[0]) for line in said]
    assert counts == sorted(counts)
    assert counts[-1] == COUNT, said


def test_it_ends_while_others_go_on_writing(run, redis_client, first, provider, monkeypatch):
    """It waits for what was there, and for what waits then; at each of its looks something new waits."""
    settings = read_environment()
    second = settings.second(EMBEDDING_FIELD="v2", MODEL="text-embedding-3-small", DIMENSIONS="8")
    written, rest = itertools.count(COUNT), Work._rest

    def rest_and_write(work: Work) -> None:
        rest(work)
        number = next(written)
        assert number < COUNT + 40, "it never ends"
        redis_client.hset(f"doc:{number}", "body", text(number))
        first.enqueue(f"doc:{number}", text(number))

    monkeypatch.setattr(Work, "_rest", rest_and_write)
    with Reembedding(settings, second, "doc:*", "body") as work:
        named = NamedRun(work.store.runs, "mine", "reembed")
        with named, second.queue(max_batch_size=1000) as queue:
            plan = work.plan()
            work.begin()
            at_work = Work(work, plan, named, queue, 60.0, 1000, say=lambda _: None, say_seconds=60.0)
            assert at_work.until_complete() == 0
    for i in range(COUNT):
        assert of(redis_client, f"doc:{i}") == (SPACE, digest(text(i)))
    assert not redis_client.exists("embed_queue:v2:flushes")


def test_redis_is_stopped_and_started(fresh_redis_server, provider, env, process):
    """The run goes through it, and nothing that was written is paid for twice."""
    client = fresh_redis_server.client()
    env["EMBEDQUEUE_REDIS_URL"] = fresh_redis_server.url
    for i in range(COUNT):
        client.hset(f"doc:{i}", "body", text(i))
    provider.latency = 1.0
    one = process("--wait", *SLOWLY)
    eventually(lambda: len(written(client)) >= 6)
    fresh_redis_server.stop()
    assert one.poll() is None
    fresh_redis_server.start()
    client = fresh_redis_server.client()
    said, errors = one.communicate(timeout=PATIENCE_SECONDS)
    assert one.returncode == 0, errors
    assert "Every text has its vector" in said
    assert len(written(client)) == COUNT


def test_a_finish_that_was_killed_goes_on(run, redis_client, first, monkeypatch):
    """The queues have changed places, and vectors of the first field are left: the same command removes them."""
    run("reembed", *WHAT, *NEW, "--wait")
    run("reembed", *WHAT, *NEW, "--cut-over")
    with monkeypatch.context() as patch:
        patch.setattr("embedqueue.operating.cutover._remove", lambda *_: exit(137))
        run("reembed", *WHAT, *NEW, "--finish", "--yes", code=137)
    assert redis_client.hexists("doc:0", "embedding")
    assert f"{COUNT} vectors of the first were removed" in run("reembed", *WHAT, *NEW, "--finish")
    assert not redis_client.hexists("doc:0", "embedding")
    assert redis_client.hexists("doc:0", "v2")
    assert "texts do not go to v2" in run("reembed", *WHAT, *NEW, "--roll-back", code=1)
    assert "give another --to-field" in run("reembed", *WHAT, *NEW, "--wait", code=1)


def test_who_works_meanwhile(run, redis_client, first):
    """In each field its own space: a worker of another one claims nothing, says so, and names the ways out."""
    run("reembed", *WHAT, *NEW, "--no-work")
    told = run("space", "show")
    assert "texts go to v2 as well, and the first field is read" in told
    wrong = EmbeddingBatchQueue(
        FakeEmbedder(8), redis_client, model="a-third", namespace="embed_queue:v2", embedding_field="v2"
    )
    new = EmbeddingBatchQueue(FakeEmbedder(8), redis_client, model="text-embedding-3-small", embedding_field="v2")
    for queue in (wrong, new):
        with queue:
            future = queue.enqueue("doc:0", f"of {queue.options.model}")
            with pytest.raises(BatchFailed, match="embedqueue reembed"):
                future.result(PATIENCE_SECONDS)
    redis_client.hset("doc:0", "body", "of text-embedding-3-small")
    first.flush(PATIENCE_SECONDS)
    assert of(redis_client, "doc:0", "embedding")[1] == digest("of text-embedding-3-small")
    run("reembed", *WHAT, *NEW, "--wait")
    all_in_both(redis_client)
    run("reembed", *WHAT, *NEW, "--cut-over")
    assert "and v2 is read" in run("space", "show")


def test_paused_nobody_embeds(run, redis_client, first, process, provider, monkeypatch):
    """Not even other workers of the second queue; it goes on where it was, and ends when it is told to stop."""
    provider.latency = 0.7
    one = process("--wait", *SLOWLY, "--set", "api_batch_limit=1")
    eventually(lambda: len(written(redis_client)) >= 3)
    assert "will stand still" in run("runs", "pause", "reembed:v2")
    eventually(lambda: redis_client.get("embed_queue:v2:pause") == b"the run reembed:v2 is paused")
    eventually(lambda: provider.in_flight == 0)
    eventually(lambda: json.loads(run("runs", "--json").splitlines()[0])["state"] == "paused")
    first.enqueue("doc:0", "of a user").result(PATIENCE_SECONDS)
    run("runs", "resume", "reembed:v2")
    before = len(written(redis_client))
    eventually(lambda: len(written(redis_client)) > before)
    run("runs", "stop", "reembed:v2")
    _, errors = one.communicate(timeout=PATIENCE_SECONDS)
    assert one.returncode == 1
    assert "stopped, as somebody has asked" in errors


def test_one_that_was_killed_while_it_stood_still_goes_on(run, redis_client, first):
    """The same command again: what it had stopped works again, and a pause of somebody else's is left alone."""
    redis_client.set("embed_queue:v2:pause", "the run reembed:v2 is paused")
    run("reembed", *WHAT, *NEW, "--wait")
    all_in_both(redis_client)
    redis_client.set("embed_queue:v2:pause", "by a person", px=60_000)
    run("reembed", *WHAT, *NEW)
    assert redis_client.get("embed_queue:v2:pause") == b"by a person"


def test_a_text_that_comes_in_between_wins(redis_client, first, env):
    """Somebody writes after a hash was looked at, and before what was found in it is enqueued."""
    settings = read_environment(env)
    second = settings.second("v2", MODEL="text-embedding-3-small", DIMENSIONS="8")
    newer = {"doc:1": "waits", "doc:2": "", "doc:3": None, "doc:4": "enqueued first"}
    with Reembedding(settings, second, "doc:*", "body") as work:
        work.begin()
        put = work._put

        def put_late(lacking, *rest):
            for key, body in newer.items():
                if body is None:
                    redis_client.delete(key)
                    first.forget(key)
                    continue
                if key != "doc:4":  # its hash is written later than it is enqueued
                    redis_client.hset(key, "body", body)
                first.enqueue(key, body)
            return put(lacking, *rest)

        work._put = put_late
        parts = list(work.fill(within=60, max_waiting=1000, check=lambda: None, rest=lambda: None))
    assert sum(count for count, _, _ in parts) == COUNT - len(newer)
    waiting = {json.loads(member)["redis_key"]: json.loads(member)["text"] for member in second_pending(redis_client)}
    assert {key: waiting.get(key, "") for key in newer if newer[key]} == {"doc:1": "waits", "doc:4": "enqueued first"}
    assert "doc:2" not in waiting
    assert "doc:3" not in waiting


def second_pending(client) -> list[bytes]:
    return client.zrange("embed_queue:v2:pending", 0, -1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model", "text-embedding-3-large", "--dimensions", "16"), "give another --model"),
        (("--to-field", "embedding", *NEW), "give another --to-field"),
        (("--to-field", "two words", *NEW), "without blanks"),
        (("--to-field", "cache", *NEW), "no key's"),
        (("--text-field", "v2", *NEW), "cannot be that of the vectors"),
        (("--provider", "nobody"), "nobody"),
        (("--name", "a b", *NEW), "no blanks"),
    ],
)
def test_wrong_use(run, redis_client, first, provider, arguments, words):
    """A sentence at once; nothing is written, and nobody is called."""
    before = redis_client.hgetall("embed_queue:settings")
    assert words in run("reembed", *WHAT, *arguments, "--wait", code=1)
    assert not redis_client.hexists("embed_queue:settings", "second")
    assert before.keys() == redis_client.hgetall("embed_queue:settings").keys()
    assert provider.calls == []


def test_more_than_a_dollar(run, redis_client, first, provider, monkeypatch):
    """Nobody can be asked, so it ends with 1 before anything is written; with --yes it goes on."""
    monkeypatch.setenv("EMBEDQUEUE_PRICES", "text-embedding-3-small=10000")
    assert "about $1.20. Spend it? Nobody can be asked here" in run("reembed", *WHAT, *NEW, code=1)
    assert not redis_client.hexists("embed_queue:settings", "second")
    run("reembed", *WHAT, *NEW, "--yes", "--wait")
    all_in_both(redis_client)


def test_another_model_in_the_midst(run, redis_client, first):
    """The second field has one space, too: whoever comes with another model is told so."""
    run("reembed", *WHAT, *NEW, "--wait")
    said = run("reembed", *WHAT, "--model", "text-embedding-ada-002", "--dimensions", "8", "--wait", code=1)
    assert "begun with another model 'text-embedding-3-small' and not 'text-embedding-ada-002'" in said
    assert "second field already, 'v2'" in run(
        "reembed", *WHAT[:4], "--to-field", "v3", "--model", "text-embedding-ada-002", code=1
    )


def test_the_provider_refuses_one_text(run, redis_client, first, provider):
    """It is a dead letter, which is counted as failed; all others are there, and cutting over is refused."""
    provider.rule = poison(text(7), 400)
    assert "1 texts have no vector in v2" in run("reembed", *WHAT, *NEW, "--wait", code=1)
    one = json.loads(run("runs", "--json").splitlines()[0])
    assert (one["done"], one["failed"]) == (COUNT - 1, 1)
    assert "1 texts have no vector in v2 yet, such as doc:7" in run("reembed", *WHAT, *NEW, "--cut-over", code=1)
    provider.rule = None
    run("reembed", *WHAT, *NEW, "--wait")
    all_in_both(redis_client)


def test_a_text_that_both_models_refuse_holds_nothing_up(run, redis_client, first, provider):
    """It is a dead letter in both queues, and found in neither field: how many those are is said."""
    provider.rule = poison("poison", 400)
    first.stop()
    redis_client.hset("doc:x", "body", "poison")
    refusing = FakeEmbedder(16, lambda texts: InputRejected("no") if "poison" in texts else None)
    with EmbeddingBatchQueue(refusing, redis_client, model="text-embedding-3-large") as queue:
        queue.enqueue("doc:x", "poison")
        queue.flush(PATIENCE_SECONDS)
    run("reembed", *WHAT, *NEW, "--wait", code=1)
    redis_client.hset("doc:x", "body", "neither has heard of this")
    assert "1 texts have no vector in v2 yet, such as doc:x" in run("reembed", *WHAT, *NEW, "--cut-over", code=1)
    redis_client.hset("doc:x", "body", "poison")
    assert "1 texts are dead letters in both queues" in run("reembed", *WHAT, *NEW, "--cut-over")
    assert "has one field, v2" in run("reembed", *WHAT, *NEW, "--finish", "--yes")
    assert all(redis_client.hexists(f"doc:{i}", "v2") for i in range(COUNT))


def test_the_provider_refuses_everything(run, redis_client, first, provider):
    """A wrong key is told at once, instead of waiting for ever; what is enqueued stays."""
    provider.rule = lambda texts: fail(401)
    said = run("reembed", *WHAT, *NEW, "--wait", code=1)
    assert re.search(r"401.*the same command goes on", said, re.S)
    provider.rule = None
    redis_client.delete("embed_queue:v2:pause", "embed_queue:v2:pause:ours")
    run("reembed", *WHAT, *NEW, "--wait")
    all_in_both(redis_client)
    assert max(Counter(provider.answered).values()) == 1


def test_only_enqueuing(run, redis_client, first, provider):
    """With --no-work others embed; a worker with these settings does."""
    run("reembed", *WHAT, *NEW, "--no-work")
    assert redis_client.zcard("embed_queue:v2:pending") == COUNT
    assert provider.calls == []
    run(
        "--namespace", "embed_queue:v2", "--model", NEW[1], "--dimensions", "8", "--set", "embedding_field=v2",
        "flush", "--wait",
    )  # fmt: skip
    all_in_both(redis_client)
