"""Adaptive concurrency: a provider that allows six calls at once and answers 429 above."""

from __future__ import annotations

from benchmarks.bench import Bench, Cell, Measured
from benchmarks.children import Worker
from benchmarks.figures import Answer, Target, ratio_target, settled
from benchmarks.questions.drain import timed, warm
from benchmarks.settings import CALL_TEXTS
from embedqueue.values.options import Options

TITLE = "Adaptive concurrency"
DIMENSIONS = 768
LATENCY_MS = 100
ALLOWED = 6
SIZES = ("auto", 2, 16)


def run(bench: Bench) -> Answer:
    """``max_concurrency="auto"`` beside a fixed 2 and a fixed 16, where there is such an option."""
    answer = Answer("adaptive", TITLE)
    if not _supported():
        answer.notes.append('Skipped: this embedqueue has no max_concurrency="auto" yet.')
        return answer
    workers: dict[object, Worker] = {}
    with bench.producers(["embedqueue"], DIMENSIONS) as producers:
        producer = producers["embedqueue"]
        try:
            for size in SIZES:
                settings = bench.world.settings("embedqueue", DIMENSIONS, options={"max_concurrency": size})
                workers[size] = Worker("embedqueue", settings)
                warm(bench, "embedqueue", producer, workers[size], f"aw{size}:", LATENCY_MS)

            def measure(cell: Cell, turn: int) -> Measured:
                size = cell.situation["max_concurrency"]
                warm(bench, "embedqueue", producer, workers[size], f"aw{turn}-{size}:", LATENCY_MS)
                prefix, count = f"a{turn}-{size}:", (60 if bench.quick else 120) * CALL_TEXTS
                producer.fill_many(prefix, count)
                bench.world.api.control(limit=ALLOWED)
                drained = timed(bench, "embedqueue", [workers[size]], prefix, count, DIMENSIONS, LATENCY_MS)
                stats = bench.world.api.stats()
                bench.world.api.control(limit=None)
                refused = stats["refused"] / (stats["refused"] + stats["calls"])
                return drained[0], {"refused_share": refused, "in_flight": settled(stats["busy"])}

            cells = bench.cells(["embedqueue"], max_concurrency=SIZES)
            answer.rows = bench.interleave(TITLE, "items/s", cells, measure)
        finally:
            for worker in workers.values():
                worker.kill()
    _judge(answer)
    return answer


def _judge(answer: Answer) -> None:
    auto = answer.find("embedqueue", max_concurrency="auto")
    assert auto is not None
    for size in SIZES[1:]:
        fixed = answer.find("embedqueue", max_concurrency=size)
        answer.targets += ratio_target(f"adaptive: times a fixed {size}", auto, fixed, 1.0)
    refused, in_flight = auto.more["refused_share"], auto.more["in_flight"]
    answer.targets.append(Target("adaptive: share of calls refused", refused, refused, refused, 0.05, "at most"))
    answer.targets.append(Target("adaptive: calls in flight, settled", in_flight, in_flight, in_flight, ALLOWED - 1.5))


def _supported() -> bool:
    try:
        Options(max_concurrency="auto")
    except (TypeError, ValueError):
        return False
    return True
