"""Which clients a queue cannot work with, said when it is made. Nothing is asked of Redis for that."""

from __future__ import annotations

import contextlib
from inspect import iscoroutinefunction
from typing import Any

import redis

#: What a client is asked to read, to see what becomes of it: no such hash is ever read.
_PROBE = "embedqueue:is-a-key-left-as-it-is"
#: What a class may count or write down in.
_CHANGING = (list, dict, set)
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
    made = _made_of_key(client)
    if made is not None and made != _PROBE:
        raise TypeError(
            f"redis must be a client that leaves keys as they are, and {name} changes them: embedqueue's own "
            "connections do not go through it, and would write elsewhere than it reads. Give a plain redis.Redis, and "
            "write the prefix into each redis_key, and into namespace"
        )


def _made_of_key(client: Any) -> str | None:
    """What a client's class makes of a key on its way to redis-py; None where that cannot be seen.

    A class of the user's may override any method, to prefix keys or to count commands. So a copy of the client, whose
    class has our own in place of redis-py's below the user's, reads a hash: we see which key arrives, and nothing is
    sent. What has been put into redis-py's own class, as tracers do, is not run.
    """
    kind = type(client)
    if kind.__module__.startswith("redis.") or not issubclass(kind, redis.Redis):
        return None
    arrived: list[Any] = []

    class Recorder(redis.Redis):
        def execute_command(self, *args: Any, **options: Any) -> None:
            arrived.extend(args)

    with contextlib.suppress(Exception):  # whatever it needs and has not: the real one may well work
        copy: Any = object.__new__(type(kind.__name__, (kind, Recorder), {"__del__": lambda self: None}))
        own = {name: value.copy() if isinstance(value, _CHANGING) else value for name, value in vars(client).items()}
        own.pop("execute_command", None)  # what has been put into the one object would use the real one
        vars(copy).update(own, connection_pool=None, connection=None)
        copy.hget(_PROBE, "field")
    words = [one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for one in arrived]
    if not words or _PROBE in words:
        return None
    return next(iter(words[1:]), None)
