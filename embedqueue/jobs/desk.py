"""What the steps of a batch job share: the provider, Redis, and the lease without which nobody touches a job."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from embedqueue.embedders.batch_jobs import BatchJobs
from embedqueue.observers.observers import Observers
from embedqueue.store.jobs import Job, Jobs, Led
from embedqueue.store.records import Terms
from embedqueue.store.store import Store
from embedqueue.values.item import Item
from embedqueue.values.locks import Event
from embedqueue.values.log import Log
from embedqueue.values.options import Options
from embedqueue.values.words import READ_CHARS, printable, without_texts

#: Seconds for which no job is made after the provider has refused one: at first, and at most; doubled in between.
REST_SECONDS = (900.0, 7200.0)
#: Characters of a provider's words that are kept.
NOTE_CHARS = 300


def noted(words: str) -> str:
    """Words of a provider as they are kept: on one line, and not too many."""
    return printable(words)[:NOTE_CHARS]


class Stopped(Exception):
    """The queue stops: what is left is done by whoever comes next."""


class Lost(Exception):
    """Somebody else looks after the jobs by now: whoever gets this must touch none of them any more."""


@dataclass
class Desk:
    """What the steps share. The thread of one runner uses it.

    Attributes:
        store: Redis.
        batches: the provider's batch jobs.
        options: of the queue.
        terms: returns on which terms this process writes.
        fit: returns what of a text is sent, or raises ``ValueError`` where it is too long.
        embed: embeds texts by a call, at the full price; may raise what an embedder raises, and more.
        affordable: tells how many tokens of jobs fit into the budget that are in none of its sums; None without one.
        known: tells which of some texts need not be sent, because the cache has their vectors.
        remember: puts texts and their vectors into the cache, where there is one.
        charge: books what a job has cost, by its name, in tokens.
        wrote: told how many items have their vectors.
        offer: hands items and vectors to the sink, by the owner's name; returns the redis_keys of what is a dead letter
            now, and of what may not be written any more. Raises ``EmbedQueueError`` where it takes nothing now.
        observers: told what was sent and written.
        log: takes the records.
        who: the name under which the lease is held.
        closing: set when the queue stops.
        led: how the jobs stood when the lease was last renewed; the runner sets it.
        led_since: Unix time of the server since when it is ours without a break; 0 where it is not.
        gone_since: since when the provider has not known a job, or what it has made, by the job's name.
    """

    store: Store
    batches: BatchJobs
    options: Options
    terms: Callable[[], Terms]
    fit: Callable[[str], str]
    embed: Callable[[Sequence[str]], Any]
    affordable: Callable[[], int | None]
    known: Callable[[Iterable[str]], set[str]]
    remember: Callable[[Iterable[tuple[str, bytes]]], None]
    charge: Callable[[str, int], None]
    wrote: Callable[[int], None]
    offer: Callable[[str, Sequence[tuple[Item, bytes]]], tuple[set[str], set[str]]]
    observers: Observers
    log: Log
    who: str
    closing: Event
    led: Led
    led_since: float = 0.0
    gone_since: dict[str, float] = field(default_factory=dict)

    @property
    def jobs(self) -> Jobs:
        """The jobs in Redis."""
        return self.store.jobs

    @property
    def lease_seconds(self) -> float:
        """For how long the lease is ours without a sign of life."""
        return self.options.lease_seconds

    def label(self, name: str) -> str:
        """By which a job is found at the provider."""
        return f"embedqueue:{self.options.namespace}:{name}"

    def lead(self) -> Led:
        """Take or renew the lease, if we write on the terms of the namespace; and read how the jobs stand."""
        return self.jobs.lead(self.who, self.lease_seconds, self.terms())

    def renew(self) -> Led:
        """Renew the lease now.

        Raises:
            Lost: somebody else has it, or had it meanwhile: what is known of the jobs may have changed. Or it is not
                for us any more.
        """
        self.led = self.lead()
        if not self.led.ours or self.led.since != (self.led_since or self.led.since):
            raise Lost
        return self.led

    def said(self, job: Job, words: str) -> str:
        """What a provider says of a job, without the texts of it that this quotes."""
        live = self.jobs.live(job.name, list(self.jobs.lines(job.name))) if words else ()
        return without_texts(words[:READ_CHARS], (one.text for one in live))

    def keep(self, job: Job, lines: Sequence[tuple[str, str]] = (), terms: Terms | None = None, **changes: Any) -> Job:
        """Keep what is known of a job, changed; returns it. ``lines`` and ``terms`` as with :meth:`Jobs.keep`.

        Raises:
            Lost: somebody else looks after the jobs.
        """
        job = replace(job, **changes)
        if not self.jobs.keep(self.who, job, lines, terms):
            raise Lost
        return job

    def end(self, job: Job, note: str = "", *, again: bool = False) -> Job:
        """Send what a job holds back, and end it: only its files are left.

        Args:
            job: which.
            note: why it ended otherwise than well.
            again: whether another job may take its items.
        """
        back = self.jobs.give_back(job.name, list(self.jobs.lines(job.name)), again=again)
        now = self.renew().now
        return self.keep(job, state="ended", since=now, ended=now, back=job.back + back, note=note or job.note)

    def rest(self, why: str) -> None:
        """Make no job for a while, longer each time in a row."""
        rests = self.led.rests + 1
        seconds = min(REST_SECONDS[1], REST_SECONDS[0] * 2 ** (rests - 1))
        self.log.warning("embedqueue: no batch job is made for %.0f s: %s", seconds, why)
        self.jobs.rest(self.who, self.led.now + seconds, rests)
