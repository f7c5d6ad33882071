"""Who looks after the batch jobs: one thread of one process, for as long as there are any, or enough waits for one.

It holds a lease, so that others let the jobs alone; whoever takes it over goes on where Redis says that it stood.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

from redis.exceptions import RedisError

from embedqueue.store.jobs import Job, Led
from embedqueue.values.backoff import backoff_seconds
from embedqueue.values.errors import EmbedQueueError
from embedqueue.values.locks import Condition, Event
from embedqueue.values.log import Log
from embedqueue.values.observer import CallReport
from embedqueue.values.options import Options
from embedqueue.values.provenance import same_space
from embedqueue.values.threads import start
from embedqueue.values.words import said_by

from .collection import Gone, collect
from .desk import Desk, Lost, Stopped, noted
from .submission import recover, submit

#: Between two looks at a job passes this part of its age, between the bounds of ``economy_poll``.
POLL_PART = 0.25
#: Parts of its time in which a lease is renewed.
RENEWALS = 3
#: Seconds after which somebody looks whether there are jobs that nobody looks after.
LOOK_SECONDS = 600.0
#: Seconds between two looks for items that are nearly due, at most.
DUE_SECONDS = 60.0
#: Seconds after which nothing more is tried: no job lives for so long, and no result either.
LONGEST_JOB_SECONDS = 3 * 86_400.0
LONGEST_CLEANING_SECONDS = 86_400.0
#: Times ``economy_lag`` for which the provider is asked for what may have come late of a job that has ended.
LATE_LAGS = 5
#: Jobs that are over and still told of.
KEPT_JOBS = 50
#: Seconds between tries after a failure: at first, and at most.
FAILURE_SECONDS = (1.0, 300.0)
#: Seconds that stop() waits for the thread.
STOP_SECONDS = 2.0


class Runner:
    """Makes jobs, polls them, and brings home what they have made. Thread-safe.

    Args:
        desk: what the steps share; its ``led`` is made anew.
        options: of the queue.
        log: takes the records.
    """

    def __init__(self, desk: Callable[[], Desk | None], options: Options, log: Log) -> None:
        self._new_desk = desk
        self._options = options
        self._log = log
        self._condition = Condition()
        self._thread: threading.Thread | None = None  # guarded by the condition, as is what follows
        self._quit = False
        self._meant = 0
        self._woken = True
        self._looked_mono = -LOOK_SECONDS
        self._next: dict[str, float] = {}  # only the thread touches this and what follows: of each job, when to look
        self._failures: dict[str, int] = {}
        self._meant_before: tuple[int, float] = (-1, 0.0)  # how many waited, and since when so many

    def seen(self, meant: int, outsourced: int) -> None:
        """So many items wait for jobs, and are in jobs. Does no I/O."""
        now = time.monotonic()
        with self._condition:
            enough = meant >= self._options.economy_min_texts
            grown = enough and meant != self._meant
            self._meant = meant
            idle = self._thread is None or not self._thread.is_alive()
            if self._quit or not (
                grown or (idle and (enough or outsourced or now - self._looked_mono >= LOOK_SECONDS))
            ):
                return
            self._looked_mono = now
            self._woken = True
            if not idle:
                self._condition.notify_all()
                return
            name = f"embedqueue-jobs-{self._options.namespace}"
            self._thread = threading.Thread(target=self._run, name=name, daemon=True)
            try:
                start(self._thread)
            except RuntimeError as error:  # no more threads: the next refresh tries again
                self._log.warning("embedqueue: nobody looks after batch jobs: %s", error)
                self._thread = None

    def stop(self) -> None:
        """Leave the jobs to others, and wait a moment for the thread."""
        with self._condition:
            self._quit = True
            self._condition.notify_all()
            thread = self._thread
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            thread.join(STOP_SECONDS)

    # -- the thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        failures = 0
        keeper: Event | None = None
        desk = self._new_desk()
        if desk is None:
            return
        try:
            while not self._quit:
                wait_seconds = self._options.lease_seconds / RENEWALS
                try:
                    led = desk.lead()
                    if led.ours:
                        if desk.led_since != led.since:  # what others have left is looked at before a job is made
                            desk.led_since = led.since
                            desk.gone_since.clear()
                            self._next.clear()
                        keeper = keeper or self._keep_lease(desk)
                        desk.led = led
                        wait_seconds = self._step(desk)
                    else:
                        desk.led_since = 0.0
                        desk.led = led
                        # The lease is not for us, nor perhaps for others: what is nearly due must not wait for that.
                        if not led.leader and any(job.active for job in led.jobs):
                            self._pull(desk)
                    failures = 0
                except Lost:
                    desk.led_since = 0.0
                except Stopped:
                    return
                except (RedisError, EmbedQueueError) as error:
                    failures += 1
                    wait_seconds = backoff_seconds(failures, *FAILURE_SECONDS)
                    self._log.debug("embedqueue: batch jobs have to wait: %s", error)
                except Exception:
                    if self._quit:
                        return
                    failures += 1
                    wait_seconds = backoff_seconds(failures, *FAILURE_SECONDS)
                    self._log.exception("embedqueue: batch jobs failed in a way that they should not, going on")
                if not self._rest(desk, wait_seconds):
                    return
        finally:
            if keeper is not None:
                keeper.set()
            self._leave(desk)

    def _rest(self, desk: Desk, seconds: float) -> bool:
        """Wait until something is due; False to end, because there is nothing more to look after."""
        with self._condition:
            if self._quit:  # a stop that came during the step wakes nobody
                return False
            if not self._woken:
                if not any(job.active for job in desk.led.jobs) and self._meant < self._options.economy_min_texts:
                    self._thread = None
                    return False
                self._condition.wait(seconds)
            self._woken = False
            return not self._quit

    def _keep_lease(self, desk: Desk) -> Event:
        """Renew the lease beside the steps, which wait for the provider."""
        over = Event()

        def renew() -> None:
            while not over.wait(desk.lease_seconds / RENEWALS):
                try:
                    if desk.led_since:
                        desk.lead()
                except Exception as error:
                    self._log.debug("embedqueue: the lease of batch jobs was not renewed: %s", error)

        threading.Thread(target=renew, name=f"embedqueue-jobs-lease-{self._options.namespace}", daemon=True).start()
        return over

    def _leave(self, desk: Desk) -> None:
        try:
            if desk.led_since:
                desk.jobs.lead(desk.who, 0)
        except Exception as error:
            self._log.debug("embedqueue: the lease of batch jobs runs out by itself: %s", error)

    # -- what is due -------------------------------------------------------------------------------------------

    def _step(self, desk: Desk) -> float:
        """Do what is due; returns the seconds until something is due next."""
        options, led = self._options, desk.led
        active = [job for job in led.jobs if job.active]
        if active:
            self._pull(desk)
        for job in active:
            self._look_after(desk, job)
        for job in [job for job in led.jobs if not job.active][:-KEPT_JOBS]:
            desk.jobs.drop(desk.who, job.name)
        wait_seconds = self._submit(desk)
        active = [job for job in desk.renew().jobs if job.active]
        now, first = time.monotonic(), options.economy_poll[0]
        self._next = {job.name: self._next.get(job.name, now + first) for job in active}
        return max(0.0, min([wait_seconds, DUE_SECONDS, *(at - now for at in self._next.values())]))

    def _pull(self, desk: Desk) -> None:
        """Put what is nearly due into the live lane."""
        if pulled := desk.jobs.pull(self._options.economy_deadline):
            self._log.info("embedqueue: %d items are nearly due, and leave their batch jobs", pulled)
            desk.observers.tell("maybe_paid_twice", pulled)

    def _look_after(self, desk: Desk, job: Job) -> None:
        """Do what is due for a job, and note when something is due for it next."""
        if self._next.get(job.name, 0.0) > time.monotonic():
            return
        try:
            before, job = job.state, _one_step(desk, job)
            self._failures.pop(job.name, None)
            seconds = 0.0 if job.state == "ended" != before else self._interval(desk.led, job)
        except (Lost, Stopped):
            raise
        except Exception as error:  # of whatever kind: what nobody foresaw must not keep other jobs waiting
            if desk.closing.is_set():
                raise Stopped from None
            count = self._failures[job.name] = self._failures.get(job.name, 0) + 1
            seconds = max(self._options.economy_poll[0], backoff_seconds(count, *FAILURE_SECONDS))
            level = self._log.warning if count == 1 else self._log.debug
            unforeseen = None if isinstance(error, EmbedQueueError | RedisError | OSError) else error
            level("embedqueue: batch job %s has to wait: %s", job.name, said_by(error), exc_info=unforeseen)
            _give_up(desk, job, said_by(error))
        self._next[job.name] = time.monotonic() + seconds

    def _interval(self, led: Led, job: Job) -> float:
        first, longest = self._options.economy_poll
        if job.state == "submitting":
            return min(first, self._options.economy_lag / 4)
        return min(longest, max(first, POLL_PART * (led.now - job.since)))

    def _submit(self, desk: Desk) -> float:
        """Make jobs of what waits, once nothing more has come for a moment; returns the seconds to wait for that."""
        options = self._options
        first = options.economy_poll[0]
        while not self._quit:
            meant, now = desk.store.status().meant, time.monotonic()
            with self._condition:
                self._meant = meant
            if meant < options.economy_min_texts:
                return LOOK_SECONDS
            if meant != self._meant_before[0]:
                self._meant_before = meant, now
            waited = now - self._meant_before[1]
            if meant < options.economy_max_texts and waited < first:
                return first - waited
            if not submit(desk):
                return max(first, min(DUE_SECONDS, desk.led.rest_until - desk.led.now))
        return 0.0


def _one_step(desk: Desk, job: Job) -> Job:
    """Bring a job one step further."""
    if job.state in ("planned", "submitting"):
        return recover(desk, job)
    if job.state == "ended":
        return _clean(desk, job)
    if job.space and not same_space(job.space, desk.terms().space):
        try:
            desk.batches.cancel(job.provider_id)
        except EmbedQueueError as error:  # it may be of another provider
            desk.log.warning("embedqueue: the provider has not cancelled batch job %s: %s", job.name, error)
        return desk.end(job, "its model is not the queue's any more", again=True)
    seen = desk.batches.look(job.provider_id)
    gone_since = desk.gone_since.pop(job.name, None)
    job = replace(job, status=noted(seen.status), done=seen.done)
    if seen.standing == "waiting":
        if not desk.jobs.holds(job.name, list(desk.jobs.lines(job.name))):
            desk.batches.cancel(job.provider_id)
            return desk.end(job, "none of its items waits for it any more")
        if desk.renew().now - job.created > LONGEST_JOB_SECONDS:
            desk.batches.cancel(job.provider_id)
            return desk.end(job, "it has not ended in three days")
        return desk.keep(job, misses=0)
    if seen.standing == "gone":
        return _gone(desk, job, gone_since)
    if seen.standing == "failed":
        return _failed(desk, job, seen.reason, quota=seen.quota, quota_tokens=seen.quota_tokens)
    try:
        return collect(desk, job, seen)
    except Gone:
        return _gone(desk, job, gone_since)


def _clean(desk: Desk, job: Job) -> Job:
    """Delete what is left of a job, once it has ended at the provider as well, and book what it had done by then."""
    label, age = desk.label(job.name), desk.led.now - job.since
    if not job.provider_id and (job.misses or not job.file):  # what nobody knows of may have come about all the same
        provider_id = desk.batches.find(label, job.created) if job.misses else None
        if provider_id is not None:
            desk.log.warning("embedqueue: batch job %s is found at last as %s, and cancelled", job.name, provider_id)
            desk.batches.cancel(provider_id)
            return desk.keep(job, provider_id=provider_id)
        if job.texts and age < LATE_LAGS * desk.options.economy_lag:
            return job
    if job.provider_id and not job.booked:
        used_tokens, done = job.used_tokens, job.texts
        if not job.verified:
            seen = desk.batches.look(job.provider_id)
            if seen.standing == "waiting" and age < LONGEST_CLEANING_SECONDS:
                return job
            done = seen.done if seen.done is not None else job.texts * (seen.standing == "done")
            used_tokens = seen.used_tokens or job.tokens * done // max(1, job.texts)
        job = _book(desk, job, used_tokens, done)
    desk.batches.delete(job.provider_id, job.file, label)
    return desk.keep(job, state="over")


def _book(desk: Desk, job: Job, used_tokens: int, done: int) -> Job:
    """Book what a job has cost, by the tokens that were charged, or 0, and the texts that were done."""
    if not (used_tokens or job.written):
        return job
    desk.charge(job.name, used_tokens or job.tokens)  # again if we end here, which a budget takes for a copy
    job = desk.keep(job, booked=True)
    report = CallReport(
        texts=done,
        tokens=job.tokens,
        seconds=0.0,
        outcome="ok",
        model=job.model,
        used_tokens=used_tokens or None,
        lane="batch",
    )
    desk.observers.tell("job_ended", report)
    return job


def _gone(desk: Desk, job: Job, since: float | None) -> Job:
    """The provider knows nothing of a job, or of its result, since then or now: not yet, or no more."""
    led = desk.renew()
    kept = next((one for one in led.jobs if one.name == job.name), job)  # some of its result may be written by now
    if since is None or (kept.verified, kept.place) != (job.verified, job.place):  # it was read just now
        since = led.now
    job = replace(kept, status=job.status, done=job.done)
    if job.misses == 0 or led.now - since < desk.options.economy_lag:
        desk.gone_since[job.name] = since
        return desk.keep(job, misses=job.misses + 1)
    note = "the provider does not know it: its result is deleted, or the key is of another project"
    desk.log.warning("embedqueue: batch job %s (%s) is lost: %s", job.name, job.provider_id, note)
    return desk.end(job, note)


def _failed(desk: Desk, job: Job, reason: str, *, quota: bool, quota_tokens: int | None) -> Job:
    note = noted(f"failed: {desk.said(job, reason)}")
    if quota:
        others = sum(one.tokens for one in desk.led.jobs if one.state == "submitted" and one.name != job.name)
        learned = max(job.tokens // 2, min(quota_tokens or (others + job.tokens), others + job.tokens) * 3 // 4)
        desk.jobs.learn_quota(desk.who, learned)
        note = f"{note}; from now on {learned:,} tokens are in jobs at a time"
        desk.rest(note)
    desk.log.warning("embedqueue: batch job %s (%s) has %s", job.name, job.provider_id, note)
    return desk.end(job, note)


def _give_up(desk: Desk, job: Job, why: str) -> None:
    """End what has been tried in vain for longer than anything lasts."""
    since = desk.led.now - job.since
    if job.state == "ended" and since > LONGEST_CLEANING_SECONDS:
        note = f"{job.note}; its files may still be at the provider".lstrip("; ")
        desk.log.warning("embedqueue: files of batch job %s could not be deleted: %s", job.name, why)
        desk.keep(job, state="over", note=note)
    elif job.state in ("submitting", "submitted") and since > LONGEST_JOB_SECONDS:
        desk.end(job, noted(f"given up after three days: {why}"))
