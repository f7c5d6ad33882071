"""What a node of the users' hashes may answer instead of what was asked for: it is followed, or waited for, or told."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
import redis
import redis.cluster
from redis._parsers import _RESP2Parser
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, NoScriptError, TryAgainError

from embedqueue import EmbedQueueError
from embedqueue.store.cluster import nodes
from embedqueue.store.cluster.line import UNANSWERED, Line, command
from embedqueue.store.door import open_store
from embedqueue.store.records import Asked, Fill, Terms
from embedqueue.store.replicas import Replicas
from embedqueue.values.item import encode_member
from embedqueue.values.provenance import digest
from tests.parts import PATIENCE_SECONDS, eventually

TERMS = Terms("embedding", "embedding_of", "m", 8, "m/8/-", "create")


@pytest.fixture
def open_one(client):
    """Opens a store of the cluster."""
    with contextlib.ExitStack() as opened:

        def open_one(patience_seconds=PATIENCE_SECONDS, **options):
            store = open_store(client, "embed_queue", patience_seconds=patience_seconds, **options)
            return opened.enter_context(contextlib.closing(store))

        yield open_one


@pytest.fixture
def first_answer(monkeypatch):
    """Says what is answered once, whatever was."""
    answer, instead = Line._answer, []
    monkeypatch.setattr(Line, "_answer", lambda *of: (answer(*of), instead.pop())[1] if instead else answer(*of))
    return instead.append


@pytest.mark.parametrize("answer", ["down", "try again", "asked", "no script", "late"])
def test_an_order_is_given_again_until_it_is_answered(open_one, cluster, client, first_answer, answer):
    slot_and_node = f"{key_slot(b'doc:1')} 127.0.0.1:{cluster.master_of('doc:1').port}"
    answers = {"down": ClusterDownError("x"), "try again": TryAgainError("x"), "asked": AskError(slot_and_node)}
    client.hset("doc:1", "body", "text")
    first_answer((answers | {"no script": NoScriptError("x"), "late": UNANSWERED})[answer])
    assert open_one().hashes.fields(["doc:1"], "body") == [b"text"]


def test_where_no_node_has_the_slot_that_is_told_when_patience_ends(open_one, monkeypatch):
    """Of what nobody waits for so long, it is as if it were not there."""
    store = open_one(patience_seconds=0.05)
    monkeypatch.setattr(nodes.Nodes, "_slots_by", lambda *_: [])
    with pytest.raises(ClusterDownError, match="not served"):
        store.hashes.fields(["doc:1"], "body")
    assert store.cache.get(["digest"]) == [None]


def test_a_node_whose_replicas_cannot_be_waited_for_is_asked_again(open_one, client, monkeypatch):
    """It is no master any more, so what it has written is lost, as likely as not."""
    told, read = [-1], Line.read_replicas

    def reading(line, replicas):
        counted = read(line, replicas)
        return told.pop() if told else counted

    monkeypatch.setattr(Line, "read_replicas", reading)
    orders = [command(b"HINCRBY", "doc:1", "count", "1")]
    assert open_one()._lines.run(orders, Replicas(1, 0.01)) == ([2], 0)


def test_a_password_that_is_wrong_by_now_is_told_at_once(open_one, monkeypatch):
    store = open_one()
    monkeypatch.setattr(Line, "send", refuse)
    with pytest.raises(redis.AuthenticationError):
        store.hashes.fields(["doc:1"], "body")


def refuse(*_):
    raise redis.AuthenticationError("WRONGPASS")


def test_what_is_asked_after_the_end_is_answered_and_leaves_no_connection(open_one, cluster):
    store = open_one()
    before = connections(cluster)
    store.close()
    assert store.hashes.fields(["doc:1", "doc:2", "doc:3"], "body") == [None] * 3
    eventually(lambda: connections(cluster) <= before, "they are closed")


def connections(cluster) -> int:
    count = 0
    for node in cluster.nodes:
        with node.client() as admin:
            count += len(admin.client_list())
    return count


def test_what_is_no_hash_is_told(open_one, client):
    """Who asks how long a vector is, or takes one out, hears what Redis says."""
    client.set("doc:1", "a string")
    hashes = open_one().hashes
    for ask in (lambda: hashes.size("doc:1", "embedding"), lambda: hashes.erase("doc:1", TERMS, 1)):
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            ask()


def test_a_node_that_comes_too_late_has_taken_no_vector_out(open_one, client):
    """Later, it might be a newer one."""
    client.hset("doc:1", "embedding", "v" * 32)
    hashes = open_one().hashes
    hashes._patience_seconds = -1.0
    with pytest.raises(redis.TimeoutError):
        hashes.erase("doc:1", TERMS, 1)
    assert client.hexists("doc:1", "embedding")


def test_what_is_the_queues_own_is_no_users_hash(open_one, client):
    """Whatever the pattern: its dead letters and stamps are hashes, too."""
    client.hset("{embed_queue}:latest", "doc:1", "x")
    client.hset("doc:1", "body", "text")
    assert list(open_one().hashes.matching("*")) == [b"doc:1"]


def test_vectors_are_looked_at_without_what_they_are_of(open_one, client):
    client.hset("doc:1", "embedding", "v" * 32)
    [looked] = open_one().hashes.look(["doc:1"], replace(TERMS, provenance_field=None))
    assert (looked.vector_bytes, looked.provenance) == (32, b"")


def test_a_redis_py_of_before_has_a_parser_of_its_own_for_clusters(open_one, monkeypatch):
    """Without it, redirections would be errors of another kind there."""
    monkeypatch.setattr(redis.cluster, "ClusterParser", _RESP2Parser, raising=False)
    store = open_one()
    assert store._nodes.settings["parser_class"] is _RESP2Parser
    assert store.hashes.fields(["doc:1"], "body") == [None]


def test_a_vector_of_which_nothing_says_what_it_is_of_proves_nothing(open_one, client):
    client.hset("doc:1", "embedding", "v" * 32)
    assert open_one().look([Asked("doc:1", 0, digest("text"))], TERMS) == [("unproven", b"v" * 32)]


def test_texts_for_a_second_field_are_refused_before_they_are_taken(open_one):
    store = open_one()
    pair = [b"doc:1", encode_member("doc:1", "text")]
    with pytest.raises(EmbedQueueError, match="second field"):
        store.enqueue([pair], max_pending=None, tell_at=1, tell_first=True, fill=Fill("body", TERMS, ["text"]))
    assert store.status().waiting == 0


def test_an_entry_of_the_cache_that_is_no_string_is_told(open_one, client):
    """Somebody else has put it there; the texts are embedded without the cache."""
    client.hset("embed_queue:cache:digest", "a", "b")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        open_one().cache.take(["digest"], "w:1/60.000:", 60.0)


def test_a_node_whose_clock_was_set_is_asked_again_by_its_own_time(open_one, client):
    """It finds what was sent too late, and says what time it is."""
    client.hset("doc:1", "embedding", "v" * 32)
    store = open_one()
    assert store.hashes.erase("doc:1", TERMS, 1)
    for [line] in store._lines._free.values():
        line.ahead -= 3600
    client.hset("doc:1", "embedding", "v" * 32)
    assert store.hashes.erase("doc:1", TERMS, 1)


def test_a_user_who_may_not_wait_for_replicas_of_hashes_is_told(open_one, monkeypatch):
    monkeypatch.setattr("embedqueue.store.cluster.line.ask_for_more", not_permitted)
    orders = [command(b"HINCRBY", "doc:1", "count", "1")]
    with pytest.raises(EmbedQueueError, match="min_replicas needs the command WAIT"):
        open_one()._lines.run(orders, Replicas(1, 0.01))


def not_permitted(*_):
    raise redis.exceptions.NoPermissionError("NOPERM")


def test_a_node_that_does_not_tell_who_has_which_slots_is_passed_over(open_one, monkeypatch):
    fails, ask = [redis.ConnectionError("lost")], nodes.ask

    def asking(*args):
        if fails:
            raise fails.pop()
        return ask(*args)

    monkeypatch.setattr(nodes, "ask", asking)
    assert open_one().hashes.fields(["doc:1"], "body") == [None]
    assert not fails


def test_a_reservation_in_the_cache_is_renewed(open_one, client):
    """While the call for its text is under way for longer than a lease."""
    cache = open_one().cache
    assert cache.take(["digest"], "w:1/1.000:", 9.0) == [b""]
    cache.hold({"digest": "w:1/1.000:"}, 60.0)
    assert client.pttl("embed_queue:cache:digest") > 10_000
