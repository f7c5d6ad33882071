"""What is told to the observers about items. If there are no observers, nothing is measured."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from embedqueue.observers.observers import Observers
from embedqueue.store.records import Claim
from embedqueue.values.item import Item, dead_letter
from embedqueue.values.observer import BatchReport, SavedBy, SavingReport
from embedqueue.values.stats import DeadLetter
from embedqueue.values.tokens import estimated_tokens


@dataclass(frozen=True, slots=True)
class Times:
    """The times of a claim.

    Attributes:
        claimed_mono: when its items came, by the monotonic clock, in seconds.
        waited_seconds: how long the oldest of its items had waited by then, since its enqueue.
    """

    claimed_mono: float
    waited_seconds: float


def tell_claimed(observers: Observers, claim: Claim) -> None:
    """Tell which leases a claim has found ended, and which items it has given up because of that."""
    if claim.ran_out:
        observers.tell("leases_ended", claim.ran_out)
    now = time.time()
    tell_dead(observers, (dead_letter(member, now, reason, count) for member, reason, count in claim.rejected))


def tell_duplicates(observers: Observers, items: Sequence[Item], sent: Iterable[str]) -> None:
    """Tell which items of a claim need no call of their own.

    Args:
        observers: told.
        items: all items of the claim.
        sent: the texts that are sent, each once.
    """
    to_send, spared = set(sent), []
    for item in items:
        if item.sent in to_send:
            to_send.remove(item.sent)  # this item pays for the others
        else:
            spared.append(item.sent)
    tell_saved(observers, spared, "duplicate")


def tell_saved(observers: Observers, texts: Sequence[str], by: SavedBy) -> None:
    """Tell that these texts need not be sent."""
    if texts:
        tokens = sum(map(estimated_tokens, texts))
        observers.tell("saved", SavingReport(texts=len(texts), tokens=tokens, by=by))


def tell_written(observers: Observers, items: Sequence[Item], times: Times) -> None:
    """Tell that the vectors of these items are in their hashes."""
    if items:
        seconds, now = time.monotonic() - times.claimed_mono, time.time()  # together, for traces reckon back
        report = BatchReport(
            redis_keys=tuple(item.redis_key for item in items),
            texts=len({item.sent for item in items}),
            truncated=sum(item.truncated for item in items),
            seconds=seconds,
            waited_seconds=times.waited_seconds + seconds,
            time=now,
        )
        observers.tell("written", report)


def tell_dead(observers: Observers, letters: Iterable[DeadLetter]) -> None:
    """Tell that these items were given up."""
    for letter in letters:
        observers.tell("died", letter)
