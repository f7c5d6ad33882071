"""What is lost when the worker is killed half-way: SIGKILL, a new worker, and a count of what never arrives."""

from __future__ import annotations

import contextlib
import time

from benchmarks.bench import Bench
from benchmarks.children import Worker
from benchmarks.contenders import FRAMEWORKS, load
from benchmarks.figures import Answer, Row, Target
from benchmarks.questions.drain import SEQUENTIAL, warm
from benchmarks.settings import CALL_TEXTS

TITLE = "Killed half-way"
DIMENSIONS = 768
LATENCY_MS = 100
#: Seconds without any progress after which what is missing counts as lost.
PATIENCE_SECONDS = 30.0
QUICK_PATIENCE_SECONDS = 10.0


def run(bench: Bench) -> Answer:
    """Time-outs by which a package notices a dead worker are set short, or done at once, for this question only."""
    world = bench.world
    names = bench.present("limit-pool", "embedqueue", "asyncio", *(("huey",) if bench.quick else FRAMEWORKS))
    patience = QUICK_PATIENCE_SECONDS if bench.quick else PATIENCE_SECONDS
    settings = {name: world.settings(name, DIMENSIONS, impatient=True) for name in names}
    answer = Answer("lost", TITLE)
    advance = bench.step(TITLE, 2 * len(names))
    with contextlib.ExitStack() as stack:
        producers = stack.enter_context(bench.producers(names, DIMENSIONS, impatient=True))
        counts = {name: CALL_TEXTS * (12 if name in SEQUENTIAL else 32) for name in names}
        missing_at_kill = {}
        for name in names:
            worker = Worker(name, settings[name])
            stack.callback(worker.kill)
            warm(bench, name, producers[name], worker, "lw:")
            producers[name].fill_many("lost:", counts[name])
            world.api.control(latency=LATENCY_MS / 1000)
            worker.thaw()
            world.wait_arrived(name, "lost:", counts[name], counts[name] // 2, timeout=60)
            worker.kill()
            missing_at_kill[name] = world.check(name, "lost:", counts[name], DIMENSIONS)
            advance()
        begin = time.monotonic()
        for name in names:
            recover = getattr(load(name), "recover", None)
            if recover is not None:
                recover(settings[name])
            stack.callback(Worker(name, settings[name]).kill)
        missing, since = _await(bench, counts, begin, patience)
    for name in names:
        advance()
        more = {"missing_at_kill": missing_at_kill[name], "complete_after_s": since[name]}
        answer.rows.append(Row(name, {"items": counts[name]}, "items lost", [float(missing[name])], more))
        bench.empty(name)
    lost = float(missing.get("embedqueue", 0))
    answer.targets.append(Target("killed half-way: items that embedqueue lost", lost, lost, lost, 0.0, "at most"))
    return answer


def _await(
    bench: Bench, counts: dict[str, int], begin: float, patience: float
) -> tuple[dict[str, int], dict[str, float]]:
    """Items that still lack their vector when nothing has come for long, and when the last came."""
    missing: dict[str, int] = {}
    since = dict.fromkeys(counts, 0.0)
    while not missing or (any(missing.values()) and time.monotonic() - begin - max(since.values()) < patience):
        for name, count in counts.items():
            if missing.get(name) != 0:
                left = bench.world.check(name, "lost:", count, DIMENSIONS)
                if left != missing.get(name):
                    missing[name], since[name] = left, time.monotonic() - begin
        time.sleep(0.5)
    return missing, since
