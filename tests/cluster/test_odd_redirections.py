"""Redirections that name no host, or one that has to be mapped; and a key that is called like our own mark."""

from __future__ import annotations

import pytest
from redis.exceptions import AskError, MovedError

from embedqueue.store.cluster.nodes import Nodes
from embedqueue.store.cluster.scripts import MARK
from embedqueue.store.door import open_store
from tests.localcluster import LocalCluster


@pytest.fixture
def mapped(cluster: LocalCluster):
    client = cluster.client(address_remap=lambda address: ("127.0.0.1", address[1]))
    nodes = Nodes(client, 1.0)
    yield nodes
    nodes.close()
    client.close()


def test_an_ask_goes_to_the_mapped_address(mapped):
    assert mapped.redirected(AskError("7 10.9.9.9:6381"), ("127.0.0.1", 1)) == ("127.0.0.1", 6381)


def test_an_ask_without_a_host_goes_to_the_host_that_was_asked(client):
    nodes = Nodes(client, 1.0)
    assert nodes.redirected(AskError("7 :6381"), ("10.0.0.5", 1)) == ("10.0.0.5", 6381)
    nodes.close()


@pytest.mark.parametrize("host", ["", "?"])
def test_a_move_without_a_host_is_looked_up_instead(host, client):
    nodes = Nodes(client, 1.0)
    before = nodes.address(7)
    nodes.moved(MovedError(f"7 {host}:1"))
    assert nodes.address(7) == before
    nodes.close()


def test_a_key_may_be_called_like_the_mark(client):
    store = open_store(client, "embed_queue")
    try:
        key = MARK.decode()
        assert store.hashes.live(["a", "b", key], {})[1] == ["", "", ""]
        store._await_settled([MARK])
    finally:
        store.close()
