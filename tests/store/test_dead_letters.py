"""Long dead letters: what is asked for is read, and no more; Redis is never kept busy with them for long."""

from __future__ import annotations

import pytest

from embedqueue import InputRejected
from embedqueue.operating.control import dead_letters
from embedqueue.store.store import REASON_CHARS
from embedqueue.testing import FakeEmbedder, eager_queue
from embedqueue.values.item import encode_member

#: Characters, each of two bytes; with a quotation mark, which JSON escapes.
LONG = '"' + "ä" * 200_000


@pytest.fixture
def queue(redis_client):
    """A queue that refuses texts with a quotation mark, with the text for a reason where it says so."""

    def rule(texts):
        refusals = [text if text.startswith("quoted") else "too long" for text in texts if '"' in text]
        return InputRejected(refusals[0]) if refusals else None

    with eager_queue(FakeEmbedder(rule=rule), redis_client) as made:
        made.enqueue("good", "good")  # the provider is well, as everybody can see
        yield made


def sent(client) -> int:
    """Bytes that Redis has sent to anybody."""
    return int(client.info("stats")["total_net_output_bytes"])


def test_long_texts_are_cut_in_redis(queue, redis_client):
    """Those that do not fit into what is allowed, and their reasons; short ones never, and of none the key."""
    for at in range(20):
        queue.enqueue(f"doc:{at}", LONG)
    queue.enqueue("short", 'a "short" text')
    queue.enqueue("talkative", "quoted" + LONG)
    before = sent(redis_client)
    letters = queue.dead_letters(max_bytes=0)
    assert sent(redis_client) - before < 200_000
    assert [letter.redis_key for letter in letters] == [
        "talkative",
        "short",
        *(f"doc:{at}" for at in range(19, -1, -1)),
    ]
    assert letters[1].text == 'a "short" text'
    assert letters[1].member == encode_member("short", 'a "short" text')
    assert (letters[0].member, len(letters[0].reason)) == (b"", REASON_CHARS)
    for letter in letters[2:]:
        assert letter.member == b""
        assert letter.size_bytes == len(encode_member(letter.redis_key, LONG))
        assert letter.reason == "too long"
        assert LONG.startswith(letter.text)
        assert len(letter.text) > 2000


def test_long_texts_are_whole_as_far_as_they_fit(queue):
    """And all of them where nothing is said."""
    for at in range(5):
        queue.enqueue(f"doc:{at}", LONG)
    letters = queue.dead_letters(max_bytes=900_000)
    assert [letter.text == LONG for letter in letters] == [True, True, False, False, False]
    assert {letter.text for letter in queue.dead_letters()} == {LONG}
    assert [letter.redis_key for letter in queue.dead_letters(2, 1, max_bytes=0)] == ["doc:3", "doc:2"]


def test_what_is_not_ours_has_no_other_name_than_itself(queue, redis_client):
    """It is whole, and ends the list where it does not fit; so nothing is ever out of reach."""
    members = [b"\xff not ours %d " % at + b"x" * 100_000 for at in range(4)]
    for at, member in enumerate(members):
        redis_client.zadd("embed_queue:pending", {member: at + 1})
    queue.flush_now()
    assert queue.stats().dead == 4
    found: list[bytes] = []
    while letters := queue.dead_letters(offset=len(found), max_bytes=100_500):
        assert len(letters) <= 2
        found += [letter.member for letter in letters]
    assert sorted(found) == members
    assert queue.discard_dead(found) == 4


def test_redis_looks_at_long_letters_a_slice_at_a_time(queue, redis_client):
    """Others are served in between; and of thousands of short ones, too, none is left out."""
    for at in range(30):
        queue.enqueue(f"doc:{at}", LONG)
    queue.dead_letters(1)  # the script is known
    redis_client.config_resetstat()
    assert len(queue.dead_letters(30, max_bytes=0)) == 30
    assert redis_client.info("commandstats")["cmdstat_evalsha"]["calls"] == 10  # a megabyte each
    redis_client.delete("embed_queue:dead", "embed_queue:dead:info")
    redis_client.zadd("embed_queue:dead", {encode_member(f"short:{at}", "text"): at for at in range(3000)})
    found = [letter.redis_key for letter in queue.dead_letters(limit=5000)]
    assert found == [f"short:{at}" for at in range(2999, -1, -1)]


def test_lists_of_commands_read_beginnings_only(queue, redis_client):
    """``dead list`` and ``dead retry --reason``; for a script, texts are whole."""
    for at in range(30):
        queue.enqueue(f"doc:{at}", LONG)
    before = sent(redis_client)
    assert len(list(dead_letters(queue, "too long"))) == 30
    assert sent(redis_client) - before < 300_000
    assert next(dead_letters(queue, whole=True)).text == LONG
