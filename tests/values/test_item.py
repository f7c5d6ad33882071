"""Members: the JSON by which an item stands in Redis."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedqueue.values.item import Item, NotOurs, check_pair, decode_member, encode_member

#: Everything that UTF-8 can say: all of Unicode but the surrogates.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXTS.filter(bool), TEXTS)
def test_round_trip(redis_key, text):
    """Any key and any text come back as they were."""
    member = encode_member(redis_key, text)
    assert decode_member(member) == Item(redis_key, text, member)


@given(TEXTS.filter(bool), TEXTS)
def test_is_compact_json(redis_key, text):
    """A member is what ``json.dumps`` makes of the pair, without spaces: the asyncio design can drain what we leave."""
    pair = {"redis_key": redis_key, "text": text}
    assert encode_member(redis_key, text) == json.dumps(pair, ensure_ascii=False, separators=(",", ":")).encode()


@given(TEXTS.filter(bool), TEXTS, st.booleans(), st.sampled_from([None, (",", ":")]), st.booleans())
def test_other_styles(redis_key, text, ascii_only, separators, reverse):
    """Members with spaces, ASCII escapes or in another order are read, and keep their own bytes."""
    pairs = [("redis_key", redis_key), ("text", text)]
    document = dict(reversed(pairs) if reverse else pairs)
    member = json.dumps(document, ensure_ascii=ascii_only, separators=separators).encode()
    assert decode_member(member) == Item(redis_key, text, member)


def test_literal():
    """The format that docs/design.md shows, to the byte."""
    assert encode_member("msg:1", 'say "hi"\n\0é😀') == (
        '{"redis_key":"msg:1","text":"say \\"hi\\"\\n\\u0000é😀"}'.encode()
    )


@pytest.mark.parametrize(
    "member",
    [
        b"",
        b"junk",
        b"\xff\xfe",
        b"null",
        b"[]",
        b'"text"',
        b"5",
        b"{}",
        b'{"redis_key":"a"}',
        b'{"text":"a"}',
        b'{"redis_key":1,"text":"a"}',
        b'{"redis_key":"a","text":null}',
        b'{"redis_key":"a","text":["b"]}',
        b'{"redis_key":"","text":"a"}',
        b'{"redis_key":"a","text":"\\ud800"}',
        b'{"redis_key":"\\udfff","text":"a"}',
        b'{"redis_key":"a","text":"b"} tail',
        b'{"redis_key":"a\xff","text":"b"}',
        b"[" * 100_000,
        b'["redis_key","text"]',
        '{"redis_key":"a","text":"b"}'.encode("utf-16"),
        '{"redis_key":"a","text":"b"}'.encode("utf-8-sig"),
    ],
    ids=lambda member: repr(member[:24]),
)
def test_not_ours(member):
    """What is no pair of a key and a text is told apart, with a reason, and raises nothing else."""
    with pytest.raises(NotOurs, match="not our JSON"):
        decode_member(member)


def test_lone_surrogates_are_refused():
    """A text that UTF-8 cannot say is a ValueError before anything is written."""
    with pytest.raises(ValueError):
        encode_member("a", "\ud800")
    with pytest.raises(ValueError):
        encode_member("\udfff", "a")


@pytest.mark.parametrize(
    ("redis_key", "text", "error"),
    [
        (b"doc:1", "text", TypeError),
        ("doc:1", b"text", TypeError),
        (None, "text", TypeError),
        ("doc:1", None, TypeError),
        (1, "text", TypeError),
        ("doc:1", ["text"], TypeError),
        ("", "text", ValueError),
        ("doc:\udcff", "text", ValueError),
        ("embed_queue:pending", "text", ValueError),
        ("embed_queue:anything", "text", ValueError),
        ("doc:1", "123456", ValueError),
    ],
)
def test_pairs_refused(redis_key, text, error):
    """A pair that could never work is refused by kind."""
    with pytest.raises(error):
        check_pair(redis_key, text, "embed_queue", 5)


@pytest.mark.parametrize("redis_key", ["embed_queue", "embed_queue2:a", "my:embed_queue:a", " ", "a b", "é"])
def test_keys_beside_the_namespace(redis_key):
    """Only the queue's own keys are refused, not all that look alike."""
    check_pair(redis_key, "12345", "embed_queue", 5)
