"""5. Do rates stay flat as the backlog grows, and what does an item that waits cost in memory?

A queue of its own for every depth, all standing at the same time, so that depths can be measured in turn: put some
thousands in, take as many out, and the depth is what it was.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import psutil

from benchmarks.bench import Bench, Cell, Measured
from benchmarks.children import Producer, Worker
from benchmarks.figures import Answer, Row, ratio_target, target

TITLE = "Growth of the backlog"
LIMIT = "zadd"
DIMENSIONS = 768
MEMORY_UNIT = "times the raw ZSET's memory"
#: Free memory that a million of long texts needs: two copies of each, and room.
_ENOUGH_BYTES = 10 * 2**30
_FILL_ITEMS = 10_000
_STEP_ITEMS = 5_000


@dataclass
class _Backlog:
    """What waits, in one depth."""

    chars: int
    depth: int
    producer: Producer
    prefix: str
    namespace: str
    enqueued: int = field(default=0, kw_only=True)

    @property
    def step(self) -> int:
        """Items of one measurement."""
        return min(_STEP_ITEMS, self.depth // 2)

    def fill(self, count: int) -> float:
        """Put more in; answers the seconds."""
        seconds = 0.0
        for at in range(0, count, _FILL_ITEMS):
            part = min(_FILL_ITEMS, count - at)
            seconds += self.producer.fill_many(self.prefix, part, self.enqueued, self.chars)
            self.enqueued += part
        return seconds

    def put(self, *, keep: bool) -> float:
        """The rate of enqueuing, taken thrice and withdrawn again, but for the last time where it is kept."""
        seconds = []
        for kept in (False, False, keep):
            seconds.append(self.fill(self.step))
            if not kept:
                self.enqueued -= self.step
                self.producer.withdraw(self.prefix, self.step, self.enqueued)
        return self.step / median(seconds)


@dataclass
class _Queue(_Backlog):
    """A backlog that is drained as well."""

    worker: Worker
    drained: int = field(default=0, kw_only=True)


def run(bench: Bench) -> Answer:
    """Depths of 1k to 1M of 200 characters; of 2,000 characters where there is memory for it."""
    answer = Answer("growth", TITLE)
    depths: tuple[int, ...] = (10_000, 100_000) if bench.quick else (1_000, 10_000, 100_000, 1_000_000)
    for chars in (200,) if bench.quick else (200, 2_000):
        if chars > 200 and psutil.virtual_memory().available < _ENOUGH_BYTES:
            depths = depths[:-1]
            answer.notes.append("Not enough free memory for a million texts of 2,000 characters: left out.")
        answer.rows += _measure(bench, chars, depths)
        for unit in ("enqueued/s", "drained/s"):
            ours, base = (_find(answer, unit, chars, depth) for depth in (depths[-1], 10_000))
            what = f"growth, {chars} characters, {unit}: {depths[-1]:,} beside 10,000"
            answer.targets += ratio_target(what, ours, base, 0.9)
        for row in answer.rows:
            if row.unit == MEMORY_UNIT and row.at == {"chars": chars, "depth": depths[-1]}:
                what = f"growth, {chars} characters: {MEMORY_UNIT}"
                answer.targets.append(target(what, row.values, 2.2, "at most"))
    if bench.quick:
        answer.notes.append("Quick: nothing above 100,000 items, and no long texts.")
    return answer


def _find(answer: Answer, unit: str, chars: int, depth: int) -> Row | None:
    found = ("embedqueue", unit, {"chars": chars, "depth": depth})
    return next((row for row in answer.rows if (row.contender, row.unit, row.at) == found), None)


def _measure(bench: Bench, chars: int, depths: tuple[int, ...]) -> list[Row]:
    bench.world.api.control(latency=0.0)
    with contextlib.ExitStack() as stack:
        queues = {depth: _make(bench, stack, chars, depth) for depth in depths}
        limits = {depth: _make_limit(bench, stack, chars, depth) for depth in depths}
        advance = bench.step(f"{TITLE}: filling, {chars} characters", len(depths))
        rows = []
        for queue in queues.values():
            queue.worker.freeze()
            queue.fill(queue.depth)
            limits[queue.depth].fill(queue.depth)
            rows.append(_memory(bench, queue))
            advance()
        time.sleep(1)
        cells = bench.cells(["embedqueue"], chars=(chars,), depth=depths)
        puts: dict[Cell, list[float]] = {cell: [] for name in (LIMIT, "embedqueue") for cell in _named(name, cells)}

        def measure(cell: Cell, _: int) -> Measured:
            queue = queues[cell.situation["depth"]]
            puts[cell].append(queue.put(keep=True))
            puts[replace(cell, contender=LIMIT)].append(limits[queue.depth].put(keep=False))
            return _drain(bench, queue)

        drained = bench.interleave(f"{TITLE}, {chars} characters", "drained/s", cells, measure)
        rows += [Row(cell.contender, cell.situation, "enqueued/s", values) for cell, values in puts.items()]
        rows += drained
        for name in ("embedqueue", LIMIT):
            bench.empty(name)
    return rows


def _named(name: str, cells: list[Cell]) -> list[Cell]:
    return [replace(cell, contender=name) for cell in cells]


def _make_limit(bench: Bench, stack: contextlib.ExitStack, chars: int, depth: int) -> _Backlog:
    namespace = f"grow{chars}-{depth}"
    producer = Producer(LIMIT, bench.world.settings(LIMIT, DIMENSIONS, options={"namespace": namespace}))
    stack.callback(producer.close)
    return _Backlog(chars, depth, producer, f"{namespace}-doc:", namespace)


def _make(bench: Bench, stack: contextlib.ExitStack, chars: int, depth: int) -> _Queue:
    namespace = f"grow{chars}-{depth}"
    options: dict[str, Any] = {"namespace": namespace, "lease_seconds": 3600.0}
    settings = bench.world.settings("embedqueue", DIMENSIONS, options=options)
    quiet = replace(settings, options=options | {"max_batch_size": 10**9})
    producer = Producer("embedqueue", quiet)
    stack.callback(producer.close)
    worker = Worker("embedqueue", settings)
    stack.callback(worker.kill)
    queue = _Queue(chars, depth, producer, f"{namespace}-doc:", namespace, worker)
    queue.fill(1)  # a first item proves that the worker is awake, before it is frozen
    queue.producer.flush()
    queue.drained = bench.world.wait("embedqueue", queue.prefix, 1, timeout=60)
    return queue


def _drain(bench: Bench, queue: _Queue) -> Measured:
    """The rate at which the oldest go, after the first of them; what the worker held before is among these."""
    world, lead = bench.world, queue.step // 5
    queue.worker.reset_peak()
    queue.worker.thaw()
    if queue.drained <= 1:
        queue.producer.flush()
    first = world.wait("embedqueue", queue.prefix, queue.drained + lead, timeout=60, first=queue.drained)
    begin = time.monotonic()
    last = world.wait("embedqueue", queue.prefix, first + queue.step - lead, timeout=120, first=first)
    seconds = time.monotonic() - begin
    queue.worker.freeze()
    world.check("embedqueue", queue.prefix, last, DIMENSIONS, queue.chars, first=queue.drained)
    world.clear("embedqueue", queue.prefix, last, first=queue.drained)
    queue.drained = last
    return (last - first) / seconds, {"worker_mb": queue.worker.peak_bytes() / 2**20}


def _memory(bench: Bench, queue: _Queue) -> Row:
    """What the queue's keys take, beside the pending ZSET alone."""
    client = bench.world.client("embedqueue")
    keys = client.scan_iter(f"{queue.namespace}:*", count=5000)
    sizes = {key: client.memory_usage(key, samples=0) or 0 for key in keys}
    raw = sizes[f"{queue.namespace}:pending".encode()]
    more = {"bytes_per_item": sum(sizes.values()) / queue.depth, "zset_bytes_per_item": raw / queue.depth}
    at = {"chars": queue.chars, "depth": queue.depth}
    return Row("embedqueue", at, MEMORY_UNIT, [sum(sizes.values()) / raw], more)
