"""The first page: how a queue does now, who works, the last hour, and why calls and items fail."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from embedqueue.observers.history import History
from embedqueue.operating.hiding import Reader
from embedqueue.operating.live import Pulse, Watch
from embedqueue.operating.shown import latest, reasons
from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.values.options import Options
from embedqueue.values.stats import PROBING, QueueStats

from . import figures, words
from .money import budget_of

#: Minutes that are read.
MINUTES = 60
#: Reasons of dead letters that stand on this page.
REASONS = 3
#: Seconds beyond the flush interval after which an item that nobody has claimed is nobody's.
STALLED_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class State:
    """How the queue is doing: a word, a sentence, and the tone of both ("good", "busy", "warn" or "bad")."""

    word: str
    sentence: str
    tone: str


def state_of(stats: QueueStats, options: Options, now: float) -> State:
    """The first of the things that are wrong, or what is being done."""
    if stats.paused_until is not None:
        reason = stats.pause_reason or ""
        if reason == PROBING:
            return State("Probing", "The provider failed. One call is testing it; nothing else is sent.", "warn")
        if stats.paused_until == math.inf:
            return State("Paused", f"Nothing is sent until somebody resumes: {reason}", "bad")
        left = words.duration(max(0.0, stats.paused_until - now))
        return State("Paused", f"Nothing is sent for another {left}: {reason}", "bad")
    if stats.workers == 0:
        if not stats.waiting and not stats.in_flight:
            return State("No worker", "Nothing waits, and no worker is running.", "warn")
        what = f"{words.count(stats.waiting)} items wait" if stats.waiting else "Items are in flight"
        return State("Nobody works", f"{what}, and no worker is running: start one (embedqueue worker).", "bad")
    if stats.in_flight:
        return State("Working", "Workers have claimed items.", "busy")
    if not stats.waiting:
        return State("Idle", "Nothing waits.", "good")
    age = stats.oldest_age or 0.0
    held = max((limit.seconds for limit in stats.limits), default=0.0)
    due_now = stats.due_in is not None and stats.due_in < 0.0
    if held and (stats.waiting >= options.max_batch_size or due_now):
        return State("Held", f"The limits let the next full call go in {words.duration(held)}.", "warn")
    if stats.due_in is not None and stats.due_in < -STALLED_SECONDS:
        return State("Stalled", f"The oldest item waits for {words.duration(age)}. Do the workers get on?", "bad")
    due = f"{options.max_batch_size} items wait, or one for {words.duration(options.flush_interval)}"
    return State("Waiting", f"A drain starts when {due}, or when somebody needs a vector.", "good")


class Watches:
    """Takes the pulse of each queue, of one after another, whoever looks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watches: WeakKeyDictionary[EmbeddingBatchQueue, tuple[threading.Lock, Watch]] = WeakKeyDictionary()

    def look(self, queue: EmbeddingBatchQueue) -> Pulse:
        """How a queue does now.

        Raises:
            redis.RedisError: Redis does not answer.
        """
        with self._lock:
            if queue not in self._watches:
                self._watches[queue] = threading.Lock(), Watch(queue)
            lock, watch = self._watches[queue]
        with lock:
            return watch.look()


def live(queue: EmbeddingBatchQueue, watches: Watches) -> dict[str, Any]:
    """What changes while somebody looks. Eight round trips, each small whatever waits.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    pulse, history, options, now = watches.look(queue), queue.history(MINUTES, 1), queue.options, time.time()
    stats = pulse.stats
    known = {worker.name for worker in pulse.workers}
    return {
        "stats": stats,
        "pulse": pulse,
        "gone": {name: held for name, held in sorted(pulse.held.items()) if name not in known},
        "state": state_of(stats, options, now),
        "budget": budget_of(options, queue._engine.store.budget.state()),
        "updated": history.now,
        "rates": {
            name: figures.a_minute(history.minutes, lambda minute, name=name: getattr(minute, name))  # type: ignore[misc]
            for name in ("released", "calls")
        },
        "today": history.days[-1],
        **_calls(history),
        **_flow(history),
    }


def dead(queue: EmbeddingBatchQueue, show_texts: bool, count: int) -> dict[str, Any]:
    """The reasons of the latest of so many dead letters.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    letters = latest(queue) if count else []
    return {"reasons": reasons(Reader(show_texts), letters)[:REASONS], "reasons_of": len(letters)}


def _flow(history: History) -> dict[str, Any]:
    minutes = history.minutes
    end = figures.nice(max(max(minute.embedded, minute.enqueued) for minute in minutes))
    return {
        "minutes": minutes,
        "items_end": end,
        "embedded_bars": figures.bars(minutes, lambda minute: minute.embedded, end, "embedded"),
        "enqueued_lines": figures.line([minute.enqueued for minute in minutes], end),
        "lost": {
            name: sum(getattr(minute, name) for minute in minutes)
            for name in (
                "dead",
                "released",
                "leases_ended",
                "redis_failures",
                "saved_texts",
                "enqueued",
                "embedded",
                "truncated",
            )
        },
    }


def _calls(history: History) -> dict[str, Any]:
    minutes = history.minutes
    latencies = figures.summed(minutes)
    quantiles = {name: figures.quantile(latencies, part) for name, part in (("p50", 0.5), ("p95", 0.95))}
    by_minute = [
        (figures.quantile(minute.latencies, 0.5), figures.quantile(minute.latencies, 0.95)) for minute in minutes
    ]
    end = figures.nice(1000 * max((high or 0.0 for _, high in by_minute), default=0.0)) / 1000
    answered = sum(latencies)
    return {
        **quantiles,
        "latency_end": end,
        "p50_lines": figures.line([low for low, _ in by_minute], end),
        "p95_lines": figures.line([high for _, high in by_minute], end),
        "latency_rows": figures.latency_rows(latencies),
        "failure_rows": figures.failure_rows(minutes),
        "calls": sum(minute.calls for minute in minutes),
        "answered": answered,
        "texts_per_call": sum(minute.texts for minute in minutes) / answered if answered else None,
    }
