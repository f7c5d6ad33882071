"""The Redis of a run: one server, perhaps with a clock of its own, or a master with a replica under a Sentinel."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self

import redis

from embedqueue.demo.localredis import LAUNCHER, LocalRedis
from tests.localcluster import free_ports

#: The name of the master, as the Sentinel knows it.
SERVICE = "rig"
#: Seconds that a failover may take: a Sentinel that could not run for 2 s does nothing for half a minute (TILT).
FAILOVER_SECONDS = 90.0


def find_faketime() -> Path | None:
    """Debian's libfaketime (``apt-get install faketime``)."""
    return next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


class ClockedRedis(LocalRedis):
    """A Redis whose clock can be stepped; its monotonic clock goes on, as a machine's does when its time is set.

    Args:
        folder: for the file that holds the offset, which libfaketime reads each time it is asked for the time.
        faketime: the library.
        kwargs: of LocalRedis.
    """

    def __init__(self, folder: Path, faketime: Path, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._offset_file = folder / "clock"
        self.offset = 0.0
        self.step(0.0)
        wrapper = folder / "redis-with-a-clock"
        variables = f"LD_PRELOAD={faketime} FAKETIME_TIMESTAMP_FILE={self._offset_file} FAKETIME_NO_CACHE=1"
        wrapper.write_text(f'#!/bin/sh\nexec env {variables} FAKETIME_DONT_FAKE_MONOTONIC=1 {self.binary} "$@"\n')
        wrapper.chmod(0o755)
        self.binary = wrapper

    def step(self, seconds: float) -> None:
        """Set the clock, in seconds against the real one."""
        self.offset = seconds
        fresh = self._offset_file.with_suffix(".new")
        fresh.write_text(f"{seconds:+.3f}")
        fresh.replace(self._offset_file)  # in one step: the server never reads half of it


class Node(LocalRedis):
    """One of several servers; it follows another when it is told so before its start."""

    def follow(self, port: int) -> Self:
        """Start as a replica of the server on that port, whatever it was before."""
        self._args = ("--replicaof", "127.0.0.1", str(port), "--repl-diskless-sync-delay", "0")
        return self

    def role(self) -> str:
        """ "master" or "slave"; "" while it does not answer."""
        with contextlib.suppress(redis.RedisError):
            return self.client(socket_timeout=1).role()[0].decode()
        return ""


class Replicated:
    """A master and a replica, both with their append-only file, and a Sentinel."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="eq-sentinel-"))
        self._port, *ports = free_ports(3)  # at once: one that is found alone may be found again
        self._sentinel: subprocess.Popen[bytes] | None = None
        first = Node(appendfsync="always", port=ports[0], args=("--repl-diskless-sync-delay", "0"))
        self.nodes = [first, Node(appendfsync="always", port=ports[1]).follow(first.port)]

    def __enter__(self) -> Self:
        try:
            for node in self.nodes:
                node.start()
            self._start_sentinel()
            self._await(lambda: self.replica() is not None, "the replica is not in step")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._sentinel is not None:
            self._sentinel.kill()
            self._sentinel.wait(10)
        for node in self.nodes:
            node.close()

    def _start_sentinel(self) -> None:
        config = self._folder / "sentinel.conf"
        config.write_text(
            f"port {self._port}\nbind 127.0.0.1\ndir {self._folder}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {self.nodes[0].port} 1\n"
            f"sentinel down-after-milliseconds {SERVICE} 3000\nsentinel failover-timeout {SERVICE} 4000\n"
        )
        command = [sys.executable, "-ISc", LAUNCHER, str(self.nodes[0].binary), str(config), "--sentinel"]
        with (self._folder / "log").open("ab") as log:
            self._sentinel = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._await(lambda: self.master_port() == self.nodes[0].port, "the Sentinel does not answer")

    def _await(self, done: Any, what: str) -> None:
        deadline_mono = time.monotonic() + FAILOVER_SECONDS
        while not done():
            if time.monotonic() > deadline_mono:
                raise AssertionError(f"{what} within {FAILOVER_SECONDS:.0f} s")
            time.sleep(0.05)

    @property
    def url(self) -> str:
        """For the actors."""
        return f"sentinel://127.0.0.1:{self._port}/{SERVICE}"

    def sentinel(self) -> redis.Redis:
        """A client of the Sentinel."""
        return redis.Redis(port=self._port, socket_timeout=5, decode_responses=True)

    def master_port(self) -> int:
        """The port of the master, as the Sentinel sees it; 0 while it says nothing."""
        with contextlib.suppress(redis.RedisError):
            found = self.sentinel().execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
            return int(found[1]) if found else 0
        return 0

    def master(self) -> Node | None:
        """The server that is the master by its own word and by the Sentinel's."""
        port = self.master_port()
        return next((node for node in self.nodes if node.port == port and node.role() == "master"), None)

    def replica(self) -> Node | None:
        """The other one, if it is in step and the Sentinel would promote it."""
        master = self.master()
        if master is None:
            return None
        with contextlib.suppress(redis.RedisError):
            info = master.client(socket_timeout=1).info("replication")
            states = self.sentinel().execute_command("SENTINEL", "REPLICAS", SERVICE)
            fit = any("slave" == dict_of(state).get("flags") for state in states)
            if info.get("connected_slaves") == 1 and info["slave0"]["state"] == "online" and fit:
                return next(node for node in self.nodes if node is not master)
        return None

    def client(self, **kwargs: Any) -> redis.Redis:
        """A client of the master."""
        master = self.master()
        if master is None:
            raise redis.ConnectionError("there is no master at the moment")
        return master.client(**kwargs)

    def fail_over(self, *, kill: bool) -> None:
        """Let the replica take over, without losing what was acknowledged.

        Replication is asynchronous: what a master acknowledged in the moment before it died may be lost, whoever the
        client is. So the master is first kept from acknowledging anything more (CLIENT PAUSE WRITE) until the replica
        has everything (WAIT); then it is killed, or told to go.

        Args:
            kill: kill the master and let the Sentinel find out; else SENTINEL FAILOVER.
        """
        self._await(lambda: self.replica() is not None, "the replica is not in step")
        old = self.master()
        assert old is not None
        other = next(node for node in self.nodes if node is not old)
        client = old.client(socket_timeout=5)
        client.execute_command("CLIENT", "PAUSE", int(FAILOVER_SECONDS * 1000), "WRITE")
        offset = client.info("replication")["master_repl_offset"]
        self._await(lambda: _offset(other) >= offset, "the replica has not got everything")
        if kill:
            old.kill()
        else:
            self.sentinel().execute_command("SENTINEL", "FAILOVER", SERVICE)
        self._await(lambda: self.master() is other, "the replica did not take over")
        if kill:
            old.follow(other.port).start()
        else:  # the Sentinel's own word to it may stand behind its PUBLISH, which the pause holds
            client.execute_command("REPLICAOF", "127.0.0.1", other.port)
            client.execute_command("CLIENT", "UNPAUSE")


def dict_of(flat: Any) -> dict[str, str]:
    """A reply of the Sentinel: a dict, or names and values in turn."""
    return flat if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))


def _offset(node: Node) -> int:
    with contextlib.suppress(redis.RedisError):
        return int(node.client(socket_timeout=1).info("replication").get("slave_repl_offset", 0))
    return -1
