"""A client that asks for the nodes at its first use: what it is before that, and where that fails."""

from __future__ import annotations

import contextlib

import pytest
import redis

from embedqueue.store.cluster.lazy import LazyCluster
from tests.localcluster import free_port


@pytest.fixture
def lazy(cluster):
    with contextlib.closing(LazyCluster([("127.0.0.1", node.port) for node in cluster.nodes])) as client:
        yield client


def test_what_it_does_not_have_it_does_not_have(lazy):
    """Tools ask any object for names of their own: that is no reason to connect, and no reason to do so for ever."""
    assert not hasattr(lazy, "__wrapped__")
    lazy.close()  # nothing is to be closed yet
    assert lazy.set("a", "1")
    assert not hasattr(lazy, "nothing")


def test_nodes_that_are_not_there_yet_are_found_at_a_later_use(lazy):
    there = lazy.addresses
    lazy.addresses = [("127.0.0.1", free_port())]
    with pytest.raises(redis.ConnectionError, match="cannot be connected"):
        lazy.get("a")
    lazy.addresses = there
    assert lazy.set("a", "1")


def test_who_interrupts_the_first_use_may_use_it_later(lazy, monkeypatch):
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(redis.RedisCluster, "__init__", interrupt)
        lazy.get("a")
    assert lazy.set("a", "1")


def interrupt(*_, **__):
    raise KeyboardInterrupt
