"""Searches on a cluster, which any of its nodes can serve whose search module knows the others."""

from __future__ import annotations

from typing import Any

import redis
from redis.crc import key_slot
from redis.exceptions import AuthenticationError, MovedError

from embedqueue.store.clients import close_connections
from embedqueue.values.errors import EmbedQueueError

from .lazy import Address
from .nodes import Nodes
from .patience import NOT_DONE, UNSURE

ALONE = (
    "the search module of this cluster's nodes searches each node alone, so it would find a part only: take Redis 8, "
    "or another server whose search spans a cluster"
)


class Anywhere:
    """As much of a client as a search needs. Thread-safe.

    A module that knows nothing of other nodes takes the name of an index for a key, and is found out by that: each
    command goes to a node that has not that key's slot, where there is one.

    Args:
        nodes: of the cluster.
        timeout_seconds: for which an answer is waited for.
    """

    def __init__(self, nodes: Nodes, timeout_seconds: float) -> None:
        self._nodes = nodes
        self._timeout_seconds = timeout_seconds
        self._clients: dict[Address, Any] = {}
        self._failures: dict[Address, int] = {}  # of each node: who has the fewest is asked

    @property
    def connection_pool(self) -> Any:
        """That of one node, for its settings."""
        return self._nodes.template.connection_pool

    def execute_command(self, *command: Any) -> Any:
        """Run a command, whose second word is the name of an index; on another node where one does not serve it now.

        Raises:
            EmbedQueueError: the module searches one node only.
            redis.RedisError: no node serves it while there is patience; or the command is refused.
        """
        waiting, timeouts = self._nodes.waiting(), 0
        while True:
            try:
                return self._try(command)
            except MovedError:
                raise EmbedQueueError(ALONE) from None
            except (*NOT_DONE, *UNSURE) as error:
                self._nodes.doubt()
                timeouts += isinstance(error, redis.TimeoutError)
                # Of a search that takes long, a second node knows no more than the first.
                if isinstance(error, AuthenticationError) or timeouts > 1 or not waiting.again():
                    raise

    def _try(self, command: tuple[Any, ...]) -> Any:
        owner = self._nodes.address(key_slot(str(command[1]).encode()))
        others = [address for address in self._nodes.masters() if address != owner]
        address = min(others or [owner], key=lambda one: self._failures.get(one, 0))
        client = self._clients.get(address)
        if client is None:
            client = self._clients[address] = self._nodes.client_of(address, socket_timeout=self._timeout_seconds)
        try:
            return client.execute_command(*command)
        except (*NOT_DONE, *UNSURE):
            self._failures[address] = self._failures.get(address, 0) + 1
            raise

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            close_connections(client)
