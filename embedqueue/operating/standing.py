"""Whether a queue gets on, as an operator asks: who works, whether anybody may claim, which limits are reached."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from embedqueue.settings.settings import Settings
from embedqueue.store.records import Status
from embedqueue.values.stats import PROBING, LiveWorker

from .control import compared, open_store
from .finding import Finding

#: Part of a limit from which one should know.
NEARLY_FULL = 0.9


def examine_queue(settings: Settings) -> Iterator[Finding]:
    """Look at the queue in its Redis.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    with open_store(settings) as store:
        status = store.status(workers=True)
        workers = store.workers.all() if status.workers else []
    yield _of_workers(settings, status, workers)
    yield from _of_pause(status)
    yield from _of_limit(settings, status)
    yield from _of_settings(settings)


def _of_workers(settings: Settings, status: Status, workers: list[LiveWorker]) -> Finding:
    if status.workers is None:
        words = f"who works is not known: let this user of Redis use {settings.option('namespace')}:workers"
        return Finding("warning", "workers", f"{words} (docs/redis-acl.md)")
    if status.workers:
        hosts = Counter(worker.host for worker in workers)
        return Finding("ok", "workers", ", ".join(f"{count} on {host}" for host, count in sorted(hosts.items())))
    start = "no worker is running: start one (embedqueue worker, or an application whose queue works)"
    if status.waiting:
        return Finding("problem", "workers", f"{status.waiting} items wait, and {start}")
    return Finding("warning", "workers", start)


def _of_pause(status: Status) -> Iterator[Finding]:
    if status.probing:
        yield Finding("warning", "pause", f"the provider has failed, and {PROBING}: look at the provider, or wait")
    elif status.pause_seconds is not None:
        endless = status.pause_seconds == math.inf
        until = "until somebody resumes" if endless else f"for another {status.pause_seconds:.0f} s"
        words = f"nothing is claimed {until}: {status.pause_reason}; `embedqueue resume` ends that"
        yield Finding("warning", "pause", words)


def _of_limit(settings: Settings, status: Status) -> Iterator[Finding]:
    most = settings.option("max_pending")
    if most is None or status.waiting < NEARLY_FULL * most:
        return
    words = f"{status.waiting:,} of {most:,} items wait (max_pending)"
    if status.waiting < most:
        yield Finding("warning", "limit", f"{words}: beyond, enqueue raises QueueFull: add workers, or raise it")
    else:
        yield Finding("problem", "limit", f"{words}, so enqueue raises QueueFull: add workers, or raise it")


def _of_settings(settings: Settings) -> Iterator[Finding]:
    _, _, differ = compared(settings)
    if differ:
        words = (
            f"a worker with these settings claims nothing, for the namespace is kept with another {', '.join(differ)}"
        )
        yield Finding("problem", "space", f"{words}: `embedqueue space show` tells more, `space adopt` decides")
