"""Single moves at their edges, on a real server and on fakeredis alike."""

from __future__ import annotations

import json

import pytest

from embedqueue.item import encode_member
from tests.redis.moves import Queue


@pytest.fixture(params=["redis", "fakeredis"])
def queue(request):
    client = request.getfixturevalue("redis_client" if request.param == "redis" else "fake_redis")
    return Queue(client, "embed_queue", "embedding")


def word_of(queue: Queue, key: str) -> str:
    return queue.store.look([key], "embedding")[0][0]


def notices(queue: Queue) -> list[tuple[str, object]]:
    """Kind and body of all notices that name keys."""
    found = [fields for _, fields in queue.client.xrange(queue.names.events)]
    return [(f[b"kind"].decode(), json.loads(f[b"body"])) for f in found if f[b"body"].startswith(b"[")]


def test_a_blank_text_of_long_ago_is_not_the_newest(queue):
    """Once blank, then embedded, then gone with its hash: its future must not get the zero vector."""
    queue.enqueue([("doc:0", "a")])
    queue.enqueue([("doc:0", "")])
    assert word_of(queue, "doc:0") == "blank"
    queue.enqueue([("doc:0", "b")])
    owner = queue.claim("w1:")
    queue.complete(owner, [encode_member("doc:0", "b")], skip=True)
    queue.check()
    assert word_of(queue, "doc:0") == "gone"


def test_a_late_write_does_not_hide_that_the_newest_text_was_blank(queue):
    """The notice of a stale write tells of no newer text."""
    queue.enqueue([("doc:0", "a")])
    owner = queue.claim("w1:")
    queue.enqueue([("doc:0", "")])
    queue.complete(owner, [encode_member("doc:0", "a")])
    assert word_of(queue, "doc:0") == "blank"
    assert notices(queue)[-2:] == [("blank", ["doc:0"]), ("stale", ["doc:0"])]


@pytest.mark.parametrize("body", [b"", b"{", b"null", b"7", b"[[]]", b"[null, 1]", b'{"doc:0": 1}', b"\xff"])
def test_notices_of_others_do_not_stop_a_look(queue, body):
    """Whatever somebody else wrote into the stream."""
    queue.enqueue([("doc:0", "a")])
    queue.enqueue([("doc:0", "")])
    queue.client.xadd(queue.names.events, {"kind": "blank", "by": "", "body": body})
    queue.client.xadd(queue.names.events, {"kind": "done"})
    assert word_of(queue, "doc:0") == "blank"
