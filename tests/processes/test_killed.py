"""Workers that die, at every step: nothing is lost, and the guilty alone is blamed."""

from __future__ import annotations

import signal

import pytest

from tests.parts import DIMENSIONS, PATIENCE_SECONDS, eventually, expected, in_flight, renewed, stand_still, stored
from tests.provider import fail

#: Seconds. A killed worker's items wait for it; a live one renews it thrice in this time.
LEASE = 0.9
COUNT = 20

ENQUEUE = f"queue.enqueue_many([(f'doc:{{i}}', f'text {{i}}') for i in range({COUNT})])"

#: Where a worker is killed: code that it runs beforehand.
STEPS = {
    "after the claim": "setattr(*inside(queue).place('begin'), lambda claim: die())",
    "after the answer": "inside(queue).store.complete = lambda *args: die()",
    "after the write": "write = inside(queue).store.complete\n"
    "inside(queue).store.complete = lambda *args: (write(*args), die())",
    "while it renews": "inside(queue).store.extend = lambda *args: die()",
}


def _vectors(client, keys=None):
    return {key: client.hget(key, "embedding") for key in keys or [f"doc:{i}" for i in range(COUNT)]}


RIGHT = {f"doc:{i}": stored(f"text {i}") for i in range(COUNT)}


@pytest.mark.parametrize("step", STEPS)
def test_killed(make_peer, provider, redis_client, step):
    """A worker is killed: another one takes over when the lease ends, and whoever waits elsewhere gets the vectors."""
    producer, victim = make_peer(worker=False), make_peer(lease_seconds=LEASE)
    in_a_call = step == "while it renews"
    if in_a_call:
        provider.hold()
    else:
        victim.run(STEPS[step])
    producer.run(f"futures = {ENQUEUE}")
    answer = producer.ask("[future.result(45) for future in futures]")
    if in_a_call:
        assert provider.wait_for_calls(1, PATIENCE_SECONDS)
        victim.ask(STEPS[step])  # it may die before it can answer
    assert victim.wait() == -signal.SIGKILL
    written = step == "after the write"
    assert in_flight(redis_client) == (0 if written else COUNT)
    provider.release()
    make_peer(lease_seconds=LEASE)
    assert answer.get() == [expected(f"text {i}") for i in range(COUNT)]
    assert _vectors(redis_client) == RIGHT
    assert in_flight(redis_client) == redis_client.zcard("embed_queue:pending") == 0
    assert redis_client.hlen("embed_queue:claims") == redis_client.hlen("embed_queue:latest") == 0
    assert set(provider.sent.values()) == {2 if in_a_call or step == "after the answer" else 1}


def test_killed_during_the_call(make_peer, provider, redis_client):
    """A worker is killed while the provider works: its delivery is charged, and the item is embedded by another."""
    provider.hold()
    victim = make_peer(lease_seconds=LEASE)
    victim.run(f"{ENQUEUE}; queue.flush_now()")
    assert provider.wait_for_calls(1, PATIENCE_SECONDS)
    other = make_peer(lease_seconds=10 * LEASE)
    victim.kill()
    assert provider.wait_for_calls(2, PATIENCE_SECONDS)
    deliveries = {claim.split()[1] for claim in redis_client.hvals("embed_queue:claims")}
    assert deliveries == {b"1"}
    provider.release()
    other.run("queue.flush(45)")
    assert _vectors(redis_client) == RIGHT
    assert set(provider.sent.values()) == {2}


def test_killed_after_enqueue(make_peer, redis_client):
    """A process dies right after ``enqueue`` has returned: the item is there, and the next worker embeds it."""
    victim = make_peer(worker=False)
    victim.ask("queue.enqueue('doc:1', 'hello'); die()")
    victim.wait()
    make_peer().run("queue.flush(45)")
    assert redis_client.hget("doc:1", "embedding") == stored("hello")


def test_killed_while_it_probes(make_peer, provider, redis_client):
    """The one worker that tests a failing provider is killed: another one tests it when the lease ends."""
    provider.script(fail(401))
    victim = make_peer(lease_seconds=LEASE)
    victim.run("queue.enqueue('doc:1', 'hello').exception(45)")
    provider.hold()
    assert provider.wait_for_calls(2, PATIENCE_SECONDS)  # the probe
    victim.kill()
    provider.release()
    other = make_peer(lease_seconds=LEASE)
    assert other.get("queue.enqueue('doc:1', 'hello').result(45)") == expected("hello")
    assert not redis_client.exists("embed_queue:pause", "embed_queue:pause:level")


def test_killed_while_it_gives_back(make_peer, provider, redis_client):
    """A worker dies between the pause that it called for and giving its items back: nothing is lost."""
    provider.script(fail(401))
    victim = make_peer(lease_seconds=LEASE)
    victim.run("inside(queue).store.release = lambda *args: die()")
    victim.ask("queue.enqueue('doc:1', 'hello'); queue.flush_now()")  # it may die before it can answer
    victim.wait()
    make_peer(lease_seconds=LEASE).run("queue.flush(45)")
    assert redis_client.hget("doc:1", "embedding") == stored("hello")


def test_text_that_kills(make_peer, provider, redis_client):
    """A text that kills its worker each time ends as a dead letter; its 49 neighbours are all embedded."""
    keys = [f"doc:{i}" for i in range(49)]
    make_peer(worker=False).run(
        "queue.enqueue_many([(f'doc:{i}', f'text {i}') for i in range(25)] + [('doc:bad', 'poison')]"
        " + [(f'doc:{i}', f'text {i}') for i in range(25, 49)])"
    )
    deaths = 0
    while True:
        worker = make_peer(lease_seconds=0.4, max_deliveries=3, start=False)
        answer = worker.ask("""
real = embedder.embed_batch
embedder.embed_batch = lambda texts, model: die() if 'poison' in texts else real(texts, model)
queue.start()
queue.flush(100)
""")
        ended = lambda: worker.process.poll() is not None or not answer._lines.empty()  # noqa: E731, B023
        eventually(ended, "it dies, or all is done", seconds=100)
        if worker.process.poll() is None:
            answer.get()
            break
        deaths += 1
        assert deaths <= 3
    assert deaths == 3
    assert _vectors(redis_client, keys) == {key: stored(f"text {key[4:]}") for key in keys}
    letters = worker.get("[(d.redis_key, d.text, d.deliveries) for d in queue.dead_letters()]")
    assert letters == [["doc:bad", "poison", 3]]
    assert set(provider.sent.values()) == {1}
    assert not redis_client.exists("doc:bad")


def test_stopped_longer_than_the_lease(make_peer, provider, redis_client):
    """A worker sleeps through its lease (SIGSTOP), a newer text is embedded, it wakes: no stale vector is written."""
    provider.hold()
    sleeper = make_peer(lease_seconds=LEASE)
    sleeper.run("older = queue.enqueue('doc:1', 'old'); same = queue.enqueue('doc:2', 'same'); queue.flush_now()")
    assert provider.wait_for_calls(1, PATIENCE_SECONDS)
    stand_still(sleeper.process.pid)
    other = make_peer(lease_seconds=10 * LEASE)
    newer = other.ask("queue.enqueue('doc:1', 'new').result(45)")
    assert provider.wait_for_calls(2, PATIENCE_SECONDS)
    provider.release()
    assert newer.get() == expected("new")
    other.run("queue.flush(45)")  # doc:2 as well, whose lease has ended
    redis_client.hset("doc:2", "embedding", "seen")
    sleeper.signal(signal.SIGCONT)
    assert sleeper.get("older.result(45)") == expected("new")
    assert sleeper.get("inside(queue).wait_for_calls(45)")
    assert redis_client.hget("doc:1", "embedding") == stored("new")
    assert redis_client.hget("doc:2", "embedding") == b"seen"  # nothing was written by the one who slept
    assert provider.sent["same"] == 2


def test_stopped_and_back_to_the_old_text(make_peer, provider, redis_client):
    """The text goes from A to B and back to A while a worker sleeps on the first A: the hash ends with A."""
    provider.hold()
    sleeper = make_peer(lease_seconds=LEASE)
    sleeper.run("future = queue.enqueue('doc:1', 'A'); queue.flush_now()")
    assert provider.wait_for_calls(1, PATIENCE_SECONDS)
    stand_still(sleeper.process.pid)
    provider.release()
    other = make_peer(lease_seconds=LEASE)
    assert other.get("queue.enqueue('doc:1', 'B').result(45)") == expected("B")
    provider.hold()
    last = other.ask("queue.enqueue('doc:1', 'A').result(45)")
    eventually(lambda: in_flight(redis_client) == 1)
    sleeper.signal(signal.SIGCONT)
    provider.release()
    assert last.get() == sleeper.get("future.result(45)") == expected("A")
    assert redis_client.hget("doc:1", "embedding") == stored("A")
    assert len(stored("A")) == 4 * DIMENSIONS


def test_two_workers_for_long_calls(make_peer, provider, redis_client):
    """A call that takes longer than the lease is not taken over while its worker lives: leases are renewed."""
    provider.hold()
    first, second = make_peer(lease_seconds=18.0), make_peer(lease_seconds=18.0)  # a busy machine renews late as well
    first.run("future = queue.enqueue('doc:1', 'hello')")
    answer = first.ask("future.result(45)")
    assert provider.wait_for_calls(1, PATIENCE_SECONDS)
    renewed(redis_client)
    assert len(provider.calls) == 1
    provider.release()
    assert answer.get() == expected("hello")
    assert second.get("queue.stats().calls") + first.get("queue.stats().calls") == 1
