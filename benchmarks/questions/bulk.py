"""2. Items a second through ``enqueue_many`` or what each package has for many at a time."""

from __future__ import annotations

from benchmarks.bench import Bench, Cell, Measured
from benchmarks.contenders import FRAMEWORKS
from benchmarks.figures import Answer, ratio_target

TITLE = "Enqueue many at once"
ITEMS = 10_000
#: A task a text takes Celery long enough with these.
FEWER_ITEMS = 2_000
#: An earlier measurement of the asyncio queue's bulk call beside variadic ZADD: 65,000/s and 232,000/s. The one here
#: is written more carefully (one JSON encoder for all items) and is quicker.
REFERENCE = 65 / 232


def run(bench: Bench) -> Answer:
    """The limit is variadic ZADD in a pipeline; task queues get one task per 50 texts."""
    names = bench.present("zadd", "embedqueue", "asyncio", *FRAMEWORKS)
    with bench.producers(names, 768, options={"max_batch_size": 10**9}) as producers:
        for name in names:
            producers[name].fill_many("warm:", 100)

        def measure(cell: Cell, turn: int) -> Measured:
            count = FEWER_ITEMS if cell.contender == "celery-batches" else ITEMS
            rate = count / producers[cell.contender].fill_many(f"b{turn}:", count)
            bench.empty(cell.contender)
            return rate, {}

        rows = bench.interleave(TITLE, "items/s", bench.cells(names, items=(ITEMS,)), measure)
    answer = Answer("bulk", TITLE, rows)
    ours, theirs, bare = (answer.find(name, items=ITEMS) for name in ("embedqueue", "asyncio", "zadd"))
    answer.targets += ratio_target("enqueue_many: times the asyncio queue's bulk call", ours, theirs, 1.0)
    answer.targets += ratio_target("enqueue_many: times variadic ZADD", ours, bare, REFERENCE)
    answer.targets += ratio_target("enqueue_many: times variadic ZADD, to aim for", ours, bare, 1.5 * REFERENCE)
    return answer
