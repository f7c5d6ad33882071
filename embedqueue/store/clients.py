"""Redis clients of our own that reach what the user's client reaches, and all that depends on redis-py's own ways.

The user's client is never used, changed or closed. What of redis-py is used here beyond its documented commands is
pinned by ``test_what_we_use_of_redis_py`` in ``tests/store/test_clients.py``.
"""

from __future__ import annotations

import contextlib
import re
import socket
import sys
from collections.abc import Callable
from typing import Any

import redis
from redis.retry import Retry
from redis.sentinel import SentinelConnectionPool

#: Seconds for one command of the worker where the user's client names no time limit: it must not hang for ever.
BACKGROUND_TIMEOUT_SECONDS = 10.0
#: Seconds that one blocking read of the events may last: few commands a minute, and a dead peer is noticed.
LISTEN_SECONDS = 30.0
#: A command from so many bytes on is sent in two parts: what its end says of time is true when it is sent.
LONG_COMMAND_BYTES = 65_536
#: What redis-py before 5.3 wants to hear when it is asked for a connection.
_FOR_WHAT = ("EVALSHA",) if redis.VERSION < (5, 3) else ()


class OwnPool(redis.ConnectionPool):
    """A pool that keeps no connection once it is closed: what comes back then, nobody else would close.

    Nor does it keep one that a signal's handler has interrupted, as redis-py does: who gets that next may not have
    logged in, or be in another database, or read the answer to the command before.
    """

    closed = False

    def release(self, connection: Any) -> None:
        """Take a connection back."""
        if not isinstance(sys.exception(), redis.RedisError | None):
            connection.disconnect()
        super().release(connection)
        if self.closed:  # asked behind it: whoever closes now finds the connection here, or has told us before
            self.disconnect(inuse_connections=False)


class _OwnSentinelPool(OwnPool, SentinelConnectionPool):
    pass


def private_client(client: redis.Redis, **overrides: Any) -> redis.Redis:
    """A client of our own that reaches the same server in the same way as the user's.

    Args:
        client: the user's client, of any shape; it is only read.
        overrides: settings of the connections to set otherwise.
    """
    pool = client.connection_pool
    ours = ("maint_", "orig_", "oss_cluster_", "himport_")  # state of the user's own pool in redis-py 6 to 8
    kwargs = {name: value for name, value in pool.connection_kwargs.items() if not name.startswith(ours)}
    kwargs.update(decode_responses=False, encoding="utf-8", encoding_errors="strict", protocol=2)
    kwargs.update(overrides)
    if hasattr(pool, "another"):  # of a slot of a cluster; see cluster/slot.py
        return redis.Redis(connection_pool=pool.another(**kwargs))
    if isinstance(pool, SentinelConnectionPool):
        kwargs.pop("connection_pool", None)
        return redis.Redis(
            connection_pool=_OwnSentinelPool(  # type: ignore[no-untyped-call]
                pool.service_name, pool.sentinel_manager, is_master=pool.is_master, check_connection=True, **kwargs
            )
        )
    return redis.Redis(connection_pool=OwnPool(connection_class=pool.connection_class, **kwargs))


def socket_timeout(client: redis.Redis) -> float | None:
    """The seconds that a client's connections wait for an answer; None where they wait for ever."""
    seconds: float | None = client.connection_pool.connection_kwargs.get("socket_timeout")
    return seconds


def retry_policy(client: redis.Redis) -> Retry:
    """The policy by which a client's connections try again, as redis-py puts it together from the client's settings."""
    connection: Any = private_client(client).connection_pool.make_connection()
    policy: Retry = connection.retry
    return policy


def take_connection(client: redis.Redis) -> Any:
    """A connection of a client's pool, connected.

    Besides what is done with it here, it has ``retry``, ``disconnect()``, ``register_connect_callback(method)``, which
    redis-py calls with the connection each time that it has connected, and connects by itself when it is used.

    Raises:
        redis.RedisError: Redis cannot be reached.
    """
    return client.connection_pool.get_connection(*_FOR_WHAT)


def release_connection(client: redis.Redis, connection: Any) -> None:
    """Put a connection back into the pool that it was taken from."""
    client.connection_pool.release(connection)


def close_connections(client: redis.Redis) -> None:
    """Close the connections of a client of ours, for good, and wake the threads that read on one.

    A connection that is in use is shut down and not closed: whoever uses it fails and disconnects it. Closed under
    them, its number could be that of another socket when they read, and redis-py would connect anew under them.
    """
    pool: Any = client.connection_pool
    pool.closed = True
    for connection in list(pool._in_use_connections):
        theirs = connection._sock
        if isinstance(theirs, socket.socket):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(theirs, socket.SHUT_RDWR)  # an SSLSocket's own would change it under its reader
        elif theirs is not None:  # fakeredis
            connection.disconnect()
    pool.disconnect(inuse_connections=False)


def read_dated(client: Any, key: str) -> tuple[float, dict[bytes, bytes]]:
    """The server's Unix time and the fields of a hash, in one round trip."""
    with client.pipeline(transaction=False) as pipeline:
        pipeline.time()
        pipeline.hgetall(key)
        (seconds, micros), entries = pipeline.execute()
    return float(seconds) + float(micros) / 1e6, entries


def refused_as_such(error: Exception) -> bool:
    """Whether Redis has refused a command for what it is, above all for its size, before any script has run.

    Everything that has a word of its own (OOM, MISCONF, NOREPLICAS, ...) is a state of the server, which passes.
    """
    words = str(error)
    return type(error) is redis.ResponseError and "script" not in words and not re.match(r"[A-Z]{3,}\b", words)


def refuses_one(error: Exception) -> bool:
    """Whether Redis has refused one write, and may well take others: for what it is, or for the key that it is to."""
    return isinstance(error, redis.exceptions.NoPermissionError) or refused_as_such(error)


def ask(connection: Any, command: bytes, end: Callable[[], bytes]) -> Any:
    """Send one command and read its answer.

    Args:
        connection: as :func:`take_connection` gives it.
        command: in the bytes of the protocol, but for its end: redis-py packs three times as slowly as can be done for
            scripts.
        end: returns the last bytes; of a long command, it is called when all others are on their way.

    Returns:
        Integers, bytes, None, and lists of these.

    Raises:
        redis.ResponseError: Redis refused the command; the connection stays in use.
        redis.RedisError: no answer; the connection must be disconnected.
    """
    if len(command) < LONG_COMMAND_BYTES:
        connection.send_packed_command([command + end()])
    else:
        connection.send_packed_command([command])
        connection.send_packed_command([end()], check_health=False)
    return connection.read_response(disable_decoding=True)


def ask_for_more(connection: Any, seconds: float) -> Any:
    """Read the answer of a command that was sent behind that of ``ask``, whatever the connection's own time limit.

    Args:
        connection: as with :func:`ask`.
        seconds: for which to wait.

    Returns:
        As with :func:`ask`.

    Raises:
        redis.RedisError: as with :func:`ask`.
    """
    if not connection.can_read(seconds):
        raise redis.TimeoutError(f"Redis has not answered within {seconds:g} s")
    return connection.read_response(disable_decoding=True)
