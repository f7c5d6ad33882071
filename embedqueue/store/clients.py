"""Redis clients of our own that reach what the user's client reaches.

The user's client is never used, changed or closed.
"""

from __future__ import annotations

from typing import Any

import redis
from redis.sentinel import SentinelConnectionPool

#: Seconds for one command of the worker where the user's client names no time limit: it must not hang for ever.
BACKGROUND_TIMEOUT_SECONDS = 10.0


#: Seconds that one blocking read of the events may last: few commands a minute, and a dead peer is noticed.
LISTEN_SECONDS = 30.0


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
    if isinstance(pool, SentinelConnectionPool):
        kwargs.pop("connection_pool", None)
        return redis.Redis(
            connection_pool=SentinelConnectionPool(  # type: ignore[no-untyped-call]
                pool.service_name, pool.sentinel_manager, is_master=pool.is_master, check_connection=True, **kwargs
            )
        )
    return redis.Redis(connection_pool=redis.ConnectionPool(connection_class=pool.connection_class, **kwargs))
