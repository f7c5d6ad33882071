"""The conductor: starts everything, injects faults, puts all to rest, asks the checker."""

from __future__ import annotations

import argparse
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import redis

from embedqueue.localredis import LocalRedis
from tests.provider import Provider
from tests.torture.actor import make_queue
from tests.torture.checker import Hashes, Verdict, check, drain_rest
from tests.torture.faults import Faults
from tests.torture.network import Proxy

KINDS = ("process", "redis", "provider", "network")
SETTLE_SECONDS = 60.0


class Crowd:
    """The processes: a dead one is replaced by another with keys of its own."""

    def __init__(self, folder: Path, redis_url: str, provider_url: str, roles: list[str], seed: int) -> None:
        self._folder = folder
        self._redis_url = redis_url
        self._provider_url = provider_url
        self._seed = seed
        self._born = 0
        self._lock = threading.Lock()
        self._actors = {self._start(role): role for role in roles}

    def _start(self, role: str) -> subprocess.Popen[bytes]:
        self._born += 1
        command = [sys.executable, "-m", "tests.torture.actor", "--role", role, "--name", f"p{self._born}"]
        command += ["--redis", self._redis_url, "--provider", self._provider_url]
        command += ["--journal", str(self._folder / f"{self._born}.journal"), "--seed", str(self._seed + self._born)]
        with (self._folder / f"{self._born}.log").open("wb") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def alive(self) -> list[subprocess.Popen[bytes]]:
        with self._lock:
            return [actor for actor in self._actors if actor.poll() is None]

    def replace_dead(self) -> None:
        with self._lock:
            for actor, role in list(self._actors.items()):
                if actor.poll() is not None:
                    del self._actors[actor]
                    self._actors[self._start(role)] = role

    def end(self) -> None:
        """SIGTERM: producers first, for what they wait for wants a worker."""
        for ending in ("producer", "worker"):
            actors = [actor for actor, role in self._actors.items() if role == ending]
            for actor in actors:
                actor.terminate()
            for actor in actors:
                try:
                    actor.wait(timeout=40)
                except subprocess.TimeoutExpired:
                    actor.kill()
                    actor.wait(timeout=5)
                    raise AssertionError(f"a {ending} did not end within 40 s of SIGTERM") from None

    def tracebacks(self) -> list[str]:
        """Logs that show an error that nobody handled."""
        found = []
        for path in self._folder.glob("*.log"):
            text = path.read_text("utf-8", "replace")
            if "Traceback" in text:
                found.append(text[-3000:])
        return found


def _reach(server: LocalRedis) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(server.url.removeprefix("unix://"))
    return connection


def _call(provider: Provider) -> socket.socket:
    address = urlsplit(provider.openai_url)
    return socket.create_connection((address.hostname, address.port))


def run(
    seconds: float, seed: int, kinds: set[str], producers: int, workers: int, pace: float
) -> tuple[Verdict, Faults]:
    """One run; returns what it came to."""
    rng = random.Random(seed)
    with (
        tempfile.TemporaryDirectory() as name,
        LocalRedis(appendfsync="always") as server,
        Provider() as provider,
    ):
        folder = Path(name)
        provider.latency = 0.02
        proxies = {"redis": Proxy(partial(_reach, server), rng), "api": Proxy(partial(_call, provider), rng)}
        roles = ["producer"] * producers + ["worker"] * workers
        redis_url = f"redis://127.0.0.1:{proxies['redis'].port}"
        provider_url = f"http://127.0.0.1:{proxies['api'].port}/v1"
        crowd = Crowd(folder, redis_url, provider_url, roles, seed * 1000)
        faults = Faults(kinds, rng, server, provider, crowd.alive, proxies)
        hashes = Hashes()
        end_mono = time.monotonic() + seconds
        while time.monotonic() < end_mono:
            time.sleep(pace * rng.uniform(0.3, 1.7))  # the pace of the faults is what this waits for
            faults.one()
            crowd.replace_dead()
            with suppress(redis.RedisError):
                hashes.watch(server.client(socket_timeout=2))
        faults.end()
        crowd.end()
        for proxy in proxies.values():
            proxy.close()
        with make_queue(server.url, provider.openai_url, worker=True) as queue:
            drain_rest(queue, SETTLE_SECONDS)
        injected = sum(faults.injected.values())
        verdict = check(server.client(), folder, hashes, provider.sent, faults_injected=injected)
        verdict.faults += [f"an error that nobody handled: {text}" for text in crowd.tracebacks()]
    return verdict, faults


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long faults are injected (default 60)")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3), "big"))
    parser.add_argument("--faults", default=",".join(KINDS), help=f"of {', '.join(KINDS)}, or none (default all)")
    parser.add_argument("--producers", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pace", type=float, default=0.5, help="seconds between faults, on average (default 0.5)")
    options = parser.parse_args()
    kinds = set(options.faults.split(",")) - {"none", ""}
    if kinds - set(KINDS):
        parser.error(f"unknown faults: {', '.join(sorted(kinds - set(KINDS)))}")
    print(f"seed {options.seed}, {options.seconds:.0f} s, faults: {', '.join(sorted(kinds)) or 'none'}", flush=True)
    verdict, faults = run(options.seconds, options.seed, kinds, options.producers, options.workers, options.pace)
    for name, count in sorted(faults.injected.items()):
        print(f"  {name:22} {count:5}")
    print(
        f"accepted {verdict.items} items of {verdict.keys} keys; dead letters {verdict.dead}; "
        f"futures ended {verdict.futures}, with a vector {verdict.futures_with_vector}; "
        f"texts sent {verdict.sent}, again {verdict.sent_again}, most {verdict.most_sent} times"
    )
    for fault in verdict.faults[:20]:
        print(f"BROKEN: {fault}")
    print("broken promises:", len(verdict.faults))
    return 1 if verdict.faults else 0


if __name__ == "__main__":
    sys.exit(main())
