"""What ``embedqueue``, ``flask embedqueue`` and ``manage.py embedqueue`` have in common. Prints nothing itself."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from types import FrameType
from typing import Any

from redis.exceptions import RedisError, ResponseError

from embedqueue.futures.notices import named_keys
from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.settings.settings import Settings
from embedqueue.store.scripts import Keys
from embedqueue.store.store import Store
from embedqueue.values.errors import BatchFailed
from embedqueue.values.item import decode_member
from embedqueue.values.observer import CallReport, Observer
from embedqueue.values.stats import DeadLetter, QueueStats
from embedqueue.values.vectors import FLOAT32
from embedqueue.values.words import printable

from .health import STALL_SECONDS, Health, HealthServer

#: Seconds that calls under way get when a worker is told to end; gunicorn and Kubernetes wait 30.
DEFAULT_GRACE_SECONDS = 20.0
#: Seconds between two looks of a worker that ends once the queue is empty.
BURST_POLL_SECONDS = 0.2
#: Seconds for which such a worker puts up with a provider that fails.
BURST_PATIENCE_SECONDS = 60.0
#: Dead letters that one look fetches, which are in memory together.
DEAD_PAGE = 20
#: Notices that ``explain`` looks through for the time of a write, at most, and in one round trip.
NOTICES, NOTICES_PAGE = 10_000, 1000
#: Longest duration that an option of a command may give, in seconds: a year.
LONGEST_SECONDS = 366 * 86_400
#: Digits of the largest whole number that an option of a command may be.
_MOST_DIGITS = 9

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
    told = threading.Event()
    with contextlib.ExitStack() as stack:
        server = None if health is None else stack.enter_context(HealthServer(health))
        queue = make([refusals, *(server.observers if server else ())])
        queue.pending_count()  # a Redis that is not there is told at once
        stack.enter_context(_signals(told))
        try:
            queue.start()
            say(f"{queue!r} at work; SIGTERM ends it")
            if server is not None:
                server.serve(Health(queue, stall))
                say(f"health: http://{server.address}/health")
            if burst:
                _until_empty(queue, told, refusals)
            else:
                told.wait()
        finally:
            queue.stop(timeout=grace)
    say("ended; nothing is claimed any more")


def concurrency(value: str) -> int | str:
    """An option of a command: API calls in flight, a number or "auto".

    Raises:
        ValueError: with a sentence.
    """
    if value == "auto":
        return value
    if not _is_whole(value) or int(value) < 1:
        raise ValueError('give a number, at least 1, or "auto"')
    return int(value)


def _is_whole(value: str) -> bool:
    return value.isdecimal() and len(value) <= _MOST_DIGITS


def duration(value: str, least: float = 0.0) -> float:
    """An option of a command: a number of seconds that a clock can count.

    Args:
        value: as it was typed.
        least: what it must be at least.

    Raises:
        ValueError: with a sentence.
    """
    with contextlib.suppress(ValueError):
        number = float(value)
        if least <= number <= LONGEST_SECONDS:  # NaN is neither
            return number
    raise ValueError(f"give a number of seconds from {least:g} to {LONGEST_SECONDS}")


def address(value: str) -> tuple[str, int]:
    """An option of a command: a host and a port.

    Raises:
        ValueError: with a sentence.
    """
    host, _, port = value.rpartition(":")
    if not _is_whole(port) or int(port) > 65535:
        raise ValueError("give HOST:PORT, such as 127.0.0.1:9100, or :9100 for all addresses")
    return host.strip("[]"), int(port)


def beside(settings: Settings, more: Sequence[Observer]) -> list[Observer]:
    """The observers of the settings and more, but for those of a kind that is there: metrics would count twice."""
    own = list(settings.option("observers"))
    return own + [one for one in more if type(one) not in map(type, own)]


@contextlib.contextmanager
def _signals(told: threading.Event) -> Iterator[None]:
    """Within the ``with``, the first SIGTERM or SIGINT sets the event and the second ends the process."""

    def end(number: int, frame: FrameType | None) -> None:
        if told.is_set():
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
            os._exit(128 + number)  # process 1 of a container is not ended by a signal that nobody handles
        told.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _until_empty(queue: EmbeddingBatchQueue, told: threading.Event, refusals: _Refusals) -> None:
    failing_mono: float | None = None
    while not told.wait(BURST_POLL_SECONDS):
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
        now_mono = time.monotonic()
        failing_mono = failing_mono or now_mono
        if refusals.error is not None or now_mono - failing_mono > BURST_PATIENCE_SECONDS:
            reason = refusals.error or stats.pause_reason
            raise BatchFailed(
                f"the provider failed: {reason}; {stats.waiting + stats.in_flight} items are still queued"
            )


# -- looking ---------------------------------------------------------------------------------------------------------


def stats_as_json(stats: QueueStats) -> str:
    """How the queue stands in Redis, for a script. What this very process has done is left out: nothing."""
    names = ("waiting", "in_flight", "dead", "oldest_age", "paused_until", "pause_reason")
    return json.dumps({name: getattr(stats, name) for name in names})


def describe(stats: QueueStats) -> Iterator[str]:
    """How the queue stands, as lines for a person."""
    yield f"waiting    {stats.waiting}"
    yield f"in flight  {stats.in_flight}"
    yield f"dead       {stats.dead}"
    if stats.oldest_age is not None:
        yield f"oldest     {stats.oldest_age:.0f} s"
    if stats.paused_until is not None:
        seconds = max(0.0, stats.paused_until - time.time())
        yield f"paused     for {seconds:.0f} s: {printable(stats.pause_reason or '')}"


def lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """Facts by name as lines for a person."""
    for name, value in facts.items():
        yield f"{name:<16} {printable(str(value))}"


# -- pausing ---------------------------------------------------------------------------------------------------------


def set_pause(settings: Settings, seconds: float | None, reason: str) -> None:
    """Have nobody claim anything, for so many seconds or until it is lifted."""
    with _store(settings) as store:
        store.hold(seconds, reason)


def lift_pause(settings: Settings) -> bool:
    """End a pause at once, whoever made it: after a failure, one call tests the provider. Whether there was one."""
    with _store(settings) as store:
        return store.unhold()


@contextlib.contextmanager
def _store(settings: Settings) -> Iterator[Store]:
    store = Store(settings.client(), settings.option("namespace"))
    try:
        yield store
    finally:
        store.close()


# -- dead letters ----------------------------------------------------------------------------------------------------


def dead_letters(queue: EmbeddingBatchQueue, reason: str | None = None, *, whole: bool = False) -> Iterator[DeadLetter]:
    """Dead letters, the latest first; with ``reason``, those whose reason contains it. Long texts are cut, or whole."""
    offset = 0
    while letters := queue.dead_letters(limit=DEAD_PAGE, offset=offset, max_bytes=None if whole else 0):
        yield from (letter for letter in letters if reason is None or reason in letter.reason)
        offset += len(letters)


def describe_dead(letters: Iterator[DeadLetter]) -> Iterator[str]:
    """Dead letters as lines for a person. No text of users."""
    for letter in letters:
        yield printable(f"{_when(letter.died_at)}  {letter.redis_key or '(not ours)'}  {letter.reason}")


def dead_as_json(letter: DeadLetter) -> str:
    """A dead letter for a script; what is no UTF-8 in it is replaced."""
    return json.dumps(asdict(letter) | {"member": letter.member.decode("utf-8", "replace")})


def dead_letter_of(settings: Settings, name: str) -> DeadLetter | None:
    """The dead letter of a redis_key, or of a member that is not our JSON."""
    with _store(settings) as store:
        found = store.dead_letters_of([name])
    return found[0] if found else None


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


# -- one key ---------------------------------------------------------------------------------------------------------


def explain(settings: Settings, redis_key: str) -> dict[str, Any]:
    """Where the vector of a key is, and why: facts by name; ``state`` is one of them, ``because`` a sentence."""
    client, keys = settings.client(decode_responses=False), Keys(settings.option("namespace"))
    seconds, micros = client.time()
    now = float(seconds) + float(micros) / 1e6
    facts = {"redis_key": redis_key, **_hash_facts(client, settings, redis_key)}
    member: Any = client.hget(keys.latest, redis_key)
    letter = dead_letter_of(settings, redis_key)
    if member is not None:
        facts |= _live_facts(client, keys, settings, redis_key, member, now)
    elif letter is not None:
        facts |= {"state": "dead", "because": letter.reason, "died_at": round(letter.died_at, 3)}
        facts |= {"deliveries": letter.deliveries, "text_chars": len(letter.text)}
    elif facts["hash"] == "a vector":
        written_at = _written_at(client, keys, redis_key)
        because = "its vector is in the hash, and nothing newer waits"
        facts |= {"state": "written", "written_at": written_at, "because": because}
    else:
        facts |= {
            "state": "unknown",
            "because": "it is neither queued nor dead, and its hash has no vector of this model",
        }
    return facts


def _live_facts(
    client: Any, keys: Keys, settings: Settings, redis_key: str, member: bytes, now: float
) -> dict[str, Any]:
    pending, lease = client.zscore(keys.pending, member), client.zscore(keys.inflight, member)
    claim = (client.hget(keys.claims, redis_key) or b"").decode().split()
    facts: dict[str, Any] = {"text_chars": len(decode_member(member).text)}
    if len(claim) > 1:
        facts["deliveries"] = int(claim[1])
    if lease is not None:
        facts |= {"state": "in flight", "in_flight_until": round(lease, 3), "lease_ends_in_s": round(lease - now, 1)}
        facts["because"] = "a worker has claimed it; should that worker die, another takes it when the lease ends"
        return facts | ({"worker": claim[2].partition(":")[0]} if len(claim) > 2 else {})
    since = pending if pending is not None else now
    facts |= {"state": "waiting", "pending_since": round(since, 3), "waiting_s": round(now - since, 1)}
    pause_ms = client.pttl(keys.pause)
    if pause_ms != -2:
        reason = (client.get(keys.pause) or b"").decode("utf-8", "replace")
        return facts | {"because": f"nobody claims for {max(0, pause_ms) / 1000:.0f} s: {reason}"}
    due = max(0.0, since + settings.option("flush_interval") - now)
    size, waiting = settings.option("max_batch_size"), client.zcard(keys.pending)
    if waiting >= size or due == 0:
        words = f"it is due, with {waiting - 1} others, as soon as a worker has room"
    else:
        words = f"a drain starts in {due:.0f} s at the latest (flush_interval), or when {size} items wait; {waiting} do"
    facts["because"] = f"{words}. Where nobody works the queue, it stays."
    return facts


def _hash_facts(client: Any, settings: Settings, redis_key: str) -> dict[str, Any]:
    try:
        size = client.hstrlen(redis_key, settings.option("embedding_field"))
    except ResponseError as error:
        return {"hash": str(error)}
    right = FLOAT32.itemsize * settings.dimensions
    return {"hash": "a vector" if size == right else "no vector" if not size else f"{size} bytes instead of {right}"}


def _written_at(client: Any, keys: Keys, redis_key: str) -> float | None:
    """When it was written, as far back as the notices go, which are trimmed; else None."""
    end = "+"
    for _ in range(NOTICES // NOTICES_PAGE):
        entries = client.xrevrange(keys.events, max=end, count=NOTICES_PAGE)
        for name, fields in entries:
            if fields.get(b"kind") == b"done" and redis_key in named_keys(
                fields.get(b"body", b"").decode("utf-8", "replace")
            ):
                return int(name.partition(b"-")[0]) / 1000
        if len(entries) < NOTICES_PAGE:
            break
        end = f"({entries[-1][0].decode()}"
    return None
