"""How a cluster is reached: passwords, addresses that are mapped, and what a user may do."""

from __future__ import annotations

import time

import pytest
import redis

from embedqueue import EmbedQueueError
from embedqueue.settings.redis_url import client_of
from embedqueue.store.door import open_store
from embedqueue.store.records import Terms
from tests.parts import PATIENCE_SECONDS, expected, stored


def test_a_wrong_password_is_told_at_once(make_queue, cluster):
    """Nobody waits for one to become right."""
    queue = make_queue(client_of(cluster.url.replace("://", "://nobody:wrong@")), worker=False)
    began_mono = time.monotonic()
    with pytest.raises(redis.AuthenticationError):
        queue.enqueue("doc:1", "one")
    assert time.monotonic() - began_mono < 5.0


def test_addresses_are_mapped_and_connections_greeted_as_the_users_client_does(make_queue, cluster):
    met, greeted = set(), []

    def remap(address):
        met.add(address)
        return "localhost", address[1]

    with cluster.client(address_remap=remap, redis_connect_func=greeted.append) as client:
        before, greeted[:] = met.copy(), []
        queue = make_queue(client)
        assert queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS) == expected("one")
    assert before
    assert "localhost" in {connection.host for connection in greeted}


def test_a_user_who_may_not_wait_for_replicas_is_told(make_queue, cluster):
    for node in cluster.nodes:
        with node.client() as admin:
            admin.execute_command("ACL", "SETUSER", "hasty", "reset", "on", ">secret", "~*", "+@all", "-wait")
    try:
        queue = make_queue(client_of(cluster.url.replace("://", "://hasty:secret@")), min_replicas=1, worker=False)
        with pytest.raises(EmbedQueueError, match="min_replicas needs the command WAIT"):
            queue.enqueue("doc:1", "one")
    finally:
        for node in cluster.nodes:
            with node.client() as admin:
                admin.acl_deluser("hasty")


def test_vectors_of_before_are_labelled_on_all_nodes(cluster, client):
    """But for those of which something is live, and those that have a line, or another length."""
    store = open_store(client, "embed_queue")
    terms = Terms("embedding", "embedding_of", "m", 8, "m/8/-", "create")
    try:
        keys = [f"doc:{number}" for number in range(12)]
        for key in keys:
            client.hset(key, "embedding", stored(key))
        client.hset("doc:1", "embedding", b"short")
        client.hset("doc:2", "embedding_of", "theirs")
        member = b'{"redis_key":"doc:3","text":"x"}'
        store.enqueue([[b"doc:3", member]], max_pending=None, tell_at=50, tell_first=False)
        assert sorted(key.decode() for key in store.hashes.matching("doc:*")) == sorted(keys)
        assert store.hashes.label({key: f"m/8/- {number:016x} 1" for number, key in enumerate(keys)}, terms) == 9
        assert client.hget("doc:4", "embedding_of") == b"m/8/- 0000000000000004 1"
        assert not store.hashes.erase("doc:3", terms, 10)
        assert store.hashes.erase("doc:4", terms, 10)
        assert not store.hashes.erase("doc:5", terms, 1)
    finally:
        store.close()


def test_batch_jobs_are_refused(client):
    with pytest.raises(ValueError, match="economy does not work on a Redis Cluster yet"):
        open_store(client, "embed_queue", jobs_for=(1.0, 1.0))
