"""What ``embedqueue``, ``flask embedqueue`` and ``manage.py embedqueue`` have in common. Prints nothing itself."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from redis.exceptions import RedisError

from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.settings.checks import check_key, explain_redis
from embedqueue.settings.settings import Settings, SettingsError
from embedqueue.values.errors import BatchFailed, EmbedQueueError
from embedqueue.values.observer import CallReport, Observer
from embedqueue.work.settle import LONGEST_PAUSE_SECONDS

from .ending import Ending
from .health import STALL_SECONDS, Health, HealthServer, all_of

#: Seconds that calls under way get when a worker is told to end; gunicorn and Kubernetes wait 30.
DEFAULT_GRACE_SECONDS = 20.0
#: Seconds between two looks of a worker that ends once the queue is empty.
BURST_POLL_SECONDS = 0.2
#: Seconds for which such a worker puts up with a provider that fails.
BURST_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Served:
    """A queue that a worker is to serve.

    Attributes:
        name: by which its user knows it.
        settings: its own.
        make: makes it, not started, with options that differ from the settings.
    """

    name: str
    settings: Settings
    make: Callable[..., EmbeddingBatchQueue]


class _Refusals(Observer):
    """Notes that nothing will work until somebody acts."""

    def __init__(self) -> None:
        self.error: str | None = None

    def call_ended(self, report: CallReport) -> None:
        self.error = report.error if report.outcome == "configuration" else None


def run_worker(
    served: Sequence[Served],
    *,
    burst: bool = False,
    grace: float = DEFAULT_GRACE_SECONDS,
    health: tuple[str, int] | None = None,
    stall: float = STALL_SECONDS,
    observers: Sequence[Observer] = (),
    say: Callable[[str], None],
) -> None:
    """Serve queues until SIGTERM or SIGINT; a second one ends the process at once. For the main thread.

    Args:
        served: the queues, at least one, by different names.
        burst: end once nothing waits and nothing is in flight in any of them.
        grace: seconds that calls under way get at the end; what they do not finish goes back to the queue.
        health: host and port of an endpoint that tells whether there is progress, and the metrics.
        stall: seconds without progress, while something is due, after which the worker is not healthy.
        observers: told of all queues, beside those of their settings.
        say: prints a line.

    Raises:
        SettingsError: a queue has no API key.
        EmbedQueueError: a queue's Redis cannot be reached at the start.
        BatchFailed: only with ``burst``: a provider fails, and the other queues are empty; what waits is still queued.
        OSError: the endpoint's address is taken, or not ours.
    """
    for one in served:
        missing = check_key(one.settings)
        if missing:
            raise SettingsError(missing[0])
    with contextlib.ExitStack() as stack:
        server = None if health is None else stack.enter_context(HealthServer(health))
        told = [*observers, *(server.observers if server else ())]
        looks = {one.name: _Look(one, told) for one in served}
        queues = [look.queue for look in looks.values()]
        ending = stack.enter_context(Ending())
        try:
            for queue in queues:
                queue.start()
                say(f"{queue!r} at work; SIGTERM ends it")
            if server is not None:
                server.serve(all_of({name: Health(look.queue, stall) for name, look in looks.items()}))
                say(f"health: http://{server.address}/health")
            if burst:
                _until_empty(looks, ending)
            else:
                ending.wait()
        finally:
            with ThreadPoolExecutor(len(queues), "embedqueue-end") as pool:  # the grace is that of all, side by side
                list(pool.map(lambda queue: queue.stop(timeout=grace), queues))
    say("ended; nothing is claimed any more")


def beside(settings: Settings, more: Sequence[Observer]) -> list[Observer]:
    """The observers of the settings and more, but for those of a kind that is there: metrics would count twice."""
    own = list(settings.option("observers"))
    return own + [one for one in more if type(one) not in map(type, own)]


class _Look:
    """A queue that is served, and how a burst gets on with it.

    Args:
        served: which.
        observers: to be told of it beside its own.

    Raises:
        EmbedQueueError: its Redis cannot be reached.
    """

    def __init__(self, served: Served, observers: Sequence[Observer]) -> None:
        self._refusals = _Refusals()
        self._failing_mono: float | None = None
        self.queue = served.make(worker=True, observers=beside(served.settings, [self._refusals, *observers]))
        try:
            self.queue.pending_count()  # a Redis that is not there is told at once
        except RedisError as error:
            raise EmbedQueueError(explain_redis(served.settings, error)) from None

    def is_empty(self) -> bool:
        """Whether nothing waits and nothing is in flight. Of what came meanwhile, nothing waits for company.

        Raises:
            BatchFailed: the provider fails, or somebody has paused the queue.
        """
        try:
            stats = self.queue.stats()
            live = stats.waiting - stats.for_jobs  # what waits for batch jobs is for others, and for hours
            if live and not stats.in_flight:
                self.queue.flush_now()
        except RedisError:
            return False  # the worker goes on when Redis is back
        left = live + stats.in_flight
        if not left:
            return True
        if stats.paused_until is None:
            self._failing_mono = None
            return False
        if stats.paused_until == math.inf:
            raise BatchFailed(f"paused until somebody resumes: {stats.pause_reason}; {left} items are still queued")
        if stats.paused_until - time.time() > LONGEST_PAUSE_SECONDS + 1:  # by a person, or a budget
            raise BatchFailed(f"{stats.pause_reason}; {left} items are still queued")
        now_mono = time.monotonic()
        self._failing_mono = self._failing_mono or now_mono
        if self._refusals.error is not None or now_mono - self._failing_mono > BURST_PATIENCE_SECONDS:
            reason = self._refusals.error or stats.pause_reason
            raise BatchFailed(f"the provider failed: {reason}; {left} items are still queued")
        return False


def _until_empty(looks: Mapping[str, _Look], ending: Ending) -> None:
    """Until all queues are empty at one look, but for those that fail; these are told at the end."""
    failed: dict[str, str] = {}
    while not ending.wait(BURST_POLL_SECONDS):
        empty = []
        for name, look in looks.items():
            try:
                empty.append(name in failed or look.is_empty())
            except BatchFailed as error:
                failed[name] = str(error)
        if all(empty):
            break
    if failed:
        raise BatchFailed("; ".join(f"{name}: {words}" if len(looks) > 1 else words for name, words in failed.items()))
