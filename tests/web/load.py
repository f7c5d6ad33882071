"""``python -m tests.web.load --seconds 60``: the Flask example under load, while its workers are killed and reloaded.

Gunicorn with 2 workers of 8 threads; clients in processes of their own post notes at an even rate, in turns to the
handler that saves and enqueues and to the same handler without embedqueue. What counts: no 5xx, every acknowledged note
ends with its vector, and the two handlers' median latencies differ by no more than 3 ms.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import multiprocessing
import os
import random
import signal
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from embedqueue.demo.localredis import LocalRedis
from tests.parts import eventually
from tests.web.servers import Running, gunicorn, site_of

PATHS = ("/notes", "/plain")
FORM = "application/x-www-form-urlencoded"
PROCESSES, THREADS = 2, 4
#: Seconds between two blows: SIGKILL for a worker, then HUP for all, and so on.
BLOW_SECONDS = 3.0
LEASE_SECONDS = 5
VECTOR_BYTES = 256 * 4
#: What the median latency may grow by, in milliseconds.
ALLOWED_MS = 3.0
WORDS = "tomato brake soup passport tram tooth dentist guitar cat rent bicycle river garage carrot metronome".split()


@dataclass
class Load:
    """What clients saw, and what became of it."""

    acknowledged: list[str] = field(default_factory=list)
    took_ms: dict[str, list[float]] = field(default_factory=lambda: {path: [] for path in PATHS})
    statuses: dict[int, int] = field(default_factory=dict)
    cut: int = 0  # connections that ended without an answer: their worker was killed
    kills: int = 0
    reloads: int = 0
    lost: list[str] = field(default_factory=list)
    output: str = ""

    def add(self, other: Load) -> None:
        """What another client saw."""
        self.acknowledged += other.acknowledged
        self.cut += other.cut
        for path, times in other.took_ms.items():
            self.took_ms[path] += times
        for status, count in other.statuses.items():
            self.statuses[status] = self.statuses.get(status, 0) + count

    @property
    def failures(self) -> int:
        """Answers that are 5xx."""
        return sum(count for status, count in self.statuses.items() if status >= 500)

    @property
    def added_ms(self) -> float:
        """What embedqueue adds to the median latency."""
        ours, plain = (statistics.median(self.took_ms[path]) for path in PATHS)
        return ours - plain

    def report(self) -> Iterator[str]:
        """Lines."""
        yield f"notes acknowledged   {len(self.acknowledged)}, lost {len(self.lost)}"
        yield f"answers by status    {self.statuses}"
        yield f"workers killed       {self.kills}, reloads {self.reloads}, connections cut by that {self.cut}"
        for path in PATHS:
            times = statistics.quantiles(self.took_ms[path], n=100)
            shown = ", ".join(f"p{rank} {times[rank - 1]:.2f}" for rank in (50, 95, 99))
            yield f"{path:8}             {shown} ms, {len(self.took_ms[path])} posts"
        yield f"p50 with embedqueue  {self.added_ms:+.2f} ms"


def _post(address: tuple[str, int], path: str, text: str, load: Load) -> None:
    """One post on a connection of its own, as from a visitor of its own."""
    connection = http.client.HTTPConnection(*address, timeout=30)
    began = time.perf_counter()
    try:
        connection.request("POST", path, urlencode({"text": text}), {"Content-Type": FORM, "Connection": "close"})
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException):
        load.cut += 1
        return
    finally:
        connection.close()
    load.took_ms[path].append((time.perf_counter() - began) * 1000)
    load.statuses[answer.status] = load.statuses.get(answer.status, 0) + 1
    if answer.status == 303 and path == "/notes":
        load.acknowledged.append(answer.headers["Location"].partition("#")[2])


def _client(address: tuple[str, int], seconds: float, every_seconds: float, load: Load) -> None:
    """Post in turns to both handlers, at an even rate; a slow answer makes the next post late, not lost."""
    end_mono = time.monotonic() + seconds
    due_mono = time.monotonic() + random.uniform(0, every_seconds)
    for path in itertools.cycle(PATHS):
        time.sleep(max(0.0, due_mono - time.monotonic()))
        if time.monotonic() >= end_mono:
            return
        _post(address, path, " ".join(random.choices(WORDS, k=8)), load)
        due_mono = max(due_mono + every_seconds, time.monotonic())


def _clients(address: tuple[str, int], seconds: float, rate: float, results: Connection) -> None:
    """A process of clients, with a rate of its own."""
    loads = [Load() for _ in range(THREADS)]
    every_seconds = THREADS / rate
    threads = [threading.Thread(target=_client, args=(address, seconds, every_seconds, load)) for load in loads]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = Load()
    for load in loads:
        total.add(load)
    results.send(total)


def _workers(running: Running) -> list[int]:
    """The processes of gunicorn's workers."""
    pid = running.process.pid
    return [int(found) for found in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _strike(running: Running, load: Load, seconds: float) -> None:
    """Kill a worker, reload all, kill a worker ... until the time is over."""
    end_mono = time.monotonic() + seconds
    for blow in itertools.cycle(("kill", "reload")):
        if time.monotonic() + BLOW_SECONDS >= end_mono:
            return
        time.sleep(BLOW_SECONDS)
        if blow == "kill":
            os.kill(random.choice(_workers(running)), signal.SIGKILL)
            load.kills += 1
        else:
            running.send(signal.SIGHUP)
            load.reloads += 1


def run(seconds: float, rate: float, processes: int = PROCESSES) -> Load:
    """Load the site for so long with so many posts a second; wait until what was acknowledged is embedded."""
    total = Load()
    with LocalRedis(search=True) as server:
        env = {"EMBEDQUEUE_REDIS_URL": server.url, "EMBEDQUEUE_PROVIDER": "local", "EMBEDQUEUE_FLUSH_INTERVAL": "1"}
        env["EMBEDQUEUE_LEASE_SECONDS"] = str(LEASE_SECONDS)
        options = ["--workers", "2", "--worker-class", "gthread", "--threads", "8"]
        with gunicorn(env, *options, app="tests.web.load_site:app") as running:
            parts = urlsplit(site_of(running).url)
            address = (parts.hostname or "", parts.port or 0)
            for path in PATHS:  # the clients start when the site answers
                _post(address, path, "first", total)
            total.took_ms = {path: [] for path in PATHS}
            context = multiprocessing.get_context("spawn")
            pipes = [context.Pipe(duplex=False) for _ in range(processes)]
            orders = [(address, seconds, rate / processes, results) for _, results in pipes]
            clients = [context.Process(target=_clients, args=order) for order in orders]
            for client in clients:
                client.start()
            _strike(running, total, seconds)
            for (answers, _), client in zip(pipes, clients, strict=True):
                assert answers.poll(seconds + 60), "a client does not come back"
                total.add(answers.recv())
                client.join(45)
            redis: Any = server.client()

            def missing() -> list[str]:
                pipe = redis.pipeline(transaction=False)
                for key in total.acknowledged:
                    pipe.hstrlen(key, "embedding")
                return [k for k, size in zip(total.acknowledged, pipe.execute(), strict=True) if size != VECTOR_BYTES]

            with contextlib.suppress(AssertionError):  # the report tells how many
                eventually(lambda: not missing(), "all are written", LEASE_SECONDS + 20)
            total.lost = missing()
            redis.close()
            running.send(signal.SIGTERM)
            running.ended()
            total.output = running.output
    return total


def main() -> None:
    """Print what came out; the exit code tells whether it is good."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=100.0, help="posts a second, half of them to each handler")
    arguments = parser.parse_args()
    load = run(arguments.seconds, arguments.rate)
    print("\n".join(load.report()))
    good = not load.failures and not load.lost and load.added_ms <= ALLOWED_MS
    print("good" if good else f"NOT good\n{load.output[-3000:]}")
    sys.exit(not good)


if __name__ == "__main__":
    main()
