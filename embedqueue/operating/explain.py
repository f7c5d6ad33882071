"""Where the vector of one key is, and why."""

from __future__ import annotations

from typing import Any

from redis.exceptions import ResponseError

from embedqueue.calls.lengths import Lengths, TooLong
from embedqueue.embedders.text_limits import text_limit
from embedqueue.futures.notices import named_keys
from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.store.hashes import Hashes
from embedqueue.store.keys import JOBS_SCORE, Keys
from embedqueue.store.records import due_seconds, enqueued_at, named_member
from embedqueue.values.item import decode_member
from embedqueue.values.stats import PROBING
from embedqueue.values.vectors import size_bytes

#: Notices that ``explain`` looks through for the time of a write, at most, and in one round trip.
NOTICES, NOTICES_PAGE = 10_000, 1000


def explain(queue: EmbeddingBatchQueue, redis_key: str) -> dict[str, Any]:
    """Where the vector of a key is, and why: facts by name; ``state`` is one of them, ``because`` a sentence.

    Args:
        queue: to look at; it is not started.
        redis_key: the hash that has the vector, or shall have it.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    store = queue._engine.store
    client: Any = store.client
    now = store.figures.now()
    facts = {"redis_key": redis_key, **_hash_facts(store.hashes, queue, redis_key)}
    entry: Any = client.hget(store.keys.latest, redis_key)
    letters = [] if entry is not None else store.dead.find([redis_key])
    if entry is not None:
        facts |= _live_facts(client, store.keys, queue, redis_key, entry, now)
    elif letters:
        [letter] = letters
        facts |= {"state": "dead", "because": letter.reason, "died_at": round(letter.died_at, 3)}
        facts |= {"deliveries": letter.deliveries, "text_chars": len(letter.text)}
    elif facts["hash"] == "a vector":
        written_at, truncated = _last_write(client, store.keys, redis_key)
        because = "its vector is in the hash, and nothing newer waits"
        facts |= {"state": "written", "written_at": written_at, "because": because}
        if truncated:
            facts["too_long"] = "only a beginning of its text was embedded (on_long)"
    else:
        facts |= {
            "state": "unknown",
            "because": "it is neither queued nor dead, and its hash has no vector of this model",
        }
    return facts


def _live_facts(
    client: Any, keys: Keys, queue: EmbeddingBatchQueue, redis_key: str, entry: bytes, now: float
) -> dict[str, Any]:
    member = named_member(entry)
    pending, lease = client.zscore(keys.pending, member), client.zscore(keys.inflight, member)
    pending = client.zscore(keys.alone, member) if pending is None else pending
    claim = (client.hget(keys.claims, redis_key) or b"").decode().split()
    text = decode_member(member).text
    facts: dict[str, Any] = {"text_chars": len(text), **_length_facts(queue, text)}
    if len(claim) > 1:
        facts["deliveries"] = int(claim[1])
    if lease is not None and lease >= JOBS_SCORE:
        job = claim[2].partition(":")[2] if len(claim) > 2 else ""
        because = "it is in one of the provider's batch jobs (economy); `embedqueue jobs show` tells of it"
        return facts | {"state": "in a job", "job": job, "because": because}
    if lease is not None:
        facts |= {"state": "in flight", "in_flight_until": round(lease, 3), "lease_ends_in_s": round(lease - now, 1)}
        facts["because"] = "a worker has claimed it; should that worker die, another takes it when the lease ends"
        return facts | ({"worker": claim[2].partition(":")[0]} if len(claim) > 2 else {})
    score = pending if pending is not None else now
    since = min(enqueued_at(entry) or score, now)  # a clock may have been set back
    facts |= {"state": "waiting", "pending_since": round(since, 3), "waiting_s": round(now - since, 1)}
    pause_ms = client.pttl(keys.pause)
    if pause_ms != -2:
        reason = (client.get(keys.pause) or b"").decode("utf-8", "replace")
        until = "until somebody resumes" if pause_ms == -1 else f"for {pause_ms / 1000:.0f} s"
        return facts | {"because": f"nobody claims {until}: {reason}"}
    if client.exists(keys.pause_probe):
        return facts | {"because": f"nobody else claims while {PROBING}"}
    base = client.hget(keys.settings, "base")
    due = max(0.0, due_seconds(now - score, float(base) if base else None, queue.options.flush_interval) or 0.0)
    size, waiting = queue.options.max_batch_size, client.zcard(keys.pending)
    if waiting >= size or due == 0:
        words = f"it is due, with {waiting - 1} others, as soon as a worker has room and the limits allow"
    else:
        words = f"a drain starts in {due:.0f} s at the latest, or when {size} items wait; {waiting} do"
    facts["because"] = f"{words}. Where nobody works the queue, it stays."
    return facts


def _length_facts(queue: EmbeddingBatchQueue, text: str) -> dict[str, Any]:
    """What becomes of a text that is too long for the model; nothing where it is not, or nobody knows."""
    options = queue.options
    lengths = Lengths(text_limit(queue._embedder, options.model), options.on_long, options.model)
    try:
        sent = lengths.fit(text)
    except TooLong as error:
        return {"too_long": f"it will be a dead letter: {error}"}
    if len(sent) == len(text):
        return {}
    return {"too_long": f"its first {len(sent)} characters will be embedded (on_long), which fit the model"}


def _hash_facts(hashes: Hashes, queue: EmbeddingBatchQueue, redis_key: str) -> dict[str, Any]:
    try:
        size = hashes.size(redis_key, queue.options.embedding_field)
    except ResponseError as error:
        return {"hash": str(error)}
    width = queue._embedder.dimensions
    right = size if width is None else size_bytes(width, queue.options.vector_type)
    return {"hash": "no vector" if not size else "a vector" if size == right else f"{size} bytes instead of {right}"}


def _last_write(client: Any, keys: Keys, redis_key: str) -> tuple[float | None, bool]:
    """When it was written, and whether its text was cut, as far back as the notices go, which are trimmed."""
    end, truncated = "+", False
    for _ in range(NOTICES // NOTICES_PAGE):
        entries = client.xrevrange(keys.events, max=end, count=NOTICES_PAGE)
        for name, fields in entries:
            kind = fields.get(b"kind")
            if kind not in (b"done", b"truncated"):
                continue
            if redis_key in named_keys(fields.get(b"body", b"").decode("utf-8", "replace")):
                if kind == b"done":
                    return int(name.partition(b"-")[0]) / 1000, truncated
                truncated = True  # told right after the write
        if len(entries) < NOTICES_PAGE:
            break
        end = f"({entries[-1][0].decode()}"
    return None, truncated
