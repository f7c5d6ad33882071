"""``embedqueue worker`` as systemd and Kubernetes use it: signals, exit codes, health."""

from __future__ import annotations

import contextlib
import logging
import re
import signal
import subprocess
import threading
from types import SimpleNamespace

import pytest
import redis

from embedqueue import BatchFailed
from embedqueue.operating import arguments
from embedqueue.operating import run as running
from embedqueue.operating.ending import Ending
from embedqueue.settings.settings import Settings, read_environment
from embedqueue.values.stats import QueueStats
from tests import nursery
from tests.operating.test_health import ask
from tests.parts import PATIENCE_SECONDS, PROGRAM_SECONDS, eventually


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
    process = worker("--grace", "20", afresh=True)
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


def test_a_signal_that_another_thread_takes_ends_the_worker():
    """The kernel chooses the thread, and a main thread that waits for a lock would not wake up."""
    code = """
import signal, threading
from embedqueue.operating.ending import Ending
with Ending() as ending:
    send = lambda: signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    threading.Timer(0.3, send).start()
    raise SystemExit(0 if ending.wait() else 1)
"""
    assert nursery.run("-c", code, timeout=PROGRAM_SECONDS).returncode == 0


def test_waiting_for_a_signal_has_a_limit():
    """And other signals do not count."""
    with Ending() as ending:
        assert not ending.wait(0.01)
        signal.raise_signal(signal.SIGTERM)
        assert ending.wait(0.01)


def test_a_second_signal_ends_the_first_process_of_a_container():
    """Which a signal without a handler does not end: it ends by itself, with the code that a shell tells of it."""
    code = """
import os, signal, threading
from embedqueue.operating.ending import Ending
signal.raise_signal = lambda number: None  # as the kernel has it for process 1
with Ending() as ending:
    os.kill(os.getpid(), signal.SIGTERM)
    assert ending.wait(45)
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(10)
"""
    done = nursery.run("-c", code, timeout=PROGRAM_SECONDS)
    assert done.returncode == 128 + signal.SIGTERM


class Played:
    """A queue whose figures are given, look by look; a look may also be an error, or something to do."""

    def __init__(self, *looks) -> None:
        self.looks = list(looks)
        self.flushed_at: list[int] = []  # looks that were left when it was told to flush
        self.stopped: list[float] = []

    def stats(self):
        look = self.looks.pop(0)
        if isinstance(look, Exception):
            raise look
        if callable(look):
            look()
            look = {"in_flight": 1}
        zero = dict.fromkeys(QueueStats.__annotations__, 0)
        nothing = dict.fromkeys(("oldest_age", "paused_until", "pause_reason", "last_progress"))
        return QueueStats(**{**zero, **nothing, "limits": (), **look})

    def flush_now(self):
        self.flushed_at.append(len(self.looks))

    def pending_count(self):
        return 0

    def start(self):
        pass

    def stop(self, timeout):
        self.stopped.append(timeout)


BUSY, NONE = {"waiting": 2, "in_flight": 1}, {}
PAUSED = {"waiting": 2, "in_flight": 1, "paused_until": 1.0, "pause_reason": "503"}


@pytest.fixture
def burst(monkeypatch):
    """Runs a burst over a queue with such figures; gives what it said."""
    monkeypatch.setattr(running, "BURST_POLL_SECONDS", 0.0)

    def burst(*queues):
        said = []
        running.run_worker(
            [
                running.Served(f"queue {at}", Settings(provider="local"), lambda one=one, **_: one)
                for at, one in enumerate(queues)
            ],
            burst=True,
            grace=3.0,
            say=said.append,
        )
        return said

    return burst


def test_a_burst_ends_when_all_is_done(burst):
    """And not before; what came meanwhile does not wait for the timer, but for what is in flight."""
    queue = Played(BUSY, {"waiting": 2}, {"in_flight": 1}, NONE)
    assert burst(queue)[-1].startswith("ended")
    assert (queue.looks, queue.flushed_at, queue.stopped) == ([], [2], [3.0])


def test_a_burst_goes_on_when_redis_is_back(burst):
    """A Redis that does not answer for a moment is not the end."""
    queue = Played(BUSY, redis.ConnectionError("gone"), redis.TimeoutError("slow"), BUSY, NONE)
    burst(queue)
    assert queue.looks == []


def test_a_burst_has_patience_with_a_provider(burst, monkeypatch):
    """Its pauses are counted from the first of a row; then it gives up and says why, and how much is left."""
    now = iter([100.0, 159.0, 1000.0, 1060.0, 1060.1])
    monkeypatch.setattr(running, "time", SimpleNamespace(monotonic=lambda: next(now), time=lambda: 1.0))
    queue = Played(PAUSED, PAUSED, BUSY, PAUSED, PAUSED, PAUSED)
    with pytest.raises(BatchFailed, match="the provider failed: 503; 3 items are still queued"):
        burst(queue)
    assert (queue.looks, queue.stopped) == ([], [3.0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_burst_can_be_ended(burst, number):
    """By a signal, before all is done; afterwards signals are whoever's they were."""
    before = signal.getsignal(number)
    queue = Played(BUSY, lambda: signal.raise_signal(number), BUSY)
    assert burst(queue)[-1].startswith("ended")
    assert (queue.looks, queue.stopped) == ([BUSY], [3.0])
    assert signal.getsignal(number) is before


def test_a_burst_of_several_ends_when_all_are_empty_at_once(burst):
    """What comes into one while another is worked on is done too."""
    first, second = Played(NONE, {"waiting": 1}, NONE), Played(BUSY, NONE, NONE)
    burst(first, second)
    assert (first.looks, second.looks, first.flushed_at) == ([], [], [1])


def test_a_burst_goes_on_with_the_others_where_one_provider_fails(burst):
    """Then it says of which queue it was; a paused one is not looked at again."""
    held = {"waiting": 3, "paused_until": float("inf"), "pause_reason": "by hand"}
    paused, other = Played(held), Played(BUSY, BUSY, NONE)
    with pytest.raises(
        BatchFailed, match="^queue 0: paused until somebody resumes: by hand; 3 items are still queued$"
    ):
        burst(paused, other)
    assert (other.looks, paused.stopped, other.stopped) == ([], [3.0], [3.0])


def test_the_grace_is_that_of_all_queues(burst):
    """They stop side by side: a supervisor does not wait for each in turn."""

    class Meeting(Played):
        stops = threading.Barrier(2)

        def stop(self, timeout):
            self.stops.wait(PATIENCE_SECONDS)
            super().stop(timeout)

    first, second = Meeting(NONE), Meeting(NONE)
    burst(first, second)
    assert (first.stopped, second.stopped) == ([3.0], [3.0])


@pytest.mark.parametrize(("words", "value"), [("auto", "auto"), ("1", 1), ("16", 16)])
def test_concurrency(words, value):
    """A number, or what the queue finds out by itself."""
    assert arguments.concurrency(words) == value


@pytest.mark.parametrize(
    ("words", "value"),
    [("127.0.0.1:9100", ("127.0.0.1", 9100)), (":0", ("", 0)), ("[::1]:65535", ("::1", 65535))],
)
def test_address(words, value):
    """Host and port; without a host, all addresses."""
    assert arguments.address(words) == value


@pytest.mark.parametrize("words", ["", "here", "here:", "here:65536", "here:-1", "9100 "])
def test_no_address(words):
    """A sentence says what to give."""
    with pytest.raises(ValueError, match="HOST:PORT"):
        arguments.address(words)


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
    eventually(lambda: ask(address, "/health")[0] == 503)
    assert "1 calls are under way, and nothing was finished" in ask(address, "/health")[1]
    held.release()
    eventually(lambda: ask(address, "/health")[0] == 200)


BOTH = ("--namespace", "notes", "--namespace", "titles")


def enqueue_in(env, *namespaces):
    """An item in each, which is due at once."""
    for namespace in namespaces:
        queue = read_environment(env).queue(worker=False, namespace=namespace)
        queue.enqueue(f"{namespace}-1", "hello")
        queue.stop()


def test_a_worker_of_several_namespaces(run, env, redis_client):
    """Before the command or after it; one that was not named is left alone."""
    enqueue_in(env, "notes", "titles", "others")
    said = run("--namespace", "notes", "--namespace", "titles", "worker", "--burst")
    assert "'notes'" in said and "'titles'" in said
    assert redis_client.hexists("notes-1", "embedding") and redis_client.hexists("titles-1", "embedding")
    assert redis_client.zcard("others:pending") == 1
    enqueue_in(env, "notes", "titles")
    run("--namespace", "notes", "worker", "--burst", "--namespace", "others", "--set", "namespace=titles")
    waiting = [redis_client.zcard(f"{namespace}:pending") for namespace in ("notes", "titles", "others")]
    assert waiting == [1, 0, 0]  # what stands behind the command wins
    assert "only worker takes more than one --namespace" in run("stats", *BOTH, code=2)


def test_a_worker_of_several_ends_in_order(worker, env, provider, redis_client):
    """Calls of all queues are under way; SIGTERM lets them finish within the grace."""
    provider.hold()
    enqueue_in(env, "notes", "titles")
    process = worker(*BOTH, "--grace", "20")
    assert provider.wait_for_calls(2, PATIENCE_SECONDS)
    process.send_signal(signal.SIGTERM)
    provider.release()
    _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, errors) == (0, "")
    assert redis_client.hexists("notes-1", "embedding") and redis_client.hexists("titles-1", "embedding")


def test_a_second_signal_ends_a_worker_of_several(worker, env, provider, redis_client):
    """At once, by the signal, though both queues wait for their calls."""
    provider.hold()
    enqueue_in(env, "notes", "titles")
    process = worker(*BOTH, "--grace", "600")
    assert provider.wait_for_calls(2, PATIENCE_SECONDS)
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.2)
    assert process.returncode == -signal.SIGTERM
    provider.release()


def test_health_of_several(worker, env, redis_client, provider):
    """200 while all are well; 503 with the names of those that are not."""
    process = worker(*BOTH, "--health", "127.0.0.1:0")
    process.stdout.readline()
    address = re.search(r"http://([\w.:]+)/health", process.stdout.readline()).group(1)
    assert ask(address, "/health") == (200, "notes: nothing is due\ntitles: nothing is due\n")
    redis_client.set("titles:pause", "no credit")
    assert ask(address, "/health") == (503, "titles: paused: no credit\n")
    redis_client.set("notes:pause", "no credit either")
    assert ask(address, "/health") == (503, "notes: paused: no credit either\ntitles: paused: no credit\n")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=PATIENCE_SECONDS) == 0


def test_a_log_of_several_tells_which(worker, env):
    """And the last sentence does as well."""
    enqueue_in(env, "notes", "titles")
    process = worker(*BOTH, "--burst", "--api-key", "wrong")
    _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 1
    for namespace in ("notes", "titles"):
        assert f"ERROR {namespace} embedqueue: nothing can be embedded" in errors
        assert f"{namespace}: the provider failed" in errors.splitlines()[-1]


def test_metrics(worker, redis_client, provider, env):
    """The worker tells what it has done, at the same address."""
    pytest.importorskip("prometheus_client")
    process = worker("--health", "127.0.0.1:0")
    address = re.search(r"http://([\w.:]+)/health", process.stdout.readline()).group(1)
    with read_environment(env).queue(worker=False) as queue:
        assert queue.enqueue("doc:1", "hello").result(PATIENCE_SECONDS)
    counted = 'embedqueue_embedded_total{queue="embed_queue"} 1.0'  # after the future has ended
    eventually(lambda: counted in ask(address, "/metrics")[1], "the worker has counted it")
    status, text = ask(address, "/metrics")
    assert status == 200
    assert 'embedqueue_waiting{queue="embed_queue"} 0.0' in text


def test_trace(run, redis_client, monkeypatch):
    """With OpenTelemetry there, the worker makes spans, or says that they go nowhere; items are embedded as ever."""
    trace = pytest.importorskip("opentelemetry.trace")
    run("enqueue", "-", text='{"redis_key": "doc:1", "text": "hello"}')
    assert "opentelemetry-instrument -- embedqueue worker --trace" in run("worker", "--burst", "--trace")
    assert redis_client.hexists("doc:1", "embedding")
    monkeypatch.setattr(trace, "get_tracer_provider", trace.NoOpTracerProvider)
    assert "exports nothing" not in run("worker", "--burst", "--trace")


def test_the_log_level_counts_where_the_application_has_set_logging_up(run, redis_client, caplog):
    """As Django's LOGGING, and pytest here; and only if it is given."""
    caplog.set_level(logging.ERROR, "embedqueue")
    run("worker", "--burst")
    assert logging.getLogger("embedqueue").level == logging.ERROR
    run("worker", "--burst", "--log-level", "info")
    assert logging.getLogger("embedqueue").level == logging.INFO


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
