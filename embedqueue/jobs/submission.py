"""From items that wait to a job at the provider: plan, upload, intent, create; and what was created unknown to us.

No create can be repeated without making a second job. So the intent stands in Redis before it, and what may have been
created is looked for by its label until the provider's list must show it. A text can be paid for twice only if a
process, or its connection, ends after the provider has taken the create and before we know, and the list lags for
longer than ``economy_lag`` beyond.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress

from embedqueue.embedders.batch_jobs import lacks_file, was_refused
from embedqueue.store.jobs import MOVE_ITEMS, Job
from embedqueue.values.backoff import backoff_seconds
from embedqueue.values.errors import EmbedQueueError, TransientError
from embedqueue.values.item import Item, NotOurs, decode_member
from embedqueue.values.provenance import digest, same_space
from embedqueue.values.tokens import BYTES_PER_TOKEN, estimated_tokens
from embedqueue.values.words import said_by

from .desk import Desk, Stopped, noted

#: Estimated tokens of one job at most: several jobs fit into the smallest quota that is known (OpenAI, tier 1).
JOB_TOKENS = 1_000_000
#: Jobs at a time.
MOST_JOBS = 20
#: Looks into a list that must miss a job before its items go back.
MISSES = 2
#: Seconds between creates that are refused because the file is not known yet: at first, and at most.
FILE_SECONDS = (1.0, 30.0)


def submit(desk: Desk) -> bool:
    """Make a job of what waits for one, if that is worth it. Returns whether one was made."""
    led = desk.renew()
    active = [job for job in led.jobs if job.active]
    room = JOB_TOKENS if led.quota is None else led.quota - sum(job.tokens for job in active)
    if len(active) >= MOST_JOBS or led.off_until > led.now or led.rest_until > led.now:
        return False
    affordable = desk.affordable()
    if affordable is not None:  # what the jobs cost that are under way is in no sum yet
        affordable -= sum(job.tokens for job in active if not job.booked)
        room = min(room, affordable)
    if room < 1:
        return False
    space = desk.terms().space
    job = Job(uuid.uuid4().hex[:12], desk.options.model, space, created=led.now, since=led.now)
    items = _plan(desk, job, min(room, JOB_TOKENS), affordable)
    if not items:
        return False
    texts: dict[str, str] = {}
    lines, unfit = [], []
    known = desk.known(item.text for item in items)  # the live lane has them for nothing
    for item in items:
        if item.text not in known and _fits(desk, item.text):
            key = digest(item.text)
            texts[key] = item.text
            lines.append((item.redis_key, key))
        else:
            unfit.append(item.redis_key)
    back = desk.jobs.give_back(job.name, unfit)
    # Of slices whose answers were lost, for redis-py then asks again: the next job takes them.
    unheard = desk.jobs.lines(job.name).keys() - {item.redis_key for item in items}
    back += desk.jobs.give_back(job.name, [*unheard], again=True)
    tokens = sum(map(estimated_tokens, texts.values()))
    job = desk.keep(job, lines, texts=len(texts), items=len(lines), tokens=tokens, back=back)
    if not texts:
        desk.end(job, "no text of it may go into a job")
        return False
    return _send(desk, job, texts)


def _plan(desk: Desk, job: Job, room: int, affordable: int | None) -> list[Item]:
    """Move items into the job, slice by slice; returns those that are ours.

    No text has more tokens, by estimate, than its member has bytes for: beside the text, there are 26 at least.

    Args:
        desk: of the runner.
        job: to be kept.
        room: tokens of it; one text may be larger.
        affordable: tokens that it must not go beyond; None: as many as there is room for.
    """
    options, members = desk.options, list[bytes]()
    most_bytes = room * BYTES_PER_TOKEN
    affordable_bytes = None if affordable is None else affordable * BYTES_PER_TOKEN
    most = min(options.economy_max_texts, desk.batches.max_texts)
    least = options.economy_min_texts
    while len(members) < most and most_bytes > 0:
        found = desk.jobs.outsource(
            desk.who,
            job,
            desk.terms(),
            least=least if not members else 1,
            most=min(MOVE_ITEMS, most - len(members)),
            most_bytes=most_bytes,
            max_deliveries=options.max_deliveries,
            affordable_bytes=affordable_bytes,
        )
        if found.word != "taken":
            break
        members += found.members
        size = sum(map(len, found.members))
        most_bytes -= size
        affordable_bytes = None if affordable_bytes is None else affordable_bytes - size
    return list(_ours(members))


def _ours(members: Iterable[bytes]) -> Iterator[Item]:
    for member in members:
        with suppress(NotOurs):
            yield decode_member(member)


def _fits(desk: Desk, text: str) -> bool:
    """Whether a text is sent whole: what is cut or refused for its length is for the live lane, which tells of it."""
    try:
        return desk.fit(text) == text
    except ValueError:
        return False


def _send(desk: Desk, job: Job, texts: dict[str, str]) -> bool:
    label = desk.label(job.name)
    try:
        file = desk.batches.upload(texts, label)
    except EmbedQueueError as error:
        _undo(desk, job, said_by(error, [*texts.values()]))
        return False
    job = desk.keep(job, file=file, state="submitting", since=desk.led.now)
    try:
        provider_id = _create(desk, job, texts, label)
    except EmbedQueueError as error:
        words = said_by(error, [*texts.values()])
        if was_refused(error):
            _undo(desk, job, words)
            return False
        desk.log.warning(
            "embedqueue: it is not known whether a batch job was created; its label is looked for: %s", words
        )
        desk.keep(job, since=desk.renew().now)  # its list may lag from now on, however long the answer was waited for
        if isinstance(error, TransientError) and error.status is not None:  # the next one would most likely end so, too
            desk.rest(noted(words))
        return True
    created(desk, job, provider_id)
    return True


def _create(desk: Desk, job: Job, texts: dict[str, str], label: str) -> str:
    """Create a job; again for as long as its provider does not know the file that it has just taken."""
    lag, began, refused = desk.options.economy_lag, desk.renew().now, 0
    while True:
        desk.renew()  # asked just now: who was held up must not create what another takes for lost, or has ended
        desk.keep(job, since=desk.led.now)
        try:
            return desk.batches.create(job.file, texts, label)
        except EmbedQueueError as error:
            if not lacks_file(error, job.file) or desk.led.now - began >= lag:
                raise
            desk.log.debug("embedqueue: batch job %s has to wait for its file: %s", job.name, said_by(error))
        refused += 1
        if desk.closing.wait(min(backoff_seconds(refused, *FILE_SECONDS), lag / 4)):
            raise Stopped


def created(desk: Desk, job: Job, provider_id: str) -> Job:
    """The provider has the job, under this name."""
    if desk.led.rests:
        desk.jobs.rest(desk.who, 0.0, 0)
    desk.log.info("embedqueue: batch job %s (%s) has %d texts", job.name, provider_id, job.texts)
    now, ours = desk.renew().now, desk.terms()
    terms = ours if same_space(job.space, ours.space) else None  # else it is cancelled at its next step
    return desk.keep(job, terms=terms, state="submitted", provider_id=provider_id, since=now, misses=0)


def _undo(desk: Desk, job: Job, words: str) -> None:
    """The provider has not taken the job: its items wait for another, and none is made for a while."""
    note = noted(f"it was not taken: {words}")
    desk.end(job, note, again=True)
    desk.rest(note)


def recover(desk: Desk, job: Job) -> Job:
    """Look for a job that may have been created; or send back what was only planned."""
    if job.state == "planned":
        return desk.end(job, "whoever planned it has ended", again=True)
    provider_id = desk.batches.find(desk.label(job.name), job.created)
    if provider_id is not None:
        desk.log.info("embedqueue: batch job %s is found again as %s", job.name, provider_id)
        return created(desk, job, provider_id)
    now = desk.renew().now
    if job.misses + 1 >= MISSES and now - max(job.since, desk.led_since) >= desk.options.economy_lag:
        note = "the provider's list does not have it: its items go back, and if it was created all the same, they are "
        desk.log.warning("embedqueue: batch job %s is lost: %spaid for twice", job.name, note)
        return desk.end(job, f"{note}paid for twice", again=True)
    return desk.keep(job, misses=job.misses + 1)
