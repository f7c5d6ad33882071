"""Health is progress: what is told of a worker, and how it is asked."""

from __future__ import annotations

import http.client
import socket
import sys
import time
from types import SimpleNamespace

import fakeredis
import pytest

from embedqueue import LimitLeft, TransientError
from embedqueue.operating import health as health_module
from embedqueue.operating.health import Health, HealthServer, verdict
from embedqueue.testing import FakeEmbedder, eager_queue
from embedqueue.values.stats import QueueStats
from tests.inside import FIRST_PAUSE_SECONDS

FULL, ROOM = (LimitLeft("requests_per_day", 100, left, seconds) for left, seconds in ((0, 900.0), (5, 0.0)))
RULES = {"max_batch_size": 50, "stall_seconds": 120.0}


def stats(**differences) -> QueueStats:
    """How a queue stands that has nothing to do, but for some things."""
    zero = dict.fromkeys(QueueStats.__annotations__, 0)
    nothing = dict.fromkeys(("due_in", "oldest_age", "paused_until", "pause_reason", "last_progress"))
    return QueueStats(**{**zero, **nothing, "limits": (), **differences})


@pytest.mark.parametrize(
    ("differences", "quiet_seconds", "well", "word"),
    [
        ({}, 1e6, True, "nothing is due"),
        ({"waiting": 3, "due_in": 50.0}, 1e6, True, "nothing is due"),
        ({"waiting": 3, "due_in": -1.0}, 5, True, "5 s ago"),
        ({"waiting": 3, "due_in": -1.0}, 121, False, "3 items are due"),
        ({"waiting": 50, "due_in": 59.0}, 121, False, "50 items are due"),
        ({"calls_under_way": 2}, 119, True, "119 s ago"),
        ({"calls_under_way": 2}, 121, False, "2 calls are under way"),
        ({"waiting": 50, "oldest_age": 1, "limits": [FULL]}, 121, True, "next call go in 900 s"),
        ({"waiting": 50, "oldest_age": 1, "limits": [ROOM]}, 121, False, "50 items are due"),
        ({"paused_until": 1.0, "pause_reason": "no credit"}, 0, False, "no credit"),
    ],
)
def test_verdict(differences, quiet_seconds, well, word):
    """A worker with nothing due is well however quiet it is; one with something due is not."""
    found, sentence = verdict(stats(**differences), quiet_seconds=quiet_seconds, **RULES)
    assert found is well
    assert word in sentence


def ask(address: str, path: str, method: str = "GET") -> tuple[int, str]:
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=10)
    connection.request(method, path)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body


def test_the_endpoint():
    """200 or 503 with a sentence; alive whatever the provider does; nothing else is there."""
    answers = [(True, "fine"), (False, "nothing comes back")]
    with HealthServer(("127.0.0.1", 0)) as server:
        server.serve(lambda: answers.pop(0))
        assert ask(server.address, "/health") == (200, "fine\n")
        assert ask(server.address, "/health?verbose") == (503, "nothing comes back\n")
        assert ask(server.address, "/live") == (200, "alive\n")
        assert ask(server.address, "/etc/passwd")[0] == 404
        assert ask(server.address, "/live", "HEAD") == (200, "")
        assert ask(server.address, "/live", "POST")[0] == 501
    with pytest.raises(OSError):
        ask(server.address, "/live")


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as one:
            one.bind(("::1", 0))
    except OSError:
        return False
    return socket.has_dualstack_ipv6()


@pytest.mark.skipif(not has_ipv6(), reason="there is no IPv6 here")
@pytest.mark.parametrize(("host", "asked"), [("::1", ["[::1]"]), ("", ["127.0.0.1", "[::1]"])])
def test_it_listens_on_ipv6(host, asked):
    """All addresses are those of both families."""
    with HealthServer((host, 0)) as server:
        server.serve(lambda: (True, "fine"))
        port = server.address.rpartition(":")[2]
        assert [ask(f"{one}:{port}", "/live") for one in asked] == [(200, "alive\n")] * len(asked)
        assert server.address.startswith("[")


def test_health_of_a_queue(monkeypatch):
    """The queue's own figures and options decide; a Redis that is gone is no exception but a sentence."""
    monkeypatch.setattr(*FIRST_PAUSE_SECONDS, 60.0)
    server = fakeredis.FakeServer()
    embedder = FakeEmbedder()
    queue = eager_queue(embedder, fakeredis.FakeRedis(server=server), flush_interval=0.001)
    health = Health(queue, stall_seconds=0.0)
    assert health() == (True, "nothing is due")
    embedder.fail_with(TransientError("busy"))
    queue.enqueue("doc:1", "hello")
    assert health() == (False, "paused: the provider failed: busy")
    server.connected = False
    well, sentence = health()
    assert not well
    assert sentence.startswith("Redis does not answer")


def test_progress_is_what_was_finished_last(monkeypatch, fake_redis):
    """A worker that began long ago is well for as long after its last success as one that has just begun."""
    now = time.time() - 1000
    monkeypatch.setattr(health_module, "time", SimpleNamespace(time=lambda: now))
    embedder = FakeEmbedder()
    embedder.fail_with(TransientError("busy"))
    eager_queue(embedder, fake_redis).enqueue("doc:0", "due")
    fake_redis.delete("embed_queue:pause")
    queue = eager_queue(embedder, fake_redis, flush_interval=0.0001)
    health = Health(queue)
    assert health() == (True, "the last progress was 0 s ago")
    embedder.fail_with(TransientError("busy"))
    queue.enqueue("doc:1", "hello")
    fake_redis.delete("embed_queue:pause")
    now += 1000
    well, sentence = health()
    assert (well, "the last progress was" in sentence) == (True, True)
    now += 1000
    well, sentence = health()
    assert (well, sentence.startswith("2 items are due, and nothing was finished for")) == (False, True)


def test_before_the_start():
    """Whoever asks before the worker is at work is not told that all is well."""
    with HealthServer(("127.0.0.1", 0)) as server:
        assert server.answer("/health")[0] == 503


def test_metrics_at_the_same_address():
    """What its observers are told stands at /metrics."""
    pytest.importorskip("prometheus_client", reason='metrics are in the extra "embedqueue[prometheus]"')
    with HealthServer(("127.0.0.1", 0)) as server:
        eager_queue(namespace="of_health", observers=server.observers).enqueue("doc:1", "hello")
        server.serve(lambda: (True, "fine"))
        status, text = ask(server.address, "/metrics")
    assert status == 200
    assert 'embedqueue_embedded_total{queue="of_health"} 1.0' in text


def test_without_prometheus_client(monkeypatch):
    """Health is told all the same, and whoever looks for metrics learns what to install."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with HealthServer(("127.0.0.1", 0)) as server:
        server.serve(lambda: (True, "fine"))
        assert server.observers == ()
        assert ask(server.address, "/health") == (200, "fine\n")
        status, sentence = ask(server.address, "/metrics")
    assert status == 404
    assert "embedqueue[prometheus]" in sentence


def test_an_address_that_is_taken_is_told_at_once():
    """Before anything is claimed."""
    with HealthServer(("127.0.0.1", 0)) as first, pytest.raises(OSError, match="in use"):
        HealthServer(("127.0.0.1", int(first.address.rpartition(":")[2])))
