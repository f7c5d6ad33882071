"""3. Items a second from a standing backlog, with CPU, API calls and memory.

A worker is warmed up and frozen; its backlog is put in; then it goes on. The time runs from the first API call that
the server sees until the last hash has its vector, so that no contender's start or polling counts.
"""

from __future__ import annotations

import time

from benchmarks.bench import Bench, Cell, Measured
from benchmarks.children import Producer, Worker
from benchmarks.contenders import FRAMEWORKS
from benchmarks.figures import Answer, Row, ratio_target
from benchmarks.settings import CALL_TEXTS, CALLS

TITLE = "Drain a backlog"
#: Contenders with one call in flight, whatever they are told.
SEQUENTIAL = ("limit-loop", "asyncio", "asyncio-lists")
MAIN = ("limit-pool", "limit-loop", "embedqueue", "asyncio", "asyncio-lists")
LATENCIES_MS = (0, 20, 100, 400)
#: Calls' worth of items in one run: of those with many calls in flight, and of the sequential ones.
_ROUNDS = {0: (64, 30), 20: (72, 24), 100: (48, 10), 400: (24, 4)}


def run(bench: Bench) -> Answer:
    """Everybody at 3072 dimensions; embedqueue, the limits and the asyncio queue at 768 as well."""
    answer = Answer("drain", TITLE)
    latencies = (0, 100) if bench.quick else LATENCIES_MS
    answer.rows += _at(bench, bench.present(*MAIN, *FRAMEWORKS), 3072, latencies)
    if not bench.quick:
        answer.rows += _at(bench, bench.present(*MAIN), 768, latencies)
    for dimensions in (3072, 768):
        for latency in latencies:
            _judge(answer, latency, dimensions)
    return answer


def _at(bench: Bench, names: list[str], dimensions: int, latencies: tuple[int, ...]) -> list[Row]:
    settings = {name: bench.world.settings(name, dimensions) for name in names}
    with bench.producers(names, dimensions) as producers, bench.workers(settings) as workers:
        for name in names:
            warm(bench, name, producers[name], workers[name], "w")

        def measure(cell: Cell, turn: int) -> Measured:
            latency = cell.situation["latency_ms"]
            count = _ROUNDS[latency][cell.contender in SEQUENTIAL] * CALL_TEXTS
            name, prefix = cell.contender, f"d{turn}-{latency}:"
            warm(bench, name, producers[name], workers[name], f"w{turn}-{latency}:")
            producers[name].fill_many(prefix, count)
            return timed(bench, name, [workers[name]], prefix, count, dimensions, latency)

        cells = bench.cells(names, dimensions=(dimensions,), latency_ms=latencies)
        rows = bench.interleave(f"{TITLE}, {dimensions} dimensions", "items/s", cells, measure)
    for name in names:
        bench.empty(name)
    return rows


def warm(bench: Bench, name: str, producer: Producer, worker: Worker, prefix: str, latency_ms: int = 0) -> None:
    """Let a worker do a little, so that it is awake and connected; leaves it frozen."""
    count = CALL_TEXTS * (1 if name in SEQUENTIAL else CALLS)
    bench.world.api.control(latency=latency_ms / 1000)
    worker.thaw()
    producer.fill_many(prefix, count)
    if bench.world.wait(name, prefix, count, timeout=60) < count:
        raise RuntimeError(f"{name} does not drain; is its worker alive: {worker.alive}")
    worker.freeze()
    bench.world.clear(name, prefix, count)


def timed(
    bench: Bench, name: str, workers: list[Worker], prefix: str, count: int, dimensions: int, latency_ms: int
) -> Measured:
    """Let frozen workers drain what stands there, and measure it; leaves them frozen."""
    world = bench.world
    world.api.control(latency=latency_ms / 1000, reset=True)
    cpu, redis_cpu = sum(worker.cpu_seconds() for worker in workers), world.redis_cpu_seconds()
    for worker in workers:
        worker.reset_peak()
    for worker in workers:
        worker.thaw()
    done = world.wait(name, prefix, count, timeout=120)
    end = time.monotonic()
    cpu = sum(worker.cpu_seconds() for worker in workers) - cpu
    redis_cpu = world.redis_cpu_seconds() - redis_cpu
    peak = sum(worker.peak_bytes() for worker in workers)
    for worker in workers:
        worker.freeze()
    stats = world.api.stats()
    if done < count or world.check(name, prefix, count, dimensions):
        raise AssertionError(f"{name} left {count - done} of {count} items without a vector")
    world.clear(name, prefix, count)
    return count / (end - stats["first_call"]), {
        "cpu_s_per_1000": cpu / count * 1000,
        "redis_cpu_s_per_1000": redis_cpu / count * 1000,
        "calls_per_1000": stats["calls"] / count * 1000,
        "sent_per_item": stats["texts"] / count,
        "peak_mb": peak / 2**20,
    }


def _judge(answer: Answer, latency: int, dimensions: int) -> None:
    at = {"dimensions": dimensions, "latency_ms": latency}
    ours = answer.find("embedqueue", **at)
    where = f"drain, {latency} ms, {dimensions} dimensions"
    if latency:
        pool = answer.find("limit-pool", **at)
        answer.targets += ratio_target(f"{where}: times the pool of bare requests", ours, pool, 0.95)
    else:
        limits = [row for name in ("limit-pool", "limit-loop") if (row := answer.find(name, **at))]
        better = max(limits, key=lambda row: row.median, default=None)
        answer.targets += ratio_target(f"{where}: times the better of loop and pool", ours, better, 0.8)
    for name in ("asyncio-lists", "asyncio"):
        what = "the asyncio queue" if name == "asyncio-lists" else "the asyncio queue given base64"
        answer.targets += ratio_target(f"{where}: times {what}", ours, answer.find(name, **at), 3.0)
    others = [row for name in FRAMEWORKS if (row := answer.find(name, **at))]
    best = max(others, key=lambda row: row.median, default=None)
    if best is not None:
        answer.targets += ratio_target(f"{where}: times the best framework ({best.contender})", ours, best, 1.0)
