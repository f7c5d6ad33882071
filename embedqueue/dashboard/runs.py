"""The page of named runs: backfills, verifies and reembeds, how far each is, and what may be asked of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.values.runs import Run, Wanted

#: Runs that the page lists, the latest first.
LISTED_RUNS = 100
#: What may be asked of a run, by its state; each with what the button says and what the question adds.
ASKED: dict[Wanted, tuple[str, str]] = {
    "pause": ("Pause", "It stands still within some seconds, and keeps its place."),
    "resume": ("Resume", "It goes on where it stands."),
    "stop": ("Stop", "Its command ends; begun again under the same name, it goes on where it has stopped."),
}
_OF_STATES: dict[str, tuple[Wanted, ...]] = {"running": ("pause", "stop"), "paused": ("resume", "stop")}
TONES = {"running": "busy", "paused": "warn", "done": "good", "lost": "bad", "failed": "bad", "stopped": "warn"}


@dataclass(frozen=True, slots=True)
class Row:
    """A run on the page."""

    run: Run
    tone: str
    share: float | None
    asks: list[tuple[str, str]]


def listed(queue: EmbeddingBatchQueue) -> dict[str, Any]:
    """The runs. One round trip.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    runs = queue.runs()
    return {"rows": [_row(run) for run in runs[:LISTED_RUNS]], "more": max(0, len(runs) - LISTED_RUNS)}


def _row(run: Run) -> Row:
    share = min(1.0, max(0.0, run.done / run.total)) if run.total else None
    asks = [(wanted, ASKED[wanted][0]) for wanted in _OF_STATES.get(run.state, ())]
    return Row(run, TONES.get(run.state, "warn"), share, [(name, words) for name, words in asks])
