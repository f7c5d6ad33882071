"""Clients that a queue cannot work with are refused when it is made; those that only watch are not."""

from __future__ import annotations

import fakeredis
import pytest
import redis
import redis.asyncio

from embedqueue import EmbeddingBatchQueue
from embedqueue.testing import FakeEmbedder

NOWHERE = "/nonexistent/embedqueue.sock"


def queue_on(client) -> EmbeddingBatchQueue:
    return EmbeddingBatchQueue(FakeEmbedder(), client)


class Prefixing(redis.Redis):
    """As kombu's: whatever names a key gets a prefix."""

    prefix = "app:"

    def execute_command(self, *args, **options):
        name, key, *rest = args
        return super().execute_command(name, self.prefix + key, *rest, **options)


class PrefixingBytes(redis.Redis):
    """Sends another key, as bytes."""

    def execute_command(self, *args, **options):
        return super().execute_command(args[0], b"app:" + args[1].encode(), *args[2:], **options)


class PrefixingMethods(redis.Redis):
    """Overrides the methods, one by one."""

    def hset(self, name, *args, **kwargs):
        return super().hset(f"app:{name}", *args, **kwargs)

    def hget(self, name, key):
        return super().hget(f"app:{name}", key)


class FakePrefixing(fakeredis.FakeRedis):
    """In an application's tests."""

    def execute_command(self, *args, **options):
        return super().execute_command(args[0], f"app:{args[1]}", *args[2:], **options)


@pytest.mark.parametrize("kind", [Prefixing, PrefixingBytes, PrefixingMethods, FakePrefixing])
def test_a_client_that_prefixes_keys_is_refused(kind):
    """Its user would look for vectors where none is written."""
    with pytest.raises(TypeError, match=rf"{kind.__name__} changes them.* namespace$"):
        queue_on(kind())


class Around:
    """No client itself, but around one, as flask-redis: everything goes to that."""

    def __init__(self, client=None):
        self._client = client or redis.Redis(unix_socket_path=NOWHERE)

    def __getattr__(self, name):
        return getattr(self._client, name)


class PrefixingAround(Around):
    """Changes what it passes on."""

    def __init__(self, client=None, make=lambda key: f"app:{key}"):
        super().__init__(client)
        self.make = make

    def hget(self, name, key):
        return self._client.hget(self.make(name), key)


class PrefixingCommands(redis.UnixDomainSocketConnection):
    """A connection that changes each command."""

    def send_command(self, *args, **options):
        return super().send_command(args[0], f"app:{args[1]}", *args[2:], **options)


class PrefixingPacker(redis.UnixDomainSocketConnection):
    """The same, a step later, and with an option of its own."""

    def __init__(self, *args, prefix, **options):
        self._prefix = prefix
        super().__init__(*args, **options)

    def pack_command(self, *args):
        return super().pack_command(args[0], f"{self._prefix}{args[1]}", *args[2:])


class Timed(redis.UnixDomainSocketConnection):
    """A connection that looks on."""

    commands = 0

    def send_command(self, *args, **options):
        self.commands += 1
        return super().send_command(*args, **options)


def over(kind: type, **options) -> redis.Redis:
    """A client with such connections."""
    return redis.Redis(connection_pool=redis.ConnectionPool(connection_class=kind, path=NOWHERE, **options))


@pytest.mark.parametrize(
    ("client", "who"),
    [
        (lambda: PrefixingAround(), "PrefixingAround"),
        (lambda: Around(Prefixing()), "Around"),
        (lambda: over(PrefixingCommands), "PrefixingCommands"),
        (lambda: over(PrefixingPacker, prefix="app:"), "PrefixingPacker"),
    ],
)
def test_prefixes_are_found_around_clients_and_in_their_connections(client, who):
    """embedqueue's own commands are packed by itself, and go over connections of its own."""
    with pytest.raises(TypeError, match=rf"{who} changes them.* namespace$"):
        queue_on(client())


@pytest.mark.parametrize(
    "client",
    [
        lambda: Around(),
        lambda: PrefixingAround(make=str),
        lambda: over(Timed),
        lambda: over(PrefixingPacker, prefix=""),
    ],
)
def test_what_only_passes_keys_on_is_taken(client):
    """Nothing is asked of Redis: there is none where these point to."""
    queue_on(client())


def test_what_might_send_commands_of_its_own_is_not_tried():
    """An object that holds more than a client and plain values."""

    class Busy(PrefixingAround):
        def hget(self, name, key):
            raise AssertionError("tried")

    one = Busy()
    one.method = one.ping
    two = Busy()
    two.other = redis.Redis(unix_socket_path=NOWHERE)
    for client in (one, two):
        queue_on(client)


class Counting(redis.Redis):
    """Counts, and keeps a list, as instrumentation does."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.count, self.names = 0, []

    def execute_command(self, *args, **options):
        self.count += 1
        self.names.append(args[0])
        return super().execute_command(*args, **options)


class Encoding(redis.Redis):
    """Changes the form of what is sent, not the key."""

    def execute_command(self, *args, **options):
        return super().execute_command(args[0].lower(), *(str(arg).encode() for arg in args[1:]), **options)


class Unready(redis.Redis):
    """Cannot be tried without a connection."""

    def execute_command(self, *args, **options):
        self.connection_pool.get_connection()
        return super().execute_command(*args, **options)


class Final(redis.Redis):
    """Lets nobody descend from it."""

    def __init_subclass__(cls, **kwargs):
        raise TypeError("final")


class Unprefixed(Prefixing):
    prefix = ""


@pytest.mark.parametrize("kind", [redis.Redis, fakeredis.FakeRedis, Counting, Encoding, Unready, Final, Unprefixed])
def test_a_client_that_only_watches_is_taken_and_left_as_it_is(kind):
    """Nothing is asked of Redis, nor counted: there is none where these clients point to."""
    client = kind(unix_socket_path=NOWHERE) if kind is not fakeredis.FakeRedis else kind()
    before = {name: repr(value) for name, value in vars(client).items()}
    queue_on(client)
    assert {name: repr(value) for name, value in vars(client).items()} == before


def test_what_stands_in_the_way_of_all_clients_or_of_one_is_not_looked_at(monkeypatch):
    """Tracers put a function into redis-py's class, or into the object: neither is called by a queue that is made."""

    def traced(self, *args, **options):
        raise AssertionError("a span of a command that nobody has sent")

    one = Counting()
    one.execute_command = traced
    queue_on(one)
    monkeypatch.setattr(redis.Redis, "execute_command", traced)
    for client in (redis.Redis(), Counting(), fakeredis.FakeRedis(), redis.Redis().pipeline()):
        queue_on(client)


@pytest.mark.parametrize(
    ("client", "words"),
    [
        (redis.asyncio.Redis(), "one of redis.asyncio: redis.Redis with the same arguments is one"),
        (fakeredis.FakeAsyncRedis(), "redis.asyncio"),
        (redis.Sentinel([("localhost", 1)]), r"not redis.Sentinel: its master_for\(...\) makes one"),
        (redis.Redis, "not the class redis.Redis: make one of it"),
        ("redis://:hunter2@localhost", r"not a str: redis.Redis.from_url\(...\) makes one"),
        (redis.ConnectionPool(), "not redis.ConnectionPool"),
        (None, "not builtins.NoneType"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_client_of_one_redis_is_refused_by_its_name(client, words):
    """With what to give instead."""
    with pytest.raises(TypeError, match=words) as caught:
        queue_on(client)
    assert "hunter2" not in str(caught.value)
