"""What a look at Redis makes of those who wait."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from embedqueue.futures.outcomes import Outcomes
from embedqueue.futures.waiters import Waiters
from embedqueue.store.records import Asked, Terms
from embedqueue.values.errors import BatchFailed, ItemRejected, TransientError
from embedqueue.values.item import encode_member
from embedqueue.values.provenance import digest

TERMS = Terms("embedding", "embedding_of", "model", 4, "model/4/-", "create")
VECTOR = np.arange(4, dtype="<f4").tobytes()
TEXTS = [encode_member("doc:1", text) for text in ("old", "newer", "newest")]


def nothing_held(redis_key):
    return False


class Told:
    """A store whose looks all bring the same."""

    def __init__(self, word: str, value: bytes) -> None:
        self.found = (word, value)

    def learned(self, terms):
        return terms

    def look(self, asked, *where):
        assert where == (TERMS,)
        self.asked = asked
        return [self.found for _ in asked]


def look(word, value, *, blank=False, wanted=False, stamp=0, works_at=nothing_held):
    """The future of a key, and what is demanded, after a look."""
    waiters, demanded = Waiters(lambda: None), []
    [future], entries = waiters.register([("doc:1", TEXTS[0])])
    waiters.commit(entries, stamp)
    if wanted:
        waiters.mark_wanted("doc:1")
    worker = SimpleNamespace(demanded=demanded.extend)
    outcomes = Outcomes(Told(word, value), waiters, lambda: TERMS, lambda: bytes(16), worker, works_at)
    outcomes.find_out(["doc:1"], blank_ms=1000 if blank else None)
    return future, demanded


@pytest.mark.parametrize(
    ("word", "value", "blank", "vector"),
    [
        ("done", VECTOR, False, [0, 1, 2, 3]),
        ("blank", b"", False, [0, 0, 0, 0]),
        ("gone", b"", True, [0, 0, 0, 0]),
        ("done", VECTOR, True, [0, 0, 0, 0]),
    ],
)
def test_a_future_ends_with_a_vector(word, value, blank, vector):
    """With zeros where its newest text is blank, whoever tells of that, and whatever stands in the hash still."""
    future, _ = look(word, value, blank=blank)
    assert future.result(0) == vector


def test_a_blank_text_of_before_that_is_heard_of_late_ends_no_newer_text():
    """It was embedded before this process heard of either."""
    future, _ = look("done", VECTOR, blank=True, stamp=1_001_000)
    assert future.result(0) == [0, 1, 2, 3]


def test_a_blank_text_whose_length_nobody_knows_ends_with_an_error():
    """And those who wait for other texts are told what there is to tell."""

    def zero():
        raise TransientError("503")

    waiters = Waiters(lambda: None)
    futures, entries = waiters.register([("doc:1", TEXTS[0]), ("doc:2", TEXTS[0])])
    waiters.commit(entries)
    outcomes = Outcomes(Told("blank", b""), waiters, lambda: TERMS, zero, SimpleNamespace(), nothing_held)
    outcomes.find_out(["doc:1", "doc:2"])
    for future in futures:
        with pytest.raises(BatchFailed, match="zero vector"):
            future.result(0)


@pytest.mark.parametrize(
    ("word", "value", "reason"), [("dead", b"too rude", "too rude"), ("gone", b"", "neither queued")]
)
def test_a_future_ends_with_an_error(word, value, reason):
    """A dead letter's reason, or that nobody knows."""
    future, _ = look(word, value)
    with pytest.raises(ItemRejected, match=reason):
        future.result(0)


@pytest.mark.parametrize("blank", [False, True])
@pytest.mark.parametrize(
    ("value", "wanted", "demanded"), [(b"pending", True, ["doc:1"]), (b"pending", False, []), (b"in flight", True, [])]
)
def test_a_live_item_is_waited_for(value, wanted, demanded, blank):
    """It is urgent where somebody waits and nobody has claimed it."""
    future, found = look("live", value, wanted=wanted, blank=blank)
    assert not future.done()
    assert found == demanded


@pytest.mark.parametrize("word", ["gone", "unproven"])
def test_what_is_in_hand_here_is_not_given_up(word):
    """It may have been acknowledged just now: who has its vector is about to tell."""
    future, _ = look(word, b"", works_at=lambda redis_key: redis_key == "doc:1")
    assert not future.done()


def test_all_futures_of_a_key_end():
    """Of three texts, of which the newest superseded the others."""
    waiters = Waiters(lambda: None)
    futures, entries = waiters.register([("doc:1", text) for text in TEXTS])
    for stamp, entry in zip((5, 6, 7), entries, strict=True):
        waiters.commit([entry], stamp)
    told = Told("done", VECTOR)
    Outcomes(told, waiters, lambda: TERMS, lambda: bytes(16), SimpleNamespace(), nothing_held).find_out(["doc:1"])
    assert [future.result(0) for future in futures] == [[0, 1, 2, 3]] * 3
    assert told.asked == [Asked("doc:1", 7, digest("newest"))], "not the newest was asked about"


def test_a_text_that_never_reached_redis_ends_nothing():
    """Its enqueue failed: an older text of its key is waited for as before."""
    waiters = Waiters(lambda: None)
    [old, _], entries = waiters.register([("doc:1", b"old"), ("doc:1", b"new")])
    waiters.commit(entries[:1])
    waiters.forget(entries[1:])
    assert not waiters.written("doc:1", b"new", VECTOR)
    assert not old.done()
    assert waiters.written("doc:1", b"old", VECTOR)
    assert old.result(0) == [0, 1, 2, 3]
