"""What a store rarely meets: rights that are missing, answers of another kind, more than fits into one look."""

from __future__ import annotations

import contextlib

import pytest
import redis

from embedqueue import EmbedQueueError
from embedqueue.operating.runs import NamedRun
from embedqueue.store import runs, scripts
from embedqueue.store.clients import LONG_COMMAND_BYTES
from embedqueue.store.records import Terms
from embedqueue.values.item import encode_member
from embedqueue.values.provenance import digest

TERMS = Terms("embedding", "embedding_of", "m", 8, "m/8/-", "create")
#: More than Redis keeps in one piece, so that a look through them takes several.
MANY = 600


def enqueue(store, *keys: str):
    group = [part for key in keys for part in (key.encode(), encode_member(key, "text"))]
    return store.enqueue([group], max_pending=None, tell_at=10**6, tell_first=False)


def claim(store, owner: str = "w:1/60.000:", count: int = MANY):
    return store.claim(owner, count, probe_limit=count, lease_seconds=60.0, max_deliveries=5, alone=True)


@pytest.fixture
def limited(redis_client, make_store):
    """Makes a store of a user with these rights."""
    with contextlib.ExitStack() as users:

        def make(*rules: str):
            redis_client.execute_command("ACL", "SETUSER", "limited", "reset", "on", "nopass", *rules)
            users.callback(redis_client.acl_deluser, "limited")
            path = redis_client.connection_pool.connection_kwargs["path"]
            user = redis.Redis(unix_socket_path=path, username="limited", password="any")
            return make_store(users.enter_context(contextlib.closing(user)))

        yield make


def test_leftovers_are_adopted_by_whom_their_hashes_are_forbidden(limited, redis_client):
    """Those whose hashes may be read go by these; of the others, nothing newer is known."""
    members = [encode_member(key, "old") for key in ("mine:1", "theirs:1", "mine:2")]
    redis_client.zadd("embed_queue:pending", dict.fromkeys(members, 1.0))
    redis_client.hset("mine:1", mapping={"embedding": "v" * 32, "embedding_of": f"m/8/- {digest('new')} {10**16}"})
    store = limited("+@all", "~embed_queue*", "~mine:*")
    assert store.adoption.run(TERMS) == []
    assert sorted(claim(store).members) == sorted(members[1:])


def test_ghosts_among_many_are_found(redis_client, make_store):
    """Another program has taken members away; what is named for their keys goes, too."""
    store = make_store(redis_client)
    keys = [f"doc:{number}" for number in range(MANY)]
    enqueue(store, *keys)
    redis_client.zrem(store.keys.pending, encode_member(keys[0], "text"), encode_member(keys[-1], "text"))
    store.adoption.run(TERMS)
    assert redis_client.hlen(store.keys.latest) == MANY - 2


def test_many_items_of_a_worker_are_released(redis_client, make_store):
    store = make_store(redis_client)
    enqueue(store, *(f"doc:{number}" for number in range(MANY)))
    assert len(claim(store).members) == MANY
    assert store.release_all("w:") == MANY
    assert store.status().waiting == MANY


def test_a_list_goes_on_by_time_where_a_letter_is_known_and_its_place_is_not(store, client):
    """It has gone between two looks."""
    enqueue(store, "doc:1", "doc:2")
    claimed = claim(store)
    for member in claimed.members:
        store.reject(claimed.owner, [(claimed.owner, member, "bad", False)])
    last, first = store.dead.page(10, 0)
    client.zrem(store.keys.dead, first.member)
    assert store.dead.newer(first.died_at, first.redis_key) == int(last.died_at > first.died_at)


def test_of_runs_that_have_ended_the_latest_are_known(store, monkeypatch):
    monkeypatch.setattr(runs, "KEPT", 1)
    for number in range(4):
        with NamedRun(store.runs, f"run-{number}", "backfill"):
            pass
    assert [run.name for run in store.runs.all()] == ["run-3", "run-2"], "which had ended when the last one began"


def test_nobody_listens_on_a_store_that_is_closed(store):
    store.close()
    with pytest.raises(redis.ConnectionError, match="closed"):
        store._scripts.listen("XREAD", "BLOCK", 0, "STREAMS", store.keys.events, "$")


def test_where_texts_go_changes_all_the_time(redis_client, make_store, monkeypatch):
    """Whoever enqueues is told, instead of trying for ever; nothing was taken in."""
    store = make_store(redis_client)
    enqueue(store, "doc:1")
    make_store(redis_client).change.begin("v2", "v2_of")
    monkeypatch.setattr(scripts, "SECOND_TRIES", 1)
    with pytest.raises(EmbedQueueError, match="enqueue again"):
        enqueue(store, "doc:2")
    assert store.status().waiting == 1
    assert enqueue(store, "doc:2").waiting == 2


def test_who_may_not_load_scripts_sends_their_text_with_what_is_long_as_well(limited, redis_client):
    store = limited("+@all", "-script|load", "~*")
    redis_client.script_flush()
    enqueue(store, *(f"doc:{number}" for number in range(MANY)), "doc:" + "x" * LONG_COMMAND_BYTES)
    assert store.status().waiting == MANY + 1


def test_redis_gets_full_while_one_vector_is_tried_again(store, client, monkeypatch):
    """Then it is Redis that cannot take it, and not the item that is at fault."""
    enqueue(store, "doc:1")
    claimed = claim(store)
    errors = [redis.ResponseError("OOM command not allowed"), redis.ResponseError("Protocol error: too big bulk")]
    call = store._call

    def calling(name, keys, *args):
        if name == "complete" and keys:
            raise errors.pop()
        return call(name, keys, *args)

    monkeypatch.setattr(store, "_call", calling)
    with pytest.raises(redis.ResponseError, match="OOM"):
        store.complete(claimed.owner, TERMS, [("doc:1", claimed.members[0], bytes(32), digest("text"))])
    assert store.status().in_flight == 1
