"""4. Milliseconds above the API's own latency until a handler has its vector, and API calls per request."""

from __future__ import annotations

from benchmarks.bench import Bench, Cell, Measured
from benchmarks.figures import Answer, Target, percentile, target

TITLE = "Wait for the result in a handler"
LATENCY_MS = 100
DIMENSIONS = 3072
HANDLERS = (1, 8, 32)
#: What handlers do between two requests, at most: nothing, or something that takes a random time.
THINK_MS = (0, 100)


def run(bench: Bench) -> Answer:
    """Handlers that enqueue and wait, over and over, in one web process; the API takes 100 ms, 8 calls at a time."""
    names = bench.present("limit-pool", "embedqueue", "asyncio")
    with bench.producers(names, DIMENSIONS) as producers:
        bench.world.api.control(latency=LATENCY_MS / 1000)
        for name in names:
            producers[name].wait("warm:", 16, 1, 0.0)

        def measure(cell: Cell, turn: int) -> Measured:
            name, handlers = cell.contender, cell.situation["handlers"]
            think_ms = cell.situation["think_ms"]
            rounds = (6 if bench.quick else 12) * (2 if handlers == 1 else 1)
            prefix = f"h{turn}-{handlers}-{think_ms}:"
            bench.world.api.control(latency=LATENCY_MS / 1000, reset=True)
            seconds = producers[name].wait(prefix, handlers, rounds, think_ms / 1000)
            calls = bench.world.api.stats()["calls"]
            for number in range(handlers):
                if bench.world.wait(name, f"{prefix}{number}-", rounds, timeout=5) < rounds:
                    raise AssertionError(f"{name} left a handler's items without vectors")
                if bench.world.check(name, f"{prefix}{number}-", rounds, DIMENSIONS):
                    raise AssertionError(f"{name} lost a handler's vector")
            bench.empty(name)
            above = [1000 * second - LATENCY_MS for second in seconds]
            return percentile(above, 50), {
                "p95_ms": percentile(above, 95),
                "p99_ms": percentile(above, 99),
                "calls_per_request": calls / len(seconds),
            }

        cells = bench.cells(names, think_ms=(0,), handlers=(1, 32) if bench.quick else HANDLERS)
        cells += [] if bench.quick else bench.cells(names, think_ms=THINK_MS[1:], handlers=HANDLERS[-1:])
        rows = bench.interleave(TITLE, "p50, ms above the API", cells, measure)
    answer = Answer("wait", TITLE, rows)
    one, many = (answer.find("embedqueue", think_ms=0, handlers=handlers) for handlers in (1, 32))
    if one and many:
        per_request = many.more["calls_per_request"]
        answer.targets += [
            target("wait, 1 handler: p50, ms above the API", one.values, 8, "at most"),
            target("wait, 32 handlers: p50, ms above the API", many.values, 12, "at most"),
            Target("wait, 32 handlers: API calls per request", per_request, per_request, per_request, 1 / 6, "at most"),
        ]
    return answer
