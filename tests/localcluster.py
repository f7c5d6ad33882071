"""A Redis Cluster of our own on loopback, for tests: up in about two seconds, to be resharded and killed."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
from redis.cluster import ClusterNode, key_slot

from embedqueue.demo.localredis import LocalRedis
from embedqueue.store.clients import release_connection, take_connection
from tests.gates import HOST, Gate

SLOTS = 16384
#: Seconds for the cluster to agree on something.
AGREE_SECONDS = 60.0
#: Seconds that a node may take to tell how the cluster is: one that is stopped never does.
QUICK_SECONDS = 0.5
#: A node that is silent for so long has failed; where no replica can follow it, only a slow machine is so silent.
NODE_TIMEOUT_MS = 3000
LONE_TIMEOUT_MS = 30_000
#: The bus of a node takes the port so much above its own.
BUS = 10_000
#: The least port that a test takes, and the first that Linux gives a connection (ip(7), ``ip_local_port_range``).
LEAST_PORT = 10_000
FIRST_GIVEN_PORT = 32_768
#: So many processes of tests share the ports out among them.
PROCESSES = 16
_SETTINGS = (
    "--cluster-enabled", "yes", "--repl-diskless-sync-delay", "0",
    "--cluster-replica-validity-factor", "0", "--cluster-migration-barrier", "99",
)  # fmt: skip


def free_ports(count: int) -> Iterator[int]:
    """Ports that nobody listens on, and whose bus is free as well; no connection is given one of either as its own.

    Each process of the tests has its own to choose from: one that another has found may not be taken yet.
    """
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    with contextlib.ExitStack() as held:
        found = 0
        ports = range(LEAST_PORT + process % PROCESSES, FIRST_GIVEN_PORT - BUS, PROCESSES)
        for port in random.sample(ports, len(ports)):
            if found == count:
                return
            try:
                for wanted in (port, port + BUS):
                    held.enter_context(contextlib.closing(socket.socket())).bind(("127.0.0.1", wanted))
            except OSError:
                continue
            found += 1
            yield port


def free_port() -> int:
    """One of them."""
    [port] = free_ports(1)
    return port


class LocalCluster:
    """Masters that share the slots, and replicas of each; until the ``with`` block ends.

    Args:
        masters: how many.
        replicas: of each master.
        binary: the server; None: see ``localredis.find_server``.
        args: further arguments of each server.
        gated: whether clients reach each node through a gate. The nodes reach each other past it, and so does
            ``LocalRedis.client``.

    Attributes:
        nodes: all servers: the masters, then their replicas.
        args: further arguments of each of them.
        gates: by the port of the node behind it.
        host: where clients find the nodes.
    """

    def __init__(
        self,
        masters: int = 3,
        replicas: int = 0,
        *,
        binary: Path | None = None,
        args: tuple[str, ...] = (),
        gated: bool = False,
    ) -> None:
        self._masters = masters
        self.host = HOST if gated else "127.0.0.1"
        self.gates: dict[int, Gate] = {}
        if gated:  # clients are told this name, while nodes and replicas go by the address
            args = (*args, "--cluster-announce-hostname", HOST, "--cluster-preferred-endpoint-type", "hostname")
        count = masters * (1 + replicas)
        timeout_ms = NODE_TIMEOUT_MS if replicas else LONE_TIMEOUT_MS
        self.args = (*_SETTINGS, "--cluster-node-timeout", str(timeout_ms), *args)
        self.nodes = [
            LocalRedis(appendonly=False, port=port, binary=binary, args=self.args) for port in list(free_ports(count))
        ]

    def __enter__(self) -> Self:
        try:
            for node in self.nodes:
                node.start()
            if self.host == HOST:
                self.gates = {node.port: Gate(node.port) for node in self.nodes}
            self._join()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for gate in self.gates.values():
            gate.close()
        for node in self.nodes:
            node.close()

    def _join(self) -> None:
        share = -(-SLOTS // self._masters)
        for number, node in enumerate(self.nodes):
            with node.client(socket_timeout=AGREE_SECONDS) as client:
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                if number < self._masters:
                    last = min(SLOTS, (number + 1) * share) - 1
                    client.execute_command("CLUSTER", "ADDSLOTSRANGE", number * share, last)
                if number:
                    client.execute_command("CLUSTER", "MEET", "127.0.0.1", self.nodes[0].port)
        self._await(lambda: all(self._known(node) == len(self.nodes) for node in self.nodes))
        ids = [self.id_of(node) for node in self.nodes]
        for number, node in enumerate(self.nodes[self._masters :]):
            with node.client(socket_timeout=AGREE_SECONDS) as client:
                client.execute_command("CLUSTER", "REPLICATE", ids[number % self._masters])
        self._await(self.is_well)

    def _known(self, node: LocalRedis) -> int:
        return int(self.cluster_info(node)["cluster_known_nodes"])

    def cluster_info(self, node: LocalRedis) -> dict[str, str]:
        with node.client(decode_responses=True) as client:
            info = client.execute_command("CLUSTER", "INFO")
        lines = info.items() if isinstance(info, dict) else (line.split(":") for line in info.split())
        return dict(lines)

    def is_well(self) -> bool:
        """Whether all nodes that run agree that the cluster is, and all replicas follow."""
        for node in self.nodes:
            if node.pid is None:
                continue
            try:
                if self.cluster_info(node)["cluster_state"] != "ok":
                    return False
                with node.client(socket_timeout=QUICK_SECONDS) as client:
                    info: Any = client.info("replication")
            except redis.RedisError:
                return False
            if info["role"] == "slave" and info["master_link_status"] != "up":
                return False
        return True

    def await_well(self) -> None:
        self._await(self.is_well)

    @staticmethod
    def _await(condition: Callable[[], bool]) -> None:
        end_mono = time.monotonic() + AGREE_SECONDS
        while not condition():
            if time.monotonic() > end_mono:
                raise AssertionError("the cluster does not agree")
            time.sleep(0.02)

    # -- what tests ask ------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """As ``REDIS_URL`` takes it."""
        return "redis+cluster://" + ",".join(f"{self.host}:{node.port}" for node in self.nodes[:2])

    def client(self, **kwargs: Any) -> redis.RedisCluster:
        """A client of the cluster; ``kwargs`` as for ``redis.RedisCluster``."""
        nodes = [ClusterNode(self.host, node.port) for node in self.nodes if node.pid is not None]
        return redis.RedisCluster(startup_nodes=nodes, **kwargs)

    def id_of(self, node: LocalRedis) -> str:
        with node.client(decode_responses=True) as client:
            return str(client.execute_command("CLUSTER", "MYID"))

    def at_port(self, port: int) -> LocalRedis:
        return next(node for node in self.nodes if node.port == port)

    def master_of(self, key: str | bytes) -> LocalRedis:
        """The master of a key's slot, as most nodes see it."""
        slot, votes = key_slot(key.encode() if isinstance(key, str) else key), list[int]()
        for node in self.nodes:
            if node.pid is not None:
                with contextlib.suppress(redis.RedisError), node.client(socket_timeout=QUICK_SECONDS) as client:
                    for first, last, (_, port, *_), *_ in _slots(client):
                        if first <= slot <= last:
                            votes.append(port)
        return self.at_port(max(votes, key=votes.count))

    def await_other(self, key: str, master: LocalRedis) -> None:
        """Wait until another one than this is the master of a key's slot."""
        self._await(lambda: self.master_of(key) is not master)

    def replicas_of(self, master: LocalRedis) -> list[LocalRedis]:
        found = []
        for node in self.nodes:
            if node.pid is not None and node is not master:
                with contextlib.suppress(redis.RedisError), node.client(socket_timeout=QUICK_SECONDS) as client:
                    info: Any = client.info("replication")
                    if info["role"] == "slave" and info["master_port"] == master.port:
                        found.append(node)
        return found

    def flush(self) -> None:
        for node in self.nodes:
            with contextlib.suppress(redis.RedisError), node.client(socket_timeout=QUICK_SECONDS) as client:
                client.flushall()

    # -- what they do to it --------------------------------------------------------------------------------------

    def begin_move(self, slot: int, source: LocalRedis, target: LocalRedis) -> None:
        """From now on the slot moves key by key."""
        with target.client() as client:
            client.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", self.id_of(source))
        with source.client() as client:
            client.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", self.id_of(target))

    def move_keys(self, slot: int, source: LocalRedis, target: LocalRedis, most: int = SLOTS) -> int:
        """Move at most so many of the slot's keys, one by one; returns how many."""
        moved = 0
        with source.client(socket_timeout=AGREE_SECONDS) as client:
            while moved < most and (keys := client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1)):
                client.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 30_000, "REPLACE", "KEYS", keys[0])
                moved += 1
        return moved

    def end_move(self, slot: int, source: LocalRedis, target: LocalRedis) -> None:
        """The slot is the target's from now on."""
        owner = self.id_of(target)
        for node in (target, source, *(node for node in self.nodes if node not in (source, target))):
            if node.pid is not None:
                with (
                    contextlib.suppress(redis.ResponseError),
                    node.client(socket_timeout=AGREE_SECONDS) as client,
                ):  # a replica has no say
                    client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", owner)

    def move(self, key: str, target: LocalRedis) -> None:
        """Move the slot of a key, key by key."""
        slot, source = key_slot(key.encode()), self.master_of(key)
        self.begin_move(slot, source, target)
        while self.move_keys(slot, source, target):
            pass
        self.end_move(slot, source, target)

    def move_all(self, source: LocalRedis, target: LocalRedis) -> None:
        """Move all slots of a master, those that have keys key by key."""
        with target.client() as client:  # else it believes what the source has said of these slots before
            client.execute_command("CLUSTER", "BUMPEPOCH")
        with source.client() as client:
            ranges = [part[:2] for part in _slots(client) if part[2][1] == source.port]
            slots = [slot for first, last in ranges for slot in range(first, last + 1)]
            with client.pipeline(transaction=False) as pipeline:
                for slot in slots:
                    pipeline.execute_command("CLUSTER", "COUNTKEYSINSLOT", slot)
                counts = pipeline.execute()
        for slot in [slot for slot, count in zip(slots, counts, strict=True) if count]:
            self.begin_move(slot, source, target)
            while self.move_keys(slot, source, target):
                pass
            self.end_move(slot, source, target)
        owner = self.id_of(target)
        for node in (target, source, *(node for node in self.nodes if node not in (source, target))):
            with node.client() as client, client.pipeline(transaction=False) as pipeline:
                for slot in slots:
                    pipeline.execute_command("CLUSTER", "SETSLOT", slot, "NODE", owner)
                pipeline.execute(raise_on_error=False)  # without slots, the source becomes a replica

    def move_atomically(self, key: str, target: LocalRedis) -> None:
        """Move the slot of a key as Valkey 9 can, and wait until it is there."""
        slot, source = key_slot(key.encode()), self.master_of(key)
        with source.client() as client:
            client.execute_command("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", self.id_of(target))
        self._await(lambda: self.master_of(key) is target)

    def fail_over(self, replica: LocalRedis, how: str = "") -> None:
        """Make a replica the master; ``how``: "FORCE" or "TAKEOVER"."""
        end_mono = time.monotonic() + AGREE_SECONDS
        while self._role(replica) != "master":  # a master that is busy lets it time out
            with contextlib.suppress(redis.ResponseError), replica.client() as client:
                client.execute_command("CLUSTER", "FAILOVER", *([how] if how else []))
            time.sleep(0.1)
            assert time.monotonic() < end_mono, "it does not become the master"

    @staticmethod
    def _role(node: LocalRedis) -> str:
        with node.client(socket_timeout=AGREE_SECONDS) as client:
            info: Any = client.info("replication")
        return str(info["role"])


def _slots(client: redis.Redis) -> list[Any]:
    connection = take_connection(client)
    try:
        connection.send_command("CLUSTER", "SLOTS")
        return list(connection.read_response())
    finally:
        release_connection(client, connection)
