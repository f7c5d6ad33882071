"""The provider's batch jobs, in lines for people and JSON for scripts; and one that is tried with a real key."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict

import numpy as np

from embedqueue.embedders.batch_jobs import JobSeen, batch_jobs_of
from embedqueue.embedders.protocol import Embedder
from embedqueue.values.errors import EmbedQueueError
from embedqueue.values.provenance import digest
from embedqueue.values.stats import BatchJob
from embedqueue.values.vectors import cosine
from embedqueue.values.words import printable

#: Seconds between two looks of a trial, at first and at most, and for which it waits unless told otherwise.
LOOK_SECONDS = (5.0, 60.0)
TRIAL_SECONDS = 3600.0


def job_as_json(job: BatchJob) -> str:
    """A job for a script."""
    return json.dumps(asdict(job))


def describe_jobs(jobs: list[BatchJob]) -> Iterator[str]:
    """Jobs as lines for a person."""
    if not jobs:
        yield "There are no batch jobs."
        return
    yield f"{'job':<13} {'state':<11} {'created':<16} {'texts':>7} {'written':>8} {'back':>6}  at the provider"
    for job in jobs:
        created = time.strftime("%Y-%m-%d %H:%M", time.localtime(job.created))
        there = f"{job.provider_id} {job.status}".strip()
        note = f"  ({job.note})" if job.note else ""
        yield printable(
            f"{job.name:<13} {job.state:<11} {created:<16} {job.texts:>7,} {job.written:>8,} {job.back:>6,}"
            f"  {there}{note}"
        )


def try_economy(
    embedder: Embedder,
    model: str,
    count: int,
    say: Callable[[str], object],
    *,
    seconds: float = TRIAL_SECONDS,
    look_seconds: tuple[float, float] = LOOK_SECONDS,
) -> None:
    """Send one small batch job from upload to deletion, outside of any queue, and say what each step gave.

    Args:
        embedder: whose provider.
        model: that is asked for.
        count: of texts.
        say: told each step.
        seconds: after which it is cancelled.
        look_seconds: between two looks, at first and at most.

    Raises:
        EmbedQueueError: it did not work out; the words say at which step.
    """
    batches = batch_jobs_of(embedder, model)
    if batches is None:
        raise EmbedQueueError(f"{embedder!r} has no batch jobs that embedqueue knows")
    texts = {digest(text): text for text in (f"embedqueue tries a batch job, text {number}" for number in range(count))}
    name = uuid.uuid4().hex[:12]
    label, began, file, job_id = f"embedqueue:try:{name}", time.time(), "", ""

    def told(words: str) -> None:
        say(printable(f"{time.time() - began:7.1f} s  {words}"))

    try:
        file = batches.upload(texts, label)
        told(f"uploaded as {file or 'nothing: the texts go with the job'}")
        job_id = batches.create(file, texts, label)
        told(f"created as {job_id}")
        found = batches.find(label, began)
        told(f"found by its label {label!r}: {'yes' if found == job_id else f'no, but {found}'}")
        seen = _wait(batches.look, job_id, told, began + seconds, look_seconds)
        if seen is None:
            batches.cancel(job_id)
            raise EmbedQueueError(f"it has not ended within {seconds:.0f} s, and is cancelled")
        lines = list(batches.results(seen))
        told(f"{len(lines)} lines, {sum(line.vector is not None for line in lines)} of them with vectors")
        rows = embedder.embed_batch(list(texts.values()), model)
        live = {key: np.asarray(row, dtype=np.float64) for key, row in zip(texts, rows, strict=True)}
        for line in lines:
            if line.vector is None:
                told(f"no vector for {line.key}: {line.error}")
            elif line.key not in live:
                told(f"{line.key} is a key that was never sent")
            else:
                told(f"{line.key}: {len(line.vector)} numbers, {_cosine(line.vector, live[line.key])}")
    finally:
        if file or job_id:
            batches.delete(job_id, file, label)
            told("its files are deleted")


def _wait(
    look: Callable[[str], JobSeen],
    job_id: str,
    told: Callable[[str], None],
    until: float,
    look_seconds: tuple[float, float],
) -> JobSeen | None:
    pause, status = look_seconds[0], ""
    while time.time() < until:
        seen = look(job_id)
        if seen.status != status:
            status = seen.status
            told(f"its status is {status!r}, which is: {seen.standing}" + (f" ({seen.reason})" if seen.reason else ""))
        if seen.standing not in ("waiting", "gone"):
            return seen
        time.sleep(pause)
        pause = min(look_seconds[1], pause * 1.5)
    return None


def _cosine(one: object, other: np.ndarray) -> str:
    vector = np.asarray(one)
    if len(vector) != len(other):
        return f"but {len(other)} of a call"
    return f"cosine {cosine(vector, other):.6f} to the vector of a call"
