"""``embedqueue worker`` as systemd and Kubernetes use it: signals, exit codes, health."""

from __future__ import annotations

import re
import signal

import pytest

from embedqueue.config import read_environment
from tests.unit.test_health import ask
from tests.web.servers import eventually

PATIENCE_SECONDS = 20


@pytest.fixture
def held(env, redis_client, provider):
    """An item whose call will be held by the provider."""
    provider.hold()
    queue = read_environment(env).queue(worker=False)
    queue.enqueue("doc:1", "hello")
    queue.flush_now()
    yield provider
    provider.release()
    queue.stop()


def test_sigterm_gives_back_what_is_not_finished_in_time(worker, held, redis_client):
    """It ends with 0, and nothing is printed of it on standard error."""
    process = worker("--grace", "0.2")
    assert held.wait_for_calls(1, PATIENCE_SECONDS)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, errors) == (0, "")
    assert redis_client.zcard("embed_queue:pending") == 1


def test_sigterm_waits_for_what_is_claimed(worker, held, redis_client):
    """The call that is under way is finished, and its vector written, before the process ends."""
    process = worker("--grace", "20")
    assert held.wait_for_calls(1, PATIENCE_SECONDS)
    process.send_signal(signal.SIGTERM)
    held.release()
    process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0
    assert redis_client.hexists("doc:1", "embedding")
    assert redis_client.zcard("embed_queue:inflight") == 0


def test_a_second_signal_ends_at_once(worker, held, redis_client):
    """By the signal itself, as a supervisor expects; the lease brings the item back."""
    process = worker("--grace", "600")
    assert held.wait_for_calls(1, PATIENCE_SECONDS)
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=0.2)
        except Exception:  # noqa: BLE001 - it has not ended yet
            continue
    assert process.returncode == -signal.SIGTERM
    assert redis_client.zcard("embed_queue:inflight") == 1


def test_health(worker, redis_client, provider):
    """200 while there is progress or nothing to do, 503 while the provider fails, and it comes back by itself."""
    process = worker("--health", "127.0.0.1:0", "--set", "flush_interval=0.05")
    line = process.stdout.readline()
    address = re.search(r"http://([\w.:]+)/health", line).group(1)
    assert ask(address, "/health") == (200, "nothing is due\n")
    redis_client.set("embed_queue:pause", "no credit")
    status, sentence = ask(address, "/health")
    assert (status, "no credit" in sentence) == (503, True)
    assert ask(address, "/live")[0] == 200
    redis_client.delete("embed_queue:pause")
    assert ask(address, "/health")[0] == 200
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=PATIENCE_SECONDS) == 0


def test_a_call_that_hangs_is_not_healthy(worker, held):
    """A process that lives and gets nowhere says so; it is well again when the answer comes."""
    process = worker("--health", "127.0.0.1:0", "--stall", "0.2", "--grace", "0")
    address = re.search(r"http://([\w.:]+)/health", process.stdout.readline()).group(1)
    assert held.wait_for_calls(1, PATIENCE_SECONDS)
    assert eventually(lambda: ask(address, "/health")[0] == 503)
    assert "1 calls are under way, and nothing was finished" in ask(address, "/health")[1]
    held.release()
    assert eventually(lambda: ask(address, "/health")[0] == 200)


def test_metrics(worker, redis_client, provider, env):
    """The worker tells what it has done, at the same address."""
    pytest.importorskip("prometheus_client")
    process = worker("--health", "127.0.0.1:0")
    address = re.search(r"http://([\w.:]+)/health", process.stdout.readline()).group(1)
    with read_environment(env).queue(worker=False) as queue:
        assert queue.enqueue("doc:1", "hello").result(PATIENCE_SECONDS)
    status, text = ask(address, "/metrics")
    assert status == 200
    assert 'embedqueue_embedded_total{queue="embed_queue"} 1.0' in text
    assert 'embedqueue_waiting{queue="embed_queue"} 0.0' in text


def test_trace(run, redis_client):
    """With OpenTelemetry there, the worker makes spans; the items are embedded as ever."""
    pytest.importorskip("opentelemetry.trace")
    run("enqueue", "-", text='{"redis_key": "doc:1", "text": "hello"}')
    run("worker", "--burst", "--trace")
    assert redis_client.hexists("doc:1", "embedding")


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["--concurrency", "many"], 2, "concurrency"),
        (["--health", "here"], 2, "HOST:PORT"),
        (["--redis", "redis://127.0.0.1:1"], 1, "start it"),
        (["--set", "lease_seconds=0"], 1, "EMBEDQUEUE_LEASE_SECONDS"),
    ],
)
def test_mistakes(run, arguments, code, word):
    """Used wrongly is 2; what does not work is 1; a sentence tells."""
    assert word in run("worker", "--burst", *arguments, code=code)
