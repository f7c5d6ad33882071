"""12. What does it cost to wait for a replica (``min_replicas``), beside a bare ZADD with a WAIT behind it?"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import redis

from benchmarks.bench import Bench, Cell, Measured
from benchmarks.figures import Answer, ratio_target
from embedqueue.demo.localredis import LocalRedis

TITLE = "Enqueue, one item a call, with a replica on the same machine"
UNIT = "items/s"
NAMES = ("zadd", "embedqueue")
#: Threads, and how many times bare ZADD + WAIT it must be.
WANTED = ((1, 0.9), (32, 2.0))
_SYNC_SECONDS = 30.0


def run(bench: Bench) -> Answer:
    """Both with and without the wait, so that its price is seen as well."""
    seconds = 0.2 if bench.quick else 0.4
    with contextlib.ExitStack() as stack:
        stack.enter_context(_replica(bench.world.client("embedqueue"), bench.world.redis_port))
        producers = {}
        for replicas in (0, 1):
            options = {"max_batch_size": 10**9, "min_replicas": replicas}
            made = stack.enter_context(bench.producers(NAMES, 768, options=options))
            for name, producer in made.items():
                producers[name, replicas] = producer
                producer.burst(f"warm{replicas}:", 4, 0.1)

        def measure(cell: Cell, turn: int) -> Measured:
            at = cell.situation
            producer = producers[cell.contender, at["min_replicas"]]
            rate = producer.burst(f"w{turn}-{at['min_replicas']}-{at['threads']}:", at["threads"], seconds)
            bench.empty(cell.contender)
            return rate, {}

        cells = bench.cells(NAMES, min_replicas=(0, 1), threads=tuple(threads for threads, _ in WANTED))
        rows = bench.interleave(TITLE, UNIT, cells, measure)
    answer = Answer("replicas", TITLE, rows)
    for threads, wanted in WANTED:
        ours, bare = (answer.find(name, min_replicas=1, threads=threads) for name in ("embedqueue", "zadd"))
        answer.targets += ratio_target(f"replicas, callers: {threads}, times bare ZADD + WAIT", ours, bare, wanted)
    return answer


@contextlib.contextmanager
def _replica(master: redis.Redis, port: int) -> Iterator[None]:
    """A replica that is in step."""
    master.config_set("repl-diskless-sync-delay", 0)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        own = probe.getsockname()[1]
    with LocalRedis(appendonly=False, port=own, args=("--replicaof", "127.0.0.1", str(port))):
        end = time.monotonic() + _SYNC_SECONDS
        while master.wait(1, 1000) < 1:
            if time.monotonic() > end:
                raise TimeoutError("the replica is not in step")
        yield
