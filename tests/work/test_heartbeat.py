"""Workers tell that they work, and stop telling: somebody notices where nobody does."""

from __future__ import annotations

import logging
import os
import socket

import pytest
import redis

import embedqueue
from embedqueue.store.keys import Keys
from embedqueue.work.heartbeat import HEARD_SECONDS, Heartbeat
from embedqueue.work.plan import BEAT_SECONDS, LATE_BEAT_SECONDS, NEVER, Plan
from tests.inside import inside
from tests.parts import PATIENCE_SECONDS, eventually, expected

NOW = 1000.0


def plan(quiet_seconds: float = 0.0, **state) -> Plan:
    """Of a worker that has just been started, and has just looked at Redis, where nothing waits."""
    made = Plan(flush_interval=3600.0, max_batch_size=50, refresh_seconds=1e6)
    made.begin(NOW, quiet_seconds)
    made.refresh_mono = NOW + 1e6
    for name, value in state.items():
        setattr(made, name, value)
    return made


def test_a_heartbeat_waits_for_all_else_but_not_for_long():
    """First when nothing else is due; a late one before claims."""
    assert plan().next(NOW, 0, 4) == ("beat", 0.0)
    busy = plan(flush=True)
    assert busy.next(NOW, 0, 4)[0] == "claim"
    assert busy.next(NOW + LATE_BEAT_SECONDS, 0, 4)[0] == "beat"
    busy.beaten(NOW + 6)
    assert busy.next(NOW + 6, 0, 4)[0] == "claim"
    calm = plan()
    calm.beaten(NOW)
    assert calm.next(NOW, 0, 4) == (None, BEAT_SECONDS)
    assert calm.next(NOW + BEAT_SECONDS, 0, 4)[0] == "beat"


@pytest.mark.parametrize(("quiet_seconds", "wait"), [(2.0, 2.0), (NEVER, None)])
def test_a_process_that_may_end_at_any_moment_is_not_counted_on(quiet_seconds, wait):
    """It announces itself once it stays; one that works for itself alone never does."""
    action, seconds = plan(quiet_seconds).next(NOW, 0, 4)
    assert action is None
    assert seconds == wait or (wait is None and seconds > 1e5)


def test_nobody_beats_who_does_not_work():
    assert Plan(flush_interval=1.0, max_batch_size=50, refresh_seconds=30.0).next(NOW, 0, 4) == (None, NEVER)


def test_a_worker_announces_itself_and_takes_that_back(make_queue, redis_client, embedder):
    """Two queues on one namespace in one process are two workers; whoever only enqueues is none."""
    onlooker = make_queue(worker=False)
    assert (onlooker.stats().workers, onlooker.workers()) == (0, [])
    first, second = make_queue(), make_queue()
    eventually(lambda: onlooker.stats().workers == 2, "both are announced")
    for worker in onlooker.workers():
        assert (worker.host, worker.pid, worker.version) == (socket.gethostname(), os.getpid(), embedqueue.__version__)
        assert (worker.model, worker.space) == (first.options.model, "gemini-embedding-001/8/-")
        assert worker.doing == "idle"
    assert 0 < redis_client.pttl(Keys("embed_queue").workers) <= HEARD_SECONDS * 1000
    second.stop()
    assert onlooker.stats().workers == 1
    first.stop()
    assert onlooker.stats().workers == 0
    assert not redis_client.exists(Keys("embed_queue").workers)
    first.start()
    eventually(lambda: onlooker.stats().workers == 1, "it works again")


def test_a_redis_that_refuses_the_announcement(redis_client, make_queue, caplog):
    """With an ACL of before, items are embedded as ever; the log says it once, and nobody is told that nobody works."""
    keys = [*Keys("embed_queue").all, "embed_queue:history:*", "doc:*"]
    redis_client.acl_setuser("before", enabled=True, nopass=True, keys=keys, commands=["+@all"])
    path = redis_client.connection_pool.connection_kwargs["path"]
    client = redis.Redis(unix_socket_path=path, username="before", password="any")
    try:
        with caplog.at_level(logging.WARNING):
            queue = make_queue(client)
            eventually(lambda: "cannot announce itself" in caplog.text, "the log")
            assert queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS) == expected("one")
            assert queue.stats().workers is None
            queue.flush(PATIENCE_SECONDS)
            queue.stop()
    finally:
        redis_client.acl_deluser("before")
    assert len(caplog.records) == 1


class Refusing:
    """Where workers are announced, in a Redis that refuses or does not answer."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.tried: list[bool] = []

    def announce(self, name, seconds, age_seconds, facts, *, tidy):
        self.tried.append(tidy)
        raise self.error

    def leave(self, name):
        raise self.error


def test_a_redis_that_has_no_room_or_does_not_answer(make_queue, caplog):
    """A refusal is logged once, and tried again; an outage is the worker's to deal with. To leave raises nothing."""
    queue = make_queue(start=False)
    log = logging.getLogger("embedqueue")
    refused = Refusing(redis.exceptions.OutOfMemoryError("used memory > maxmemory"))
    heart = Heartbeat(refused, queue.options, inside(queue).terms, name="w:", log=log)
    heart.leave()  # never announced: nothing to take back
    heart = Heartbeat(refused, queue.options, inside(queue).terms, name="w:", log=log)
    with caplog.at_level(logging.DEBUG):
        heart.beat("idle")
        heart.beat("idle")
        heart.leave()
        heart.beat("idle")  # a thread that is late
    assert refused.tried == [True, False]
    assert [record.levelname for record in caplog.records] == ["WARNING", "DEBUG"]
    gone = Heartbeat(Refusing(redis.ConnectionError()), queue.options, inside(queue).terms, name="w:", log=log)
    with pytest.raises(redis.ConnectionError):
        gone.beat("idle")


def test_what_a_worker_does(make_queue, embedder, redis_client):
    """Calls under way, or why there are none."""
    queue = make_queue()
    eventually(lambda: inside(queue).does() == "idle", "it has looked at Redis")
    embedder.hold()
    queue.enqueue("doc:1", "one")
    queue.flush_now()
    embedder.wait_for_calls(1)
    assert inside(queue).does() == "calling 1"
    embedder.release()
    queue.flush(PATIENCE_SECONDS)
    eventually(lambda: inside(queue).does() == "idle", "the call is back")
    inside(queue).store.hold(60, "by hand")
    inside(queue).refresh()
    eventually(lambda: inside(queue).does() == "paused", "it has heard of the pause")
    inside(queue).store.unhold()
    other = make_queue(model="another")
    other.enqueue("doc:2", "two")
    other.flush_now()
    eventually(lambda: inside(other).does() == "barred", "it may not claim")
