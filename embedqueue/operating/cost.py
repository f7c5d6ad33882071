"""What a queue's embedding costs, as lines for people and JSON for scripts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from embedqueue.money.cost import By, Cost, costs_by, usd
from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.values.words import printable

#: Days that are told, and the most that are kept.
DEFAULT_DAYS, MOST_DAYS = 30, 400
#: What saves, in words.
SAVERS: Mapping[str, str] = {
    "duplicate": "equal texts", "cache": "the cache", "unchanged": "if_changed", "": "not known by what",
}  # fmt: skip


def cost_of(
    queue: EmbeddingBatchQueue, days: int, by: By, prices: Iterable[tuple[str, float]]
) -> tuple[list[Cost], Cost]:
    """What was spent and saved by all processes of a queue.

    Args:
        queue: to look at.
        days: how many of the last.
        by: "day" or "model".
        prices: that were given; they come before those of the queue.

    Returns:
        Rows, and their total.

    Raises:
        redis.RedisError: Redis cannot be reached.
    """
    return costs_by(queue.history(1, days).days, {**(queue.options.prices or {}), **dict(prices)}, by)


def cost_as_json(rows: Sequence[Cost], total: Cost, by: By) -> str:
    """All of it, for a script."""
    facts: dict[str, Any] = {"by": by, "rows": [row.facts() for row in rows], "total": total.facts()}
    return json.dumps(facts)


def describe_cost(rows: Sequence[Cost], total: Cost, by: By) -> Iterator[str]:
    """All of it, as lines for a person."""
    if not rows:
        yield "Nothing was sent or saved in these days."
        return
    width = max(len(by), *(len(printable(row.name)) for row in (*rows, total)))
    yield (
        f"{by:<{width}} {'texts':>11} {'measured':>14} {'estimated':>14} {'dollars':>12} "
        f"{'saved tokens':>14} {'saved':>10}"
    )
    for row in (*rows, total):
        yield (
            f"{printable(row.name):<{width}} {row.texts:>11,} {row.measured:>14,} {row.estimated:>14,} "
            f"{_dollars(row):>12} {row.saved_tokens:>14,} {usd(row.saved_dollars):>10}"
        )
    saved = [f"{texts:,} by {SAVERS.get(saver, saver)}" for saver, texts in sorted(total.saved_texts.items()) if texts]
    if saved:
        yield f"Texts that were not sent: {', '.join(saved)}."
    if total.batch_texts:
        saved_by_jobs = usd(total.batch_saved_dollars)
        yield f"Of the texts, {total.batch_texts:,} went in batch jobs, which saved {saved_by_jobs}."
    if total.maybe_twice:
        yield f"{total.maybe_twice:,} items have left batch jobs for the live lane: their texts may be paid for twice."
    for model in sorted(total.unpriced):
        yield printable(f"Nobody has said what {model} costs, so it is in no sum: --price {model}=DOLLARS")


def _dollars(cost: Cost) -> str:
    if cost.known_dollars is None:
        return "no price"
    return ("over " if cost.unpriced else "") + usd(cost.known_dollars)
