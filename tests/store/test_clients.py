"""The Redis clients that users really have. Ours are private: theirs is never changed, used up or closed."""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import fakeredis
import pytest
import redis
from redis._parsers import _RESP2Parser
from redis.backoff import ConstantBackoff, NoBackoff
from redis.connection import DefaultParser
from redis.retry import Retry

from embedqueue import BatchFailed, ConfigurationError, ItemRejected, Limits
from embedqueue.demo.localredis import LocalRedis
from embedqueue.store.clients import (
    LONG_COMMAND_BYTES,
    ask,
    ask_for_more,
    close_connections,
    private_client,
    release_connection,
    retry_policy,
    socket_timeout,
    take_connection,
)
from tests.localcluster import free_port
from tests.parts import DIMENSIONS, PATIENCE_SECONDS, eventually, expected, in_thread, join, local_redis, stored

ACL = Path(__file__).parents[2] / "docs" / "redis-acl.md"


@pytest.fixture(scope="module")
def server() -> Iterator[LocalRedis]:
    """A Redis with a TCP port as well, and with users of its own."""
    yield from local_redis(appendonly=False, port=free_port())


def _tcp(server, **kwargs):
    return redis.Redis(host="127.0.0.1", port=server.port, **kwargs)


SHAPES = {
    "plain": _tcp,
    "decode_responses": lambda server: _tcp(server, decode_responses=True),
    "latin-1": lambda server: _tcp(server, decode_responses=True, encoding="latin-1"),
    "RESP3": lambda server: _tcp(server, protocol=3),
    "RESP3 decoded": lambda server: _tcp(server, protocol=3, decode_responses=True),
    "RESP2": lambda server: _tcp(server, protocol=2),
    "from_url": lambda server: redis.from_url(f"redis://127.0.0.1:{server.port}/3?decode_responses=true"),
    "unix url": lambda server: redis.from_url(server.url),
    "unix socket": lambda server: server.client(),
    "db 5": lambda server: _tcp(server, db=5),
    "short timeout": lambda server: _tcp(server, socket_timeout=3.0),
    "no timeout": lambda server: _tcp(server, socket_timeout=None, socket_connect_timeout=None),
    "two connections": lambda server: _tcp(server, max_connections=2),
    "one connection": lambda server: _tcp(server, single_connection_client=True),
    "blocking pool": lambda server: redis.Redis(
        connection_pool=redis.BlockingConnectionPool(host="127.0.0.1", port=server.port, max_connections=2, timeout=1)
    ),
    "retries": lambda server: _tcp(
        server, retry=Retry(ConstantBackoff(0.01), 3), retry_on_error=[redis.BusyLoadingError]
    ),
    "no retries": lambda server: _tcp(server, retry=Retry(NoBackoff(), 0)),
    "health checks": lambda server: _tcp(server, health_check_interval=1),
    "named": lambda server: _tcp(server, client_name="theirs"),
    "subclass": lambda server: type("Theirs", (redis.Redis,), {})(host="127.0.0.1", port=server.port),
    "fakeredis": lambda server: fakeredis.FakeRedis(server=fakeredis.FakeServer()),
    "fakeredis decoded": lambda server: fakeredis.FakeRedis(server=fakeredis.FakeServer(), decode_responses=True),
}


def _everything(client, make_queue, embedder) -> None:
    """What a queue does in a day."""
    theirs = client.connection_pool
    settings = theirs.connection_kwargs | {"decode_responses": False, "encoding": "utf-8"}
    raw = redis.Redis(connection_pool=redis.ConnectionPool(connection_class=theirs.connection_class, **settings))
    with contextlib.closing(raw):
        queue, producer = make_queue(client, cache_ttl=60), make_queue(client, worker=False)
        assert queue.enqueue("doc:ä", "größe").result(PATIENCE_SECONDS) == expected("größe")
        assert raw.hget("doc:ä".encode(), "embedding") == stored("größe")
        assert producer.enqueue("doc:2", "two").result(PATIENCE_SECONDS) == expected("two")
        client.set("doc:string", "not a hash")
        bad = producer.enqueue("doc:string", "three")
        with pytest.raises(ItemRejected):
            bad.result(PATIENCE_SECONDS)
        assert [letter.redis_key for letter in queue.dead_letters()] == ["doc:string"]
        client.delete("doc:string")
        assert queue.retry_dead("doc:string") == 1
        queue.flush(PATIENCE_SECONDS)
        assert raw.hget("doc:string", "embedding") == stored("three")
        client.zadd("embed_queue:pending", {"not ours": 1})
        queue.flush(PATIENCE_SECONDS)
        assert queue.discard_dead() == 1
        assert queue.stats().dead == queue.pending_count() == 0
        queue.stop()
        producer.stop()


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(server, make_queue, embedder, shape):
    """A queue works with whatever client an application has, and leaves it as it was."""
    client = SHAPES[shape](server)
    client.flushall()
    settings = copy.copy(client.connection_pool.connection_kwargs)
    classes = type(client.connection_pool), client.connection_pool.max_connections
    _everything(client, make_queue, embedder)
    assert client.connection_pool.connection_kwargs == settings
    assert (type(client.connection_pool), client.connection_pool.max_connections) == classes
    assert client.ping()
    client.close()


@pytest.fixture(params=[DefaultParser, _RESP2Parser])
def interrupted(request, server) -> Iterator[redis.Redis]:
    """A client of database 5; what ``coming`` holds, a signal's handler raises in the next handshake of this thread."""
    here, coming = threading.current_thread(), []

    def connect(connection) -> None:
        if coming and threading.current_thread() is here:
            raise coming.pop()
        connection.on_connect()

    with contextlib.closing(_tcp(server, db=5)) as client:
        client.connection_pool.connection_kwargs.update(redis_connect_func=connect, parser_class=request.param)
        client.coming = coming
        yield client


def test_an_enqueue_after_one_whose_handshake_was_broken_off(interrupted, make_queue):
    """It is on a connection that has chosen its database, and not on what redis-py keeps of the handshake."""
    queue = make_queue(interrupted, start=False)
    interrupted.coming.append(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        queue.enqueue("doc:1", "one")
    queue.enqueue("doc:2", "two")
    assert interrupted.zcard("embed_queue:pending") == 1


def test_a_command_after_one_whose_handshake_was_broken_off(interrupted):
    with contextlib.closing(private_client(interrupted)) as client:
        interrupted.coming.append(KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            client.ping()
        assert client.client_info()["db"] == 5


def test_a_command_after_one_that_was_broken_off_as_it_connected_anew(interrupted):
    """A connection that has broken connects by itself, when something is sent."""
    with contextlib.closing(private_client(interrupted)) as client:
        connection = take_connection(client)
        connection.disconnect()
        interrupted.coming.append(KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            try:
                connection.send_command("PING")
            finally:
                release_connection(client, connection)
        assert client.client_info()["db"] == 5


def test_a_command_after_one_whose_answer_was_not_awaited(server):
    """It gets its own answer, and not that of the command before, which a signal's handler has interrupted."""

    def interrupt(*args, **options) -> None:
        raise KeyboardInterrupt

    with contextlib.closing(_tcp(server)) as theirs, contextlib.closing(private_client(theirs)) as client:
        client.parse_response = interrupt
        with pytest.raises(KeyboardInterrupt):
            client.blpop("nothing", 0.3)
        del client.parse_response
        assert client.ping() is True


class _Seen:
    """What redis-py tells a method that was registered: it keeps no function."""

    def __init__(self) -> None:
        self.connected: list[object] = []

    def add(self, connection) -> None:
        self.connected.append(connection)


@pytest.mark.parametrize("shape", ["plain", "RESP3 decoded", "short timeout", "retries", "fakeredis decoded"])
def test_what_we_use_of_redis_py(server, shape):
    """Whoever upgrades redis-py sees here, at one place, which of its ways that we rely on are others now."""
    theirs, seen = SHAPES[shape](server), _Seen()
    ours = private_client(theirs)
    with contextlib.closing(theirs), contextlib.closing(ours):
        connection = take_connection(ours)
        connection.register_connect_callback(seen.add)
        end = lambda: b"\r\n"  # noqa: E731
        echo = b"*2\r\n$4\r\nECHO\r\n$1\r\n\xff"
        assert ask(connection, echo, end) == b"\xff", "a packed command is sent as it is, and its answer not decoded"
        assert seen.connected == [], "a connection that was taken is connected"
        with pytest.raises(redis.ResponseError):
            ask(connection, b"*1\r\n$4\r\nNONE", end)
        assert ask(connection, echo, end) == b"\xff" and seen.connected == [], "a refusal leaves it connected"
        for times in (1, 2):
            connection.disconnect()
            assert ask(connection, echo, end) == b"\xff", "it connects by itself when it is used"
            assert seen.connected == [connection] * times, "it tells, each time, that it has connected"
        long = b"x" * LONG_COMMAND_BYTES
        asked = b"*2\r\n$4\r\nECHO\r\n$%d\r\n%s" % (len(long), long)
        assert ask(connection, asked, end) == long, "a long one is sent in parts"
        release_connection(ours, connection)
        assert take_connection(ours) is connection, "a pool gives again what it was given back"
        if shape == "fakeredis decoded":
            close_connections(ours)
        else:
            connection.send_command("BLPOP", "nothing", 0)
            number = connection._sock.fileno()
            close_connections(ours)
            os.fstat(number)  # still open: no other socket can get the number while somebody may read from it
            with pytest.raises(redis.ConnectionError):
                ours.parse_response(connection, "BLPOP")
            with pytest.raises(OSError):
                os.fstat(number)
        assert ask(connection, echo, end) == b"\xff" and len(seen.connected) == 3, "its user connects anew"
    assert socket_timeout(ours) == socket_timeout(theirs) == theirs.connection_pool.connection_kwargs["socket_timeout"]
    tries = []
    with pytest.raises(redis.ConnectionError):
        retry_policy(theirs).call_with_retry(lambda: _refuse(tries), lambda error: None)
    if shape == "retries":
        assert len(tries) == 4, "the policy of a client is that of its connections"


@pytest.mark.parametrize("shape", SHAPES)
def test_a_closed_client_keeps_no_connection(server, shape):
    """Neither one that was in use when it was closed, nor one that somebody who is late makes."""
    theirs = SHAPES[shape](server)
    ours = private_client(theirs)
    with contextlib.closing(theirs), contextlib.closing(ours):
        free, used = take_connection(ours), take_connection(ours)
        release_connection(ours, free)
        close_connections(ours)
        release_connection(ours, used)
        assert ours.ping()
        late = take_connection(ours)
        assert late in (free, used)
        assert late._sock is not None
        release_connection(ours, late)
        assert (free._sock, used._sock) == (None, None)


@pytest.mark.parametrize("parser", [DefaultParser, _RESP2Parser])
def test_what_a_wait_uses_of_redis_py(server, parser):
    """An answer may be waited for longer than the connection's own time limit, which holds again afterwards."""
    with contextlib.closing(private_client(_tcp(server, socket_timeout=2.0), parser_class=parser)) as ours:
        connection = take_connection(ours)
        echo = b"*2\r\n$4\r\nECHO\r\n$1\r\n\xff"
        assert ask(connection, echo + b"\r\n" + echo, lambda: b"\r\n") == b"\xff"
        assert ask_for_more(connection, PATIENCE_SECONDS) == b"\xff", "the next answer is read by itself"
        with pytest.raises(redis.TimeoutError):
            ask_for_more(connection, 0.0)
        connection.send_command("BLPOP", "nothing", 3)
        assert ask_for_more(connection, PATIENCE_SECONDS) is None
        connection.send_command("BLPOP", "nothing", 0)
        with pytest.raises(redis.TimeoutError):
            connection.read_response()
        connection.disconnect()


def _refuse(tries: list[None]) -> None:
    tries.append(None)
    raise redis.ConnectionError("refused")


def test_used_up_pool(server, make_queue, embedder):
    """The queue works while the application has every connection of its own pool in use."""
    pool = redis.BlockingConnectionPool(host="127.0.0.1", port=server.port, max_connections=1, timeout=0.1)
    client = redis.Redis(connection_pool=pool)
    client.flushall()
    taken = pool.get_connection()
    try:
        assert make_queue(client).enqueue("doc:1", "one").result(PATIENCE_SECONDS) == expected("one")
    finally:
        pool.release(taken)


def test_closed_client(server, make_queue):
    """The queue goes on when the application closes its client."""
    client = _tcp(server)
    client.flushall()
    queue = make_queue(client)
    client.close()
    assert queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS) == expected("one")


def test_blocking_read_outlives_short_timeouts(server, make_queue, embedder, caplog):
    """A client's short time limit does not make the queue reconnect for each quiet moment."""
    client = _tcp(server, socket_timeout=0.2)
    client.flushall()
    queue = make_queue(client, worker=False)
    kept = queue.enqueue("doc:1", "one")
    with contextlib.closing(_tcp(server)) as other:
        eventually(lambda: any(c["cmd"] == "xread" for c in other.client_list()), "it listens")
        before = {c["id"] for c in other.client_list() if c["cmd"] == "xread"}
        threading.Event().wait(0.6)
        assert {c["id"] for c in other.client_list() if c["cmd"] == "xread"} == before
    assert kept.cancel()


def _rules() -> list[str]:
    """The ACL rules as the documentation gives them."""
    block = ACL.read_text("utf-8").split("```")[1]
    return block.replace("\\\n", " ").split()[4:]  # without: ACL SETUSER name >password


@pytest.fixture
def limited(server) -> Iterator[redis.Redis]:
    """The client of a user who may do what docs/redis-acl.md lists, and nothing else."""
    with contextlib.closing(_tcp(server)) as admin:
        admin.flushall()
        admin.execute_command("ACL", "SETUSER", "embedqueue", "reset", "on", ">secret", *_rules())
        admin.execute_command("ACL", "LOG", "RESET")
        yield _tcp(server, username="embedqueue", password="secret")
        admin.acl_deluser("embedqueue")


def test_minimal_acl(server, limited, make_queue, embedder, caplog):
    """A user with the documented ACL can do everything, and Redis logs no refusal but of what is optional."""
    with contextlib.closing(_tcp(server)) as admin, caplog.at_level(logging.WARNING):
        queue, producer = make_queue(limited, cache_ttl=60), make_queue(limited, worker=False)
        assert queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS) == expected("one")
        assert producer.enqueue("doc:2", "two").result(PATIENCE_SECONDS) == expected("two")
        admin.set("doc:string", "not a hash")
        with pytest.raises(ItemRejected):
            producer.enqueue("doc:string", "three").result(PATIENCE_SECONDS)
        assert queue.dead_letters()[0].redis_key == "doc:string"
        admin.delete("doc:string")
        assert queue.retry_dead() == 1
        queue.flush(PATIENCE_SECONDS)
        admin.zadd("embed_queue:pending", {"not ours": 1})
        queue.flush(PATIENCE_SECONDS)
        assert queue.discard_dead() == 1
        admin.script_flush()
        blank = producer.enqueue_many([("doc:3", "three"), ("doc:3", " ")])
        assert blank[1].result() == [0.0] * DIMENSIONS
        embedder.rule = lambda texts: ConfigurationError("no credit")
        assert isinstance(producer.enqueue("doc:4", "four").exception(PATIENCE_SECONDS), BatchFailed)
        embedder.rule = None
        calls = len(embedder.calls)
        embedder.hold()
        embedder.wait_for_calls(calls + 1)  # the probe
        queue.stop(timeout=0)
        assert producer.history(1, 1).days[-1].embedded >= 3
        assert admin.zcard("embed_queue:pending") == 1
        producer.stop()
        assert {entry["object"] for entry in admin.acl_log()} <= {"info", "client|setinfo"}
        assert "secret" not in caplog.text + repr(queue)


def test_limits_under_the_minimal_acl(server, limited, make_queue):
    """Limits with a name need the rule that the page gives; without it the worker says what it may not read."""
    limits = Limits(requests_per_minute=6000, name="shared")
    with contextlib.closing(_tcp(server)) as admin:
        queue = make_queue(limited, limits=Limits(requests_per_minute=6000))
        assert queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS) == expected("one")
        shared = make_queue(limited, namespace="embed_queue:2", limits=limits)
        with pytest.raises(redis.exceptions.NoPermissionError):
            shared.stats()
        [rule] = re.findall(r"`~(embedqueue:limits:)NAME`", ACL.read_text("utf-8"))
        admin.execute_command("ACL", "SETUSER", "embedqueue", f"~{rule}shared")
        assert shared.enqueue("doc:2", "two").result(PATIENCE_SECONDS) == expected("two")
        assert shared.stats().limits[0].limit == 6000


def test_forbidden_hash(limited, make_queue, embedder, server):
    """A hash that the ACL does not let us write makes one dead letter; its neighbours are embedded."""
    queue, producer = make_queue(limited), make_queue(limited, worker=False)
    items = [(f"doc:{i}", f"text {i}") for i in range(20)]
    items.insert(7, ("private:1", "secret"))
    futures = queue.enqueue_many(items)
    others = producer.enqueue("private:1", "secret")
    queue.flush(PATIENCE_SECONDS)
    with pytest.raises(ItemRejected, match="private:1"):
        futures[7].result(0)
    with pytest.raises(ItemRejected, match="private:1"):
        others.result(PATIENCE_SECONDS)
    assert [f.result(0) for f in futures[:7] + futures[8:]] == [expected(f"text {i}") for i in range(20)]
    assert embedder.sent == {f"text {i}": 1 for i in range(20)} | {"secret": 1}


def test_info_forbidden(limited, make_queue, caplog):
    """Where INFO is not allowed, start() goes on without a word."""
    with caplog.at_level(logging.WARNING):
        make_queue(limited)
    assert not caplog.records


def test_warns_once(server, make_queue, caplog):
    """start() says once when Redis may lose items: here its append-only file is off."""
    client = _tcp(server)
    with caplog.at_level(logging.WARNING):
        queue = make_queue(client)
        queue.stop()
        queue.start()
    assert [record.message for record in caplog.records if "append-only" in record.message] == [
        record.message for record in caplog.records
    ]
    assert len(caplog.records) == 1


def test_swallowed_packets(make_queue):
    """Where connecting times out, enqueue raises after the tries of the client's policy, not after their square."""
    with contextlib.closing(socket.socket()) as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = []
        try:
            for _ in range(3):  # until nobody is let in any more
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex(full.getsockname())
                fillers.append(filler)
            policy = Retry(NoBackoff(), 9)
            port = full.getsockname()[1]
            client = redis.Redis(port=port, socket_timeout=0.1, socket_connect_timeout=0.1, retry=policy)
            queue = make_queue(client, start=False, worker=False)
            errors = []

            def enqueue():
                try:
                    queue.enqueue("doc:1", "one")
                except redis.RedisError as error:
                    errors.append(error)

            thread = in_thread(enqueue)
            thread.join(6.0)  # ten tries of 0.1 s; their square would be 10 s
            assert errors
            assert isinstance(errors[0], redis.TimeoutError)
            join(thread)
        finally:
            for filler in fillers:
                filler.close()
