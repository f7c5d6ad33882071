"""What a queue tells about itself: plain values."""

from __future__ import annotations

from dataclasses import dataclass

#: What ``pause_reason`` says while one call tests a provider that has failed.
PROBING = "one call tests the provider"


@dataclass(frozen=True, slots=True)
class QueueStats:
    """How the queue stands. The first six fields are of Redis, the others of this process since it made the queue.

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
        due_in: seconds until a drain starts because of the time that items may wait; less than 0 where it should have
            started; None where nothing waits. It is of Redis, too.
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
    due_in: float | None = None
    used_tokens: int = 0
    estimated_tokens: int = 0
    saved_texts: int = 0
    saved_tokens: int = 0


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
