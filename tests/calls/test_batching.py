"""How texts become calls, and how a refused call is cut: pure decisions."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedqueue.calls.batching import Care, Limits, cut, estimated_tokens, split
from embedqueue.values.errors import CallTooLarge

TEXTS = st.lists(st.text(max_size=60), max_size=40)


@given(TEXTS, st.integers(1, 10), st.integers(1, 30))
def test_cut_keeps_all_in_order(texts, most_texts, most_tokens):
    """Every text travels once, in order, in calls within the limits; only a text that is too long alone is above."""
    calls = cut(texts, Limits(most_texts, most_tokens))
    assert [text for call in calls for text in call] == texts
    for call in calls:
        assert 1 <= len(call) <= most_texts
        assert len(call) == 1 or sum(map(estimated_tokens, call)) <= most_tokens


@given(TEXTS, st.integers(1, 10), st.integers(1, 30))
def test_cut_is_greedy(texts, most_texts, most_tokens):
    """No call ends before it is full: the next text would not have fitted."""
    calls = cut(texts, Limits(most_texts, most_tokens))
    for call, following in zip(calls, calls[1:], strict=False):
        grown = [*call, following[0]]
        assert len(grown) > most_texts or sum(map(estimated_tokens, grown)) > most_tokens


@pytest.mark.parametrize(
    ("count", "limit", "sizes"),
    [(0, 50, []), (1, 50, [1]), (50, 50, [50]), (51, 50, [50, 1]), (120, 50, [50, 50, 20]), (3, 1, [1, 1, 1])],
)
def test_cut_by_count(count, limit, sizes):
    """The fewest calls that the count allows."""
    assert [len(call) for call in cut(map(str, range(count)), Limits(limit, 10**9))] == sizes


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 1), ("abc", 1), ("abcd", 2), ("a" * 400, 101), ("é" * 4, 3), ("漢字" * 2, 4)]
)
def test_estimate(text, tokens):
    """About four bytes of UTF-8 a token, and never none."""
    assert estimated_tokens(text) == tokens


def refusal(measure, limit=None):
    return CallTooLarge("too large", measure=measure, limit=limit)


WIDE = Limits(50, 200_000)
FIFTY = ["word " * 20] * 50  # 26 tokens each by our estimate: 1,300


@pytest.mark.parametrize(
    ("error", "learned"),
    [
        (refusal("texts", 32), Limits(32, 200_000)),
        (refusal("texts", 1), Limits(1, 200_000)),
        (refusal("texts"), Limits(25, 200_000)),
        (refusal("texts", 50), Limits(25, 200_000)),  # it says 50 and refuses 50: halve
        (refusal("texts", 100), Limits(25, 200_000)),
        (refusal("tokens", 1000), Limits(50, 900)),
        (refusal("tokens"), Limits(50, 650)),
        (refusal("tokens", 300_000), Limits(50, 650)),
        (refusal("bytes", 2000), Limits(50, 450)),
        (refusal("bytes"), Limits(50, 650)),
        (refusal("bytes", 4_194_304), Limits(50, 650)),
    ],
)
def test_learn(error, learned):
    """A stated limit is taken, with a reserve where it is only estimated; one that cannot be right halves."""
    assert WIDE.learn(error, FIFTY) == learned


@given(
    st.lists(st.text(min_size=1, max_size=50), min_size=2, max_size=60, unique=True),
    st.sampled_from(["texts", "tokens", "bytes"]),
    st.none() | st.integers(0, 10**7),
)
def test_learning_always_helps(texts, measure, limit):
    """Whatever the provider says, the refused call is cut into smaller ones: it can never be sent whole again."""
    learned = WIDE.learn(refusal(measure, limit), texts)
    assert learned.texts >= 1
    assert learned.tokens >= 1
    assert len(cut(texts, learned)) > 1


def test_learning_never_widens():
    """A refusal of a small call does not raise a limit that is lower already."""
    assert Limits(3, 10).learn(refusal("texts", 40), FIFTY) == Limits(3, 10)
    assert Limits(3, 10).learn(refusal("tokens", 1200), FIFTY) == Limits(3, 10)


@pytest.mark.parametrize(
    ("culprit", "parts"),
    [
        (None, [["a", "b"], ["c", "d", "e"]]),
        (0, [["a"], ["b", "c", "d", "e"]]),
        (2, [["c"], ["a", "b", "d", "e"]]),
        (4, [["e"], ["a", "b", "c", "d"]]),
        (5, [["a", "b"], ["c", "d", "e"]]),
        (-1, [["a", "b"], ["c", "d", "e"]]),
    ],
)
def test_split(culprit, parts):
    """The named text and the others; halves where none is named, or one that does not exist."""
    assert split("abcde", culprit) == parts


@given(st.integers(2, 1000), st.data())
def test_halving_is_logarithmic(count, data):
    """A bad text stands alone after log2(n) cuts."""
    bad = data.draw(st.integers(0, count - 1))
    call, cuts = list(range(count)), 0
    while len(call) > 1:
        call = next(part for part in split(call, None) if bad in part)
        cuts += 1
    assert call == [bad]
    assert cuts <= math.ceil(math.log2(count))


# -- after an errand -------------------------------------------------------------------------------------------------


def test_calls_are_smaller_after_an_errand_and_grow_back_when_all_goes_well():
    care = Care()
    care.begin(4)
    assert care.texts == 4
    sizes = []
    for _ in range(60):
        if care.texts is not None:
            care.served(care.texts, 10)
        sizes.append(care.texts)
    assert sizes[:8] == [4] * 7 + [6], "eight go well before the next is larger"
    assert sizes[-1] is None, "in the end nothing is left of it"


def test_calls_that_were_not_full_prove_nothing():
    care = Care()
    care.begin(4)
    for _ in range(100):
        care.served(3, 10)
    assert care.texts == 4


def test_who_grows_too_far_waits_longer_the_next_time():
    care, sent = Care(), 0
    care.begin(1)
    for _ in range(1000):  # of a server that answers one text only
        assert care.texts is not None
        if care.texts == 1:
            care.served(1, 50)
        else:
            care.begin(1)
            sent += 1
    assert sent <= 7
