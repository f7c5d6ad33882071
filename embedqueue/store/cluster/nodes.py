"""Which node of a cluster has a slot, and how its nodes are reached: over connections of our own."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import redis
import redis.cluster
from redis.backoff import NoBackoff
from redis.exceptions import AskError, AuthenticationError, ClusterDownError, MovedError, RedisError
from redis.retry import Retry

from embedqueue.store.clients import ask, close_connections, private_client, release_connection, take_connection
from embedqueue.values.locks import Event

from .lazy import Address, LazyCluster
from .patience import Patience, Waiting

SLOTS = 16384
#: Seconds that a node may take to accept a connection: one that is gone with its machine does not say so.
CONNECT_SECONDS = 2.0
#: Seconds that a node may take to tell who has which slots.
TELL_SECONDS = 1.0
#: Seconds for which an answer about the slots holds before another is asked for.
FRESH_SECONDS = 0.05


class Nodes:
    """The nodes of a cluster. Thread-safe.

    Args:
        client: the user's; it is only read.
        patience_seconds: for which a cluster is waited for that does not serve a slot just now.

    Attributes:
        patience_seconds: as given.
        closed: set when the queue is closed: nobody waits any more.
    """

    def __init__(self, client: redis.RedisCluster, patience_seconds: float) -> None:
        self.patience_seconds = patience_seconds
        self.closed = Event()
        template: Any
        if isinstance(client, LazyCluster):
            template, self._started = client.node_client(), client.addresses
        else:
            theirs: Any = client
            template = theirs.get_redis_connection(theirs.get_default_node())
            self._started = [(one.host, int(one.port)) for one in theirs.get_nodes()]
        kwargs: dict[str, Any] = {"retry": Retry(NoBackoff(), 0), "retry_on_error": [], "retry_on_timeout": False}
        settings = template.connection_pool.connection_kwargs
        kwargs["socket_connect_timeout"] = min(
            settings.get("socket_connect_timeout") or CONNECT_SECONDS, CONNECT_SECONDS
        )
        # That of redis-py makes a connection read from replicas, where the user wants that.
        kwargs["redis_connect_func"] = _on_connect(vars(client).get("user_on_connect_func"))
        if parser := getattr(redis.cluster, "ClusterParser", None):  # of redis-py before 8
            kwargs["parser_class"] = parser
        self._template, self._kwargs = template, kwargs
        manager: Any = vars(client).get("nodes_manager")
        self._remap: Callable[[Address], Address] | None = getattr(manager, "address_remap", None)
        self._lock = threading.RLock()  # guards what follows; a signal's handler may use the queue while we ask
        self._owners: list[Address | None] = [None] * SLOTS
        self._masters: list[Address] = []
        self._ids: set[bytes] = set()  # of all nodes, by the last answer that was believed
        self._doubtful, self._told_mono = True, 0.0
        self._asking: dict[Address, redis.Redis] = {}
        self._mute: set[Address] = set()  # who has not told when asked last

    def client_of(self, address: Address, **overrides: Any) -> redis.Redis:
        """A client of our own of one node; ``overrides`` as for ``clients.private_client``."""
        host, port = address
        return private_client(self._template, **{**self._kwargs, "host": host, "port": port, **overrides})

    @property
    def template(self) -> redis.Redis:
        """A client of one node, as the user's client makes it; it is only read."""
        client: redis.Redis = self._template
        return client

    @property
    def settings(self) -> dict[str, Any]:
        """What connections of ours have otherwise than the user's."""
        return dict(self._kwargs)

    def waiting(self) -> Waiting:
        """One wait for the cluster, as long as there is patience."""
        return Waiting(self.patience_seconds, self.closed)

    def patience(self, *errors: type[Exception]) -> Patience:
        """Retries after these errors, as long as there is patience."""
        return Patience(self.patience_seconds, self.closed, errors)

    # -- slots -------------------------------------------------------------------------------------------------

    def address(self, slot: int) -> Address:
        """The master of a slot, as far as is known.

        Raises:
            redis.RedisError: no node tells, or none has the slot.
        """
        with self._lock:
            if self._doubtful or self._owners[slot] is None:
                self._ask_again()
            owner = self._owners[slot]
        if owner is None:
            raise ClusterDownError(f"Hash slot {slot} not served")
        return owner

    def masters(self) -> list[Address]:
        """All masters that have slots."""
        with self._lock:
            self._ask_again()
            return list(self._masters)

    def moved(self, error: AskError) -> None:
        """A node has told that a slot is another's."""
        if error.host in ("", "?"):  # it does not know that node's name
            self.doubt()
        elif isinstance(error, MovedError):
            with self._lock:
                owner = self._owners[error.slot_id] = self._address(error.host, error.port)
                # Of a node that is new, the others tell: by it we may have to know the cluster when they are replaced.
                self._told_mono, self._doubtful = 0.0, owner not in self._masters

    def redirected(self, error: AskError, asked: Address) -> Address:
        """Where a node that was asked at an address sends one order; without a name, it means its own host."""
        return self._address(asked[0] if error.host in ("", "?") else error.host, error.port)

    def doubt(self) -> None:
        """What is known of the slots may be wrong: ask before the next use."""
        with self._lock:
            self._doubtful = True

    def question(self, slots: Iterable[int]) -> None:
        """The masters of these slots may have been replaced, and not know it: others are asked before the next use."""
        with self._lock:
            self._mute.update(owner for owner in map(self._owners.__getitem__, slots) if owner is not None)
            self._doubtful = True

    def reach(self, slot: int, connect: Callable[[Address], Any]) -> Any:
        """Connect to the master of a slot, and wait for it while there is patience.

        Args:
            slot: of the queue.
            connect: connects to an address; raises OSError or RedisError.
        """
        waiting = self.waiting()
        while True:
            try:
                return connect(self.address(slot))
            except (OSError, RedisError) as error:
                self.doubt()
                if isinstance(error, AuthenticationError) or not waiting.again():
                    raise

    def close(self) -> None:
        """Nobody waits any more; the connections of this object are closed."""
        self.closed.set()
        with self._lock:
            asking, self._asking = self._asking, {}
        for client in asking.values():
            close_connections(client)

    # -- asking; under the lock ----------------------------------------------------------------------------------

    def _ask_again(self) -> None:
        """Ask the nodes one by one which slots they have, until one tells; who has not done so lately comes last.

        A node may have left the cluster, and its address may be another cluster's by now: see ``_heed``.
        """
        if not self._doubtful and time.monotonic() - self._told_mono < FRESH_SECONDS:
            return
        known = list(dict.fromkeys([*self._masters, *self._started]))
        random.shuffle(known)
        known.sort(key=self._mute.__contains__)  # a sort keeps the order of the others
        fault: Exception | None = None
        for address in known:
            try:
                self._heed(self._slots_by(address), address)
                self._mute.discard(address)
                return
            except (OSError, RedisError) as error:
                self._mute.add(address)
                if fault is None or isinstance(error, ClusterDownError):
                    fault = error
        raise fault or ClusterDownError("no node of the cluster is known")

    def _slots_by(self, address: Address) -> Any:
        client = self._asking.get(address)
        if client is None:
            limits = {"socket_timeout": TELL_SECONDS, "socket_connect_timeout": TELL_SECONDS}
            client = self._asking[address] = self.client_of(address, **limits)
        connection = take_connection(client)
        try:
            return ask(connection, b"*2\r\n$7\r\nCLUSTER\r\n$5\r\nSLOTS", lambda: b"\r\n")
        except BaseException:
            connection.disconnect()
            raise
        finally:
            release_connection(client, connection)
            if self.closed.is_set():
                close_connections(client)

    def _heed(self, ranges: Sequence[Any], asked: Address) -> None:
        """Believe an answer, unless the node is of no cluster, or of one none of whose nodes we have heard of."""
        ids = {name for _, _, *nodes in ranges for _, _, *more in nodes for name in more[:1]}
        if not ranges or (self._ids and self._ids.isdisjoint(ids)):
            raise ClusterDownError(
                f"Hash slots not served: no known node of the cluster answers, and {asked[0]}:{asked[1]} is of another "
                "one by now, or of none. If all nodes were replaced, make a new client"
            )
        owners: list[Address | None] = [None] * SLOTS
        masters: dict[Address, None] = {}
        for first, last, (host, port, *_), *_ in ranges:
            # A node that does not know its own name means: at the address at which I was asked.
            named = host.decode() if host not in (None, b"", b"?") else asked[0]
            master = self._address(named, port)
            masters[master] = None
            owners[first : last + 1] = [master] * (last + 1 - first)
        self._owners, self._masters, self._ids = owners, list(masters), ids
        self._told_mono, self._doubtful = time.monotonic(), False

    def _address(self, host: str, port: int) -> Address:
        address = host, int(port)
        return self._remap(address) if self._remap is not None else address


def _on_connect(users: Callable[[Any], Any] | None) -> Callable[[Any], None] | None:
    if users is None:
        return None

    def connected(connection: Any) -> None:
        connection.on_connect()
        users(connection)

    return connected
