"""Hands vectors to the sink before their items are acknowledged; what it does not take now is kept, and offered again.

An item stays in flight meanwhile, under a lease that is renewed, so that nobody pays for its vector again. A sink that
is down pauses the queue for all processes, as a provider that is down does; each further try of ours tests it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from embedqueue.calls.failures import Stopping
from embedqueue.futures.waiters import Waiters
from embedqueue.store.records import Terms
from embedqueue.store.stalls import Stalls
from embedqueue.values.backoff import backoff_seconds
from embedqueue.values.errors import (
    BatchFailed,
    ConfigurationError,
    EmbedQueueError,
    InputRejected,
    TransientError,
)
from embedqueue.values.item import Item
from embedqueue.values.locks import Event
from embedqueue.values.log import Log
from embedqueue.values.provenance import digest
from embedqueue.values.sink import Sink, SinkRow
from embedqueue.values.vectors import VectorType, to_array
from embedqueue.values.words import said_by

from .agenda import Agenda

#: Tries in place before the queue pauses, and seconds between them: the first, doubled. A connection that was idle for
#: too long, or two transactions that want each other's rows, are no reason to rest.
QUICK_TRIES = 3
QUICK_SECONDS = 0.1
#: Seconds between further tries: at first, and at most; doubled in between. They cost nothing.
RETRY_SECONDS = (1.0, 30.0)
#: How much longer than that the pause lasts. Where a row may be to blame it is shorter instead, so that others are
#: claimed: by what becomes of them it is judged.
PAUSE_FACTOR, SUSPECT_FACTOR = 2.0, 0.5
#: How often a row has to fail alone, after the sink has taken another since it last did, until the row is to blame: a
#: sink that comes and goes must not bury rows that happen to be offered while it is away.
TRIALS = 3
#: Seconds between looks at whether another thread has found the sink well, or the queue stops.
LOOK_SECONDS = 0.25
#: Characters of a reason that are kept.
REASON_CHARS = 1000

Pair = tuple[Item, bytes]
T = TypeVar("T")


class Persist(Protocol):
    """Makes a move in Redis, again and again until it answers; see ``Settle.persist``."""

    def __call__(self, write: Callable[[], T], /) -> T:
        """Make it, and return its answer."""


class SinkFailed(EmbedQueueError):
    """The sink took nothing, and nobody has the time to wait."""


@dataclass(slots=True)
class _Load:
    """What is offered together."""

    waiting: dict[str, Pair]  # by redis_key; not yet taken
    refused: list[tuple[Item, str]] = field(default_factory=list)  # and why
    failures: int = 0  # in a row
    suspect_mono: float = 0.0  # when, of this try, the sink first failed for a reason of no known kind
    trials: dict[str, int] = field(default_factory=dict)  # by redis_key: how often a row failed while the sink was well
    alone_mono: dict[str, float] = field(default_factory=dict)  # by redis_key: when it last failed alone
    outdated: set[str] = field(default_factory=set)  # redis_keys of what may not be written any more
    taken: Pair | None = None  # one that the sink has: offered again, it tells whether the sink is well
    control: SinkRow | None = None  # the row of that, as long as it is still to be written

    def refuse(self, row: SinkRow, error: BaseException) -> None:
        item, _ = self.waiting.pop(row.redis_key)
        self.refused.append((item, f"the sink refused it: {said_by(error)}"))


class Sinking:
    """Hands vectors to a sink. Thread-safe.

    Args:
        sink: the user's.
        stalls: Redis.
        waiters: the unfinished futures of this process.
        agenda: told of pauses.
        terms: returns on which terms this process writes.
        vector_type: of the vectors.
        closing: set when the queue begins to stop: then nothing is waited for.
        persist: makes a move in Redis, again and again until it answers.
        log: takes the records.

    Attributes:
        patient: False: what the sink does not take at once is given up, and its items wait again.
    """

    def __init__(
        self,
        sink: Sink,
        stalls: Stalls,
        waiters: Waiters,
        agenda: Agenda,
        terms: Callable[[], Terms],
        vector_type: VectorType,
        *,
        closing: Event,
        persist: Persist,
        log: Log,
    ) -> None:
        self._sink = sink
        self._stalls = stalls
        self._waiters = waiters
        self._agenda = agenda
        self._terms = terms
        self._vector_type = vector_type
        self._closing = closing
        self._persist = persist
        self._log = log
        self.patient = True
        self._taken_mono = 0.0  # when the sink last took something
        self._logged = ""  # the fault that the log has spoken of last

    def write(
        self, owner: str, pairs: Sequence[Pair], *, patient: bool = True
    ) -> tuple[list[tuple[Item, str]], set[str]]:
        """Have the sink take vectors, however long that takes.

        Args:
            owner: of the claim.
            pairs: items of different keys and their vectors, each (dimensions,) as the bytes that are stored.
            patient: whether to wait for a sink that takes nothing now.

        Returns:
            The items that it will never take, and why; and the redis_keys of what may not be written any more, and was
            not offered.

        Raises:
            Stopping: the queue stops.
            SinkFailed: it takes nothing now, and neither this nor the call is ``patient``.
        """
        load = _Load({item.redis_key: (item, vector) for item, vector in pairs})
        words, stalled_mono = "", 0.0  # of the pause, where there is one
        while rows := self._rows(load):
            fault = self._offer(load, rows)
            if fault is None:
                continue
            load.suspect_mono = 0.0
            if not (self.patient and patient):
                raise SinkFailed(f"the sink failed: {said_by(fault)}") from fault
            load.failures += 1
            if load.failures < QUICK_TRIES and not isinstance(fault, ConfigurationError):
                self._rest(QUICK_SECONDS * 2 ** (load.failures - 1))
                continue
            tries = load.failures - QUICK_TRIES
            seconds = backoff_seconds(max(1, tries), *RETRY_SECONDS)
            words, stalled_mono = self._stall(owner, load, fault, seconds, again=bool(words)), time.monotonic()
            self._rest(seconds)
        if words and self._taken_mono > stalled_mono:
            self._recover(owner, words)
        return load.refused, load.outdated

    def _rows(self, load: _Load) -> list[SinkRow]:
        """What is still to be written of a load, with the stamps of now."""
        pairs, terms = list(load.waiting.values()), self._terms()
        if not pairs:
            return []
        if load.taken is not None:
            pairs.append(load.taken)
        asked = [(item.redis_key, item.member) for item, _ in pairs]
        stamps = self._persist(lambda: self._stalls.stamps(asked, terms))
        rows, load.control = [], None
        for (item, vector), stamp in zip(pairs, stamps, strict=True):
            if stamp is None:
                if load.waiting.pop(item.redis_key, None) is not None:
                    load.outdated.add(item.redis_key)
                continue
            numbers = to_array(vector, self._vector_type)
            space = terms.sized(len(vector)).space
            row = SinkRow(item.redis_key, numbers, stamp, space, digest(item.text))
            if item.redis_key in load.waiting:
                rows.append(row)
            else:
                load.control = row
        return rows

    # -- one try -----------------------------------------------------------------------------------------------

    def _offer(self, load: _Load, rows: Sequence[SinkRow]) -> BaseException | None:
        """Offer rows once. Those that it takes, and those that it never will, leave the load. Returns its fault."""
        try:
            self._sink.write(rows)
        except InputRejected as error:
            return self._rejected(load, list(rows), error)
        except (TransientError, ConfigurationError, OSError) as error:
            return error
        except Exception as error:
            return self._suspected(load, rows, error)
        self._taken_mono = time.monotonic()
        for row in rows:
            load.taken = load.waiting.pop(row.redis_key)
        load.control = rows[-1]
        return None

    def _rejected(self, load: _Load, rows: list[SinkRow], error: InputRejected) -> BaseException | None:
        """It will not take one of these rows: which is found out where it does not tell."""
        if len(rows) == 1:
            load.refuse(rows[0], error)
            return None
        if error.index is not None and 0 <= error.index < len(rows):
            load.refuse(rows.pop(error.index), error)
            return None  # the others are offered next
        return self._halves(load, rows)

    def _halves(self, load: _Load, rows: Sequence[SinkRow]) -> BaseException | None:
        half = len(rows) // 2
        return self._offer(load, rows[:half]) or self._offer(load, rows[half:])

    def _suspected(self, load: _Load, rows: Sequence[SinkRow], error: Exception) -> BaseException | None:
        """It failed in a way of its own: a row's fault if it takes others. Then that row stands alone at last."""
        load.suspect_mono = load.suspect_mono or time.monotonic()
        if len(rows) == 1:
            return self._alone(load, rows[0], error)
        if self._taken_mono > load.suspect_mono:
            return self._halves(load, rows)
        # Not all one by one: a sink that is down would be asked a thousand times. Others with each try, until it
        # takes one.
        at = load.failures % len(rows)
        for row in (rows[at], rows[-1 - at]):
            if (fault := self._offer(load, [row])) is None:
                return None  # all that is left is offered again, with that knowledge
            error = fault if isinstance(fault, Exception) else error
        return error

    def _alone(self, load: _Load, row: SinkRow, error: Exception) -> BaseException | None:
        """A row failed alone. It is to blame if that is so again and again while the sink takes others in between."""
        key = row.redis_key
        if self._taken_mono >= load.alone_mono.get(key, math.inf):
            load.trials[key] = load.trials.get(key, 0) + 1
        load.alone_mono[key] = time.monotonic()
        if load.trials.get(key, 0) >= TRIALS:
            load.refuse(row, error)
            return None
        if load.control is None:
            return error
        try:
            self._sink.write([load.control])
        except Exception as fault:
            return fault
        self._taken_mono = time.monotonic()
        return self._offer(load, [row])

    # -- between tries -----------------------------------------------------------------------------------------

    def _stall(self, owner: str, load: _Load, fault: BaseException, seconds: float, *, again: bool) -> str:
        """Pause the queue, and answer those who wait. Returns the words of the pause."""
        words = f"the sink failed: {said_by(fault)}"[:REASON_CHARS]
        suspect = not isinstance(fault, TransientError | ConfigurationError | OSError)
        keys = list(load.waiting)
        # Taken before the pause begins: the future of whoever enqueues later must not fail.
        waiting = self._waiters.snapshot(None if again else keys)
        if self._logged != words:
            level = self._log.error if isinstance(fault, ConfigurationError) else self._log.warning
            level("embedqueue: %d vectors are kept, for %s", len(keys), words, exc_info=fault if suspect else None)
            self._logged = words
        pause_seconds = seconds * (SUSPECT_FACTOR if suspect else PAUSE_FACTOR)
        left = self._persist(lambda: self._stalls.stall(owner, keys, pause_seconds, words, again=again))
        self._agenda.paused(left)
        self._waiters.fail(waiting, BatchFailed(f"{words}; the item is still queued"))
        return words

    def _recover(self, owner: str, words: str) -> None:
        self._logged = ""
        self._log.warning("embedqueue: the sink takes vectors again")
        self._persist(lambda: self._stalls.over(owner, words))
        self._agenda.paused(0.0)

    def _rest(self, seconds: float) -> None:
        """Wait, but no longer than until another thread has found the sink well.

        Raises:
            Stopping: the queue begins to stop.
        """
        began_mono = time.monotonic()
        while (left := began_mono + seconds - time.monotonic()) > 0 and self._taken_mono < began_mono:
            if self._closing.wait(min(left, LOOK_SECONDS)):
                raise Stopping
