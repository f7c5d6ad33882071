"""Texts that go to two queues: to both or to neither, whoever knows of it; and what is put in from hashes."""

from __future__ import annotations

import pytest
import redis

from embedqueue.store.change import index_of
from embedqueue.store.records import Fill, Since, Terms, Unless
from embedqueue.store.store import Store
from embedqueue.values.item import FORGOTTEN, encode_member
from embedqueue.values.provenance import digest
from tests.inside import Copies

SECOND = "v2 v2_of"
FIRST_TERMS = Terms("embedding", "embedding_of", "m", 2, "m/2/-", "create")
SECOND_TERMS = Terms("v2", "v2_of", "n", 3, "n/3/-", "create")


@pytest.fixture
def store(client, make_store):
    return make_store(client, "q")


@pytest.fixture
def second(client, make_store):
    return make_store(client, "q:v2")


def put(store: Store, *pairs: tuple[str, str | bytes], limit: int | None = None, **more):
    members = [(key.encode(), text if isinstance(text, bytes) else encode_member(key, text)) for key, text in pairs]
    group = [part for pair in members for part in pair]
    return store.enqueue([group], max_pending=limit, tell_at=50, tell_first=True, **more)


def waiting(client, namespace: str) -> list[bytes]:
    return sorted(client.zrange(f"{namespace}:pending", 0, -1))


def embed(store: Store, terms: Terms) -> None:
    """A worker claims all that waits, and writes it."""
    number = int(store.client.incr(f"{store.keys.namespace}:test"))
    claim = store.claim(
        f"w:{number}/60:", 50, probe_limit=1, lease_seconds=60, max_deliveries=5, alone=True, terms=terms
    )
    items = []
    for member in claim.members:
        key, text = eval(member)["redis_key"], eval(member)["text"]  # noqa: S307 - of this test
        items.append((key, member, bytes(4 * terms.dimensions), digest(text)))
    assert store.complete(claim.owner, terms, items) == ["done"] * len(items)


def test_who_has_not_heard_of_it_writes_both(client, store, make_store):
    """A process that has run for long enqueues to both queues from the moment on at which somebody has begun."""
    other = make_store(client, "q")
    put(store, ("doc:1", "before"))
    other.change.begin("v2", "v2_of")
    assert put(store, ("doc:1", "a"), ("doc:2", "b")).waiting == 2
    assert waiting(client, "q") == waiting(client, "q:v2") == [encode_member("doc:1", "a"), encode_member("doc:2", "b")]
    put(store, ("doc:1", b""), ("doc:2", FORGOTTEN))  # it is blank, and it has gone
    assert waiting(client, "q") == waiting(client, "q:v2") == []
    put(store, ("doc:3", "c"))
    other.change.give_up(other.keys.second(SECOND))
    put(store, ("doc:4", "d"))
    assert len(waiting(client, "q")) == 2
    assert waiting(client, "q:v2") == []
    assert not client.keys("q:v2*")


def test_only_one_second_field_at_a_time(store):
    """To begin again is no fault; another field is."""
    store.change.begin("v2", "v2_of")
    store.change.begin("v2", "v2_of")
    with pytest.raises(Exception, match="second field already, 'v2'"):
        store.change.begin("v3", "v3_of")


def test_both_or_neither(client, store):
    """What the first queue has no room for, the second does not take; a foreign key stops it before it writes."""
    store.change.begin("v2", "v2_of")
    assert put(store, ("doc:1", "a"), ("doc:2", "b"), limit=1).groups == [False]
    assert not client.exists("q:pending", "q:v2:pending")
    assert put(store, ("doc:1", "a"), limit=1).groups == [True]
    client.delete("q:v2:latest")
    client.set("q:v2:latest", "somebody else's")
    with pytest.raises(redis.ResponseError):
        put(store, ("doc:3", "c"))
    assert waiting(client, "q") == [encode_member("doc:1", "a")]


@pytest.mark.parametrize("begun", [False, True])
def test_an_answer_that_was_lost_brings_no_old_text(client, store, make_store, begun):
    """It is sent again when a newer text of the key is in both, whether it was for one queue then or for both."""
    copies, other = Copies(store), make_store(client, "q")
    if begun:
        store.change.begin("v2", "v2_of")
    put(store, ("doc:1", "old"))
    lost = len(copies.sent) - 1
    store.change.begin("v2", "v2_of")
    put(other, ("doc:1", "new"))
    copies.arrive(lost)
    assert waiting(client, "q") == waiting(client, "q:v2") == [encode_member("doc:1", "new")]


def test_if_changed_asks_each_queue_for_itself(client, store, second):
    """What the first field has is left out there, and taken in where the second has not got it yet."""
    store.change.begin("v2", "v2_of")
    put(store, ("doc:1", "a"))
    embed(store, FIRST_TERMS)
    unless = Unless(FIRST_TERMS, 8, [digest("a")])
    assert put(store, ("doc:1", "a"), unless=unless).left_out == [bytes(8)]
    assert waiting(client, "q") == []
    assert waiting(client, "q:v2") == [encode_member("doc:1", "a")]
    embed(second, SECOND_TERMS)
    assert client.hget("doc:1", "v2_of").startswith(b"n/3/- ")
    assert put(store, ("doc:1", "a"), unless=unless).left_out == [bytes(8)]
    assert waiting(client, "q:v2") == []
    client.hdel("doc:1", "embedding")
    put(store, ("doc:1", "a"), unless=unless)
    assert waiting(client, "q") == [encode_member("doc:1", "a")]
    assert waiting(client, "q:v2") == []


def fill(client, second: Store, key: str, text: str, seen: bytes = b"") -> list[bool]:
    return [out is not None for out in put(second, (key, text), fill=Fill("text", SECOND_TERMS, [seen])).left_out]


def test_what_is_found_in_a_hash_goes_in_unless_somebody_was_quicker(client, second):
    """Of a newer text that waits, is written, stands in the hash, or is gone with it, an older one takes no place."""
    client.hset("doc:1", "text", "a")
    assert fill(client, second, "doc:1", "a") == [False]
    assert fill(client, second, "doc:1", "a") == [False], "this very text waits: that is no other"
    client.hset("doc:1", "text", "b")
    assert fill(client, second, "doc:1", "b") == [True], "another one waits"
    embed(second, SECOND_TERMS)
    assert fill(client, second, "doc:1", "b") == [True], "another vector stands there than was seen"
    assert fill(client, second, "doc:1", "a", client.hget("doc:1", "v2_of")) == [True], "the hash has another text"
    assert fill(client, second, "doc:1", "b", client.hget("doc:1", "v2_of")) == [False]
    client.delete("doc:2")
    assert fill(client, second, "doc:2", "gone") == [True]
    assert waiting(client, "q:v2") == [encode_member("doc:1", "b")]


def found_at(store: Store, key: str) -> int:
    """The stamp of the newest item of a key, as whoever finds a text would know it."""
    (looked,) = store.hashes.look([key], FIRST_TERMS)
    return max(looked.live_stamp, int((looked.provenance or b"0").split()[-1]))


def late(store: Store, key: str, text: str, newest: int, field: str | None = "embedding_of", **more) -> list[bool]:
    """Whether a text is left out that was found when this was the newest stamp of its key."""
    return [out is not None for out in put(store, (key, text), since=Since([newest], field), **more).left_out]


def test_what_was_found_before_a_newer_text_came_is_left_out(client, store):
    assert late(store, "doc:1", "a", 0) == [False]
    found = found_at(store, "doc:1")
    assert late(store, "doc:1", "b", found) == [False], "what waits is as old as what was known"
    assert late(store, "doc:1", "c", found) == [True], "it has come since"
    assert late(store, "doc:1", "b", found) == [False], "it is this very text"
    assert waiting(client, "q") == [encode_member("doc:1", "b")]
    again = found_at(store, "doc:1")
    put(store, ("doc:1", "b"))
    assert late(store, "doc:1", "c", again) == [True], "it was enqueued again since"
    assert late(store, "doc:1", "c", again, limit=1) == [True], "what is left out needs no room"
    again = found_at(store, "doc:1")
    put(store, ("doc:1", "newer"))
    embed(store, FIRST_TERMS)
    assert late(store, "doc:1", "c", again) == [True], "it has come since, and is embedded already"
    assert waiting(client, "q") == []
    assert late(store, "doc:1", "c", again, None) == [False], "nothing tells of that"
    embed(store, FIRST_TERMS)
    assert late(store, "doc:1", "d", found_at(store, "doc:1")) == [False]
    client.set("doc:2", "no hash")
    client.hset("doc:3", "embedding_of", "space 0123 99")
    client.hset("doc:4", "embedding_of", "space 0123456789abcdef 12345678901234567")
    assert [late(store, key, "d", 0) for key in ("doc:2", "doc:3", "doc:4")] == [[False]] * 3, "that is no line of ours"


def test_what_is_left_out_takes_no_dead_letter_of_a_newer_text(client, store):
    put(store, ("doc:1", "embedded"))
    embed(store, FIRST_TERMS)
    put(store, ("doc:1", "given up"))
    claim = store.claim("w:9/60:", 50, probe_limit=1, lease_seconds=60, max_deliveries=5, alone=True, terms=FIRST_TERMS)
    store.reject(claim.owner, [(claim.owner, member, "it is broken", False) for member in claim.members])
    assert late(store, "doc:1", "c", 0) == [True]
    assert [letter.text for letter in store.dead.find(["doc:1"])] == ["given up"]
    assert late(store, "doc:1", "c", found_at(store, "doc:1")) == [False]
    assert store.dead.find(["doc:1"]) == []


def test_each_of_many_that_were_found_is_judged_by_itself(client, store):
    pairs = [(f"doc:{number}", "found") for number in range(1200)]
    put(store, *((key, "newer") for key, _ in pairs[::3]))
    taken = put(store, *pairs, since=Since([0] * len(pairs), "embedding_of"))
    assert [out is not None for out in taken.left_out] == [number % 3 == 0 for number in range(len(pairs))]
    assert taken.waiting == len(pairs)


def test_both_queues_leave_out_the_same(client, store, second):
    """The second has no stamps that whoever has found the text could know."""
    put(store, ("doc:1", "a"), ("doc:2", "a"), ("doc:3", "a"))
    found = [found_at(store, key) for key in ("doc:1", "doc:2", "doc:3")]
    put(store, ("doc:1", "b"))
    store.change.begin("v2", "v2_of")
    put(second, ("doc:2", "of itself"), ("doc:3", "of itself"))
    assert late(store, "doc:1", "c", found[0]) == [True]
    assert waiting(client, "q:v2") == [encode_member("doc:2", "of itself"), encode_member("doc:3", "of itself")]
    assert late(store, "doc:2", "d", found[1]) == [False]
    assert late(store, "doc:3", "a", found[2]) == [False], "this very text waits in the first"
    assert waiting(client, "q") == [encode_member(f"doc:{n}", text) for n, text in enumerate("bda", 1)]
    assert waiting(client, "q:v2") == [encode_member("doc:2", "d"), encode_member("doc:3", "a")]


def test_the_second_queue_takes_the_place_of_the_first(client, store, second):
    """What waits there waits on, under what its workers agree in; the first queue's items are gone."""
    put(store, ("doc:0", "only in the first"))
    embed(store, FIRST_TERMS)
    put(store, ("doc:1", "only in the first"))
    store.change.begin("v2", "v2_of")
    put(store, ("doc:2", "a"))
    put(second, ("doc:3", "b"))
    embed(second, SECOND_TERMS)
    put(store, ("doc:4", "c"))
    number = second.claim("w:9/60:", 1, probe_limit=1, lease_seconds=60, max_deliveries=5, alone=True).members
    assert not store.change.finish(store.keys.second(SECOND)), "something is in flight"
    second.release([("w:9/60:", member) for member in number])
    assert store.change.finish(store.keys.second(SECOND))
    assert waiting(client, "q") == [encode_member("doc:4", "c")]
    assert store.agreed() == SECOND_TERMS.agreed
    assert store.change.second() is None
    assert not [key for key in client.keys("q:v2*") if key != b"q:v2:test"]
    embed(store, SECOND_TERMS)
    assert client.hexists("doc:4", "v2")
    put(store, ("doc:4", "d"))
    assert waiting(client, "q") == [encode_member("doc:4", "d")]


def test_a_change_that_was_cut_over_by_a_release_before_goes_on(store, client):
    """It kept one alias, and could keep no more."""
    kept = '{"field": "v2", "first": "embedding", "first_of": "", "alias": "docs", "old": "docs-1", "new": "docs-2"}'
    client.hset("q:settings", "reading", kept)
    reading = store.change.reading()
    assert reading["aliases"] == [["docs", "docs-1", "docs-2"]]
    assert index_of(reading, "docs", second=False) == index_of(reading, "docs-1", second=False) == "docs-1"
    assert index_of(reading, "docs", second=True) == "docs-2"
    assert index_of(reading, "notes", second=True) == "notes"
