"""min_replicas: an enqueue that has returned is in the replicas, whatever happens to the master."""

from __future__ import annotations

import logging
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from embedqueue import EmbeddingBatchQueue, EmbedQueueError, NotReplicated, QueueFull
from embedqueue.demo.localredis import NoRedis
from embedqueue.testing import FakeEmbedder
from embedqueue.values.item import encode_member
from tests.inside import inside
from tests.localcluster import free_ports
from tests.parts import PATIENCE_SECONDS, eventually, in_thread, join, stand_still
from tests.proof.torture.network import Proxy
from tests.proof.torture.topology import FAILOVER_SECONDS, Node, Replicated

PENDING = "embed_queue:pending"
#: Seconds of patience where no replica will answer: long enough to be told from an answer at once.
SHORT_SECONDS = 3.0
Pair = tuple[Node, Node]


def in_step(master: Node) -> bool:
    """Whether a replica has all data of this master, and follows."""
    info = master.client().info("replication")
    return any(isinstance(info.get(name), dict) and info[name]["state"] == "online" for name in ("slave0", "slave1"))


@contextmanager
def started() -> Iterator[Pair]:
    ports = list(free_ports(2))
    try:
        first = Node(appendonly=False, port=ports[0], args=("--repl-diskless-sync-delay", "0"))
    except NoRedis as missing:
        if os.environ.get("CI"):
            pytest.fail(f"CI must have a Redis: {missing}")
        pytest.skip(str(missing))
    second = Node(appendonly=False, port=ports[1]).follow(first.port)
    try:
        first.start()
        second.start()
        eventually(lambda: in_step(first), "the replica is in step")
        yield first, second
    finally:
        first.close()
        second.close()


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """A master and its replica, for all tests here that leave them as they are."""
    with started() as made:
        yield made


@pytest.fixture
def master(pair: Pair) -> redis.Redis:
    """A client of the master, which is empty, and whose replica is in step."""
    client = pair[0].client()
    client.flushall()
    client.config_resetstat()
    return client


@pytest.fixture
def replica(pair: Pair, master: redis.Redis) -> redis.Redis:
    return pair[1].client()


@pytest.fixture
def make(make_queue: Callable[..., EmbeddingBatchQueue], master: redis.Redis) -> Callable[..., EmbeddingBatchQueue]:
    """Makes queues that want one replica, and are not started."""

    def made(client: redis.Redis = master, **options: object) -> EmbeddingBatchQueue:
        return make_queue(
            client, **{"start": False, "min_replicas": 1, "replica_patience": PATIENCE_SECONDS, **options}
        )

    return made


@contextmanager
def frozen(node: Node) -> Iterator[Callable[[], None]]:
    """A server that does nothing, until the end or until what is given is called."""
    assert node.pid is not None
    pid = node.pid
    stand_still(pid)
    try:
        yield lambda: os.kill(pid, signal.SIGCONT)
    finally:
        os.kill(pid, signal.SIGCONT)


def waits(client: redis.Redis) -> int:
    """How many WAITs a server has been sent."""
    return client.info("commandstats").get("cmdstat_wait", {"calls": 0})["calls"]


def enqueues(client: redis.Redis) -> int:
    """How many scripts a server has run to their end."""
    stats = client.info("commandstats")
    found = [stats[name] for name in ("cmdstat_evalsha", "cmdstat_eval") if name in stats]
    return sum(one["calls"] - one["failed_calls"] for one in found)


# -- what is promised -----------------------------------------------------------------------------------------------


def test_what_was_enqueued_is_in_the_replica(make, replica):
    """enqueue, enqueue_many, a blank text, forget: the replica knows when they return."""
    queue = make()
    queue.enqueue("doc:1", "one")
    assert replica.zrange(PENDING, 0, -1) == [encode_member("doc:1", "one")]
    queue.enqueue_many([("doc:2", "two"), ("doc:3", "three")])
    assert replica.zcard(PENDING) == 3
    queue.enqueue("doc:2", " ")
    assert replica.zcard(PENDING) == 2
    queue.forget("doc:3")
    assert replica.zcard(PENDING) == 1
    assert queue.stats().not_replicated == 0


def test_not_replicated(make, pair, master, caplog):
    """Without the replica: an error in time, the item queued, one warning; with it again, the same text returns."""
    queue = make(replica_patience=SHORT_SECONDS)
    queue.enqueue("doc:1", "makes the connection")
    caplog.set_level(logging.INFO)
    with frozen(pair[1]):
        began = time.monotonic()
        with pytest.raises(NotReplicated) as error:
            queue.enqueue("doc:2", "two")
        assert SHORT_SECONDS <= time.monotonic() - began < PATIENCE_SECONDS
        assert (error.value.min_replicas, error.value.replicas) == (1, 0)
        assert master.zscore(PENDING, encode_member("doc:2", "two"))
        with pytest.raises(NotReplicated):
            queue.enqueue_many([("doc:3", "three"), ("doc:2", "two")])
        with pytest.raises(NotReplicated):
            queue.forget("doc:3")
    assert master.zcard(PENDING) == 2
    future = queue.enqueue("doc:2", "two")
    assert not future.done()
    assert pair[1].client().zscore(PENDING, encode_member("doc:2", "two"))
    stats = queue.stats()
    assert (stats.waiting, stats.enqueued, stats.not_replicated) == (2, 5, 3)
    told = [(record.levelname, record.message) for record in caplog.records if "replicas" in record.message]
    assert [level for level, _ in told] == ["WARNING", "INFO"]
    assert "min_replicas is 1" in told[0][1]


def test_a_master_without_replicas(redis_client, make):
    """Each call takes its patience and raises; the item is queued."""
    queue = make(redis_client, replica_patience=SHORT_SECONDS)
    for _ in range(2):
        with pytest.raises(NotReplicated):
            queue.enqueue("doc:1", "one")
    assert redis_client.zcard(PENDING) == 1


class Lagging(socket.socket):
    """What comes over it comes late, and what was not out yet when it is cut does not come at all."""

    cut: threading.Event

    def recv(self, *args: int) -> bytes:
        message = super().recv(*args)
        return b"" if self.cut.wait(0.002) else message


class Link(Proxy):
    """The way from a master to its replica."""

    def __init__(self) -> None:
        self.cut, self.port_of_master = threading.Event(), 0
        super().__init__(self._open, random.Random(1))

    def _open(self) -> socket.socket:
        end = Lagging(socket.AF_INET)
        end.cut = self.cut
        try:
            end.connect(("127.0.0.1", self.port_of_master))
        except OSError:  # killed already
            end.close()
            raise
        return end

    def lay(self, port: int) -> None:
        """From now on, to the server on that port."""
        self.cut, self.port_of_master = threading.Event(), port


def test_a_master_that_is_killed_loses_nothing_that_was_enqueued():
    """Killed as soon as enqueue has returned, fifty times, and each time the replica is the master from then on."""
    link = Link()
    with started() as (master, other):
        for number in range(50):
            link.lay(master.port)
            other.client().replicaof("127.0.0.1", link.port)
            eventually(lambda: in_step(master), "the other one follows")  # noqa: B023
            queue = EmbeddingBatchQueue(FakeEmbedder(), master.client(), min_replicas=1, replica_patience=20)
            queue.enqueue(f"doc:{number}", "text")
            link.cut.set()
            master.kill()
            other.client().replicaof("NO", "ONE")
            assert other.client().zscore(PENDING, encode_member(f"doc:{number}", "text"))
            queue.stop(0)
            master, other = other, master.follow(other.port).start()
        assert master.client().zcard(PENDING) == 50
    link.close()


def test_behind_a_sentinel(make_queue):
    """The master dies unasked; what was enqueued is there, and once it is back as a replica, enqueue returns again."""
    with Replicated() as rig:
        port = int(rig.url.rpartition(":")[2].partition("/")[0])
        client = Sentinel([("127.0.0.1", port)], socket_timeout=2).master_for("rig", socket_timeout=2)
        queue = make_queue(client, start=False, min_replicas=1, replica_patience=SHORT_SECONDS)
        old = rig.master()
        assert old is not None
        eventually(lambda: in_step(old), "the replica follows")
        queue.enqueue("doc:1", "one")
        old.kill()

        def taken_alone() -> bool:
            try:
                queue.enqueue("doc:2", "two")
            except NotReplicated:
                return True
            except (redis.ConnectionError, redis.TimeoutError, redis.exceptions.ReadOnlyError):
                return False
            raise AssertionError("there is no replica")

        eventually(taken_alone, "the Sentinel has promoted the replica", FAILOVER_SECONDS)
        assert client.zrange(PENDING, 0, -1) == [encode_member("doc:1", "one"), encode_member("doc:2", "two")]
        new = rig.master()
        assert new is not None
        old.follow(new.port).start()
        eventually(lambda: in_step(new), "the old master follows the new one")
        queue.enqueue("doc:2", "two")
        assert old.client().zcard(PENDING) == 2


# -- round trips ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("min_replicas", [0, None])
def test_nothing_is_asked_where_no_replicas_are_wanted(make, pair, master, min_replicas):
    """And nothing is waited for."""
    queue = make(min_replicas=min_replicas)
    with frozen(pair[1]):
        queue.enqueue("doc:1", "one")
        queue.enqueue_many([("doc:2", "two")])
    assert waits(master) == 0
    assert enqueues(master) == 2


def test_one_round_trip(make, master):
    """The WAIT goes with the script: what comes back of an enqueue comes back once."""
    queue = make()
    queue.enqueue("doc:0", "makes the connection, and tells the time")
    before = waits(master), enqueues(master)
    reads = master.info("stats")["total_reads_processed"]
    for number in range(1, 101):
        queue.enqueue(f"doc:{number}", "text")
    assert (waits(master), enqueues(master)) == (before[0] + 100, before[1] + 100)
    # The replica's own messages are among them, about one for each WAIT.
    assert master.info("stats")["total_reads_processed"] - reads < 250


def test_a_group_waits_once(make, pair, master):
    """Whoever came while a leader was waiting shares the next WAIT."""
    queue = make()
    queue.enqueue("doc:0", "makes the connection")
    begun = waits(master)
    with ThreadPoolExecutor(9) as pool, frozen(pair[1]) as go_on:
        leader = pool.submit(queue.enqueue, "doc:1", "leads")
        eventually(lambda: master.info("clients")["blocked_clients"] == 1, "it waits for the replica")
        followers = [pool.submit(queue.enqueue, f"doc:{number}", "follows") for number in range(2, 10)]
        eventually(lambda: inside(queue).in_line == 8, "they stand in line")
        go_on()
        for one in (leader, *followers):
            assert not one.result(PATIENCE_SECONDS).done()
    assert waits(master) == begun + 2
    assert pair[1].client().zcard(PENDING) == 10


# -- every script writes --------------------------------------------------------------------------------------------


def nothing_new(queue: EmbeddingBatchQueue, full: EmbeddingBatchQueue) -> dict[str, Callable[[], object]]:
    """Enqueues that take in nothing new."""
    return {
        "the same text": lambda: queue.enqueue("doc:1", "one"),
        "a blank text of no item": lambda: queue.enqueue("doc:2", ""),
        "a vector that is there": lambda: queue.enqueue("doc:3", "three", if_changed=True),
        "many vectors that are there": lambda: queue.enqueue_many([("doc:3", "three")] * 60, if_changed=True),
        "forget what is not there": lambda: queue.forget("doc:4"),
    }


def test_who_takes_in_nothing_waits_all_the_same(make, pair, master):
    """What was written before by another connection counts: it is of that that the answer tells."""
    queue = make()
    with make(start=True, min_replicas=0) as writer:
        writer.enqueue("doc:3", "three").result(PATIENCE_SECONDS)
    make(min_replicas=0).enqueue("doc:1", "one")
    for name, enqueue in nothing_new(queue, queue).items():
        with frozen(pair[1]) as go_on:
            master.set("other", name)  # by somebody else: the replica lacks it
            thread = in_thread(enqueue)
            thread.join(0.1)
            assert thread.is_alive(), f"{name}: returned without the replica"
            go_on()
            join(thread)


def test_a_vector_that_is_there_may_not_be_in_the_replica(make, pair, master):
    """if_changed leaves the pair out, and raises; whoever has the same future gets the vector all the same."""
    with make(start=True, min_replicas=0) as writer:
        vector = writer.enqueue("doc:1", "one").result(PATIENCE_SECONDS)
    queue = make(replica_patience=SHORT_SECONDS)
    with frozen(pair[1]), pytest.raises(NotReplicated):
        queue.enqueue("doc:1", "one", if_changed=True)
    assert master.zcard(PENDING) == 0
    assert queue.enqueue("doc:1", "one", if_changed=True).result(0) == vector


def test_a_second_try_is_not_called_replicated_when_the_first_is_not(make, pair, master, slow_link):
    """The answer is lost, and the books tell on another connection that it was done; but the replica lacks it."""
    queue = make(
        redis.Redis(port=slow_link.port, retry=Retry(NoBackoff(), 1), socket_timeout=PATIENCE_SECONDS),
        replica_patience=SHORT_SECONDS,
    )
    queue.enqueue("doc:1", "makes the connection")
    done = enqueues(master)
    with frozen(pair[1]):
        slow_link.spoil("cut", upwards=False)
        with pytest.raises(NotReplicated):
            queue.enqueue("doc:2", "two")
    assert enqueues(master) == done + 2
    assert master.zcard(PENDING) == 2
    queue.enqueue("doc:3", "tells the time, which the second try need not know")
    slow_link.spoil("cut", upwards=False)
    queue.enqueue("doc:4", "four")
    assert enqueues(master) == done + 5
    assert pair[1].client().zcard(PENDING) == 4


@pytest.fixture
def slow_link(pair: Pair) -> Iterator[Proxy]:
    """A way to the master that can lose a message."""

    def connect() -> socket.socket:
        return socket.create_connection(("127.0.0.1", pair[0].port))

    proxy = Proxy(connect, random.Random(1))
    yield proxy
    proxy.close()


# -- what else may happen -------------------------------------------------------------------------------------------


def test_patience_is_not_cut_short_by_the_clients_own_time_limit(make, pair):
    """The replica is back after longer than the client waits for anything else."""
    queue = make(pair[0].client(socket_timeout=2.0, retry=Retry(NoBackoff(), 0)))
    queue.enqueue("doc:1", "makes the connection")
    with frozen(pair[1]) as go_on:
        thread = in_thread(lambda: queue.enqueue("doc:2", "two"))
        thread.join(3.0)
        assert thread.is_alive()
        go_on()
        join(thread)
    assert queue.stats().not_replicated == 0


def failing(queue: EmbeddingBatchQueue, master: redis.Redis, pair: tuple[str, str]) -> Callable[[], BaseException]:
    """Enqueue in a thread, until Redis waits for the replicas; what is returned tells the error that comes of it."""
    errors: list[BaseException] = []

    def enqueue() -> None:
        try:
            queue.enqueue(*pair)
        except Exception as error:
            errors.append(error)

    thread = in_thread(enqueue)
    eventually(lambda: master.info("clients")["blocked_clients"] == 1, "it waits for the replica")

    def error() -> BaseException:
        join(thread)
        return errors[0]

    return error


def test_a_master_that_hangs_does_not_hang_its_clients(make, pair, master):
    """It has taken the item in, and says nothing more."""
    queue = make(pair[0].client(socket_timeout=3.0, retry=Retry(NoBackoff(), 0)), replica_patience=8.0)
    queue.enqueue("doc:1", "makes the connection")
    with frozen(pair[1]):
        error = failing(queue, master, ("doc:2", "two"))
        with frozen(pair[0]):
            assert isinstance(error(), redis.TimeoutError)
    queue.enqueue("doc:2", "two")


def test_a_refusal_waits_for_nobody(make, pair, master):
    """What Redis refuses is told at once though the replica is away; and the next enqueue is right again."""
    queue, full = make(), make(max_pending=1)
    full.enqueue("doc:1", "one")
    with frozen(pair[1]):
        with pytest.raises(NotReplicated):
            make(replica_patience=SHORT_SECONDS).enqueue("doc:1", "one")
        began = time.monotonic()
        master.config_set("maxmemory", 1)
        try:
            with pytest.raises(redis.exceptions.OutOfMemoryError):
                queue.enqueue("doc:2", "two")
        finally:
            master.config_set("maxmemory", 0)
        assert time.monotonic() - began < PATIENCE_SECONDS / 2
    queue.enqueue("doc:2", "two")
    master.script_flush()
    queue.enqueue("doc:3", "three")
    assert pair[1].client().zcard(PENDING) == 3
    with pytest.raises(QueueFull):
        full.enqueue("doc:4", "four")


def test_a_master_that_is_demoted_while_it_waits(make, pair, master):
    """It ends all waits, and refuses writes from then on."""
    queue = make(pair[0].client(retry=Retry(NoBackoff(), 0)))
    queue.enqueue("doc:1", "makes the connection")
    with frozen(pair[1]):
        error = failing(queue, master, ("doc:2", "two"))
        try:
            master.replicaof("127.0.0.1", 1)
            assert isinstance(error(), redis.exceptions.ReadOnlyError)
        finally:
            master.replicaof("NO", "ONE")
    eventually(lambda: in_step(pair[0]), "the replica is in step again")
    queue.enqueue("doc:2", "two")


def test_a_user_who_may_not_wait(make, pair, master):
    """It is said in a sentence, and the item is queued."""
    master.execute_command("ACL", "SETUSER", "limited", "on", ">x", "~*", "&*", "+@all", "-wait")
    queue = make(pair[0].client(username="limited", password="x"))
    with pytest.raises(EmbedQueueError, match="needs the command WAIT"):
        queue.enqueue("doc:1", "one")
    assert master.zcard(PENDING) == 1
    master.execute_command("ACL", "DELUSER", "limited")


def test_start_warns_of_missing_replicas(make, pair, caplog):
    """And says nothing of them where there are enough."""
    with caplog.at_level(logging.WARNING), make(start=True, min_replicas=2), make(start=True, min_replicas=1):
        pass
    told = [record.message for record in caplog.records if "replicas" in record.message]
    assert len(told) == 1
    assert "1 replicas are connected and min_replicas is 2" in told[0]
