"""7. One, two and four workers on one queue."""

from __future__ import annotations

from benchmarks.bench import Bench, Cell, Measured
from benchmarks.children import Worker
from benchmarks.figures import Answer, Target
from benchmarks.questions.drain import timed, warm
from benchmarks.settings import CALL_TEXTS, CALLS

TITLE = "Several workers on one queue"
DIMENSIONS = 3072
WORKERS = (1, 2, 4)
LATENCIES_MS = (0, 100)
_CALLS = {0: 96, 100: 96}


def run(bench: Bench) -> Answer:
    """Each with as many calls in flight as one has alone; the drain of a standing backlog."""
    settings = bench.world.settings("embedqueue", DIMENSIONS)
    workers: list[Worker] = []
    with bench.producers(["embedqueue"], DIMENSIONS) as producers:
        producer = producers["embedqueue"]
        try:
            for number in range(max(WORKERS)):
                workers.append(Worker("embedqueue", settings))
                warm(bench, "embedqueue", producer, workers[-1], f"pw{number}:")

            def measure(cell: Cell, turn: int) -> Measured:
                number, latency = cell.situation["workers"], cell.situation["latency_ms"]
                prefix, count = f"p{turn}-{number}-{latency}:", _CALLS[latency] * CALL_TEXTS
                for at, worker in enumerate(workers[:number]):
                    warm(bench, "embedqueue", producer, worker, f"pw{turn}-{number}-{latency}-{at}:")
                producer.fill_many(prefix, count)
                return timed(bench, "embedqueue", workers[:number], prefix, count, DIMENSIONS, latency)

            latencies = LATENCIES_MS[1:] if bench.quick else LATENCIES_MS
            cells = bench.cells(["embedqueue"], latency_ms=latencies, workers=WORKERS)
            rows = bench.interleave(TITLE, "items/s", cells, measure)
        finally:
            for worker in workers:
                worker.kill()
    answer = Answer("processes", TITLE, rows)
    most = max(row.more["sent_per_item"] for row in rows)
    answer.targets.append(Target("several workers: texts sent per item", most, most, most, 1.0, "at most"))
    answer.notes.append(f"{CALLS} calls in flight in each worker; at 0 ms the machine's cores are the limit.")
    return answer
