"""A Redis with its search module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from embedqueue.demo.localredis import LocalRedis
from tests.parts import local_redis


@pytest.fixture(scope="session")
def searching_redis() -> Iterator[LocalRedis]:
    """One for all tests of searches."""
    for server in local_redis(search=True, appendonly=False, args=("--enable-debug-command", "local")):
        if not server.has_search:
            pytest.skip("no search module for Redis: pip install embedqueue[demo]")
        yield server


@pytest.fixture
def searching(searching_redis):
    """Its client; Redis and all its indexes are empty."""
    client = searching_redis.client()
    client.flushall()
    yield client
    client.close()
