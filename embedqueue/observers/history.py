"""What was done in the last hour and on the last days: added up in each process, kept in Redis in bounded keys.

A process adds its figures to those of the minute and of the day a few seconds after something has happened, in one
round trip; where nothing happens, nothing is written.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self, get_args

from embedqueue.store.figures import DAY_SECONDS, MINUTE_SECONDS, Figures
from embedqueue.values.errors import Cause
from embedqueue.values.locks import Event, held_here
from embedqueue.values.log import Log, logger
from embedqueue.values.observer import BatchReport, CallReport, Observer, RedisReport, ReleaseReport, SavingReport
from embedqueue.values.stats import DeadLetter
from embedqueue.values.threads import start

from .spending import Saved, Sent, figures_of_saved, figures_of_sent, saved_of, sent_of

#: Seconds after something has happened at which it is written.
WRITE_SECONDS = 10.0
#: Seconds that a stop waits for the last figures to be written: they are not worth more.
LAST_WRITE_SECONDS = 1.0
#: Upper ends of the classes of call latencies, in seconds; the last class has none.
LATENCY_SECONDS: Final = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6)
#: Outcomes of calls whose texts the provider has embedded, and so is paid for.
ANSWERED: Final = ("ok", "partial")
#: Causes of failures without a status that are counted by name: an embedder of one's own may say anything.
CAUSES: Final = get_args(Cause)


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """What all processes together did in a minute or a day.

    Attributes:
        start: Unix time of its beginning.
        seconds: its length.
        enqueued: items accepted.
        embedded: items whose vector was written.
        truncated: those of them of which only a beginning was embedded (``on_long="truncate"``).
        dead: items given up.
        released: items released because the provider failed.
        leases_ended: claims that ran out because their worker died or lost Redis.
        redis_failures: commands that Redis did not answer, or refused.
        calls: API calls, those that failed included.
        call_seconds: how long the answered ones took, in all.
        texts: texts in the answered calls.
        maybe_twice: items that have left batch jobs for the live lane, and may be paid for twice.
        unanswered: texts in calls that failed after they were sent: they may be charged, and were sent again.
        sent: what was sent, by model and way; see :class:`Sent`.
        saved: what was not, by model and reason; see :class:`Saved`.
        latencies: answered calls by duration, one number for each of ``LATENCY_SECONDS`` and one beyond.
        failures: failed calls by outcome and cause: "transient 503", "transient timeout", "configuration".
    """

    start: float
    seconds: int
    enqueued: int = 0
    embedded: int = 0
    truncated: int = 0
    dead: int = 0
    released: int = 0
    leases_ended: int = 0
    redis_failures: int = 0
    calls: int = 0
    call_seconds: float = 0.0
    texts: int = 0
    maybe_twice: int = 0
    unanswered: int = 0
    sent: Sequence[Sent] = ()
    saved: Sequence[Saved] = ()
    latencies: tuple[int, ...] = (0,) * (len(LATENCY_SECONDS) + 1)
    failures: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, start: float, seconds: int, figures: Mapping[str, int]) -> Self:
        """From the numbers that stand in Redis."""
        plain: dict[str, Any] = {name: figures[name] for name in PLAIN if name in figures}
        return cls(
            start=start,
            seconds=seconds,
            call_seconds=figures.get("call_ms", 0) / 1000,
            sent=sent_of(figures),
            saved=saved_of(figures),
            latencies=tuple(figures.get(f"latency {at}", 0) for at in range(len(LATENCY_SECONDS) + 1)),
            failures=_under("failed ", figures),
            **plain,
        )

    @property
    def tokens(self) -> dict[str, int]:
        """The tokens that are paid for by model, as the provider has counted them, or else estimated."""
        sums: Counter[str] = Counter()
        for one in self.sent:
            sums[one.model] += one.tokens
        return dict(sums)

    @property
    def saved_texts(self) -> int:
        """Texts that were not sent, because equal ones were, the cache had their vectors, or their hashes had them."""
        return sum(one.texts for one in self.saved)

    @property
    def saved_tokens(self) -> int:
        """Their estimated tokens."""
        return sum(one.tokens for one in self.saved)


#: Fields of a period that are one number, and stand under their own names.
PLAIN: Final = (
    "enqueued", "embedded", "truncated", "dead", "released", "leases_ended", "redis_failures", "calls", "texts",
    "maybe_twice", "unanswered",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class History:
    """What was done lately, by all processes together.

    Attributes:
        now: Unix time, by the server's clock.
        minutes: the oldest first; the last one is not over.
        days: of UTC, the oldest first; the last one is not over.
    """

    now: float
    minutes: Sequence[Period]
    days: Sequence[Period]


def _under(prefix: str, figures: Mapping[str, int]) -> dict[str, int]:
    return {name[len(prefix) :]: value for name, value in figures.items() if name.startswith(prefix)}


def read_history(figures: Figures, minutes: int, days: int) -> History:
    """The last minutes and days, this one included.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    now = figures.now()
    return History(
        now,
        [Period.of(start, MINUTE_SECONDS, found) for start, found in figures.minutes(now, minutes)],
        [Period.of(start, DAY_SECONDS, found) for start, found in figures.days(now, days)],
    )


def _cause(report: CallReport) -> str:
    """One word, so that there are few: the status, or what the embedder says where there is none."""
    if isinstance(report.status, int) and 100 <= report.status <= 599:
        return str(report.status)
    cause = report.cause or ""
    return cause if cause in CAUSES else ""


class Recorder(Observer):
    """Adds up what a process does, and writes it a few seconds later. Costs a few additions a batch, never an error.

    Its thread lives while there is something to write. What Redis does not take is written with what comes next.

    Args:
        write: adds figures to those in Redis; may raise.
        model: whose tokens are counted.
        name: of the thread.
        log: takes the records.
    """

    def __init__(self, write: Callable[[Mapping[str, int]], None], model: str, name: str, log: Log = logger) -> None:
        self._write = write
        self._model = model
        self._name = name
        self._log = log
        self._stop = Event()
        self._lock = threading.RLock()  # a signal's handler may stop() in the midst of an addition
        self._figures: Counter[str] = Counter()  # guarded by the lock
        self._thread: threading.Thread | None = None  # guarded by the lock
        self._enqueued = 0  # only accepted() changes it
        self._written = 0  # of those; of the thread alone

    @property
    def entered(self) -> bool:
        """Whether this thread is in here: then we are a handler, and must not wait for others, who may want to come."""
        return held_here(self._lock)

    def stop(self) -> None:
        """Write what is left, for a second at most."""
        self._stop.set()
        thread = self._thread
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            thread.join(LAST_WRITE_SECONDS)

    def _add(self, **figures: int) -> None:
        self._add_all(figures)

    def _add_all(self, figures: Mapping[str, int]) -> None:
        with self._lock:
            self._figures.update(figures)
            self._ensure()

    def _ensure(self) -> None:
        """A thread that writes. Under the lock."""
        if self._thread is None and not self._stop.is_set():
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            try:
                start(self._thread)
            except RuntimeError:  # no more threads, or the interpreter ends: the next addition tries again
                self._thread = None

    def _run(self) -> None:
        while True:
            over = self._stop.wait(WRITE_SECONDS)
            with self._lock:
                figures, self._figures = self._figures, Counter()
                figures["enqueued"] += self._enqueued - self._written
                self._written = self._enqueued
                if not +figures:
                    self._thread = None
                    return
            try:
                self._write(figures)
            except Exception as error:  # whatever it is, it is not worth more than this
                self._log.debug("embedqueue: the history could not be written: %s", error)
                with self._lock:
                    self._figures.update(figures)
                    if over:
                        self._thread = None
                        return

    def accepted(self, count: int) -> None:
        """So many items are durable. They are added in one step, without a lock: enqueuing must be cheap."""
        self._enqueued += count
        if self._thread is None:
            with self._lock:
                self._ensure()

    # -- what the queue tells ----------------------------------------------------------------------------------

    def call_ended(self, report: CallReport) -> None:
        """An API call came back."""
        figures = {"calls": 1}
        if report.outcome in ANSWERED:
            at = bisect_left(LATENCY_SECONDS, report.seconds)
            figures |= {"texts": report.texts, f"latency {at}": 1, "call_ms": round(report.seconds * 1000)}
        if report.maybe_paid:
            figures["unanswered"] = report.texts
        measured = report.used_tokens is not None
        if report.outcome in ANSWERED or measured:  # an answer that nobody can use is paid for as well
            tokens = report.tokens if report.used_tokens is None else report.used_tokens
            figures |= figures_of_sent(self._model, report.lane, report.texts, tokens, measured=measured)
        if report.outcome != "ok":
            figures[f"failed {report.outcome} {_cause(report)}".rstrip()] = 1
        self._add_all(figures)

    def job_ended(self, report: CallReport) -> None:
        """A batch job has ended."""
        measured = report.used_tokens is not None
        tokens = report.tokens if report.used_tokens is None else report.used_tokens
        self._add_all(figures_of_sent(self._model, report.lane, report.texts, tokens, measured=measured))

    def maybe_paid_twice(self, items: int) -> None:
        """Items have left batch jobs for the live lane."""
        self._add(maybe_twice=items)

    def written(self, report: BatchReport) -> None:
        """Vectors are in their hashes."""
        self._add(embedded=report.items, truncated=report.truncated)

    def saved(self, report: SavingReport) -> None:
        """Texts need not be sent."""
        self._add_all(figures_of_saved(self._model, report.by, report.texts, report.tokens))

    def released(self, report: ReleaseReport) -> None:
        """The provider failed: items wait again."""
        self._add(released=len(report.redis_keys))

    def died(self, letter: DeadLetter) -> None:
        """An item was given up."""
        self._add(dead=1)

    def leases_ended(self, count: int) -> None:
        """Claims had run out."""
        self._add(leases_ended=count)

    def redis_failed(self, report: RedisReport) -> None:
        """Redis did not answer, or refused a command."""
        self._add(redis_failures=1)
