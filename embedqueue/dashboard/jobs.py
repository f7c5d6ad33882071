"""The page of the provider's batch jobs: what each holds, what has become of it, and how to cancel it."""

from __future__ import annotations

from typing import Any

from embedqueue.queue import EmbeddingBatchQueue

#: Jobs that the page lists, the latest first.
LISTED_JOBS = 100
TONES = {"planned": "warn", "submitting": "busy", "submitted": "busy", "ended": "good", "over": "good"}
#: What cancelling does, for the question before it.
CANCEL = (
    "Its items go to the live lane and are embedded as all others are, at the full price. What the provider has done "
    "of the job by then is paid for all the same."
)


def listed(queue: EmbeddingBatchQueue) -> dict[str, Any]:
    """The jobs. Two round trips.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    jobs, stats = queue.jobs(), queue.stats()
    return {"jobs": jobs[:LISTED_JOBS], "more": max(0, len(jobs) - LISTED_JOBS), "tones": TONES, "stats": stats}
