"""A run on a Redis Cluster: three masters with a replica each, and what is done to them."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Self

import numpy as np
import redis
from redis.crc import key_slot

from embedqueue.demo.localredis import LocalRedis, find_server
from embedqueue.settings.redis_url import client_of
from embedqueue.store.cluster.lazy import Address, LazyCluster
from tests.gates import HOWS, How
from tests.localcluster import LocalCluster
from tests.proof.torture.texts import digest

PLAIN, TAGGED = "embed_queue:", "{embed_queue}:"
#: What a queue of the rig has otherwise there. Without replicas that are waited for, one can see which promises break.
ON_CLUSTER: dict[str, Any] = {
    "min_replicas": int(os.environ.get("EMBEDQUEUE_TORTURE_MIN_REPLICAS", "1")),
    "replica_patience": 1.0,
    "redis_patience": 15.0,
}
#: Takes a hash's fence away, as one who deletes it and writes it anew.
STRIP = """
local vector = redis.call("HGET", KEYS[1], "embedding")
if vector then
  redis.call("DEL", KEYS[1])
  redis.call("HSET", KEYS[1], "embedding", vector)
end
return vector
"""
#: Seconds that a master stands still: so long that its replica may take over, or not.
STILL_SECONDS = (0.5, 4.0)
#: Seconds that the way to a node is cut: within what a write may take, or beyond it.
CUT_SECONDS = (0.5, 6.0)


def is_cluster(url: str) -> bool:
    return url.startswith("redis+cluster://")


class RigCluster(LazyCluster):
    """A client to which the queue's keys have the names that they have on one Redis; it goes past all gates."""

    @classmethod
    def of(cls, url: str, timeout: float) -> Self:
        made: Any = client_of(url)
        return cls([_past(one) for one in made.addresses], socket_timeout=timeout, address_remap=_past)

    @property
    def connection_pool(self) -> Any:
        """Each node has one of its own, and a node that is no master any more says where the new one is."""
        return self

    def disconnect(self) -> None:
        pass

    def execute_command(self, *words: Any, **options: Any) -> Any:
        try:
            return super().execute_command(*(_tagged(word) for word in words), **options)
        except (redis.exceptions.RedisClusterException, AttributeError) as error:  # it may know no node for a moment
            raise redis.ConnectionError(str(error)) from error

    def pipeline(self, *_: Any, **__: Any) -> Any:
        """Redis-py's own may raise what is none of its errors, while nodes come and go."""
        return _OneByOne(self)

    def delete(self, *names: Any) -> int:
        return sum(self.execute_command("DEL", name) for name in names)

    def time(self, *_: Any, **__: Any) -> Any:
        return int(time.time()), 0

    def scan_iter(self, *words: Any, **options: Any) -> Iterator[bytes]:
        try:
            for name in super().scan_iter(*words, **options):
                yield name.replace(TAGGED.encode(), PLAIN.encode())
        except redis.exceptions.RedisClusterException as error:
            raise redis.ConnectionError(str(error)) from error


def _past(address: Address) -> Address:
    """The same node, past its gate."""
    return "127.0.0.1", address[1]


class _OneByOne:
    """As much of a pipeline as the rig needs."""

    def __init__(self, client: RigCluster) -> None:
        self._client, self._names = client, list[Any]()

    def hgetall(self, name: Any) -> None:
        self._names.append(name)

    def execute(self) -> list[Any]:
        return [self._client.execute_command("HGETALL", name) for name in self._names]


def _tagged(word: Any) -> Any:
    return TAGGED + word[len(PLAIN) :] if isinstance(word, str) and word.startswith(PLAIN) else word


class ClusterServer:
    """The cluster of a run, as the rig uses a server."""

    def __init__(self) -> None:
        self.cluster = LocalCluster(3, 1, gated=True)

    def __enter__(self) -> Self:
        self.cluster.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.cluster.close()

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"{self.cluster.host}:{node.port}" for node in self.cluster.nodes)

    def client(self, socket_timeout: float = 5.0) -> RigCluster:
        return RigCluster.of(self.url, socket_timeout)


class ClusterFaults:
    """What is done to the nodes and slots of a cluster, and to hashes. Each ends with a cluster that is well.

    Args:
        server: of the run.
        rng: chooses.
        journal: told of hashes that lose what stands beside their vectors.
    """

    def __init__(self, server: ClusterServer, rng: random.Random, journal: Callable[..., None]) -> None:
        self._server, self._cluster, self._rng, self._write = server, server.cluster, rng, journal
        binary = find_server()
        self._atomic = binary is not None and "valkey" in binary.name

    def all(self) -> list[Callable[[], tuple[str, None]]]:
        """Each fault."""
        faults = {
            "a master killed": self._kill_master,
            "a replica killed": self._kill_replica,
            "CLUSTER FAILOVER": self._fail_over,
            "the queue's slot moved key by key": partial(self._move, "{embed_queue}"),
            "a hash's slot moved key by key": self._move_hash,
            "a master stands still": self._stand_still,
            "connections cut": self._cut,
            "SCRIPT FLUSH": self._flush_scripts,
            "a hash written anew": self._strip,
            **{f"the way to a node: {how}": partial(self._cut_off, how) for how in HOWS},
        }
        if self._atomic:
            faults["the queue's slot moved at once"] = partial(self._move_at_once, "{embed_queue}")
        return [partial(self._do, name, fault) for name, fault in faults.items()]

    def _do(self, name: str, fault: Callable[[], None]) -> tuple[str, None]:
        self._cluster.await_well()
        fault()
        self._cluster.await_well()
        return name, None

    def _master(self) -> LocalRedis:
        """The queue's master as often as another one."""
        key = self._rng.choice(["{embed_queue}", f"doc:{self._rng.random()}"])
        return self._cluster.master_of(key)

    def _kill_master(self) -> None:
        master, key = self._master(), "{embed_queue}"
        slots = [key, *(f"doc:{number}" for number in range(30))]
        theirs = next((one for one in slots if self._cluster.master_of(one) is master), None)
        if theirs is None:
            return
        master.kill()
        self._cluster.await_other(theirs, master)
        master.start()

    def _kill_replica(self) -> None:
        for replica in self._cluster.replicas_of(self._master())[:1]:
            replica.kill()
            time.sleep(self._rng.uniform(0.0, 2.0))
            replica.start()

    def _fail_over(self) -> None:
        for replica in self._cluster.replicas_of(self._master())[:1]:
            self._cluster.fail_over(replica)

    def _move_hash(self) -> None:
        names = list(self._server.client().scan_iter("doc:*", count=1000))
        if names:
            self._move(self._rng.choice(names).decode())

    def _target(self, key: str) -> LocalRedis:
        home = self._cluster.master_of(key)
        masters = {self._cluster.master_of(f"doc:{number}").port: number for number in range(30)}
        return self._cluster.at_port(self._rng.choice([port for port in masters if port != home.port]))

    def _move(self, key: str) -> None:
        slot, home, target = key_slot(key.encode()), self._cluster.master_of(key), self._target(key)
        self._cluster.begin_move(slot, home, target)
        while self._cluster.move_keys(slot, home, target, most=1):
            time.sleep(self._rng.uniform(0.0, 0.05))
        self._cluster.end_move(slot, home, target)

    def _move_at_once(self, key: str) -> None:
        self._cluster.move_atomically(key, self._target(key))

    def _stand_still(self) -> None:
        master = self._master()
        assert master.pid is not None
        os.kill(master.pid, signal.SIGSTOP)
        time.sleep(self._rng.uniform(*STILL_SECONDS))
        os.kill(master.pid, signal.SIGCONT)

    def _cut(self) -> None:
        with self._master().client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def _cut_off(self, how: How) -> None:
        """Between clients and a master; the nodes still reach each other, so nobody takes over."""
        gate = self._cluster.gates[self._master().port]
        gate.shut(how)
        try:
            time.sleep(self._rng.uniform(*CUT_SECONDS))
        finally:
            gate.open()

    def _flush_scripts(self) -> None:
        for node in self._cluster.nodes:
            with node.client() as client:
                client.script_flush()

    def _strip(self) -> None:
        client = self._server.client()
        for name in self._rng.sample(names := sorted(client.scan_iter("doc:*", count=1000)), min(10, len(names))):
            vector = client.eval(STRIP, 1, name)
            if vector is not None:
                self._write("stripped", key=name.decode(), vector=digest(np.frombuffer(vector, dtype="<f4")))
