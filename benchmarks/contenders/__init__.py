"""What embedqueue is measured against, one small file each, every package unmodified.

A contender is a module with

- ``LABEL`` and ``PACKAGES`` (distributions whose versions are reported),
- ``work(settings)``: a worker that drains the backlog and runs until it is killed,
- ``Producer(settings)``: the side of the web application, see :class:`benchmarks.contenders.producer.BaseProducer`,
- where its package needs a helping hand after a crash, ``recover(settings)``: do at once what its own time-outs
  would do later.
"""

from __future__ import annotations

import importlib
from types import ModuleType

#: Short names and modules, in the order in which they are shown. No module has the name of the package it measures.
MODULES = {
    "embedqueue": "ours",
    "limit-loop": "limit_requests_loop",
    "limit-pool": "limit_requests",
    "zadd": "limit_redis",
    "asyncio": "asyncio_queue",
    "asyncio-lists": "asyncio_queue_lists",
    "celery-batches": "celery_batch",
    "rq": "rq_pool",
    "huey": "huey_threads",
    "dramatiq": "dramatiq_threads",
    "arq": "arq_jobs",
}
#: The frameworks that a user would otherwise take.
FRAMEWORKS = ("celery-batches", "rq", "huey", "dramatiq", "arq")


def load(name: str) -> ModuleType:
    """The module of a contender; ImportError where its package is missing."""
    return importlib.import_module(f"{__name__}.{MODULES[name]}")


def missing(names: tuple[str, ...] | list[str]) -> dict[str, str]:
    """Those of ``names`` that cannot run here, and why."""
    reasons = {}
    for name in names:
        try:
            load(name)
        except ImportError as error:
            reasons[name] = str(error)
    return reasons
