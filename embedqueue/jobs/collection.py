"""What a job has made comes home: read line by line, verified before anything is written, written as any vector is.

A result is read twice, and never held: at first to verify it, then to write it. Its lines are matched by their keys.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from embedqueue.embedders.batch_jobs import JobLine, JobSeen, is_gone
from embedqueue.embedders.protocol import CANARY
from embedqueue.store.jobs import Job, Live
from embedqueue.values.errors import EmbedQueueError, InputRejected
from embedqueue.values.item import Item
from embedqueue.values.observer import BatchReport
from embedqueue.values.vectors import Malformed, as_rows, cosine, faulty_rows, length_of

from .desk import Desk, Lost, Stopped, noted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Texts of a job that are embedded by a call as well, and how alike both vectors must be: a batch may round otherwise,
#: which changes the sixth digit of a cosine; another text changes the first (docs/half-price.md).
CANARIES = 2
LEAST_COSINE = 0.999
#: Seconds for which nothing goes into jobs once a result was wrong.
OFF_SECONDS = 86_400.0
#: Lines that are looked up together.
CHUNK_LINES = 100
#: What one script writes and a sink takes at once, at most: items, of which one line may serve many, and bytes.
CHUNK_ITEMS = 500
CHUNK_BYTES = 3 << 18


class Wrong(Exception):
    """A result that cannot be trusted: nothing of it is written."""


def collect(desk: Desk, job: Job, seen: JobSeen) -> Job:
    """Write what a job has made, send the rest back, and end it.

    Raises:
        Lost: somebody else looks after the jobs.
        Stopped: the queue stops.
        EmbedQueueError, redis.RedisError: it goes on where it was, later.
    """
    lines = desk.jobs.lines(job.name)
    keys: dict[str, list[str]] = {}
    for redis_key, key in lines.items():
        keys.setdefault(key, []).append(redis_key)
    if not job.verified:
        try:
            tokens = _verify(desk, job, seen, keys)
        except Wrong as wrong:
            return _throw_away(desk, job, str(wrong))
        job = desk.keep(job, verified=True, used_tokens=seen.used_tokens or tokens)
    if desk.terms().dimensions is None:
        desk.embed([CANARY])  # an embedder that learns the length of its vectors has to know it before one is written
    # What is written is none of the job's texts any more.
    note = "" if seen.standing == "done" else noted(f"{seen.standing}: {desk.said(job, seen.reason) or seen.status}")
    job = _write(desk, job, seen, keys)
    job = desk.end(job, note)
    if job.back:
        desk.log.info(
            "embedqueue: batch job %s has left %d of %d items to the live lane", job.name, job.back, job.items
        )
    return job


def _throw_away(desk: Desk, job: Job, why: str) -> Job:
    desk.jobs.switch_off(desk.renew().now + OFF_SECONDS)
    desk.log.error(
        "embedqueue: nothing of batch job %s is written, and nothing goes into jobs for a day: %s", job.name, why
    )
    return desk.end(job, f"thrown away: {why}")


# -- verifying -----------------------------------------------------------------------------------------------------


def _verify(desk: Desk, job: Job, seen: JobSeen, keys: dict[str, list[str]]) -> int:
    """Read all of a result, and compare some of it with a call. Returns the tokens that its lines tell."""
    held = {live.digest for live in desk.jobs.live(job.name, [one for some in keys.values() for one in some])}
    chosen: list[tuple[str, NDArray[np.float32]]] = []
    found, tokens, strange = set[str](), 0, 0
    vectors = read = unread = 0
    why = ""  # of the first line that cannot be read
    for line in _lines(desk, seen, (0, 0)):
        tokens += line.tokens or 0
        if line.key:
            read += 1
        else:
            unread, why = unread + 1, why or line.error
        if line.vector is None:
            continue
        if line.key not in keys:
            strange += 1
            continue
        if line.key in found:
            raise Wrong(f"its result has the key {line.key} twice")
        found.add(line.key)
        if length_of(line.vector[None]) is None:  # of a broken vector, the length may be broken, too
            continue
        _check_width(desk, line.vector)
        if line.key not in held or _vector_bytes(desk, line.vector) is None:
            continue
        vectors += 1
        if len(chosen) < 2 * CANARIES:  # every line is as likely to be chosen: keys may be right at the beginning only
            chosen.append((line.key, line.vector))
        elif (place := random.randrange(vectors)) < 2 * CANARIES:
            chosen[place] = line.key, line.vector
    if unread and not read:
        raise Wrong(f"none of its {unread} lines can be read: {why}")
    if strange and not found:
        raise Wrong(f"none of its {strange} keys is ours")
    if chosen:
        _compare(desk, job, chosen, keys)
    if unread:
        desk.log.warning("embedqueue: %d lines of the result of batch job %s cannot be read: %s", unread, job.name, why)
    return tokens


def _check_width(desk: Desk, vector: NDArray[np.float32]) -> None:
    dimensions = desk.terms().dimensions
    if dimensions is not None and len(vector) != dimensions:
        raise Wrong(f"its vectors have {len(vector)} numbers instead of {dimensions}")


def _compare(
    desk: Desk, job: Job, chosen: Sequence[tuple[str, NDArray[np.float32]]], keys: dict[str, list[str]]
) -> None:
    compared = refused = 0
    for key, vector in random.sample(chosen, len(chosen)):
        live = next(desk.jobs.live(job.name, keys[key]), None)
        if live is None:
            continue  # superseded since
        try:
            row = desk.embed([live.text])[0]
        except InputRejected:
            refused += 1
            continue  # a call does not take this text: the next one
        if not (alike := cosine(row, vector)) >= LEAST_COSINE:
            raise Wrong(f"the vector under {key} is not that of its text: cosine {alike:.4f} to the one of a call")
        compared += 1
        if compared == CANARIES:
            return
    if refused and not compared:
        raise Wrong("calls refuse the texts by which it would be verified")


# -- writing -------------------------------------------------------------------------------------------------------


def _write(desk: Desk, job: Job, seen: JobSeen, keys: dict[str, list[str]]) -> Job:
    lines = _lines(desk, seen, job.place)
    while chunk := list(islice(lines, CHUNK_LINES)):
        desk.renew()
        vectors = {line.key: stored for line in chunk if (stored := _vector_bytes(desk, line.vector)) is not None}
        redis_keys = [redis_key for key in vectors for redis_key in keys.get(key, ())]
        pairs = [
            (live, vectors[live.digest]) for live in desk.jobs.live(job.name, redis_keys) if live.digest in vectors
        ]
        written = sum(_complete(desk, job, part) for part in _parts(pairs))
        job = desk.keep(job, place=chunk[-1].place, written=job.written + written)
    return job


def _complete(desk: Desk, job: Job, pairs: Sequence[tuple[Live, bytes]]) -> int:
    began_mono = time.monotonic()
    # The sink is asked once: a job's result waits at the provider, and the next look goes on from here.
    items_of = [(Item(live.redis_key, live.text, live.member, owner=job.owner), stored) for live, stored in pairs]
    refused, _ = desk.offer(job.owner, items_of)  # why others may not be written, the next move finds out
    pairs = [pair for pair in pairs if pair[0].redis_key not in refused]
    if not pairs:
        return 0
    items = [(live.redis_key, live.member, stored, live.digest) for live, stored in pairs]
    desk.remember((live.text, stored) for live, stored in pairs)
    words = desk.store.complete(job.owner, desk.terms().sized(len(pairs[0][1])), items)
    if "differs" in words:
        raise Lost  # another model was adopted just now: what is not written must not count as read
    done = [live for (live, _), word in zip(pairs, words, strict=True) if word == "done"]
    if done:
        now = desk.led.now
        report = BatchReport(
            redis_keys=tuple(live.redis_key for live in done),
            texts=len({live.digest for live in done}),
            seconds=time.monotonic() - began_mono,
            waited_seconds=max(0.0, now - job.created),
        )
        desk.observers.tell("written", report)
        desk.wrote(len(done))
    return sum(word in ("done", "skipped") for word in words)


def _parts(pairs: Sequence[tuple[Live, bytes]]) -> Iterator[list[tuple[Live, bytes]]]:
    part: list[tuple[Live, bytes]] = []
    size = 0
    for live, stored in pairs:
        if len(part) == CHUNK_ITEMS or (part and size + len(stored) + len(live.member) > CHUNK_BYTES):
            yield part
            part, size = [], 0
        part.append((live, stored))
        size += len(stored) + len(live.member)
    if part:
        yield part


def _lines(desk: Desk, seen: JobSeen, place: tuple[int, int]) -> Iterator[JobLine]:
    try:
        for line in desk.batches.results(seen, place):
            if desk.closing.is_set():
                raise Stopped
            yield line
    except EmbedQueueError as error:
        if is_gone(error):
            raise Gone from error
        raise


class Gone(Exception):
    """The provider has no such result, not yet or no more."""


def _vector_bytes(desk: Desk, vector: Any) -> bytes | None:
    """A vector as it is stored; None where it must never be written."""
    if vector is None:
        return None
    try:
        rows = as_rows([vector], 1, desk.terms().dimensions, desk.options.vector_type)
    except Malformed:
        return None
    return None if len(faulty_rows(rows)) else rows.tobytes()
