"""What a drain tells the observers of its queue. Where there are none, nothing is measured."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from embedqueue.calls.batching import estimated_tokens
from embedqueue.observers.observers import Observers
from embedqueue.values.item import Item, dead_letter
from embedqueue.values.observer import BatchReport, ReleaseReport, SavingReport
from embedqueue.values.stats import DeadLetter


@dataclass(frozen=True, slots=True)
class Times:
    """When a claim came, and how long the oldest of its items had waited by then."""

    claimed_mono: float
    waited_seconds: float


class Reporter:
    """Makes reports of what happens to items.

    Args:
        observers: who gets them.
    """

    def __init__(self, observers: Observers) -> None:
        self.observers = observers

    def claimed(self, ran_out: int, rejected: Iterable[tuple[bytes, str, int]]) -> None:
        """A claim found leases that had ended, and rejected members: why, and how often their lease had ended."""
        if self.observers and ran_out:
            self.observers.tell("leases_ended", ran_out)
        self.dead(dead_letter(member, time.time(), reason, deliveries) for member, reason, deliveries in rejected)

    def duplicates(self, items: Sequence[Item], sent: Iterable[str]) -> None:
        """Of the items of a claim these texts are sent; all other items need no call."""
        if self.observers:
            to_send, spared = set(sent), []
            for item in items:
                if item.text in to_send:
                    to_send.remove(item.text)  # the first one pays
                else:
                    spared.append(item.text)
            self.saved(spared, "duplicate")

    def saved(self, texts: Sequence[str], by: Literal["duplicate", "cache"]) -> None:
        """These texts need not be sent."""
        if self.observers and texts:
            tokens = sum(map(estimated_tokens, texts))
            self.observers.tell("saved", SavingReport(texts=len(texts), tokens=tokens, by=by))

    def written(self, items: Sequence[Item], times: Times) -> None:
        """The vectors of these items are in their hashes."""
        if self.observers and items:
            seconds = time.monotonic() - times.claimed_mono
            report = BatchReport(
                redis_keys=tuple(item.redis_key for item in items),
                texts=len({item.text for item in items}),
                seconds=seconds,
                waited_seconds=times.waited_seconds + seconds,
            )
            self.observers.tell("written", report)

    def released(self, redis_keys: Sequence[str], reason: str, pause_seconds: float) -> None:
        """The provider failed, and these items wait again."""
        if self.observers and redis_keys:
            report = ReleaseReport(redis_keys=tuple(redis_keys), reason=reason, pause_seconds=pause_seconds)
            self.observers.tell("released", report)

    def dead(self, letters: Iterable[DeadLetter]) -> None:
        """Items were given up."""
        if self.observers:
            for letter in letters:
                self.observers.tell("died", letter)
