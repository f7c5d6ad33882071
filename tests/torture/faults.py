"""What the rig does to processes, to Redis and to the provider, one fault at a time."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import redis

from embedqueue.localredis import LocalRedis
from tests.provider import Provider, drop, fail, hang, raw, trickle, truncate
from tests.torture.actor import LEASE_SECONDS
from tests.torture.network import SPOILS, Proxy, Spoil

#: Answers that no client should trust: 200 with something else than one vector a text.
MALFORMED: tuple[Any, ...] = (
    b"",
    b"{",
    b"null",
    b"[]",
    b"{}",
    b'{"data": null}',
    b'{"data": []}',
    b'{"data": [{"index": 0, "embedding": null}]}',
    b'{"data": [{"index": 0, "embedding": "not base64"}]}',
    b'{"data": [{"index": 7, "embedding": [1.0]}]}',
    b'{"data": [{"index": 0, "embedding": [NaN]}]}',
    b'{"data": [{"index": 0, "embedding": [1e400, 1]}]}',
    b'{"error": {"code": 503, "message": "no instances available"}}',
    b'{"error": "overloaded"}',
    b'{"detail": "gateway"}',
    b"<html><body>502 Bad Gateway</body></html>",
    b"\xff\xfe\x00garbage",
)
STATUSES = (408, 409, 425, 429, 500, 502, 503, 504, 520, 524, 529)


class Faults:
    """Injects faults, and counts them."""

    def __init__(
        self,
        kinds: set[str],
        rng: random.Random,
        server: LocalRedis,
        provider: Provider,
        actors: Callable[[], list[subprocess.Popen[bytes]]],
        proxies: dict[str, Proxy],
    ) -> None:
        self.injected: Counter[str] = Counter()
        self._rng = rng
        self._server = server
        self._provider = provider
        self._actors = actors
        self._proxies = proxies
        self._thaw: list[tuple[float, int]] = []
        table: dict[str, list[Callable[[], None]]] = {
            "process": [self.kill, self.kill, self.terminate, self.freeze],
            "redis": [
                self.redis_restart,
                self.redis_kill,
                self.redis_flush_scripts,
                self.redis_cut_clients,
                self.redis_pause,
                self.redis_read_only,
                self.redis_full,
                self.redis_drop_notices,
            ],
            "provider": [self.provider_status, self.provider_malformed, self.provider_cut, self.provider_slow],
            "network": [partial(self.network, name, how) for name in proxies for how in SPOILS],
        }
        self._choices = [fault for kind in sorted(kinds) for fault in table[kind]]

    def one(self) -> None:
        """Inject a fault."""
        self.thaw()
        if self._choices:
            fault = self._rng.choice(self._choices)
            fault()
            name = " ".join(fault.args) if isinstance(fault, partial) else fault.__name__.replace("_", " ")
            self.injected[name] += 1

    def end(self) -> None:
        """Undo what would last."""
        self.thaw(everything=True)
        with suppress(redis.RedisError):
            self._client().execute_command("REPLICAOF", "NO", "ONE")
            self._client().config_set("maxmemory", 0)
        with self._provider._changed:
            self._provider._script.clear()
        self._provider.release()
        for proxy in self._proxies.values():
            proxy.heal()

    def _client(self) -> redis.Redis:
        return self._server.client(socket_timeout=5)

    def _signal(self, number: int) -> int | None:
        actors = self._actors()
        if not actors:
            return None
        actor = self._rng.choice(actors)
        with suppress(ProcessLookupError):
            os.kill(actor.pid, number)
        return actor.pid

    # -- processes ---------------------------------------------------------------------------------------------

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def freeze(self) -> None:
        """Stopped for longer than a lease: when it goes on, others have done its work."""
        pid = self._signal(signal.SIGSTOP)
        if pid is not None:
            self._thaw.append((time.monotonic() + LEASE_SECONDS * self._rng.uniform(0.5, 2.0), pid))

    def thaw(self, *, everything: bool = False) -> None:
        for due_mono, pid in list(self._thaw):
            if everything or due_mono <= time.monotonic():
                self._thaw.remove((due_mono, pid))
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    # -- Redis -------------------------------------------------------------------------------------------------

    def redis_restart(self) -> None:
        self._server.restart()

    def redis_kill(self) -> None:
        self._server.kill()
        self._server.start()

    def redis_flush_scripts(self) -> None:
        self._client().script_flush()

    def redis_cut_clients(self) -> None:
        with suppress(redis.RedisError):
            self._client().execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def redis_pause(self) -> None:
        self._client().execute_command("CLIENT", "PAUSE", self._rng.choice([200, 1000]), "ALL")

    def redis_read_only(self) -> None:
        client = self._client()
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        time.sleep(self._rng.uniform(0.1, 0.6))
        client.execute_command("REPLICAOF", "NO", "ONE")

    def redis_full(self) -> None:
        client = self._client()
        client.config_set("maxmemory", 1)
        time.sleep(self._rng.uniform(0.1, 0.6))
        client.config_set("maxmemory", 0)

    def redis_drop_notices(self) -> None:
        self._client().delete("embed_queue:events")

    # -- the provider ------------------------------------------------------------------------------------------

    def provider_status(self) -> None:
        self._provider.script(*[fail(self._rng.choice(STATUSES)) for _ in range(self._rng.choice([1, 1, 6]))])

    def provider_malformed(self) -> None:
        self._provider.script(raw(self._rng.choice(MALFORMED)))

    def provider_cut(self) -> None:
        self._provider.script(self._rng.choice([drop(), truncate()]))

    def provider_slow(self) -> None:
        self._provider.script(self._rng.choice([trickle(0.05), hang()]))

    # -- the network -------------------------------------------------------------------------------------------

    def network(self, name: str, how: Spoil) -> None:
        self._proxies[name].spoil(how, upwards=self._rng.random() < 0.5)
