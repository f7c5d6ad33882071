"""Nodes that have left the cluster, and whose address may be another cluster's by now: they are not believed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from redis.exceptions import ClusterDownError

from embedqueue.demo.localredis import LocalRedis
from embedqueue.store.door import open_store
from tests.cluster.conftest import running
from tests.localcluster import SLOTS, LocalCluster
from tests.parts import PATIENCE_SECONDS, eventually

TIMES = 20  # each time, one of the nodes is asked, by chance


@pytest.fixture
def pair() -> Iterator[LocalCluster]:
    """Two masters, which the test may take out."""
    with running(masters=2) as made:
        yield made


@contextlib.contextmanager
def opened(cluster: LocalCluster, patience_seconds: float = PATIENCE_SECONDS):
    client = cluster.client()
    store = open_store(client, "embed_queue", patience_seconds=patience_seconds)
    with contextlib.closing(client), contextlib.closing(store):
        yield store


def take_out(cluster: LocalCluster, node: LocalRedis) -> None:
    """As ``redis-cli --cluster del-node`` does, but with another name for the node; it serves on."""
    [other] = [one for one in cluster.nodes if one is not node]
    cluster.move_all(node, other)
    with other.client() as client:
        client.execute_command("CLUSTER", "FORGET", cluster.id_of(node))
    reset(node)
    eventually(lambda: cluster.cluster_info(other)["cluster_state"] == "ok", "it serves alone")


def reset(node: LocalRedis) -> None:
    with node.client() as client:
        client.execute_command("CLUSTER", "RESET", "HARD")


def found(cluster: LocalCluster, node: LocalRedis) -> None:
    """The node is a cluster by itself from now on."""
    with node.client() as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1)
    eventually(lambda: cluster.cluster_info(node)["cluster_state"] == "ok", "it serves")


def take_in(cluster: LocalCluster, node: LocalRedis) -> None:
    [other] = [one for one in cluster.nodes if one is not node]
    with node.client() as client:
        client.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port)

    def agree() -> bool:
        told = [cluster.cluster_info(one) for one in cluster.nodes]
        epochs = {info["cluster_current_epoch"] for info in told}
        return len(epochs) == 1 and all(info["cluster_known_nodes"] == "2" for info in told)

    eventually(agree, "they have met")


def cut_connections(*nodes: LocalRedis) -> None:
    """So that the next command asks who has which slots."""
    for node in nodes:
        with node.client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal")


def test_nothing_goes_to_another_cluster_at_the_address_of_a_node_that_has_left(pair, make_queue):
    home = pair.master_of("{embed_queue}")
    [left] = [node for node in pair.nodes if node is not home]
    queue = make_queue(pair.client(), worker=False)
    queue.enqueue("doc:0", "text")
    take_out(pair, left)
    found(pair, left)
    for number in range(TIMES):
        cut_connections(home)
        queue.enqueue(f"doc:{number}", "text")
    with home.client() as ours, left.client() as theirs:
        assert ours.zcard("{embed_queue}:pending") == TIMES
        assert theirs.dbsize() == 0


def test_a_node_that_has_left_and_knows_of_no_slots_is_not_believed(pair):
    """Who looks through all hashes would find none."""
    home, left = pair.nodes
    with opened(pair) as store:
        take_out(pair, left)
        with home.client() as client:
            client.hset("doc:1", "body", "text")
        for _ in range(TIMES):
            store._nodes.doubt()
            assert list(store.hashes.matching("doc:*")) == [b"doc:1"]


def test_where_all_nodes_are_others_that_is_told_and_a_new_client_finds_them():
    with running(masters=1) as cluster, opened(cluster, patience_seconds=5.0) as store:
        [node] = cluster.nodes
        assert store.hashes.fields(["doc:1"], "body") == [None]
        reset(node)
        found(cluster, node)
        cut_connections(node)
        with pytest.raises(ClusterDownError, match="make a new client"):
            store.hashes.fields(["doc:1"], "body")
        with opened(cluster) as another:
            assert another.hashes.fields(["doc:1"], "body") == [None]


def test_nodes_may_be_replaced_one_by_one_while_only_redirections_tell_of_it(pair):
    """Each new one is known by those that were there when it came."""
    first, second = pair.nodes
    with opened(pair) as store:
        take_out(pair, second)
        cut_connections(first, second)
        assert store.hashes.fields(["doc:1"], "body") == [None]
        take_in(pair, second)
        pair.move_all(first, second)
        pair.await_well()
        assert store.hashes.fields(["doc:1"], "body") == [None]  # the first one redirects this
        take_out(pair, first)
        cut_connections(first, second)
        assert store.hashes.fields(["doc:1"], "body") == [None]
