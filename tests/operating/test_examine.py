"""A check on servers that answer, and on which no item would ever be enqueued."""

from __future__ import annotations

import contextlib
import functools

import pytest

from embedqueue.demo.localredis import LocalRedis
from embedqueue.operating.examine import examine
from embedqueue.settings.settings import read
from tests.localcluster import free_ports
from tests.parts import eventually, local_redis


@pytest.fixture
def start():
    """Starts a Redis of the test's own."""
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(contextlib.contextmanager(local_redis)(**options))


def problems(server, url: str | None = None) -> list[str]:
    settings = read({"REDIS_URL": url or server.url, "PROVIDER": "openai", "BASE_URL": "http://h", "DIMENSIONS": 8})
    return [finding.words for finding in examine(settings, call=False) if finding.level == "problem"]


def test_a_node_of_a_cluster(start):
    """Without slots, and with all of them: the queue's keys do not lie together."""
    port, bus = free_ports(2)
    more = ("--cluster-port", str(bus), "--cluster-require-full-coverage", "no")
    server = start(appendonly=False, port=port, args=("--cluster-enabled", "yes", *more))
    [words] = problems(server)
    assert "is a node of a Redis Cluster" in words
    with server.client() as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        eventually(lambda: client.execute_command("CLUSTER INFO")["cluster_state"] == "ok", "it has all slots")
    [words] = problems(server)
    assert "redis+cluster://HOST:PORT" in words


def test_a_full_one_and_a_replica(start):
    """Both read, and neither takes anything in."""
    server = start(appendonly=False)
    with server.client() as client:
        client.config_set("maxmemory", 1)
        [words] = problems(server)
        assert "is full, so nothing can be enqueued" in words and "raise its maxmemory" in words
        client.config_set("maxmemory", "0")
        assert problems(server) == []
        client.replicaof("127.0.0.1", 1)
        [words] = problems(server)
        assert "is a replica, where nothing can be written" in words and "name its master in REDIS_URL" in words
        client.replicaof("NO", "ONE")
        assert problems(server) == []
        assert client.keys("*") == [], "a check leaves nothing behind"


def test_one_that_knows_no_hello(start, monkeypatch):
    """It is old or hardened, and works; where the URL asks for RESP3, what it quotes is told without the password."""
    monkeypatch.setattr(LocalRedis, "client", functools.partialmethod(LocalRedis.client, protocol=2))
    server = start(appendonly=False, args=("--rename-command", "HELLO", ""))
    with server.client() as client:
        client.config_set("requirepass", "top-secret-password")
        url = f"{server.url}?password=top-secret-password"
        assert problems(server, url) == []
        [words] = problems(server, f"{url}&protocol=3")
    assert "unknown command 'HELLO'" in words
    assert "top-secret" not in words
