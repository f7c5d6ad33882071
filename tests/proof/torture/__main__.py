"""Real processes, a real Redis, faults at random, and a checker that knows what was promised.

Prints a table, and fails if a promise broke: an item lost, a vector of an older text, a future that was wrong or did
not end, a text sent for nothing, a process that grew, a key that is not ours. Exits with 1 then, and with 3 if no text
was accepted at all, so that nothing was tried.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from tests.proof.torture.checker import Verdict, check, table, told
from tests.proof.torture.conductor import Plan, run
from tests.proof.torture.faults import ASKED_FOR, ELSEWHERE, KINDS, TOGETHER, WITH_SERVERS
from tests.proof.torture.history import Versions
from tests.proof.torture.topology import find_faketime

#: Of its processes: what glibc frees goes back to the system at once, so what one grows by is what it holds.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_ARENA_MAX": "2"}
#: The exit code of a run in which no text was accepted: that no promise broke says nothing then. (2 is argparse's.)
UNTRIED = 3


def parse() -> Plan:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.proof.torture", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long faults are injected (default 60)")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3), "big"), help="of every choice")
    parser.add_argument(
        "--faults",
        default=",".join(TOGETHER),
        help=f"of {', '.join(KINDS)}; or none (default: all but {', '.join(ASKED_FOR)})",
    )
    parser.add_argument("--producers", type=int, default=3, help="processes that enqueue and wait (default 3)")
    parser.add_argument("--workers", type=int, default=2, help="processes that drain (default 2)")
    parser.add_argument("--pace", type=float, default=0.5, help="seconds between faults, on average (default 0.5)")
    parser.add_argument("--keep", type=Path, help="a new folder for the processes' journals and logs")
    options = parser.parse_args()
    kinds = set(options.faults.split(",")) - {"none", ""}
    if kinds - set(KINDS):
        parser.error(f"unknown faults: {', '.join(sorted(kinds - set(KINDS)))}")
    if {"jobs", "foreign"} <= kinds:
        parser.error(
            "jobs does not go with foreign: who puts back a patient item after its newer text makes that the older one"
        )
    if {"jobs", "model"} <= kinds:
        parser.error("jobs does not go with model: the provider of batch jobs has one")
    for kind in kinds & set(ELSEWHERE):
        if kinds - {kind} - WITH_SERVERS:
            parser.error(f"{kind} has servers of its own: it goes with {', '.join(sorted(WITH_SERVERS))} only")
    if "clock" in kinds and find_faketime() is None:
        print("the clock is not stepped: no libfaketime here (apt-get install faketime)")
        kinds -= {"clock"}
    return Plan(
        options.seconds, options.seed, frozenset(kinds), options.producers, options.workers, options.pace, options.keep
    )


def report(verdict: Verdict) -> None:
    """Say what the run came to."""
    print(
        f"accepted {verdict.items} texts of {verdict.keys} keys; dead letters {verdict.dead}; "
        f"futures ended {verdict.futures}, with a vector {verdict.vectors}; texts sent {verdict.sent}, without a good "
        f"answer {verdict.failed_sends}, again {len(verdict.again)}, most {verdict.most_sent} times; "
        f"a process grew by {verdict.largest_growth_mb:.1f} MB at most"
    )
    if verdict.payments.jobs:
        print(told(verdict.payments))
    for broken in verdict.broken[:20]:
        print(f"BROKEN {broken.promise}: {broken.what}")
    if verdict.items:
        print("broken promises:", len(verdict.broken))
    else:
        print(f"nothing was tried: no text was accepted, and so no promise given; broken: {len(verdict.broken)}")


def exit_code(verdict: Verdict) -> int:
    """1 where a promise broke, UNTRIED where none could."""
    if verdict.broken:
        return 1
    return 0 if verdict.items else UNTRIED


def main() -> int:
    """Run, judge, tell."""
    plan = parse()
    os.environ.update(MALLOC)  # before the first of them starts
    faults = ", ".join(sorted(plan.kinds)) or "none"
    print(f"seed {plan.seed}, {plan.seconds:.0f} s, {plan.producers} producers, {plan.workers} workers", flush=True)
    print(f"faults: {faults}; {time.strftime('%Y-%m-%d %H:%M:%S')}", flush=True)
    versions = Versions(plan.models)
    history = run(plan, versions)
    verdict = check(history, versions)
    if plan.folder is not None:
        for name in ("faults", "sends"):
            lines = "\n".join(map(str, getattr(history, name)))
            (plan.folder / name).write_text(lines)
    if history.faults:
        print(table(history, verdict))
    report(verdict)
    return exit_code(verdict)


if __name__ == "__main__":
    sys.exit(main())
