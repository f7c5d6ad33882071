"""What a queue tells about itself: plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .limits import LimitLeft

#: What ``pause_reason`` says while one call tests a provider that has failed.
PROBING = "one call tests the provider"


@dataclass(frozen=True, slots=True)
class QueueStats:
    """How the queue stands. The first six fields and ``workers`` are of Redis, the others of this process.

    Attributes:
        waiting: items in pending.
        in_flight: items that some worker has claimed.
        dead: dead letters.
        oldest_age: seconds since the first waiting item, which is due before all others, was enqueued, or None.
        paused_until: Unix time at which somebody may claim again; inf for a pause that was made without an end;
            None where there is none.
        pause_reason: what the provider said, or None.
        enqueued: items accepted.
        embedded: items whose vector was written.
        rejected: items given up.
        released: items released because the provider failed.
        calls: API calls made, those that failed included.
        failed_calls: API calls that failed.
        texts_sent: texts in all calls.
        calls_under_way: API calls that are not back yet, or whose vectors are being written.
        last_progress: Unix time at which an item was last finished or released, or None: health is progress.
        truncated: embedded items of which only a beginning was sent, because their text was too long (``on_long``).
        due_in: seconds until a drain starts because of the time that items may wait; less than 0 where it should have
            started; None where nothing waits. It is of Redis, too.
        workers: workers, in whatever process, that have announced themselves and were heard of within the last minute.
            A queue with ``worker=False``, or that was never started, is none. None where Redis does not let us know.
        not_replicated: items accepted of which ``min_replicas`` did not say in time that they have them.
        vectors_not_replicated: the same of vectors written, on a Redis Cluster; elsewhere none is waited for.
        replaced: vectors of another space (model, dimensions or role) in whose place ours were written: another queue
            may write to the same field.
        limits: of Redis as well: how much is left of each limit that this process knows.
        used_tokens: that calls were charged, as the provider has counted them.
        estimated_tokens: of answered calls of which it has not said.
        saved_texts: texts that need not be sent.
        saved_tokens: their estimated tokens.
        for_jobs: of Redis as well: items that wait for a batch job (``economy``); they are among the waiting.
        outsourced: of Redis as well: items that are in the provider's batch jobs.
        unanswered_texts: texts in calls that failed after they were sent: they may be charged, and are sent again.
    """

    waiting: int
    in_flight: int
    dead: int
    oldest_age: float | None
    paused_until: float | None
    pause_reason: str | None
    enqueued: int
    embedded: int
    rejected: int
    released: int
    calls: int
    failed_calls: int
    texts_sent: int
    calls_under_way: int
    last_progress: float | None
    truncated: int = 0
    limits: Sequence[LimitLeft] = ()
    due_in: float | None = None
    workers: int | None = None
    not_replicated: int = 0
    vectors_not_replicated: int = 0
    replaced: int = 0
    used_tokens: int = 0
    estimated_tokens: int = 0
    saved_texts: int = 0
    saved_tokens: int = 0
    for_jobs: int = 0
    outsourced: int = 0
    unanswered_texts: int = 0


@dataclass(frozen=True, slots=True)
class BatchJob:
    """One of the provider's batch jobs.

    Attributes:
        name: ours; the label at the provider ends with it.
        model: that it asks for.
        state: "planned": its items are chosen; "submitting": it may have been created; "submitted": it was; "ended":
            its items are served or went back, and its files are being deleted; "over".
        provider_id: the provider's name of it; "" where it is not known.
        status: what the provider says of it, in its words.
        created: Unix time, by the clock of Redis.
        ended: Unix time; None where it has not.
        texts: in it, equal ones once.
        items: of these.
        done: texts that the provider has done, as it says; None where it does not.
        written: items that have their vector from it; after a crash, up to a hundred fewer are told.
        back: items that went back to the live lane.
        tokens: of the texts, estimated.
        used_tokens: that the provider says it has charged; None where it has not said.
        note: why it ended otherwise than well; "" where it did not.
    """

    name: str
    model: str
    state: str
    provider_id: str
    status: str
    created: float
    ended: float | None
    texts: int
    items: int
    done: int | None
    written: int
    back: int
    tokens: int
    used_tokens: int | None
    note: str


@dataclass(frozen=True, slots=True)
class LiveWorker:
    """A worker that has announced itself, as of the last time that it was heard of.

    Attributes:
        name: its own, under which it claims; another one after each start.
        host: the name of its machine.
        pid: of its process.
        version: of embedqueue.
        model: whose vectors it writes.
        space: model, length and role of its vectors, as the provenance beside each has it.
        since: Unix time at which it began to work, by the server's clock.
        doing: a few words: "idle", "calling 3" (API calls under way), "paused", "barred" (it may not claim).
        heard_age: seconds since it was heard of; it is heard of every 20 s.
    """

    name: str
    host: str
    pid: int
    version: str
    model: str
    space: str
    since: float
    doing: str
    heard_age: float


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An item that was given up.

    Attributes:
        redis_key: its hash; empty where the member is not our JSON.
        text: its text, or the beginning of it where ``member`` is empty; the member itself, as it stands, where that is
            not our JSON.
        reason: the provider's words, or ours.
        died_at: Unix time.
        deliveries: how often its lease had run out.
        member: as it stands in Redis; empty where the text was cut, as ``dead_letters(max_bytes=...)`` does.
        size_bytes: of the member in Redis.
    """

    redis_key: str
    text: str
    reason: str
    died_at: float
    deliveries: int
    member: bytes
    size_bytes: int = 0
