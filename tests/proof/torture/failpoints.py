"""Ends or startles a process inside a step of an item's life, or in its log.

The steps are methods that the product calls anyway; they are wrapped here, in the rig's own processes, so that nothing
of this stands in the product.
"""

from __future__ import annotations

import logging
import os
import random
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

from embedqueue import OpenAIEmbedder
from embedqueue.store.cluster.lines import Lines
from embedqueue.store.cluster.store import ClusterStore
from embedqueue.store.store import Store
from tests.proof.torture.jobs import STEPS as STEPS_OF_JOBS

#: Exit code of a process that ended at a failpoint.
EXIT_CODE = 86
#: The steps, and how often a process passes them at most before something happens: some come seldom.
STEPS: dict[str, tuple[type, str, int]] = {
    "enqueue": (Store, "enqueue", 60),
    "claim": (Store, "claim", 30),
    "call": (OpenAIEmbedder, "embed_batch", 30),
    "complete": (Store, "complete", 30),
    "release": (Store, "release", 1),
    "reject": (Store, "reject", 1),
    "fail": (Store, "fail", 1),
    "extend": (Store, "extend", 2),
}
#: The same on a cluster: "write" stands between confirmation and acknowledgement.
STEPS_ON_CLUSTER: dict[str, tuple[type, str, int]] = {
    "complete": (ClusterStore, "complete", 30),
    "write": (Lines, "run", 60),
}

Report = Callable[[str], None]


class RigMemoryError(MemoryError):
    """What the rig raises where memory could run out."""


def arm(rng: random.Random, report: Report, *, on_cluster: bool = False, with_jobs: bool = False) -> None:
    """Choose a step of this process and what happens there: ``os._exit`` before or after it, or no memory after it.

    Args:
        rng: of the process.
        report: told what happens, before it does.
        on_cluster: whether completion has steps of its own.
        with_jobs: whether there are batch jobs: then it is most likely one of their steps.
    """
    steps = {**STEPS, **(STEPS_ON_CLUSTER if on_cluster else {})}
    if with_jobs and rng.random() < 0.7:
        steps = STEPS_OF_JOBS
    step = rng.choice(list(steps))
    owner, method, most = steps[step]
    how = rng.choice(["exit before", "exit after", "exit after"] + ["memory error after"] * (step == "call"))
    arm_at(owner, method, rng.randint(1, most), f"{how} {step}", report)


def arm_at(owner: type, method: str, passes: int, name: str, report: Report) -> None:
    """Wrap a method: at its ``passes``-th call, do what ``name`` says."""
    step: Callable[..., Any] = getattr(owner, method)
    left = iter(range(passes - 1, -1, -1))
    lock = threading.Lock()

    def happen() -> None:
        report(name)
        if name.startswith("exit"):
            os._exit(EXIT_CODE)
        raise RigMemoryError(name)

    @wraps(step)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with lock:
            due = next(left, None) == 0
        if due and " before " in name:
            happen()
        result = step(*args, **kwargs)
        if due:
            happen()
        return result

    setattr(owner, method, wrapped)


class RigLogError(Exception):
    """What the rig raises in filters and handlers of logging."""


class RigLogExit(SystemExit):
    """The same, in threads: it may be that a handler wants to end its thread."""


#: What the rig raises itself.
RIG_ERRORS = (RigMemoryError, RigLogError, RigLogExit)


def spoil_logs(rng: random.Random) -> None:
    """Have a filter of the product's logger, and a handler of all loggers, raise now and then.

    What they are given stands in the process' log before they raise: the rig looks for what nobody handled there.
    """
    logging.raiseExceptions = False  # as the library's pages advise for production; else the log is full of ours
    root = logging.getLogger()
    good = list(root.handlers)

    def fail() -> None:
        in_thread = threading.current_thread() is not threading.main_thread()
        error = rng.choice([RigLogError, RigMemoryError] + [RigLogExit] * in_thread)
        raise error("in a log")

    def spoil(record: logging.LogRecord) -> bool:
        if rng.random() < 0.5:
            for handler in good:
                handler.handle(record)
            fail()
        return True

    class Spoiled(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if rng.random() < 0.5:
                fail()

    logging.getLogger("embedqueue").addFilter(spoil)
    root.addHandler(Spoiled())  # behind the others
