"""Real parts for the tests: a Redis server of their own, a provider on loopback. Absent: skip at home, fail in CI."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import fakeredis
import pytest
import redis
from hypothesis import HealthCheck, settings

from embedqueue.demo.localredis import LocalRedis, NoRedis

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", deadline=None, max_examples=2000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("EMBEDQUEUE_HYPOTHESIS", "default"))

# A shell without job control starts what it runs in the background with Ctrl-C ignored, and all children inherit that:
# the programs that tests interrupt would never hear of it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def _local_redis(**kwargs) -> Iterator[LocalRedis]:
    try:
        server = LocalRedis(**kwargs).start()
    except NoRedis as missing:
        if os.environ.get("CI"):
            pytest.fail(f"CI must have a Redis: {missing}")
        pytest.skip(str(missing))
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[LocalRedis]:
    """A real Redis for the whole session."""
    yield from _local_redis()


@pytest.fixture
def redis_client(redis_server: LocalRedis) -> Iterator[redis.Redis]:
    """A client of the session's Redis, which is empty."""
    client = redis_server.client()
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def fresh_redis_server() -> Iterator[LocalRedis]:
    """A real Redis that the test may stop, kill and start again; it syncs every write."""
    yield from _local_redis(appendfsync="always")


@pytest.fixture
def fake_redis() -> fakeredis.FakeRedis:
    """A fake Redis of the test's own."""
    return fakeredis.FakeRedis(server=fakeredis.FakeServer())


@pytest.fixture
def provider() -> Iterator[object]:
    """The strict embedding server on loopback."""
    from tests.provider import Provider

    with Provider() as running:
        yield running


@pytest.fixture
def env(redis_client, redis_server, provider) -> dict[str, str]:
    """Variables that set a queue up on a real Redis and a real provider."""
    return {
        "EMBEDQUEUE_REDIS_URL": redis_server.url,
        "EMBEDQUEUE_PROVIDER": "openai",
        "EMBEDQUEUE_BASE_URL": provider.openai_url,
        "EMBEDQUEUE_API_KEY": "test-key",
        "EMBEDQUEUE_DIMENSIONS": "16",
    }
