"""A vector of another space that ours replace: two queues with different models may write to one field."""

from __future__ import annotations

import logging

import pytest

from tests.parts import PATIENCE_SECONDS

OTHERS = "written in place of one of mine/8/-"


def embedded(queue, *pairs):
    futures = [queue.enqueue(*pair) for pair in pairs]
    for future in futures:
        future.result(PATIENCE_SECONDS)


def test_two_queues_that_write_to_one_field_are_told_apart(redis_client, make_queue, caplog):
    """Each counts the vectors of the other that it replaces, and says so once."""
    mine, theirs = make_queue(namespace="one", model="mine"), make_queue(namespace="two", model="google/theirs")
    with caplog.at_level(logging.WARNING):
        embedded(mine, ("doc:1", "first"), ("doc:1", "second"), ("doc:2", "first"))
        assert not caplog.messages
        embedded(theirs, ("doc:1", "third"), ("doc:2", "second"), ("doc:3", "first"))
    assert [OTHERS in message for message in caplog.messages] == [True]
    assert (mine.stats().replaced, theirs.stats().replaced) == (0, 2)
    assert redis_client.hget("doc:1", "embedding_of").startswith(b"theirs/8/- ")
    embedded(mine, ("doc:2", "third"))
    assert mine.stats().replaced == 1


@pytest.mark.parametrize("line", ["", "nobody's", f"theirs/8/- {16 * 'z'} 1", f"{5000 * 'x'}/8/- {16 * 'a'} 1"])
def test_what_no_queue_has_written_is_no_vector_of_another_space(redis_client, make_queue, line):
    queue = make_queue()
    redis_client.hset("doc:1", "embedding_of", line)
    embedded(queue, ("doc:1", "text"))
    assert queue.stats().replaced == 0


def test_a_line_that_outlives_its_vector_is_no_vector(redis_client, make_queue):
    embedded(make_queue(namespace="one", model="mine"), ("doc:1", "text"))
    redis_client.hdel("doc:1", "embedding")
    queue = make_queue(namespace="two", model="theirs")
    embedded(queue, ("doc:1", "text"))
    assert queue.stats().replaced == 0


def test_without_a_provenance_field_nobody_can_know(redis_client, make_queue):
    embedded(make_queue(namespace="one", model="mine"), ("doc:1", "text"))
    queue = make_queue(namespace="two", model="theirs", provenance_field=None)
    embedded(queue, ("doc:1", "text"))
    assert queue.stats().replaced == 0
