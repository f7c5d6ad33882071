"""Which clients a queue cannot work with, said when it is made. Nothing is asked of Redis for that."""

from __future__ import annotations

import contextlib
from inspect import iscoroutinefunction
from types import FunctionType
from typing import Any

import redis

#: What a client is asked to read, to see what becomes of it: no such hash is ever read.
_PROBE = "embedqueue:is-a-key-left-as-it-is"
#: What a class may count or write down in.
_CHANGING = (list, dict, set)
#: What an object around a client may hold beside it that sends no command.
_PLAIN = (str, bytes, int, float, FunctionType)
_SYNCHRONOUS = "redis.Redis with the same arguments is one, and a queue in an asyncio program takes it too"


def check_client(client: Any) -> None:
    """Refuse what is no client of redis-py, or none that we can do as it does.

    Args:
        client: the user's; it is neither used nor changed.

    Raises:
        TypeError: with a sentence that says what to give instead.
    """
    kind = client if isinstance(client, type) else type(client)
    name = f"{kind.__module__.partition('.')[0]}.{kind.__name__}"
    if isinstance(client, type):
        raise TypeError(f"redis must be a client, not the class {name}: make one of it")
    if isinstance(client, str):  # not shown: it may hold a password
        raise TypeError("redis must be a synchronous redis-py client, not a str: redis.Redis.from_url(...) makes one")
    if kind.__module__.startswith("redis.asyncio") or iscoroutinefunction(getattr(client, "execute_command", None)):
        raise TypeError(f"redis must be a synchronous redis-py client, not one of redis.asyncio: {_SYNCHRONOUS}")
    if isinstance(client, redis.RedisCluster):
        return
    if isinstance(client, redis.Sentinel):
        raise TypeError(f"redis must be a client, not {name}: its master_for(...) makes one")
    if not hasattr(client, "connection_pool") or not hasattr(client, "execute_command"):
        raise TypeError(f"redis must be a synchronous redis-py client, not {name}")
    connections = getattr(client.connection_pool, "connection_class", None)
    for what, made in ((name, _made_of_key(client)), (getattr(connections, "__name__", ""), _made_by(client))):
        if made is not None and made != _PROBE:
            raise TypeError(
                f"redis must be a client that leaves keys as they are, and {what} changes them: embedqueue's own "
                "commands do not go through it, and would write elsewhere than it reads. Give a plain redis.Redis, and "
                "write the prefix into each redis_key, and into namespace"
            )


def _made_of_key(client: Any) -> str | None:
    """What a client's class makes of a key on its way to redis-py; None where that cannot be seen.

    A class of the user's may override any method, to prefix keys or to count commands. So a copy of the client, whose
    class has our own in place of redis-py's below the user's, reads a hash: we see which key arrives, and nothing is
    sent. What has been put into redis-py's own class, as tracers do, is not run.
    """
    arrived: list[Any] = []
    with contextlib.suppress(Exception):  # whatever it needs and has not: the real one may well work
        copy = _recording(client, arrived) if isinstance(client, redis.Redis) else _proxy_of(client, arrived)
        if copy is not None:
            copy.hget(_PROBE, "field")
    return _key_in(arrived)


def _recording(client: Any, arrived: list[Any]) -> Any:
    """A copy of a client that notes the words of commands instead of sending them; None for redis-py's own."""
    kind = type(client)
    if kind.__module__.startswith("redis."):
        return None

    class Recorder(redis.Redis):
        def execute_command(self, *args: Any, **options: Any) -> None:
            arrived.extend(args)

    copy: Any = object.__new__(type(kind.__name__, (kind, Recorder), {"__del__": lambda self: None}))
    own = {name: value.copy() if isinstance(value, _CHANGING) else value for name, value in vars(client).items()}
    own.pop("execute_command", None)  # what has been put into the one object would use the real one
    vars(copy).update(own, connection_pool=None, connection=None)
    return copy


def _proxy_of(proxy: Any, arrived: list[Any]) -> Any:
    """The same of an object around a client, which is no client itself; None where that would use what is not ours.

    It is copied only if it holds nothing but one client and plain values: whatever else it holds might send commands.
    """

    class Plain(redis.Redis):
        def execute_command(self, *args: Any, **options: Any) -> None:
            arrived.extend(args)

    own = dict(vars(proxy))
    clients = [name for name, value in own.items() if isinstance(value, redis.Redis)]
    others = [value for name, value in own.items() if name not in clients]
    shared = [value for kind in type(proxy).__mro__ for value in vars(kind).values() if isinstance(value, redis.Redis)]
    if len(clients) != 1 or shared or not all(value is None or isinstance(value, _PLAIN) for value in others):
        return None
    inner = own[clients[0]]
    copy: Any = object.__new__(type(proxy))
    vars(copy).update(own)
    vars(copy)[clients[0]] = _recording(inner, arrived) or object.__new__(Plain)
    return copy


def _made_by(client: Any) -> str | None:
    """What a class of connections of the user's makes of a key; None where that cannot be seen.

    A connection is made that notes the words of a command instead of packing them, and is never connected.
    """
    arrived: list[Any] = []

    def pack(self: Any, *args: Any) -> list[bytes]:
        arrived.extend(args)
        return []

    instead = {
        "pack_command": pack,
        "send_command": lambda self, *args, **_: self.pack_command(*args),
        "send_packed_command": lambda self, *_, **__: None,
        "__del__": lambda self: None,
    }
    with contextlib.suppress(Exception):
        pool = client.connection_pool
        kind = pool.connection_class
        if kind.__module__.partition(".")[0] not in ("redis", "fakeredis"):
            base = next(one for one in kind.__mro__ if one.__module__ == "redis.connection")
            recorder = type("Recorder", (base,), instead)
            connection: Any = type(kind.__name__, (kind, recorder), {})(**pool.connection_kwargs)
            connection.send_command("HGET", _PROBE, "field")
    return _key_in(arrived)


def _key_in(arrived: list[Any]) -> str | None:
    """What became of the key, by the words of the command that arrived; None where it is as it was, or none did."""
    words = [one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for one in arrived]
    if not words or _PROBE in words:
        return None
    return next(iter(words[1:]), None)
