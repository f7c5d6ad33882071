"""1. Items a second, one item a call, from 1, 8 and 32 threads (coroutines where the contender is asynchronous)."""

from __future__ import annotations

from benchmarks.bench import Bench, Cell, Measured
from benchmarks.contenders import FRAMEWORKS
from benchmarks.figures import Answer, ratio_target

TITLE = "Enqueue, one item a call"
THREADS = (1, 8, 32)
#: Threads, and how many times bare ZADD it must be.
WANTED = ((1, 0.9), (32, 2.0))


def run(bench: Bench) -> Answer:
    """Measure for a fixed time each; the limit is one ZADD of the same member."""
    names = bench.present("zadd", "embedqueue", "asyncio", *FRAMEWORKS)
    seconds = 0.2 if bench.quick else 0.4
    idle = {"max_batch_size": 10**9}
    with bench.producers(names, 768, options=idle) as producers:
        for name in names:
            producers[name].burst("warm:", 4, 0.1)

        def measure(cell: Cell, turn: int) -> Measured:
            threads = cell.situation["threads"]
            rate = producers[cell.contender].burst(f"e{turn}-{threads}:", threads, seconds)
            bench.empty(cell.contender)
            return rate, {}

        cells = bench.cells(names, threads=(1, 32) if bench.quick else THREADS)
        rows = bench.interleave(TITLE, "items/s", cells, measure)
    answer = Answer("enqueue", TITLE, rows)
    for threads, wanted in WANTED:
        ours, bare = answer.find("embedqueue", threads=threads), answer.find("zadd", threads=threads)
        answer.targets += ratio_target(f"enqueue, callers: {threads}, times bare ZADD", ours, bare, wanted)
    return answer
