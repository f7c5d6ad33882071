"""A worker under limits: it sleeps until more may go, and gives back what it does not send."""

from __future__ import annotations

import pytest
import redis

from embedqueue import BatchFailed, Limits, TransientError
from embedqueue.values.item import Item
from tests.inside import FIRST_PAUSE_SECONDS, inside
from tests.parts import ONE_TRY, PATIENCE_SECONDS, eventually, expected, stored

MANY = 10**6


def left(queue, name="requests_per_day") -> int:
    return next(limit.left for limit in queue.stats().limits if limit.name == name)


def test_it_sleeps_until_more_may_go(make_queue, redis_client, embedder, monkeypatch):
    """A claim for each call, and hardly one more, while a backlog waits; and all of it is embedded in the end."""
    queue = make_queue(start=False, api_batch_limit=2, limits=Limits(requests_per_minute=300))
    claim, claims = inside(queue).store.claim, []
    monkeypatch.setattr(
        *inside(queue).place("claim"), lambda *args, **how: claims.append(claim(*args, **how)) or claims[-1]
    )
    queue.enqueue_many([(f"doc:{i}", f"text {i}") for i in range(16)])
    queue.start()
    embedder.wait_for_calls(8)
    eventually(lambda: redis_client.hget("doc:15", "embedding") == stored("text 15"))
    assert [len(texts) for texts in embedder.calls] == [2] * 8
    assert len(claims) <= 2 * 8 + 2
    assert sum(claim.limited_seconds is not None for claim in claims) >= 1


def test_who_waits_overtakes_the_backlog_of_its_own_process(make_queue, embedder):
    queue = make_queue(api_batch_limit=1, limits=Limits(requests_per_minute=120))
    queue.enqueue_many([(f"doc:{i}", f"text {i}") for i in range(100)])
    embedder.wait_for_calls(1)
    assert queue.enqueue("now", "urgent").result(PATIENCE_SECONDS) == expected("urgent")
    assert len(embedder.calls) < 10


def test_what_is_put_off_by_a_limit_is_asked_for_again_when_somebody_waits(make_queue, embedder):
    """A backlog waits for a whole call's worth, a minute long; one text has room at once."""
    queue = make_queue(api_batch_limit=50, limits=Limits(texts_per_minute=60))
    queue.enqueue_many([(f"doc:{i}", f"text {i}") for i in range(60)])
    eventually(lambda: left(queue, "texts_per_minute") == 60 and inside(queue).knows_of == 60)
    assert queue.enqueue("now", "urgent").result(PATIENCE_SECONDS) == expected("urgent")
    assert [len(texts) for texts in embedder.calls] == [1]


def one_under_way_and_one_behind(make_queue, embedder):
    queue = make_queue(
        start=False, api_batch_limit=1, max_concurrency=1, retry=ONE_TRY, limits=Limits(requests_per_day=100)
    )
    embedder.hold()
    queue.enqueue_many([("doc:1", "one"), ("doc:2", "two")])
    queue.start()
    embedder.wait_for_calls(1)
    inside(queue).claim_behind()
    assert left(queue) == 98
    return queue


def test_a_stop_gives_back_what_was_not_sent(make_queue, embedder):
    queue = one_under_way_and_one_behind(make_queue, embedder)
    other = make_queue(start=False, limits=Limits(requests_per_day=100))
    queue.stop(timeout=0)
    assert left(other) == 99
    assert other.pending_count() == 2


def test_a_pause_gives_back_what_was_not_sent(make_queue, embedder, monkeypatch):
    """The call that failed was sent; the one behind it is released as it stands."""
    monkeypatch.setattr(*FIRST_PAUSE_SECONDS, 60.0)  # so that it stands while it is looked at
    embedder.fail_with(TransientError("down", status=503))
    queue = one_under_way_and_one_behind(make_queue, embedder)
    embedder.release()
    eventually(lambda: left(queue) == 99)
    assert len(embedder.calls) == 1


def test_equal_texts_are_paid_for_once(make_queue, embedder):
    """Nobody knows that at the claim; what was taken for the second one is given back."""
    queue = make_queue(start=False, limits=Limits(requests_per_day=100, texts_per_minute=MANY))
    queue.enqueue_many([("doc:1", "same"), ("doc:2", "same"), ("doc:3", "other")])
    queue.start()
    queue.flush(PATIENCE_SECONDS)
    assert [sorted(texts) for texts in embedder.calls] == [["other", "same"]]
    eventually(lambda: left(queue, "texts_per_minute") == MANY - 2)
    assert left(queue) == 99


def test_what_joins_a_call_under_way_gives_all_of_it_back(make_queue, embedder):
    queue = make_queue(flush_interval=0.01, limits=Limits(requests_per_day=100))
    embedder.hold()
    queue.enqueue("doc:1", "same")
    embedder.wait_for_calls(1)
    queue.enqueue("doc:2", "same")
    eventually(lambda: inside(queue).held == 2 and left(queue) == 99)
    embedder.release()
    queue.flush(PATIENCE_SECONDS)
    assert len(embedder.calls) == 1


def test_a_claim_that_could_not_be_begun_gives_back_all_of_it(make_queue, embedder, monkeypatch):
    queue = make_queue(start=False, limits=Limits(requests_per_day=100))
    queue.enqueue("doc:1", "one")
    place, name = inside(queue).place("submit")
    submit, fails = getattr(place, name), [True]

    def refuse_once(call):
        if fails.pop() if fails else False:
            raise RuntimeError("no more threads")
        submit(call)

    monkeypatch.setattr(place, name, refuse_once)
    queue.start()
    queue.flush(PATIENCE_SECONDS)
    eventually(lambda: left(queue) == 99)


def test_a_call_of_such_a_claim_gives_back_nothing_more(make_queue, embedder, monkeypatch):
    """It had been handed over before the claim failed, and comes to its turn after all was given back."""
    queue = make_queue(start=False, api_batch_limit=1, limits=Limits(requests_per_day=100))
    queue.enqueue_many([("doc:1", "one"), ("doc:2", "two")])
    place, name = inside(queue).place("submit")
    submit, handed = getattr(place, name), []

    def refuse_the_second(call):
        handed.append(call)
        if len(handed) == 2:
            raise RuntimeError("no more threads")
        if len(handed) > 2:
            submit(call)

    monkeypatch.setattr(place, name, refuse_the_second)
    queue.start()
    queue.flush(PATIENCE_SECONDS)
    submit(handed[0])
    assert inside(queue).wait_for_calls(PATIENCE_SECONDS)
    assert (left(queue), len(embedder.calls)) == (98, 2)


def test_nothing_is_claimed_ahead_of_the_calls_that_may_start(make_queue):
    """What was counted would be sent later than it was counted."""
    for limits, room in ((None, 1), (Limits(requests_per_day=100), 0)):
        queue = make_queue(start=False, max_concurrency=2, limits=limits)
        inside(queue).pretend(waiting=MANY, calls=2)
        assert inside(queue).room() == room
        inside(queue).pretend(calls=0)


def test_canaries_and_probes_count(make_queue, embedder, monkeypatch, redis_client):
    """A refused text, and the canary that shows who is at fault."""
    monkeypatch.setattr(*FIRST_PAUSE_SECONDS, 60.0)  # so that it stands while it is looked at
    queue = make_queue(limits=Limits(requests_per_day=100), retry=ONE_TRY)
    embedder.fail_with(TransientError("cut", status=503, suspect_input=True), times=2)
    with pytest.raises(BatchFailed):
        queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS)
    assert left(queue) == 98
    again = queue.enqueue("doc:1", "one")  # before anybody may send what waits: it is the same item
    redis_client.delete("embed_queue:pause")
    inside(queue).refresh()
    assert again.result(PATIENCE_SECONDS) == expected("one")
    assert left(queue) == 97


def test_without_room_in_the_day_who_waits_waits(make_queue, embedder):
    """And nothing is lost: the item goes when it may."""
    queue = make_queue(limits=Limits(requests_per_day=1))
    assert queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS) == expected("one")
    with pytest.raises(TimeoutError):
        queue.enqueue("doc:2", "two").result(0.3)
    assert queue.stats().waiting == 1
    assert queue.stats().limits[0].seconds > 80_000


def test_what_a_release_gives_back_is_given_back_once(make_queue, redis_client, monkeypatch):
    """Though Redis takes no move as large, so that it takes several."""
    queue = make_queue(start=False, limits=Limits(requests_per_minute=60))
    paid, given, store = object(), [], inside(queue).store

    def release(some, paid):
        if len(some) > 1:
            raise redis.TimeoutError
        given.append(paid)
        return 1

    monkeypatch.setattr(store, "release", release)
    items = [Item(f"doc:{place}", "text", b"member", owner="w:1/60:") for place in range(4)]
    queue._engine.settle.release(items, paid)
    assert given == [paid, None, None, None]
