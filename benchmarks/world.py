"""The benchmark's own Redis and embedding server, and the checks that they make possible."""

from __future__ import annotations

import contextlib
import http.client
import json
import multiprocessing
import socket
import time
from collections.abc import Iterator
from typing import Any

import redis

from benchmarks import contenders, corpus, server
from benchmarks.settings import FIELD, Settings
from embedqueue.demo.localredis import LocalRedis

#: Answers the number of the first item from ARGV[2] on that has no vector yet, or ARGV[3].
_FIRST_MISSING = """
for i = tonumber(ARGV[2]), tonumber(ARGV[3]) - 1 do
  if redis.call('HEXISTS', ARGV[1] .. i, ARGV[4]) == 0 then return i end
end
return tonumber(ARGV[3])
"""
#: Answers how many of the items from 0 to ARGV[2]-1 have a vector.
_ARRIVED = """
local arrived = 0
for i = 0, tonumber(ARGV[2]) - 1 do
  arrived = arrived + redis.call('HEXISTS', ARGV[1] .. i, ARGV[3])
end
return arrived
"""
_POLL_SECONDS = 0.004
_CHUNK = 500


class Api:
    """The embedding server, in a process of its own."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._process = context.Process(target=server.run, args=(theirs,), name="embedding server", daemon=True)
        self._process.start()
        self._port = ours.recv()
        self._line = http.client.HTTPConnection("127.0.0.1", self._port)
        self.url = f"http://127.0.0.1:{self._port}/v1"

    def control(self, **wanted: Any) -> dict[str, Any]:
        """Set ``latency`` (seconds) or ``limit`` (calls at a time, or None), or ``reset`` what was counted."""
        self._line.request("POST", "/control", json.dumps(wanted))
        answer: dict[str, Any] = json.loads(self._line.getresponse().read())
        return answer

    def stats(self) -> dict[str, Any]:
        """What it has counted."""
        return self.control()

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.join()


class World:
    """Redis, the API, and who works in which database."""

    def __init__(self, redis_port: int, api: Api) -> None:
        self.redis_port = redis_port
        self.api = api
        self._databases = {name: number for number, name in enumerate(contenders.MODULES)}

    def settings(self, name: str, dimensions: int, **more: Any) -> Settings:
        """What contender ``name`` is told."""
        return Settings(self.redis_port, self._databases[name], self.api.url, dimensions, **more)

    def client(self, name: str) -> redis.Redis:
        """The harness's own client in the contender's database."""
        return redis.Redis(port=self.redis_port, db=self._databases[name])

    def wait(self, name: str, prefix: str, count: int, timeout: float, patience: float = 30.0, first: int = 0) -> int:
        """Wait until the items ``prefix{first}`` to ``prefix{count-1}`` have vectors; answers the first without.

        Gives up after ``timeout`` seconds, or when nothing has come for ``patience`` seconds.
        """
        client = self.client(name)
        first_missing = client.register_script(_FIRST_MISSING)
        done, moved, end = first, time.monotonic(), time.monotonic() + timeout
        while done < count:
            found = int(first_missing(args=[prefix, done, count, FIELD]))
            now = time.monotonic()
            if found > done:
                done, moved = found, now
            elif now > end or now - moved > patience:
                break
            else:
                time.sleep(_POLL_SECONDS)
        return done

    def wait_arrived(self, name: str, prefix: str, total: int, wanted: int, timeout: float) -> None:
        """Wait until ``wanted`` of ``total`` items have vectors, whichever."""
        arrived = self.client(name).register_script(_ARRIVED)
        end = time.monotonic() + timeout
        while int(arrived(args=[prefix, total, FIELD])) < wanted and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)

    def check(
        self, name: str, prefix: str, count: int, dimensions: int, chars: int = corpus.TEXT_CHARS, first: int = 0
    ) -> int:
        """How many of these items lack their vector. A wrong one is an error, and ends the benchmark."""
        client, missing = self.client(name), 0
        for at in range(first, count, _CHUNK):
            pairs = corpus.pairs(prefix, min(_CHUNK, count - at), at, chars)
            pipeline = client.pipeline(transaction=False)
            for key, _ in pairs:
                pipeline.hget(key, FIELD)
            for (key, text), found in zip(pairs, pipeline.execute(), strict=True):
                if found is None:
                    missing += 1
                elif found != corpus.vector(text.encode(), dimensions):
                    raise AssertionError(f"{name}: {key} carries a wrong vector")
        return missing

    def clear(self, name: str, prefix: str, count: int, first: int = 0) -> None:
        """Drop the hashes of these items."""
        client = self.client(name)
        for at in range(first, count, 5000):
            client.unlink(*(f"{prefix}{i}" for i in range(at, min(count, at + 5000))))

    def redis_cpu_seconds(self) -> float:
        """CPU time that Redis has used."""
        info = self.client("embedqueue").info("cpu")
        return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


@contextlib.contextmanager
def made() -> Iterator[World]:
    """Start everything, end everything."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with LocalRedis(appendonly=False, port=port), contextlib.closing(Api()) as api:
        yield World(port, api)
