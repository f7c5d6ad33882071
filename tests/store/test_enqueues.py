"""Single enqueues at their edges: what one script does for the one item of most requests."""

from __future__ import annotations

import pytest

from embedqueue import EmbedQueueError
from embedqueue.store.store import Store
from embedqueue.values.item import FORGOTTEN, encode_member


def put(
    store: Store,
    key: str,
    member: bytes | None = None,
    *,
    limit: int | None = None,
    first: bool = True,
    tell_at: int = 50,
):
    member = encode_member(key, "a") if member is None else member
    return store.enqueue([[key.encode(), member]], max_pending=limit, tell_at=tell_at, tell_first=first)


def test_a_copy_that_comes_when_its_item_is_finished_changes_nothing(queue):
    """Else it would be embedded, and paid for, again."""
    queue.enqueue([("doc:1", "a")])
    queue.complete(queue.claim("w1:"), [encode_member("doc:1", "a")])
    queue.copies.arrive(0)
    queue.check()
    assert queue.store.status().waiting == 0


def test_a_full_queue_takes_no_other_item(store):
    assert put(store, "doc:1", limit=1).groups == [True]
    assert put(store, "doc:2", limit=1).groups == [False]
    assert store.status().waiting == 1


@pytest.mark.parametrize("first", [True, False])
def test_the_first_item_wakes_the_workers_where_it_shall_and_a_whole_batch_always(store, client, first):
    put(store, "doc:0")  # from then on the layout is known
    put(store, "doc:0", b"")
    told = []
    for key in ("doc:1", "doc:2", "doc:3"):
        client.delete(store.keys.events)
        put(store, key, first=first, tell_at=2)
        told.append([fields[b"kind"] for _, fields in client.xrange(store.keys.events)])
    assert told == [[b"wake"] if first else [], [b"wake"], []]


@pytest.mark.parametrize("key", ["doc:1", "doc:2"])
def test_nothing_is_put_into_a_layout_that_is_another_releases(store, client, key):
    put(store, "doc:1")
    client.hset(store.keys.settings, "layout", "3")
    with pytest.raises(EmbedQueueError, match="layout"):
        put(store, key, encode_member(key, "newer"))
    assert client.zcard(store.keys.pending) == 1


def test_to_forget_a_key_that_has_nothing_leaves_nothing(store):
    put(store, "doc:1")  # from then on the layout is known
    put(store, "doc:2", FORGOTTEN)
    assert store.status().waiting == 1


def test_a_newer_text_takes_the_place_of_a_dead_letter(store):
    put(store, "doc:1")
    how = {"probe_limit": 1, "lease_seconds": 60, "max_deliveries": 3, "alone": True}
    claim = store.claim("w:1/60:", 1, **how)
    assert store.reject(claim.owner, [(claim.owner, claim.members[0], "bad", False)]) == ["dead"]
    put(store, "doc:1", encode_member("doc:1", "newer"))
    assert (store.status().waiting, store.status().dead) == (1, 0)


def test_stamps_rise_though_the_clock_is_set_back(store, client):
    put(store, "doc:1")
    client.hset(store.keys.settings, "stamp", 3 * 10**15)
    assert [put(store, key).stamp - 3 * 10**15 for key in ("doc:2", "doc:3")] == [1, 2]
