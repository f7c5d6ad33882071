"""A user of a cluster who may do what docs/redis-acl.md lists, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.crc import key_slot

from embedqueue import ItemRejected
from embedqueue.settings.redis_url import client_of
from tests.parts import PATIENCE_SECONDS, expected, stored

ACL = (Path(__file__).parents[2] / "docs" / "redis-acl.md").read_text("utf-8")


def rules() -> list[str]:
    block = ACL.split("```")[1].replace("\\\n", " ").split()[4:]  # without: ACL SETUSER name >password
    [more] = re.findall(r"On a Redis Cluster, replace .*?and add\s+`([^`]+)`", ACL, flags=re.DOTALL)
    return [*("~{embed_queue}:*" if rule == "~embed_queue:*" else rule for rule in block), *more.split()]


@pytest.fixture
def limited(cluster) -> Iterator[redis.Redis]:
    """A client of that user, made of an URL: redis-py's own asks for more when it connects."""
    for node in cluster.nodes:
        with node.client() as admin:
            admin.execute_command("ACL", "SETUSER", "embedqueue", "reset", "on", ">secret", *rules())
            admin.execute_command("ACL", "SETUSER", "embedqueue", "~embed_queue:cache:*", "+scan", "+hstrlen")
            admin.execute_command("ACL", "LOG", "RESET")
    yield client_of(cluster.url.replace("://", "://embedqueue:secret@"))
    for node in cluster.nodes:
        with node.client() as admin:
            admin.acl_deluser("embedqueue")


def test_a_queue_needs_no_more_than_the_page_lists(make_queue, limited, cluster, client):
    queue, producer = make_queue(limited, cache_ttl=60.0), make_queue(limited, worker=False)
    for number in range(12):
        future = producer.enqueue(f"doc:{number}", f"text {number}")
        assert future.result(PATIENCE_SECONDS) == expected(f"text {number}")
    assert producer.enqueue("doc:1", "text 1", if_changed=True).done()
    cluster.move("doc:1", next(node for node in cluster.nodes if node is not cluster.master_of("doc:1")))
    assert queue.enqueue("doc:1", "moved").result(PATIENCE_SECONDS) == expected("moved")
    assert client.hget("doc:1", "embedding") == stored("moved")
    queue.forget("doc:2", vector=True)
    queue.flush(PATIENCE_SECONDS)
    for node in cluster.nodes:
        with node.client() as admin:
            assert {entry["object"] for entry in admin.acl_log()} <= {"info", "client|setinfo"}


def test_a_hash_that_may_not_be_written_makes_a_dead_letter(make_queue, limited):
    queue = make_queue(limited)
    fine, forbidden = queue.enqueue("doc:1", "one"), queue.enqueue("secret:1", "two")
    assert fine.result(PATIENCE_SECONDS) == expected("one")
    with pytest.raises(Exception, match="ermission|NOPERM"):
        forbidden.result(PATIENCE_SECONDS)
    assert [letter.redis_key for letter in queue.dead_letters()] == ["secret:1"]


def test_a_node_that_refuses_to_be_asked_mixes_no_answers_up(make_queue, limited, cluster, client):
    """Its refusal is one answer, and what was to be asked has another: what comes next is not given that one."""
    source = cluster.master_of("doc:1")
    target = next(node for node in cluster.nodes if node is not source)
    good, bad, *more = [key for key in (f"doc:{n}" for n in range(99)) if cluster.master_of(key) is target][:4]
    for node in cluster.nodes:
        with node.client() as admin:
            admin.execute_command("ACL", "SETUSER", "embedqueue", "-asking")
    queue, slot = make_queue(limited), key_slot(b"doc:1")
    cluster.begin_move(slot, source, target)
    with pytest.raises(ItemRejected, match="'asking'"):
        queue.enqueue("doc:1", "moving").result(PATIENCE_SECONDS)
    cluster.end_move(slot, source, target)
    client.set(bad, "a string")
    assert queue.enqueue(good, "one").result(PATIENCE_SECONDS) == expected("one")
    with pytest.raises(ItemRejected, match="WRONGTYPE"):
        queue.enqueue(bad, "two").result(PATIENCE_SECONDS)
    for key in more:
        assert queue.enqueue(key, key).result(PATIENCE_SECONDS) == expected(key)
        assert client.hget(key, "embedding") == stored(key)
