"""What ``flask embedqueue`` and ``manage.py embedqueue`` have in common. Prints nothing itself."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from redis.exceptions import RedisError

from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.report import QueueStats

#: Seconds that calls under way get when a worker is told to end; gunicorn and Kubernetes wait 30.
DEFAULT_GRACE_SECONDS = 20.0
#: Seconds between two looks of a worker that ends once the queue is empty.
BURST_POLL_SECONDS = 0.2
#: Dead letters that one look fetches.
DEAD_PAGE = 100


def run_worker(
    queue: EmbeddingBatchQueue, *, burst: bool = False, grace: float = DEFAULT_GRACE_SECONDS, say: Callable[[str], None]
) -> None:
    """Serve a queue until SIGTERM or SIGINT; a second one ends the process at once. For the main thread.

    Args:
        queue: not started.
        burst: end once nothing waits and nothing is in flight.
        grace: seconds that calls under way get at the end; what they do not finish goes back to the queue.
        say: prints a line.

    Raises:
        redis.RedisError: Redis cannot be reached at the start.
    """
    queue.pending_count()  # a Redis that is not there is told at once
    told = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        if told.is_set():
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        told.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        queue.start()
        say(f"{queue!r} at work; SIGTERM ends it")
        while not told.wait(BURST_POLL_SECONDS if burst else None):
            if _is_empty(queue):
                break
    finally:
        queue.stop(timeout=grace)
        for number, handler in before.items():
            signal.signal(number, handler)
    say("ended; nothing is claimed any more")


def _is_empty(queue: EmbeddingBatchQueue) -> bool:
    try:
        stats = queue.stats()
    except RedisError:
        return False  # the worker goes on when Redis is back
    return stats.waiting == stats.in_flight == 0


def describe(stats: QueueStats) -> Iterator[str]:
    """How the queue stands, as lines for a person."""
    yield f"waiting    {stats.waiting}"
    yield f"in flight  {stats.in_flight}"
    yield f"dead       {stats.dead}"
    if stats.oldest_age is not None:
        yield f"oldest     {stats.oldest_age:.0f} s"
    if stats.paused_until is not None:
        seconds = max(0.0, stats.paused_until - time.time())
        yield f"paused     for {seconds:.0f} s: {stats.pause_reason}"


def describe_dead(queue: EmbeddingBatchQueue, limit: int) -> Iterator[str]:
    """Dead letters, the latest first, as lines for a person. No text of users."""
    for offset in range(0, limit, DEAD_PAGE):
        letters = queue.dead_letters(limit=min(DEAD_PAGE, limit - offset), offset=offset)
        for letter in letters:
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(letter.died_at))
            yield f"{when}  {letter.redis_key or '(not ours)'}  {letter.reason}"
        if len(letters) < DEAD_PAGE:
            return
