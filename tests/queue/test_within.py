"""``within=``: who can wait stands behind who cannot, and nobody waits longer than he said."""

from __future__ import annotations

import math

import pytest

from embedqueue.testing import eager_queue
from embedqueue.values.item import encode_member
from tests.inside import inside
from tests.parts import PATIENCE_SECONDS, eventually, in_flight

PENDING = "embed_queue:pending"


def score(client, key):
    [found] = [
        score for member, score in client.zrange(PENDING, 0, -1, withscores=True) if f'"{key}"' in member.decode()
    ]
    return found - client.time()[0]


def test_scores_tell_when_an_item_is_due(make_queue, redis_client):
    """An item without patience of its own has the time of its enqueue, whatever interval another process has."""
    queue = make_queue(start=False, flush_interval=600)
    queue.enqueue("doc:1", "text")
    queue.enqueue("doc:2", "text", within=86_400)
    queue.enqueue("doc:3", "text", within=0)
    other = make_queue(start=False, flush_interval=3600)
    other.enqueue("doc:4", "text")
    other.enqueue("doc:5", "text", within=3600)
    queue.enqueue("doc:6", "text", within=600)
    expected = {"doc:1": 0, "doc:2": 85_800, "doc:3": -600, "doc:4": 0, "doc:5": 3000, "doc:6": 0}
    assert {key: score(redis_client, key) for key in expected} == pytest.approx(expected, abs=5)


def test_what_cannot_wait_is_claimed_first(make_queue, embedder, redis_client):
    """Whatever stood there before; and in the end all of it is embedded."""
    queue = make_queue(start=False)
    bulk = [(f"bulk:{place}", f"bulk {place}") for place in range(20)]
    queue.enqueue_many(bulk, within=86_400)
    queue.enqueue("doc:1", "as ever")
    queue.enqueue("doc:2", "at once", within=0)
    with queue:
        queue.flush(PATIENCE_SECONDS)
    assert embedder.calls == [["at once", "as ever", *(text for _, text in bulk)]]


def test_an_item_is_embedded_within_its_time(make_queue, redis_client):
    """Nobody waits for it, nobody flushes, and the interval is an hour."""
    queue = make_queue(max_batch_size=1000)
    queue.enqueue("doc:1", "text")
    queue.enqueue("doc:2", "text", within=0.05)
    eventually(lambda: redis_client.hexists("doc:2", "embedding"))


def test_also_by_the_workers_of_other_processes(make_queue, redis_client):
    worker = make_queue(max_batch_size=1000)
    worker.enqueue("doc:1", "text")
    make_queue(worker=False).enqueue("doc:2", "text", within=0.05)
    eventually(lambda: redis_client.hexists("doc:2", "embedding"))


def test_workers_are_told_of_what_is_due_before_all_else(make_queue, redis_client):
    """And of the first item; of no other."""
    queue = make_queue(worker=False, start=False)

    def told(key, within):
        before = redis_client.xlen("embed_queue:events")
        queue.enqueue(key, "text", within=within)
        return redis_client.xlen("embed_queue:events") - before

    assert [told("doc:1", 600), told("doc:2", 700), told("doc:3", 500), told("doc:4", None)] == [1, 0, 1, 0]


def test_the_base_is_anew_where_nothing_counts_by_the_old_one(make_queue, redis_client):
    redis_client.hset("embed_queue:settings", "base", "600")
    queue = make_queue(start=False, flush_interval=3600)
    queue.enqueue("doc:1", "text", within=3600)
    assert redis_client.hget("embed_queue:settings", "base") == b"3600"
    make_queue(start=False, flush_interval=60).enqueue("doc:2", "text", within=60)
    assert redis_client.hget("embed_queue:settings", "base") == b"3600"


def test_the_patient_wait(make_queue, embedder):
    """Longer than the interval of the process; what is due then takes them along, and goes before them."""
    queue = make_queue(flush_interval=0.2)
    queue.enqueue("doc:1", "patient", within=3600)
    queue.enqueue("doc:2", "text")
    embedder.wait_for_calls(1)
    assert embedder.texts == ["text", "patient"]


def test_age_is_since_the_enqueue(make_queue, redis_client):
    queue = make_queue(start=False)
    queue.enqueue("doc:1", "text", within=0)
    assert queue.stats().oldest_age < 60
    queue.enqueue("doc:2", "text", within=86_400)
    redis_client.zrem(PENDING, redis_client.zrange(PENDING, 0, 0)[0])
    assert 0 <= queue.stats().oldest_age < 60


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(86_400, 600, -3000), (600, 86_400, -3000), (86_400, None, 0), (None, 86_400, 0), (600, None, -3000)],
)
def test_the_same_text_again_is_due_at_the_sooner_time(make_queue, redis_client, first, second, expected):
    queue = make_queue(start=False)
    one = queue.enqueue("doc:1", "text", within=first)
    assert queue.enqueue("doc:1", "text", within=second) is one
    assert queue.pending_count() == 1
    assert score(redis_client, "doc:1") == pytest.approx(expected, abs=5)


def test_in_flight_it_is_due_sooner_when_it_comes_back(make_queue, embedder, redis_client):
    queue = make_queue(start=False)
    queue.enqueue("doc:1", "text", within=86_400)
    embedder.hold()
    queue.start()
    queue.flush_now()
    embedder.wait_for_calls(1)
    make_queue(start=False).enqueue("doc:1", "text", within=0)
    assert in_flight(redis_client) == 1
    queue.stop(timeout=0)
    assert score(redis_client, "doc:1") == pytest.approx(-3600, abs=5)


def test_another_text_has_its_own_patience(make_queue, redis_client):
    queue = make_queue(start=False)
    queue.enqueue("doc:1", "text", within=0)
    queue.enqueue("doc:1", "newer", within=86_400)
    assert score(redis_client, "doc:1") == pytest.approx(82_800, abs=5)


def test_of_those_who_share_a_round_trip_each_has_his_own(make_queue, redis_client):
    """In one call too: the last one who wants a key says how long it may wait."""
    queue = make_queue(start=False)
    queue.enqueue_many([("doc:1", "a"), ("doc:2", "b"), ("doc:1", "c")], within=600)
    for key in ("doc:1", "doc:2"):
        assert score(redis_client, key) == pytest.approx(-3000, abs=5)


def test_with_if_changed(make_queue, embedder, redis_client):
    queue = make_queue()
    queue.enqueue("doc:1", "text").result(PATIENCE_SECONDS)
    assert queue.enqueue("doc:1", "text", within=86_400, if_changed=True).done()
    queue.enqueue("doc:1", "new", within=86_400, if_changed=True)
    assert score(redis_client, "doc:1") == pytest.approx(82_800, abs=5)


def test_a_flush_waits_for_the_patient_as_well(make_queue, redis_client):
    queue = make_queue()
    queue.enqueue("doc:1", "text", within=86_400)
    queue.flush(PATIENCE_SECONDS)
    assert redis_client.hexists("doc:1", "embedding")


def test_whoever_waits_does_not_wait_a_day(make_queue):
    queue = make_queue()
    assert queue.enqueue("doc:1", "text", within=86_400).result(PATIENCE_SECONDS)


@pytest.mark.parametrize(("other", "told"), [(3600, False), (60, True), (7200, True), (1e10, True)])
def test_a_worker_with_another_interval_says_so_once(make_queue, redis_client, monkeypatch, caplog, other, told):
    """While items are live that count by the other one, however often it looks."""
    make_queue(start=False, flush_interval=3600).enqueue("doc:1", "text", within=86_400)
    redis_client.set("embed_queue:pause", "by hand")
    queue = make_queue(start=False, flush_interval=other)
    looks, status = [], inside(queue).store.status
    monkeypatch.setattr(inside(queue).store, "status", lambda: looks.append(1) or status())
    queue.start()
    for count in (1, 2, 3):  # the next one begins when the words of the last are in the log
        eventually(lambda: len(looks) >= count)  # noqa: B023 - called at once
        inside(queue).agenda.refresh()
    assert sum("from which their within=" in message for message in caplog.messages) == told


def test_the_base_is_kept_while_anything_counts_by_it(make_queue, redis_client):
    queue = make_queue(flush_interval=600)
    queue.enqueue("doc:1", "text", within=86_400)
    assert redis_client.hget("embed_queue:settings", "base") == b"600"
    queue.flush(PATIENCE_SECONDS)
    queue._engine.agenda.refresh()
    queue.enqueue("doc:2", "text").result(PATIENCE_SECONDS)
    eventually(lambda: not redis_client.hexists("embed_queue:settings", "base") or queue.flush_now())


def test_an_interval_may_be_of_any_length(make_queue):
    """One that is to say never: scores stay Unix times, and within= holds."""
    queue = make_queue(start=False, flush_interval=1e10)
    queue.enqueue("doc:1", "text", within=5)
    assert 0 < queue.stats().due_in <= 5


@pytest.mark.parametrize(
    ("seconds_ago", "within", "due_in"),
    [(10, 0, 0), (10, None, 3590), (10, 86_400, 3590), (-1e12, None, 3600), (-1e12, 60, 60)],
)
def test_of_what_another_program_has_left_the_sooner_time_holds(make_queue, redis_client, seconds_ago, within, due_in):
    """The very same member; one such program writes milliseconds."""
    queue = make_queue(start=False)
    score = redis_client.time()[0] - seconds_ago
    redis_client.zadd(PENDING, {encode_member("doc:1", "text"): score})
    queue.enqueue("doc:1", "text", within=within)
    assert queue.stats().due_in == pytest.approx(due_in, abs=5)


@pytest.mark.parametrize("score", [1e13, math.inf, -math.inf, -5])
def test_an_item_that_another_program_has_moved_is_due(make_queue, redis_client, score):
    queue = make_queue(start=False)
    queue.enqueue("doc:1", "text", within=60)
    redis_client.zadd(PENDING, {encode_member("doc:1", "text"): score})
    stats = queue.stats()
    assert stats.due_in < 0
    assert 0 <= stats.oldest_age < 60


@pytest.mark.parametrize("within", [None, 86_400])
def test_enqueued_again_an_item_is_no_younger(make_queue, redis_client, within):
    """Whoever looks at ages has to see that nobody embeds it."""
    queue = make_queue(start=False)
    queue.enqueue("doc:1", "text", within=within)
    stamp, member = redis_client.hget("embed_queue:latest", "doc:1").split(b" ", 1)
    redis_client.hset("embed_queue:latest", "doc:1", b"%d %s" % (int(stamp) - 500_000_000, member))
    queue.enqueue("doc:1", "text", within=within)
    assert queue.stats().oldest_age == pytest.approx(500, abs=20)


def test_what_was_left_out_is_due_at_no_time(make_queue, embedder):
    """The vector is there; so it hurries nobody who is patient."""
    queue = make_queue()
    queue.enqueue("doc:1", "text").result(PATIENCE_SECONDS)
    queue.enqueue("doc:2", "patient", within=86_400)
    assert queue.enqueue("doc:1", "text", within=0, if_changed=True).done()
    assert inside(queue).due_in > 80_000


@pytest.mark.parametrize("within", ["1", True, [1], b"1"])
def test_no_number(make_queue, within):
    queue = make_queue(start=False)
    for enqueue in (lambda: queue.enqueue("doc:1", "x", within=within), lambda: queue.enqueue_many([], within=within)):
        with pytest.raises(TypeError, match="within"):
            enqueue()
    assert queue.pending_count() == 0


@pytest.mark.parametrize("within", [-1, math.nan, math.inf, 1e12])
def test_no_time(make_queue, within):
    queue = make_queue(start=False)
    with pytest.raises(ValueError, match="within"):
        queue.enqueue("doc:1", "x", within=within)
    assert queue.pending_count() == 0


def test_eager():
    assert eager_queue().enqueue("doc:1", "text", within=86_400).done()
