"""15. Ten million items that wait on one node: how fast they go in and come out, and what the queue costs then.

A backlog of its own, put in once by one producer, of short texts: with longer ones, the memory of one machine would be
what is measured. Times of single steps are those that a client sees.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable
from typing import Any

import psutil

from benchmarks.bench import Bench
from benchmarks.children import Producer, Worker
from benchmarks.figures import Answer, Row
from embedqueue import EmbeddingBatchQueue
from embedqueue.store.store import Store
from embedqueue.testing import FakeEmbedder

TITLE = "Ten million items that wait on one node"
DIMENSIONS = 768
CHARS = 24
_NAMESPACE = "millions"
_PREFIX = f"{_NAMESPACE}-doc:"
_FILL_ITEMS = 10_000
_DRAIN_ITEMS = 50_000
_SINGLE_SECONDS = 5.0
_TIMES = 21
_FLUSH, _FLUSH_SECONDS = "flush(timeout=0.1), beyond its timeout", 0.1
#: Memory that must be free for each item: what it takes, and room for what a script or a snapshot makes meanwhile.
_ENOUGH_BYTES = 1_000


def run(bench: Bench) -> Answer:
    """As many as are asked for, or as there is memory for."""
    answer = Answer("millions", TITLE)
    count = bench.items or (200_000 if bench.quick else 10_000_000)
    fits = psutil.virtual_memory().available // _ENOUGH_BYTES
    if count > fits:
        count = fits // 1_000_000 * 1_000_000 or fits
        answer.notes.append(f"There is memory for {count:,} only.")
    options: dict[str, Any] = {"namespace": _NAMESPACE, "lease_seconds": 3600.0}
    producer = Producer("embedqueue", bench.world.settings("embedqueue", DIMENSIONS, options=options))
    try:
        _measure(bench, answer, producer, count, options)
    finally:
        producer.close()
        bench.world.client("embedqueue").flushdb(asynchronous=True)
    return answer


def _measure(bench: Bench, answer: Answer, producer: Producer, count: int, options: dict[str, Any]) -> None:
    client = bench.world.client("embedqueue")
    before = client.info("memory")["used_memory"]

    def note(unit: str, values: list[float], what: str = "", **more: float) -> None:
        at: dict[str, Any] = {"depth": count} | ({"step": what} if what else {})
        answer.rows.append(Row("embedqueue", at, unit, values, more))

    note("enqueued/s by enqueue_many, each tenth", _fill(bench, producer, count))
    used = client.info("memory")["used_memory"] - before
    note("GB of Redis", [used / 2**30], bytes_per_item=used / count, zset_bytes_per_item=_of_zset(client, count))
    note("enqueued/s, one item a call, one caller", [producer.burst(f"{_PREFIX}one-", 1, _SINGLE_SECONDS)])
    for what, milliseconds in _steps(client, count).items():
        note("ms until a client has the answer", milliseconds, what, most_ms=max(milliseconds))
    note("drained/s", [_drain(bench, options)])


def _fill(bench: Bench, producer: Producer, count: int) -> list[float]:
    """The rates of each tenth."""
    advance, rates, share = bench.step(f"{TITLE}: filling", 10), [], count // 10
    for tenth in range(10):
        seconds = sum(
            producer.fill_many(_PREFIX, min(_FILL_ITEMS, share - at), tenth * share + at, CHARS)
            for at in range(0, share, _FILL_ITEMS)
        )
        rates.append(share / seconds)
        advance()
    return rates


def _of_zset(client: Any, count: int) -> float:
    return float(client.memory_usage(f"{_NAMESPACE}:pending", samples=1000) or 0) / count


def _steps(client: Any, count: int) -> dict[str, list[float]]:
    store = Store(client, _NAMESPACE)
    queue = EmbeddingBatchQueue(FakeEmbedder(DIMENSIONS), client, namespace=_NAMESPACE, worker=False)
    owners = (f"worker:{number}/3600.000:" for number in itertools.count(1))
    how = {"probe_limit": 50, "lease_seconds": 3600.0, "max_deliveries": 5, "alone": False}
    claimed: list[Any] = []

    def claim(limit: int) -> None:
        claimed.append(store.claim(next(owners), limit, **how))

    def release() -> None:
        one = claimed.pop()
        store.release([(one.owner, member) for member in one.members])

    def flush() -> None:
        with contextlib.suppress(TimeoutError):
            queue.flush(_FLUSH_SECONDS)

    steps: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "stats()": (queue.stats, int),
        "a claim of 50": (lambda: claim(50), release),
        "a claim of 1,000": (lambda: claim(1000), release),
        "a flush asks what is unfinished": (lambda: store.status("flush"), lambda: store.end_flush("flush")),
        _FLUSH: (flush, int),
        "50 items of the list, in the middle": (lambda: store.items.page("pending", count // 2, 50), int),
    }
    try:
        found = {what: [_ms(*step) for _ in range(_TIMES)] for what, step in steps.items()}
        found[_FLUSH] = [milliseconds - 1000 * _FLUSH_SECONDS for milliseconds in found[_FLUSH]]
        return found
    finally:
        store.close()
        queue.stop()


def _ms(step: Callable[[], Any], afterwards: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    step()
    seconds = time.perf_counter() - begin
    afterwards()
    return 1000 * seconds


def _drain(bench: Bench, options: dict[str, Any]) -> float:
    """The rate at which the oldest go, after the first of them."""
    bench.world.api.control(latency=0.0)
    worker = Worker("embedqueue", bench.world.settings("embedqueue", DIMENSIONS, options=options))
    try:
        first = bench.world.wait("embedqueue", _PREFIX, _DRAIN_ITEMS // 10, timeout=120)
        begin = time.monotonic()
        last = bench.world.wait("embedqueue", _PREFIX, first + _DRAIN_ITEMS, timeout=300, first=first)
        seconds = time.monotonic() - begin
    finally:
        worker.kill()
    bench.world.check("embedqueue", _PREFIX, last, DIMENSIONS, CHARS)
    return (last - first) / seconds
