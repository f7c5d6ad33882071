"""What the asyncio design left, and what is not ours at all, beside items of ours: the finds of the state machine."""

from __future__ import annotations

import json

import pytest

from embedqueue.values.item import encode_member
from tests.parts import eventually
from tests.proof.model import MAX_DELIVERIES
from tests.proof.moves import Queue, asked, terms


@pytest.fixture
def queue(client):
    made = Queue(client, "embed_queue", "embedding")
    yield made
    made.store.close()


def leftover(key: str, text: str) -> bytes:
    return json.dumps({"redis_key": key, "text": text}).encode()


def test_urgency_does_not_let_an_old_leftover_win(queue):
    """The newer text is wanted while the older one waits behind others: it must not be written after the newer one."""
    queue.leave(leftover("doc:0", "oldest"), 200)
    queue.leave(leftover("doc:1", "old"), 100)
    queue.enqueue([("doc:1", "new")])
    new = encode_member("doc:1", "new")
    for _ in range(3):
        owner = queue.claim("w1:", 1, urgent=["doc:1"])
        for _, member in [hand for hand in queue.hands if hand[0] == owner]:
            queue.complete(owner, [member])
        queue.check()
    assert queue.client.hget("doc:1", "embedding") is not None
    assert queue.written["doc:1"] == queue.order[new]
    assert not queue.model.pending


def test_a_member_that_reads_like_a_key_does_not_stop_the_key(queue):
    """A dead letter that is not ours once made every enqueue of the key of that name fail."""
    queue.leave(b"doc:0")
    queue.claim("w1:")
    queue.check()
    assert queue.store.dead.names() == [b"doc:0"]
    assert queue.store.dead.page(1, 0)[0].deliveries == 0
    queue.enqueue([("doc:0", "text")])
    assert [word for word, _ in queue.store.look([asked("doc:0", queue.newest["doc:0"])], terms("embedding"))] == [
        "live"
    ]
    owner = queue.claim("w1:")
    queue.complete(owner, [encode_member("doc:0", "text")])
    assert [word for word, _ in queue.store.look([asked("doc:0", queue.newest["doc:0"])], terms("embedding"))] == [
        "done"
    ]
    queue.enqueue([("doc:0", "bad")])
    queue.reject(queue.claim("w1:"), encode_member("doc:0", "bad"))
    queue.check()
    assert [word for word, _ in queue.store.look([asked("doc:0", queue.newest["doc:0"])], terms("embedding"))] == [
        "dead"
    ]
    queue.leave(b"doc:0")  # of the two, the letter of the key is the one that must not vanish
    queue.claim("w1:")
    queue.check()
    queue.retry_dead([b"doc:0"])
    queue.check()
    assert list(queue.model.pending) == [encode_member("doc:0", "bad")]


def test_a_leftover_newer_than_a_suspect_hides_nobody(queue):
    """What was enqueued after it is claimed together with it."""
    queue.enqueue([("doc:1", "suspect")])
    for _ in range(MAX_DELIVERIES - 1):
        queue.claim("w1:", alone=True)
        queue.lease_ends(encode_member("doc:1", "suspect"))
    queue.enqueue([("doc:2", "beside")])
    queue.leave(leftover("doc:1", "newer"))
    queue.enqueue([("doc:3", "after")])
    owner = queue.claim("w2:", 3)
    queue.check()
    assert [member for hand, member in queue.hands if hand == owner] == [
        encode_member("doc:2", "beside"),
        leftover("doc:1", "newer"),
        encode_member("doc:3", "after"),
    ]


@pytest.mark.parametrize(
    ("seconds_ago", "winner"), [(100, encode_member("doc:1", "ours")), (0, leftover("doc:1", "x"))]
)
def test_of_a_leftover_and_what_is_in_flight_the_newer_one_wins(queue, seconds_ago, winner):
    """The older one is neither handed out nor written."""
    queue.enqueue([("doc:1", "ours")])
    queue.claim("w1:")
    queue.leave(leftover("doc:1", "x"), seconds_ago)
    queue.claim("w2:")
    queue.check()
    assert list(queue.model.inflight) == [winner]


def test_a_foreign_member_among_those_in_flight_becomes_a_dead_letter(queue):
    """Whoever put it there: it is given up when its time has come, and nothing else is held up."""
    queue.client.zadd(queue.names.inflight, {b"rubbish": 1})
    queue.enqueue([("doc:0", "text")])
    claim = {"probe_limit": 2, "lease_seconds": 10, "max_deliveries": 3, "alone": False}
    assert queue.store.claim("w1:1:", 10, **claim).status == "adopt"
    assert [member for member, *_ in queue.store.adoption.run(terms("embedding"))] == [b"rubbish"]
    queue.store.claim("w1:2:", 10, **claim)
    [letter] = queue.store.dead.page(10, 0)
    assert (letter.member, letter.redis_key) == (b"rubbish", "")
    assert letter.reason.startswith("not our JSON")
    assert queue.client.zrange(queue.names.inflight, 0, -1) == [encode_member("doc:0", "text")]


@pytest.mark.parametrize(
    "member",
    [b'{"redis_key":"doc:0","text":"cut', b'["doc:0"]', b'{"redis_key":"doc:0"}', b"5", b"null", b"true"],
)
def test_what_is_cut_short_becomes_a_dead_letter_of_no_key(queue, member):
    """Though it begins as ours do."""
    queue.leave(member)
    queue.enqueue([("doc:0", "text")])
    queue.claim("w1:")
    queue.check()
    [letter] = queue.store.dead.page(10, 0)
    assert (letter.member, letter.redis_key, letter.deliveries) == (member, "", 0)
    assert letter.reason.startswith("not our JSON")


def test_what_another_program_has_put_in_the_place_of_an_item_is_found_although_the_counts_agree(
    make_queue, redis_client
):
    """It has taken a member away, and added one: a claim meets it, and names it."""
    make_queue(worker=False).enqueue("doc:1", "one")
    redis_client.delete("embed_queue:pending")
    redis_client.zadd("embed_queue:pending", {leftover("doc:2", "two"): 1.0})
    make_queue()
    eventually(lambda: redis_client.hexists("doc:2", "embedding"), "it is embedded")
    assert not redis_client.hexists("doc:1", "embedding")
