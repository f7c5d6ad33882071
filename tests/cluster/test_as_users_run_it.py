"""Clusters as users have them: over TLS, with RESP3, of one node, with nodes that come and go, full, forked workers."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading

import pytest
import redis
import trustme
from redis.cluster import ClusterNode

from embedqueue.demo.localredis import LocalRedis
from embedqueue.settings.redis_url import client_of
from tests.cluster.conftest import running
from tests.localcluster import free_ports
from tests.parts import PATIENCE_SECONDS, PROGRAM_SECONDS, eventually, expected, in_thread, join, stored
from tests.store.tls import TlsProxy

HOME = "{embed_queue}"


def test_over_tls(make_queue, cluster, client, tmp_path):
    """Every connection of ours, on every node, checks whom it speaks to."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    proxies = {node.port: TlsProxy(node.port, authority, names=("127.0.0.1",)) for node in cluster.nodes}

    def remap(address):
        host, port = address
        return host, proxies[port].port if port in proxies else port

    with contextlib.ExitStack() as stack:
        for proxy in proxies.values():
            stack.enter_context(proxy)
        with redis.RedisCluster(
            startup_nodes=[ClusterNode("localhost", proxy.port) for proxy in proxies.values()],
            address_remap=remap,
            ssl=True,
            ssl_ca_certs=str(tmp_path / "ca.pem"),
            ssl_check_hostname=True,
        ) as secure:
            before = {port: proxy.connections for port, proxy in proxies.items()}
            queue = make_queue(secure)
            keys = [f"doc:{number}" for number in range(12)]
            for key, future in zip(keys, queue.enqueue_many([(key, key) for key in keys]), strict=True):
                assert future.result(PATIENCE_SECONDS) == expected(key)
            cluster.move(HOME, next(node for node in cluster.nodes if node is not cluster.master_of(HOME)))
            assert queue.enqueue("doc:1", "moved").result(PATIENCE_SECONDS) == expected("moved")
            assert client.hget("doc:1", "embedding") == stored("moved")
            assert all(proxies[port].connections > count for port, count in before.items())
            queue.stop()


@pytest.mark.parametrize("made_of", ["client", "url"])
def test_with_resp3(make_queue, cluster, made_of):
    client = cluster.client(protocol=3) if made_of == "client" else client_of(f"{cluster.url}?protocol=3")
    queue = make_queue(client)
    assert queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS) == expected("one")
    assert client.hget("doc:1", "embedding") == stored("one")
    eventually(lambda: queue.stats().workers == 1)
    queue.stop()
    client.close()


def test_of_one_node(make_queue):
    """As MemoryDB and ElastiCache Serverless may be."""
    with running(masters=1) as one, one.client() as client:
        queue = make_queue(client)
        keys = [f"doc:{number}" for number in range(20)]
        for key, future in zip(keys, queue.enqueue_many([(key, key) for key in keys]), strict=True):
            assert future.result(PATIENCE_SECONDS) == expected(key)
        assert queue.enqueue("doc:1", "doc:1", if_changed=True).done()
        queue.stop()


def test_a_node_is_added_and_another_one_removed(make_queue):
    """The queue, and what it has, moves to the new node; the one that the client was made with goes."""
    with running(masters=2) as own:
        old, other = own.master_of(HOME), next(node for node in own.nodes if node is not own.master_of(HOME))
        client = redis.RedisCluster(startup_nodes=[ClusterNode("127.0.0.1", old.port)])
        queue = make_queue(client, redis_patience=30.0)
        queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS)
        new = LocalRedis(appendonly=False, port=next(free_ports(1)), args=own.args)
        own.nodes.append(new.start())
        with new.client() as admin:
            admin.execute_command("CLUSTER", "SET-CONFIG-EPOCH", 7)
            admin.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port)
        eventually(lambda: all(int(own.cluster_info(node)["cluster_known_nodes"]) == 3 for node in own.nodes), "met")
        eventually(own.is_well, "the cluster is well")
        own.move_all(old, new)
        assert queue.enqueue("doc:2", "two").result(PATIENCE_SECONDS) == expected("two")
        assert own.master_of(HOME) is new
        gone = own.id_of(old)
        own.nodes.remove(old)
        for node in own.nodes:
            with node.client() as admin:
                admin.execute_command("CLUSTER", "FORGET", gone)
        old.close()
        for number in range(20):
            assert queue.enqueue(f"doc:{number}", "three").result(PATIENCE_SECONDS) == expected("three")
        again = make_queue(client)  # a process that starts now would be given other nodes; this one has learned of them
        assert again.enqueue("doc:1", "four").result(PATIENCE_SECONDS) == expected("four")
        queue.stop()
        again.stop()
        client.close()


@pytest.mark.parametrize("how", ["full", "without replicas"])
def test_a_node_that_takes_no_writes_for_a_while(make_queue, cluster, client, how):
    """An enqueue is told at once; a vector is written when it can be, and nothing is lost."""
    name, value, back = ("maxmemory", 1, 0) if how == "full" else ("min-replicas-to-write", 1, 0)
    queue = make_queue(client, lease_seconds=5.0)
    queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS)
    home = cluster.master_of(HOME)
    key = next(f"doc:{number}" for number in range(99) if cluster.master_of(f"doc:{number}") is not home)
    away = cluster.master_of(key)
    try:
        with home.client() as admin:
            admin.config_set(name, value)
        with pytest.raises(redis.ResponseError, match="maxmemory|NOREPLICAS"):
            queue.enqueue("doc:2", "two")
        with home.client() as admin:
            admin.config_set(name, back)
        with away.client() as admin:
            admin.config_set(name, value)
        waiting = queue.enqueue(key, "three")
        fine = queue.enqueue(next(f"doc:{n}" for n in range(99) if cluster.master_of(f"doc:{n}") is home), "four")
        assert fine.result(PATIENCE_SECONDS) == expected("four")
        assert not waiting.done()
    finally:
        for node in cluster.nodes:
            with node.client() as admin:
                admin.config_set(name, back)
    assert waiting.result(PATIENCE_SECONDS) == expected("three")
    assert client.hget(key, "embedding") == stored("three")
    assert queue.stats().dead == 0


def test_who_waits_is_told_after_a_failover(replicated, make_queue):
    """In another process than the one that works, and of what had been enqueued before."""
    with replicated.client() as client, replicated.client() as theirs:
        producer = make_queue(client, worker=False, min_replicas=1, redis_patience=30.0)
        futures = [producer.enqueue(f"doc:{number}", f"text {number}") for number in range(10)]
        master = replicated.master_of(HOME)
        master.kill()
        replicated.await_other(HOME, master)
        make_queue(theirs, redis_patience=30.0)
        for number, future in enumerate(futures):
            assert future.result(PATIENCE_SECONDS) == expected(f"text {number}")


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts files as Linux lists them")
def test_fifty_queues_leave_no_connection_and_no_thread(make_queue, embedder, cluster, client):
    def once() -> None:
        queue = make_queue(client)
        queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS)
        queue.enqueue("doc:2", "one", if_changed=True).result(PATIENCE_SECONDS)
        queue.stats()
        queue.stop()

    once()
    files, threads = open_files(), threading.active_count()
    for _ in range(50):
        once()
    eventually(lambda: open_files() <= files and threading.active_count() <= threads, "all are closed")


FORKING = """
import json, os, sys, threading
import redis
from redis.cluster import ClusterNode
from embedqueue import EmbeddingBatchQueue
from embedqueue.testing import FakeEmbedder
from tests.inside import inside

client = redis.RedisCluster(startup_nodes=[ClusterNode("127.0.0.1", int(sys.argv[1]))])
queue = EmbeddingBatchQueue(FakeEmbedder(8), client)
queue.start()
queue.enqueue("doc:1", "one").result(45)
held, go_on = threading.Event(), threading.Event()

def hold():
    with inside(queue).store._nodes._lock:
        held.set()
        go_on.wait(45)

threading.Thread(target=hold, daemon=True).start()
held.wait(45)
children = []
for number in range(3):
    pid = os.fork()
    if pid == 0:
        vector = queue.enqueue(f"child:{number}", f"child {number}").result(45)
        queue.stop()
        os._exit(0 if len(vector) == 8 else 1)
    children.append(pid)
go_on.set()
codes = [os.waitpid(pid, 0)[1] for pid in children]
queue.enqueue("doc:2", "two").result(45)
queue.stop()
print(json.dumps(codes))
"""


def test_workers_that_are_forked_after_the_queue_was_used(cluster, client):
    """As with gunicorn --preload, and while a lock is held."""
    command = [sys.executable, "-c", FORKING, str(cluster.nodes[0].port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PROGRAM_SECONDS)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [0, 0, 0], done.stderr
    assert all(client.hget(key, "embedding") for key in ("doc:2", "child:0", "child:1", "child:2"))


def test_threads_that_use_a_client_for_the_first_time_together(cluster, monkeypatch):
    """One of them finds the nodes, and the others wait for it."""
    arrived, go_on = threading.Event(), threading.Event()
    make = redis.RedisCluster.__init__

    def slowly(self, *args, **kwargs):
        arrived.set()
        assert go_on.wait(PATIENCE_SECONDS)
        make(self, *args, **kwargs)

    monkeypatch.setattr(redis.RedisCluster, "__init__", slowly)
    client, pongs = client_of(cluster.url), []
    first = in_thread(lambda: pongs.append(client.set("a", "1")))
    assert arrived.wait(PATIENCE_SECONDS)
    second = in_thread(lambda: pongs.append(client.set("b", "2")))
    second.join(0.1)
    go_on.set()
    join(first, second)
    assert pongs == [True, True]
    client.close()
