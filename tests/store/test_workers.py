"""Who works, as it stands in Redis: each entry ends by itself."""

from __future__ import annotations

import json

import fakeredis
import pytest
import redis

from embedqueue.store.keys import Keys
from embedqueue.store.store import Store
from tests.parts import eventually

FACTS = {"host": "web-1", "pid": 7, "version": "1", "model": "m", "space": "m/8/-", "doing": "idle"}
KEY = Keys("embed_queue").workers


def announce(store: Store, name: str, seconds: float = 60.0, *, tidy: bool = False, **facts) -> None:
    store.workers.announce(name, seconds, 100.0, FACTS | facts, tidy=tidy)


def test_a_worker_is_counted_and_told_of_until_it_leaves(store, client):
    """With what it is, since when it works, and when it was last heard of."""
    assert (store.status(workers=True).workers, store.workers.all()) == (0, [])
    announce(store, "b")
    announce(store, "a", doing="calling 2")
    announce(store, "a", doing="calling 3")
    assert store.status(workers=True).workers == 2
    first, second = store.workers.all()
    assert (first.name, first.host, first.pid, first.doing, second.name) == ("a", "web-1", 7, "calling 3", "b")
    now = float(client.time()[0])
    assert 99 <= now - first.since <= 110 and 0 <= first.heard_age < 10
    store.workers.leave("a")
    assert [worker.name for worker in store.workers.all()] == ["b"]
    assert store.status().workers is None, "nobody has asked"


def test_one_that_is_not_heard_of_any_more_is_gone(store, client):
    """By itself, and the whole key with the last one."""
    announce(store, "a", 0.05)
    eventually(lambda: not client.exists(KEY), "the key ends")
    assert store.status(workers=True).workers == 0
    announce(store, "lives")
    facts = json.dumps(FACTS)
    client.hset(
        KEY, mapping={"died": f"1.0 60.0 0.5 {facts}", "of a clock set back": f"99999999999.0 60.0 0.5 {facts}"}
    )
    assert (store.status(workers=True).workers, len(store.workers.all())) == (1, 1)
    announce(store, "lives")
    assert client.hlen(KEY) == 3, "only who comes anew looks through all"
    announce(store, "new", tidy=True)
    assert set(client.hkeys(KEY)) == {b"lives", b"new"}


@pytest.mark.parametrize(
    "entry",
    ["", "x", "x y z {{}}", "99 60 1", "{until} 60 1 x", "{until} 60 1 []", "{until} 60 1 {{}}", "{until} 60 1 [[["],
)
def test_what_anybody_has_written_there_breaks_nothing(store, client, entry):
    """It is not told of as a worker."""
    client.hset(KEY, "odd", entry.format(until=client.time()[0] + 30))
    announce(store, "a", tidy=True)
    assert [worker.name for worker in store.workers.all()] == ["a"]
    assert store.status(workers=True).workers in (1, 2)


def test_a_key_of_another_type_is_not_known(store, client):
    """The rest is told as ever."""
    client.set(KEY, "x")
    status = store.status(workers=True)
    assert (status.workers, status.waiting) == (None, 0)


@pytest.mark.parametrize("allowed", ["the keys of before", "nothing"])
def test_an_acl_that_knows_nothing_of_workers(redis_client, redis_server, allowed):
    """Everything else is told as ever; where nothing is allowed, the error says so."""
    keys = [*Keys("embed_queue").all] if allowed != "nothing" else ["none"]
    redis_client.acl_setuser("before", enabled=True, nopass=True, keys=keys, commands=["+@all"])
    path = redis_client.connection_pool.connection_kwargs["path"]
    store = Store(redis.Redis(unix_socket_path=path, username="before", password="any"), "embed_queue")
    try:
        if allowed == "nothing":
            with pytest.raises(redis.exceptions.NoPermissionError):
                store.status(workers=True)
        else:
            assert store.status(workers=True).workers is None
            assert store.status("flush", workers=True).unfinished == 0
            told = store.status("flush", workers=True, budget=True)
            assert (told.workers, told.budget, told.unfinished) == (None, None, 0)
    finally:
        store.close()
        redis_client.acl_deluser("before")


@pytest.mark.parametrize("forbidden", ["workers", "budget"])
def test_an_acl_that_knows_one_of_both_hides_no_more_than_the_other(redis_client, redis_server, forbidden):
    """What may be read is told."""
    keys = Keys("embed_queue")
    names = [*keys.all, keys.budget if forbidden == "workers" else keys.workers]
    redis_client.hset(keys.budget, "day", 1)
    redis_client.acl_setuser("before", enabled=True, nopass=True, keys=names, commands=["+@all"])
    path = redis_client.connection_pool.connection_kwargs["path"]
    store = Store(redis.Redis(unix_socket_path=path, username="before", password="any"), "embed_queue")
    try:
        told = store.status(workers=True, budget=True)
        assert (told.workers is None, told.budget is None) == (forbidden == "workers", forbidden == "budget")
    finally:
        store.close()
        redis_client.acl_deluser("before")


def test_a_rehearsal_changes_nothing(store, client):
    """Also where somebody waits already."""
    store.enqueue([[b"doc:1", b'{"redis_key":"doc:1","text":"one"}']], max_pending=None, tell_at=50, tell_first=False)
    before = {key: client.dump(key) if not isinstance(client, fakeredis.FakeRedis) else 0 for key in client.keys("*")}
    store.rehearse()
    after = {key: client.dump(key) if not isinstance(client, fakeredis.FakeRedis) else 0 for key in client.keys("*")}
    assert before == after


def test_who_holds_an_item(store):
    """By the name of the worker, as long as it holds it."""
    assert store.holder("doc:1") == ""
    store.enqueue([[b"doc:1", b'{"redis_key":"doc:1","text":"one"}']], max_pending=None, tell_at=50, tell_first=False)
    store.claim("w1:1/50.000:", 1, probe_limit=1, lease_seconds=50, max_deliveries=5, alone=True)
    assert store.holder("doc:1") == "w1"
