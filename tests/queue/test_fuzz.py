"""Whatever stands in the ZSET and in the stream, and whatever is enqueued: no queue gets stuck, no thread ends.

More examples: EMBEDQUEUE_HYPOTHESIS=long.
"""

from __future__ import annotations

import json
import logging
import threading

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from embedqueue.operating.live import Watch
from embedqueue.values.item import encode_member
from tests.parts import PATIENCE_SECONDS, expected, in_flight, stored

KEYS = st.one_of(
    st.text(min_size=1, max_size=30), st.sampled_from(["{a}b", "a{", "a\nb", "\0", "*", "doc:?[x]", '\\"'])
)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
PAIRS = st.fixed_dictionaries({"redis_key": JSON, "text": JSON}, optional={"more": JSON})
SPOILT = st.tuples(KEYS, st.text(max_size=10), st.integers(0, 60), st.binary(max_size=4)).map(
    lambda t: (lambda member: member[: t[2]] + t[3] + member[t[2] :])(encode_member("doc:" + t[0], t[1]))
)
MEMBERS = st.one_of(
    st.binary(min_size=1, max_size=40), SPOILT, PAIRS.map(lambda p: json.dumps(p).encode("utf-8", "surrogatepass"))
)
KINDS = st.sampled_from(["done", "stale", "failed", "blank", "unserved", "paused", "urgent", "flush", "wake", "x", ""])
BODIES = st.one_of(st.binary(max_size=20), JSON.map(lambda body: json.dumps(body).encode()))
NOTICES = st.fixed_dictionaries({}, optional={"kind": KINDS, "by": st.binary(max_size=5), "body": BODIES, "z": BODIES})
DEEP = b"[" * 100_000


def fuzz(**strategies):
    def decorate(test):
        count = max(30, settings().max_examples // 4)
        quick = settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        return quick(given(**strategies)(test))

    return decorate


def alive(name: str) -> bool:
    return any(name in thread.name for thread in threading.enumerate())


def check_well(queue, client, caplog, number: int) -> None:
    """Another item goes through, everything else has found its end, and nobody has complained."""
    key = f"well:{number}"
    assert queue.enqueue(key, key).result(PATIENCE_SECONDS) == expected(key)
    queue.flush(PATIENCE_SECONDS)
    assert queue.pending_count() == in_flight(client) == 0
    assert client.hlen("embed_queue:latest") == client.hlen("embed_queue:claims") == 0
    assert alive("embedqueue-worker")
    assert alive("embedqueue-listener")
    complaints = [r.getMessage() for r in caplog.records if "in a way that it should not" in r.getMessage()]
    assert not complaints, complaints


@pytest.mark.timeout(300)
def test_members(make_queue, redis_client, caplog):
    """Each is embedded or a dead letter; the dead can be looked at, put back and dropped."""
    caplog.set_level(logging.CRITICAL + 1, logger="embedqueue")
    queue = make_queue()
    count = 0

    @fuzz(members=st.lists(MEMBERS, min_size=1, max_size=5))
    @example(members=[DEEP, b'{"redis_key":"a","text":"x","redis_key":"b"}', b'{"redis_key":"\\ud800","text":"x"}'])
    @example(members=[b'{"redis_key":"b","text":"y"}', b'{"redis_key":"a","text":"x","redis_key":"b"}'])
    @example(members=[b'\xef\xbb\xbf{"redis_key":"a","text":"x"}', '{"redis_key":"a","text":"x"}'.encode("utf-16")])
    def run(members):
        nonlocal count
        count += 1
        redis_client.zadd("embed_queue:pending", {member: number for number, member in enumerate(members)})
        check_well(queue, redis_client, caplog, count)
        letters = queue.dead_letters()
        assert len(letters) == queue.stats().dead
        assert {letter.member for letter in letters} <= set(members)
        assert queue.retry_dead() == len(letters)
        queue.flush(PATIENCE_SECONDS)
        assert queue.discard_dead() == len(letters)
        assert redis_client.zcard("embed_queue:dead") == redis_client.hlen("embed_queue:dead:info") == 0

    run()


@pytest.mark.timeout(300)
def test_notices(make_queue, redis_client, caplog):
    """Whoever waits gets the vector, though the stream is full of somebody else's words."""
    caplog.set_level(logging.WARNING, logger="embedqueue")
    queue, producer = make_queue(), make_queue(worker=False, flush_on_wait=True)
    watch = Watch(queue)
    count = 0

    @fuzz(notices=st.lists(NOTICES.filter(bool), min_size=1, max_size=5))
    @example(notices=[{"kind": "urgent", "body": b'["\\ud800"]'}])
    @example(notices=[{"kind": "urgent", "body": b"[[1], {}, null, 7]"}, {"kind": "done", "body": b"[{}]"}])
    @example(notices=[{"kind": "of a later version", "body": b"[]"}])
    @example(notices=[{"kind": "unserved", "body": b"[]"}, {"kind": "done", "body": DEEP}])
    def run(notices):
        nonlocal count
        count += 1
        pipeline = redis_client.pipeline()
        for notice in notices:
            pipeline.xadd("embed_queue:events", notice)
        pipeline.execute()
        watch.look()
        future = producer.enqueue(f"doc:{count}", f"text {count}")
        error = future.exception(PATIENCE_SECONDS)  # a notice may claim that the provider failed
        assert error is None or "still queued" in str(error)
        check_well(queue, redis_client, caplog, count)
        assert redis_client.hget(f"doc:{count}", "embedding") == stored(f"text {count}")

    run()


def test_a_bad_notice_does_not_hide_the_good_one_behind_it(make_queue, redis_client, caplog):
    """They come in one read: what was asked for is done at once, not at the next sweep."""
    make_queue(flush_on_wait=False)
    future = make_queue(worker=False).enqueue("doc:1", "one")
    pipeline = redis_client.pipeline()
    for _ in range(20):
        pipeline.xadd("embed_queue:events", {"kind": "done", "body": "7"})
        pipeline.xadd("embed_queue:events", {"kind": "urgent", "body": "{"})
    pipeline.xadd("embed_queue:events", {"kind": "flush"})
    pipeline.execute()
    done = threading.Event()
    future.add_done_callback(lambda _: done.set())
    assert done.wait(PATIENCE_SECONDS)


@pytest.mark.timeout(300)
def test_texts_and_keys(make_queue, redis_client, caplog):
    """Every plane of Unicode, NULs, braces, line ends: the hash and the future have the vector of just this text."""
    queue = make_queue(cache_ttl=60)

    @fuzz(pairs=st.dictionaries(KEYS, st.text(max_size=50), min_size=1, max_size=4))
    @example(pairs={"\U0010ffff": "\U0010ffff\0\ufeff", "a\0b": "\u202e", "{}": "{}", "\r\n": "\u2028"})
    def run(pairs):
        futures = queue.enqueue_many(pairs.items())
        for (key, text), future in zip(pairs.items(), futures, strict=True):
            vector = future.result(PATIENCE_SECONDS)
            if not text or text.isspace():
                assert vector == [0.0] * len(vector)
            else:
                assert vector == expected(text)
                assert redis_client.hget(key.encode(), "embedding") == stored(text)

    run()


@pytest.mark.parametrize("pair", [("\ud800", "x"), ("doc:1", "a\udfffb")])
def test_lone_surrogates_are_refused_at_once(make_queue, redis_client, pair):
    """They have no form in UTF-8; nothing is written."""
    with pytest.raises(ValueError):
        make_queue(start=False).enqueue(*pair)
    assert not redis_client.keys("*")


@pytest.mark.quiet  # as JSON it may be 60 MB, which a busy machine does not move within the time of one command
@pytest.mark.parametrize("letters", ["\0", 'aé😀"'])
def test_ten_megabytes(make_queue, redis_client, letters):
    """A text of this size, in whatever letters, goes all the way, beside a small one."""
    queue = make_queue()
    text = letters * (10_000_000 // len(letters.encode()))
    big, small = queue.enqueue_many([("doc:big", text), ("doc:small", "small")])
    assert big.result(4 * PATIENCE_SECONDS) == expected(text)
    assert small.result(PATIENCE_SECONDS) == expected("small")
