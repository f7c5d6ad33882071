"""What a look tells of items that are neither live nor dead, at its rarer edges."""

from __future__ import annotations

import pytest

from embedqueue.store.records import Asked
from embedqueue.values.item import FORGOTTEN, encode_member
from embedqueue.values.provenance import digest
from tests.proof.moves import Queue, asked, terms

#: A process whose workers write elsewhere, and one like those that have written.
OTHERS, OURS = terms("another", model="m"), terms("embedding", model="m")


@pytest.fixture
def queue(queue):
    queue.store.agree(OURS)
    return queue


def put(queue: Queue, key: str, member: bytes) -> int:
    return queue.store.enqueue([[key.encode(), member]], max_pending=None, tell_at=50, tell_first=True).stamp


def word_of(queue: Queue, key: str, stamp: int, of=OURS) -> str:
    return queue.store.look([asked(key, stamp=stamp)], of)[0][0]


@pytest.mark.parametrize("of", [OURS, OTHERS])
@pytest.mark.parametrize(("member", "word"), [(b"", "blank"), (FORGOTTEN, "forgotten")])
def test_what_was_withdrawn_is_told_to_all_and_only_of_what_it_was(queue, of, member, word):
    """Also to a process with other settings; neither tells of a text that came later and that another program took."""
    first = put(queue, "doc:1", encode_member("doc:1", "a"))
    put(queue, "doc:1", member)
    assert word_of(queue, "doc:1", first, of) == word
    later = put(queue, "doc:1", encode_member("doc:1", "b")) + 2_000  # microseconds: notices have milliseconds
    queue.client.delete(queue.names.pending)
    assert word_of(queue, "doc:1", later, of) == ("gone" if of is OURS else "differs")


def test_a_process_with_other_settings_is_told_so_of_what_was_done(queue):
    """Its own field says nothing of what the workers have written."""
    queue.enqueue([("doc:1", "a")])
    queue.complete(queue.claim("w1:"), [encode_member("doc:1", "a")])
    assert (word_of(queue, "doc:1", 0), word_of(queue, "doc:1", 0, OTHERS)) == ("done", "differs")


@pytest.mark.parametrize(
    ("space", "of", "newer", "word"),
    [
        (OURS.space, "a", -1, "done"),
        ("another/16/-", "a", -1, "differs"),
        ("another/16/-", "b", -1, "gone"),
        (OURS.space, "b", -1, "gone"),
        ("m/16/another-role", "b", 0, "done"),
        ("m/16/another-role", "a", -1, "done"),
        ("nobody", "a", -1, "gone"),
        ("another/16/-", "b", 0, "differs"),
    ],
)
def test_a_vector_is_of_an_item_by_its_text_and_its_model_or_by_its_stamp(queue, space, of, newer, word):
    """One of the same text by another model is not; one of the very item, or of a newer one, is, where models agree.

    A role is the writer's own affair: who only enqueues may have none. A text that is enqueued again while it is in
    flight keeps its stamp: what another model has written of it is told, whatever the stamp.
    """
    stamp = 10**15
    queue.client.hset("doc:1", mapping={"embedding": "v" * 64, "embedding_of": f"{space} {digest(of)} {stamp + newer}"})
    assert queue.store.look([Asked("doc:1", stamp, digest("a"))], OURS)[0][0] == word


def test_where_an_item_is_and_how_it_ended_is_told(queue):
    """Also where its hash is on another node of a cluster, so that nothing is found there."""
    queue.enqueue([("doc:1", "a")])
    assert queue.store.look([asked("doc:1")], OURS) == [("live", b"pending")]
    owner = queue.claim("w1:")
    assert queue.store.look([asked("doc:1")], OURS) == [("live", b"in flight")]
    queue.complete(owner, [encode_member("doc:1", "a")])
    queue.client.delete("doc:1")
    assert queue.store.look([asked("doc:1")], OURS) == [("gone", b"done")]


def test_a_key_that_is_no_hash_holds_no_vector(queue):
    """Nor does a look fail for it."""
    queue.client.set("doc:1", "a string")
    assert queue.store.look([asked("doc:1")], OURS) == [("gone", b"")]


def test_what_another_program_left_with_a_blank_text_is_dead_under_its_key(queue):
    """Whoever waits for the key is told why."""
    queue.client.zadd(queue.names.pending, {'{"redis_key":"doc:1","text":" "}': 1.0})
    queue.store.adoption.run(OURS)
    assert queue.store.look([asked("doc:1")], OURS) == [("dead", b"the text is blank")]
