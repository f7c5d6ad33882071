"""What ``embedqueue``, ``flask embedqueue`` and ``manage.py embedqueue`` have in common. Prints nothing itself."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from types import FrameType
from typing import Any

from redis.exceptions import RedisError, ResponseError

from .config import Settings
from .exchange import Keys
from .item import decode_member, encode_member
from .queue import EmbeddingBatchQueue
from .report import DeadLetter, QueueStats
from .vectors import FLOAT32

Pairs = Iterable[tuple[str, str]]

#: Seconds that calls under way get when a worker is told to end; gunicorn and Kubernetes wait 30.
DEFAULT_GRACE_SECONDS = 20.0
#: Seconds between two looks of a worker that ends once the queue is empty.
BURST_POLL_SECONDS = 0.2
#: Dead letters that one look fetches.
DEAD_PAGE = 100
#: Hashes that are looked at in one round trip.
LOOK_ITEMS = 500
#: Items that may wait at a time while a backlog is put in, unless told otherwise.
DEFAULT_MAX_WAITING = 5000
#: Seconds between two looks at a queue that is full enough.
FULL_POLL_SECONDS = 0.5


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


def dead_by_reason(queue: EmbeddingBatchQueue, part: str) -> Iterator[DeadLetter]:
    """Dead letters whose reason contains ``part``, the latest first."""
    offset = 0
    while letters := queue.dead_letters(limit=DEAD_PAGE, offset=offset):
        yield from (letter for letter in letters if part in letter.reason)
        offset += len(letters)


def explain(settings: Settings, redis_key: str) -> dict[str, Any]:
    """Where the vector of a key is, and why: facts by name."""
    client, keys = settings.client(decode_responses=False), Keys(settings.option("namespace"))
    now = _server_time(client)
    member: Any = client.hget(keys.latest, redis_key)
    facts: dict[str, Any] = {"redis_key": redis_key, "state": "unknown to the queue"}
    if member is not None:
        pending: Any = client.zscore(keys.pending, member)
        lease: Any = client.zscore(keys.inflight, member)
        claim: Any = (client.hget(keys.claims, redis_key) or b"").split()
        if lease is not None:
            facts |= {"state": "in flight", "lease_ends_in_s": round(lease - now, 1)}
        elif pending is not None:
            facts |= {"state": "waiting", "waiting_s": round(now - pending, 1)}
        if len(claim) > 1:
            facts["deliveries"] = int(claim[1])
        facts["text_chars"] = len(decode_member(member).text)
    for letter in dead_by_reason(settings.queue(worker=False), ""):
        if letter.redis_key == redis_key:
            facts |= {"state": "dead", "reason": letter.reason, "died_at": round(letter.died_at, 3)}
    try:
        size: Any = client.hstrlen(redis_key, settings.option("embedding_field"))
    except ResponseError as error:
        return facts | {"hash": str(error)}
    right = FLOAT32.itemsize * settings.dimensions
    facts["hash"] = "a vector" if size == right else "no vector" if not size else f"{size} bytes instead of {right}"
    if size and facts["state"] == "unknown to the queue":
        facts["state"] = "written"
    return facts


def _server_time(client: Any) -> float:
    seconds, micros = client.time()
    return float(seconds) + float(micros) / 1e6


def hashes_with_text(settings: Settings, match: str, text_field: str) -> Iterator[tuple[str, str]]:
    """Keys of hashes that match a pattern, and their texts; others of the queue's own are left out."""
    client = settings.client(decode_responses=False)
    own = f"{settings.option('namespace')}:".encode()
    keys = (key for key in client.scan_iter(match=match, count=LOOK_ITEMS, _type="HASH") if not key.startswith(own))
    while part := list(islice(keys, LOOK_ITEMS)):
        pipeline = client.pipeline(transaction=False)
        for key in part:
            pipeline.hget(key, text_field)
        for key, text in zip(part, pipeline.execute(), strict=True):
            if text:
                yield key.decode(), text.decode()


def enqueue_lacking(
    settings: Settings, pairs: Pairs, *, everything: bool, max_waiting: int
) -> Iterator[tuple[int, int]]:
    """Enqueue pairs whose hash has no vector of the model's length, part by part, while fewer items wait than allowed.

    Args:
        settings: of the queue.
        pairs: redis_key and text.
        everything: also those that have a vector.
        max_waiting: go on only while fewer items wait.

    Yields:
        How many of a part were enqueued, and how many there were.
    """
    client, keys = settings.client(decode_responses=False), Keys(settings.option("namespace"))
    right = FLOAT32.itemsize * settings.dimensions
    source = iter(pairs)
    nap = threading.Event()
    queue = settings.queue(worker=False)
    try:
        while part := list(islice(source, LOOK_ITEMS)):
            while queue.pending_count() >= max_waiting:
                nap.wait(FULL_POLL_SECONDS)
            lacking = part
            if not everything:
                pipeline = client.pipeline(transaction=False)
                for redis_key, _ in part:
                    pipeline.hstrlen(redis_key, settings.option("embedding_field"))
                    pipeline.hget(keys.latest, redis_key)
                found = pipeline.execute(raise_on_error=False)  # a key of another type becomes a dead letter
                lacking = [
                    pair
                    for pair, size, live in zip(part, found[::2], found[1::2], strict=True)
                    if size != right and live != encode_member(*pair)
                ]
            queue.enqueue_many(lacking)
            yield len(lacking), len(part)
    finally:
        queue.stop()
