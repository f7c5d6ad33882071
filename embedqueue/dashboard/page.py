"""What stands on the page: one look at a queue, as values for the template."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embedqueue.money.cost import costs_by
from embedqueue.money.prices import price_of
from embedqueue.observers.history import History
from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.values.options import Options
from embedqueue.values.stats import PROBING, QueueStats

from . import figures, letters, words

#: Minutes and days that are read; so many days, those on which anything was done, are listed.
MINUTES, DAYS, LISTED_DAYS = 60, 30, 14
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


def live(queue: EmbeddingBatchQueue, prices: Mapping[str, float]) -> dict[str, Any]:
    """What changes while somebody looks. Five commands.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    stats, history, options, now = queue.stats(), queue.history(MINUTES, DAYS), queue._options, time.time()
    return {
        "stats": stats,
        "workers": queue.workers() if stats.workers else [],
        "state": state_of(stats, options, now),
        "updated": history.now,
        "rates": {
            name: figures.a_minute(history.minutes, lambda minute, name=name: getattr(minute, name))  # type: ignore[misc]
            for name in ("enqueued", "embedded", "dead", "released", "calls")
        },
        "today": history.days[-1],
        **_calls(history),
        **_flow(history),
        **_cost(history, {**(options.prices or {}), **prices}),
    }


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


def _cost(history: History, prices: Mapping[str, float]) -> dict[str, Any]:
    days, total = costs_by(history.days, prices, "day")
    used = {model: price_of(model, prices) for one in history.days for model in one.tokens}
    return {
        "days": days[:LISTED_DAYS],
        "most_tokens": max((one.tokens for one in days), default=0) or 1,
        "cost": total,
        "prices": {model: price for model, price in sorted(used.items()) if price is not None},
        "days_read": len(history.days),
    }


def dead(queue: EmbeddingBatchQueue, page: int, show_texts: bool) -> dict[str, Any]:
    """Dead letters: the latest for their reasons, and those of a page.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    count = queue.stats().dead
    pages = max(1, -(-count // letters.PAGE_LETTERS))
    page = min(max(1, page), pages)
    latest = letters.latest(queue) if count else []
    first = (page - 1) * letters.PAGE_LETTERS
    end = min(first + letters.PAGE_LETTERS, count)
    on_page = latest[first:end]
    if end > len(latest):
        on_page = queue.dead_letters(letters.PAGE_LETTERS, first, max_bytes=letters.WHOLE_BYTES)
    reader = letters.Reader(show_texts)
    return {
        "dead_count": count,
        "page": page,
        "pages": pages,
        "reasons": reader.reasons(latest),  # first: what it learns of them serves for those of the page
        "letters": [reader.show(letter) for letter in on_page],
        "missing": max(0, end - first - len(on_page)),
        "reasons_of": len(latest),
        "now": time.time(),
    }
