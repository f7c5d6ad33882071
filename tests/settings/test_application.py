"""An application's queues, as a signal's handler may come while they are made."""

from __future__ import annotations

import contextlib
import functools
import math
import traceback

import pytest
import redis

from embedqueue.demo.localredis import LocalRedis
from embedqueue.settings.application import Queues
from embedqueue.settings.settings import Settings, read_queues
from embedqueue.testing import FakeEmbedder
from embedqueue.values.item import encode_member
from tests.inside import worker_threads
from tests.parts import PATIENCE_SECONDS, eventually, local_redis


def test_a_handler_uses_a_queue_that_is_being_made(redis_client, redis_server, monkeypatch):
    """It waits for nothing that its own thread holds, and everybody has one queue afterwards."""
    make, handled = Settings.queue, []

    def interrupted(settings, **options):
        if not handled:
            handled.append(None)
            handled[0] = queues["default"]
        return make(settings, **options)

    monkeypatch.setattr(Settings, "queue", interrupted)
    queues = Queues(lambda: read_queues({"REDIS_URL": redis_server.url, "EMBEDDER": FakeEmbedder, "MODEL": "fake"}))
    with contextlib.ExitStack() as at_end:
        at_end.callback(queues.reset)
        assert queues["default"] is handled[0]
        assert queues["default"].enqueue("doc:1", "one").result(PATIENCE_SECONDS)
        assert worker_threads() == 1


def test_tests_begin_after_the_application_has_looked_at_a_queue(redis_client, redis_server):
    """As in Django's ``AppConfig.ready``: no test reaches the Redis of the settings all the same."""
    tested = []
    settings = {"REDIS_URL": redis_server.url, "EMBEDDER": FakeEmbedder, "MODEL": "fake"}
    queues = Queues(lambda: read_queues(settings), lambda: bool(tested))
    with contextlib.ExitStack() as at_end:
        at_end.callback(queues.reset)
        assert queues.look().pending_count() == 0
        tested.append("now")
        assert queues["default"].enqueue("order:1", "one").done()
        assert queues.redis().hexists("order:1", "embedding")
        assert redis_server.client().keys("order:*") == []


def test_a_server_that_knows_no_hello_is_used_and_tells_no_password(monkeypatch):
    """It is old or hardened. Where the URL asks for RESP3, it quotes what it was sent, which frameworks log."""
    monkeypatch.setattr(LocalRedis, "client", functools.partialmethod(LocalRedis.client, protocol=2))
    for server in local_redis(appendonly=False, args=("--rename-command", "HELLO", "")):
        server.client().config_set("requirepass", "top-secret-password")
        url = f"{server.url}?password=top-secret-password"
        settings = {"REDIS_URL": url, "EMBEDDER": FakeEmbedder, "MODEL": "fake"}
        queues = Queues(lambda settings=settings: read_queues(settings))
        with contextlib.ExitStack() as at_end:
            at_end.callback(queues.reset)
            assert queues["default"].enqueue("doc:1", "one").result(PATIENCE_SECONDS)
        settings["REDIS_URL"] = f"{url}&protocol=3"
        queues = Queues(lambda settings=settings: read_queues(settings))
        with pytest.raises(redis.ResponseError, match="unknown command 'HELLO'") as raised:
            queues["default"]
        assert "top-secret" not in "".join(traceback.format_exception(raised.value, chain=False))


def test_one_queue_that_cannot_start_keeps_no_other_from_it(redis_client, redis_server, monkeypatch):
    """What was left in the others is embedded from the first request on."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    own = {"EMBEDDER": FakeEmbedder, "MODEL": "fake", "NAMESPACE": "own"}
    given = {"REDIS_URL": redis_server.url, "PROVIDER": "openai", "QUEUES": {"own": own}}
    queues = Queues(lambda: read_queues(given, environ={}))
    redis_client.zadd("own:pending", {encode_member("doc:1", "left"): 1})
    with contextlib.ExitStack() as at_end:
        at_end.callback(queues.reset)
        queues.wake()
        eventually(lambda: redis_client.hexists("doc:1", "embedding"))


def test_queues_that_the_first_request_could_not_start_are_started_by_a_later_one(
    fresh_redis_server, redis_client, monkeypatch
):
    """Redis comes up later than the web server, as after a reboot; and nobody enqueues anything."""
    monkeypatch.setattr("embedqueue.settings.application.AGAIN_SECONDS", 0.01)
    given = {"REDIS_URL": fresh_redis_server.url, "EMBEDDER": FakeEmbedder, "MODEL": "fake"}
    queues = Queues(lambda: read_queues(given, environ={}))
    client = fresh_redis_server.client()
    client.zadd("embed_queue:pending", {encode_member("doc:1", "left"): 1})
    fresh_redis_server.kill()
    with contextlib.ExitStack() as at_end:
        at_end.callback(queues.reset)
        queues.wake()
        eventually(lambda: queues._again_mono < math.inf, "the first request has failed")
        fresh_redis_server.start()
        eventually(lambda: (queues.wake(), client.hexists("doc:1", "embedding"))[1], "it is embedded")


def test_names_are_looked_up_without_a_queue():
    queues = Queues(lambda: read_queues({"PROVIDER": "local", "QUEUES": {"titles": {}}}, environ={}))
    assert ("titles" in queues, "other" in queues) == (True, False)
    assert queues.made("titles") is None


def test_every_use_fails_where_the_fake_redis_is_missing(monkeypatch):
    """The first use raises, and no later one goes to the Redis and the provider of the settings instead."""

    def missing():
        raise ImportError("fakeredis")

    monkeypatch.setattr("embedqueue.settings.eager.fake_redis", missing)
    queues = Queues(lambda: read_queues({"PROVIDER": "local", "EAGER": True}, environ={}))
    for _ in range(2):
        with pytest.raises(ImportError, match="fakeredis"):
            queues.look()
