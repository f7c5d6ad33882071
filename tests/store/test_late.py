"""What the network holds back and delivers when nobody waits for it any more."""

from __future__ import annotations

import threading

import redis

from embedqueue import EmbeddingBatchQueue
from embedqueue.testing import FakeEmbedder
from embedqueue.values.item import encode_member
from tests.inside import believe
from tests.parts import eventually

PENDING = "embed_queue:pending"


def _refused(client: redis.Redis) -> int:
    """How many enqueues were refused: nobody awaited them any more."""
    return client.info("commandstats")["cmdstat_evalsha"]["failed_calls"]


def test_a_text_that_comes_late_does_not_supersede_a_newer_one(slow_way, redis_client):
    """An enqueue that timed out, was sent again and taken, arrives a second time, after a newer text: it is refused."""
    near = redis.Redis(port=slow_way.port, socket_timeout=1.0)
    queue = EmbeddingBatchQueue(FakeEmbedder(), near, worker=False)
    queue.enqueue("other", "makes the connection")
    eventually(lambda: any(peer["cmd"] == "xread" for peer in redis_client.client_list()), "the listener has its own")
    arrived, go_on = threading.Event(), threading.Event()
    slow_way.hold(b"old", arrived, go_on)
    queue.enqueue("doc:1", "old")  # its first copy is held back
    assert arrived.is_set()
    queue.enqueue("doc:1", "new")
    refused = _refused(redis_client)
    go_on.set()
    eventually(lambda: _refused(redis_client) > refused, "the held copy reached Redis, and was refused")
    assert redis_client.zrange(PENDING, 0, -1)[-1] == encode_member("doc:1", "new")
    assert redis_client.zcard(PENDING) == 2
    queue.stop()


def test_a_clock_that_was_set_does_not_stop_enqueuing(redis_client, make_store):
    """Whatever the client believes of the server's clock, one refusal teaches it."""
    store = make_store(redis_client)
    for believed in (0.0, -1e9, 1e9):
        believe(store, believed)
        assert store.enqueue(
            [[b"doc:1", encode_member("doc:1", str(believed))]], max_pending=None, tell_at=9, tell_first=False
        )
        assert redis_client.zrange(PENDING, 0, -1) == [encode_member("doc:1", str(believed))]
