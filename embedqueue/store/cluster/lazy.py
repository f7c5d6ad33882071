"""A client of a cluster that asks nobody for its nodes before it is used; redis-py's own does when it is made."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import redis
from redis.cluster import ClusterNode
from redis.exceptions import RedisClusterException

Address = tuple[str, int]


class LazyCluster(redis.RedisCluster):
    """A ``redis.RedisCluster`` that connects at its first use.

    Args:
        addresses: of some of its nodes.
        options: as for ``redis.RedisCluster``.

    Attributes:
        addresses: as given.
    """

    def __init__(self, addresses: list[Address], **options: Any) -> None:
        self.addresses = addresses
        self._options = options
        self._first_use = threading.RLock()
        self._connecting = False  # set under the lock; and it stays so

    def __getattr__(self, name: str) -> Any:
        """What redis-py's own has once it knows its nodes; one thread finds them, and others wait for it."""
        if "_connecting" not in self.__dict__ or name.startswith("__"):
            raise AttributeError(name)
        with self._first_use:
            if name not in self.__dict__:
                if self._connecting:  # by this very thread, or long ago
                    raise AttributeError(name)
                self._connect()
        return getattr(self, name)

    def _connect(self) -> None:
        self._connecting = True  # and then it has all that it is asked for
        try:
            nodes = [ClusterNode(host, port) for host, port in self.addresses]  # type: ignore[no-untyped-call]
            super().__init__(startup_nodes=nodes, **self._options)
        except RedisClusterException as error:
            self._connecting = False
            raise redis.ConnectionError(str(error)) from error
        except BaseException:
            self._connecting = False
            raise

    def __del__(self) -> None:
        """Nothing is to be closed that was never used."""
        if self.__dict__.get("_connecting"):
            with contextlib.suppress(Exception):
                self.close()

    def close(self) -> None:
        """Close the connections, if there are any."""
        if self.__dict__.get("_connecting"):
            super().close()

    def node_client(self) -> redis.Redis:
        """A client of one node, which is not connected."""
        host, port = self.addresses[0]
        return redis.Redis(host=host, port=port, **self._options)
