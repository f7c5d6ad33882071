"""13. Milliseconds of CPU to import embedqueue, redis-py and numpy, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

from benchmarks.bench import Bench, Cell, Measured
from benchmarks.figures import Answer, ratios, target

TITLE = "Imports"
#: What each process runs. The queue, and not the bare package: that is what applications ask for.
STATEMENTS = {
    "embedqueue": "from embedqueue import EmbeddingBatchQueue",
    "redis": "import redis",
    "numpy": "import numpy",
    "nothing": "pass",
}
#: Times the sum of redis-py and numpy.
WANTED = 1.0


def run(bench: Bench) -> Answer:
    """What Python itself takes is no part of any figure. Files are compiled before, as an installation does it."""
    for statement in STATEMENTS.values():
        _cpu_ms(statement)

    def measure(cell: Cell, turn: int) -> Measured:
        # The least of some: whatever disturbs a process only adds to it.
        return min(_cpu_ms(STATEMENTS[cell.contender]) for _ in range(3 if bench.quick else 10)), {}

    rows = bench.interleave(TITLE, "ms of CPU", bench.cells(list(STATEMENTS)), measure)
    ours, redis, numpy, nothing = (row.values for row in rows)
    whole = [value - bare for value, bare in zip(ours, nothing, strict=True)]
    parts = [one + other - 2 * bare for one, other, bare in zip(redis, numpy, nothing, strict=True)]
    wanted = target("imports: times the sum of redis-py and numpy", ratios(whole, parts), WANTED, "at most")
    return Answer("imports", TITLE, rows, [wanted])


def _cpu_ms(statement: str) -> float:
    """User and system time of a process that runs a statement."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen([sys.executable, "-c", statement], env=environment | {"OPENBLAS_NUM_THREADS": "1"})
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{statement!r} failed")
    return (used.ru_utime + used.ru_stime) * 1000
