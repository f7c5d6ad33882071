"""What ``embedqueue``, ``flask embedqueue`` and ``manage.py embedqueue`` have in common. Prints nothing itself."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence

from redis.exceptions import RedisError

from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.settings.settings import Settings
from embedqueue.values.errors import BatchFailed
from embedqueue.values.observer import CallReport, Observer

from .ending import Ending
from .health import STALL_SECONDS, Health, HealthServer

#: Seconds that calls under way get when a worker is told to end; gunicorn and Kubernetes wait 30.
DEFAULT_GRACE_SECONDS = 20.0
#: Seconds between two looks of a worker that ends once the queue is empty.
BURST_POLL_SECONDS = 0.2
#: Seconds for which such a worker puts up with a provider that fails.
BURST_PATIENCE_SECONDS = 60.0

#: Makes a queue that is not started and tells these observers beside its own.
MakeQueue = Callable[[Sequence[Observer]], EmbeddingBatchQueue]


class _Refusals(Observer):
    """Notes that nothing will work until somebody acts."""

    def __init__(self) -> None:
        self.error: str | None = None

    def call_ended(self, report: CallReport) -> None:
        self.error = report.error if report.outcome == "configuration" else None


def run_worker(
    make: MakeQueue,
    *,
    burst: bool = False,
    grace: float = DEFAULT_GRACE_SECONDS,
    health: tuple[str, int] | None = None,
    stall: float = STALL_SECONDS,
    say: Callable[[str], None],
) -> None:
    """Serve a queue until SIGTERM or SIGINT; a second one ends the process at once. For the main thread.

    Args:
        make: makes the queue.
        burst: end once nothing waits and nothing is in flight.
        grace: seconds that calls under way get at the end; what they do not finish goes back to the queue.
        health: host and port of an endpoint that tells whether there is progress, and the metrics.
        stall: seconds without progress, while something is due, after which the worker is not healthy.
        say: prints a line.

    Raises:
        redis.RedisError: Redis cannot be reached at the start.
        BatchFailed: only with ``burst``: the provider fails; what waits is still queued.
        OSError: the endpoint's address is taken, or not ours.
    """
    refusals = _Refusals()
    with contextlib.ExitStack() as stack:
        server = None if health is None else stack.enter_context(HealthServer(health))
        queue = make([refusals, *(server.observers if server else ())])
        queue.pending_count()  # a Redis that is not there is told at once
        ending = stack.enter_context(Ending())
        try:
            queue.start()
            say(f"{queue!r} at work; SIGTERM ends it")
            if server is not None:
                server.serve(Health(queue, stall))
                say(f"health: http://{server.address}/health")
            if burst:
                _until_empty(queue, ending, refusals)
            else:
                ending.wait()
        finally:
            queue.stop(timeout=grace)
    say("ended; nothing is claimed any more")


def beside(settings: Settings, more: Sequence[Observer]) -> list[Observer]:
    """The observers of the settings and more, but for those of a kind that is there: metrics would count twice."""
    own = list(settings.option("observers"))
    return own + [one for one in more if type(one) not in map(type, own)]


def _until_empty(queue: EmbeddingBatchQueue, ending: Ending, refusals: _Refusals) -> None:
    failing_mono: float | None = None
    while not ending.wait(BURST_POLL_SECONDS):
        try:
            stats = queue.stats()
        except RedisError:
            continue  # the worker goes on when Redis is back
        if stats.waiting == stats.in_flight == 0:
            return
        if stats.waiting and not stats.in_flight:
            queue.flush_now()  # of what came meanwhile, nothing waits for company
        if stats.paused_until is None:
            failing_mono = None
            continue
        if stats.paused_until == math.inf:
            left = stats.waiting + stats.in_flight
            raise BatchFailed(f"paused until somebody resumes: {stats.pause_reason}; {left} items are still queued")
        now_mono = time.monotonic()
        failing_mono = failing_mono or now_mono
        if refusals.error is not None or now_mono - failing_mono > BURST_PATIENCE_SECONDS:
            reason = refusals.error or stats.pause_reason
            raise BatchFailed(
                f"the provider failed: {reason}; {stats.waiting + stats.in_flight} items are still queued"
            )


# -- looking ---------------------------------------------------------------------------------------------------------


# -- pausing ---------------------------------------------------------------------------------------------------------


# -- dead letters ----------------------------------------------------------------------------------------------------


# -- one key ---------------------------------------------------------------------------------------------------------
