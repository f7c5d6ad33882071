"""Batch jobs in the rig: queues with ``economy``, and their provider, which loses, reorders, lags and expires."""

from __future__ import annotations

import random
import re
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import redis

from embedqueue import EmbeddingBatchQueue, OpenAIEmbedder
from embedqueue.embedders.batch_jobs import BatchJobs
from embedqueue.embedders.openai_jobs import OpenAIJobs
from embedqueue.store.jobs import Jobs
from tests.jobs.standin import Job, StandIn, text_of
from tests.proof.torture.texts import DIMENSIONS, short
from tests.provider import vector_of

#: A day as the rig plays it.
ECONOMY: dict[str, Any] = {
    "economy": True,
    "economy_after": 4.0,
    "economy_deadline": 2.0,
    "economy_min_texts": 3,
    "economy_max_texts": 40,
    "economy_poll": (0.1, 0.5),
    "economy_lag": 3.0,
}
#: How long what goes into jobs may wait, in seconds: the shortest of it nearly comes due in its job.
PATIENCES = (6.0, 15.0, 30.0)
#: Steps of the protocol at which a process ends, and how often it passes them at most before.
STEPS: dict[str, tuple[type, str, int]] = {
    **{f"{step} of a job": (OpenAIJobs, step, 4) for step in ("upload", "create", "find", "look", "results", "delete")},
    **{f"{step} of jobs in Redis": (Jobs, step, 6) for step in ("lead", "keep", "outsource", "give_back", "live")},
}
#: What a warning says of a job of which it is not known whether it was created: the name it had.
LOST = re.compile(r"batch job (\w+)(?: \(\S+\))? is lost")
#: Seconds in which all jobs come to their end, once nothing fails any more.
END_SECONDS = 60.0
#: Seconds of a rest, or of what switches jobs off, that the rig lets pass; longer ones would be all that it sees.
LONGEST_REST_SECONDS = 2.0


@dataclass(frozen=True)
class JobMade:
    """A job that the provider has taken, and charges for.

    Attributes:
        name: ours.
        at: when.
        texts: of it, as :func:`short` has them.
        faulty: whether the provider has not served all of it.
    """

    name: str
    at: float
    texts: tuple[str, ...]
    faulty: bool = False


class JobsEmbedder(OpenAIEmbedder):
    """An embedder whose batch jobs are at another address than its calls."""

    def __init__(self, *args: Any, jobs_url: str, **options: Any) -> None:
        super().__init__(*args, **options)
        limits = {name: options[name] for name in ("timeout", "deadline", "max_response_bytes")}
        self._jobs = OpenAIEmbedder("key", f"{jobs_url}/v1", DIMENSIONS, batches=True, **limits)

    def batch_jobs(self, model: str) -> BatchJobs | None:
        """Those at the other address."""
        return self._jobs.batch_jobs(model)


class JobProvider(StandIn):
    """The provider of jobs. Lines never come in their order; what is in ``spoils`` befalls one ending job each.

    Args:
        rng: chooses.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = random.Random(rng.random())
        self.spoils: deque[Spoil] = deque()
        self.faulty: set[str] = set()
        super().__init__()
        self.batch_vector = lambda text: [float(number) for number in vector_of(text, DIMENSIONS)]
        self.lines = self._shuffled

    def _shuffled(self, out: list[Any], err: list[Any]) -> tuple[list[Any], list[Any]]:
        self._rng.shuffle(out)
        return out, err

    def finish(self, job: Job, ending: str) -> None:
        """End a job, well or otherwise."""
        spoil = self.spoils.popleft() if self.spoils else None
        if spoil is None:
            super().finish(job, ending)
            return
        self.faulty.add(job.id)
        self.reason, self.null_output = spoil.reason, spoil.null_output
        self.lines = lambda out, err: spoil.lines(*self._shuffled(out, err))
        try:
            super().finish(job, spoil.ending)
        finally:
            self.reason, self.null_output, self.lines = "", False, self._shuffled

    def behave(self) -> None:
        """From now on nothing is wrong."""
        with self.lock:
            self.spoils.clear()
            self.refuse.clear()
            self.drop.clear()
            self.break_after.clear()
            self.hidden_lists = self.hidden_looks = 0
            self.looks, self.ranges = 1, True

    def made(self) -> list[JobMade]:
        """All jobs that were taken."""
        with self.lock:
            return [
                JobMade(
                    job.label.rpartition(":")[2],
                    job.created,
                    tuple(short(text_of(line)) for line in job.lines),
                    job.id in self.faulty or job.status not in ("completed", "in_progress", "validating"),
                )
                for job in self.jobs.values()
            ]


Lines = Callable[[list[Any], list[Any]], tuple[list[Any], list[Any]]]


@dataclass(frozen=True)
class Spoil:
    """How one job ends."""

    ending: str = "completed"
    reason: str = ""
    null_output: bool = False
    lines: Lines = lambda out, err: (out, err)


def _half_fails(out: list[Any], err: list[Any], error: Any) -> tuple[list[Any], list[Any]]:
    half = len(out) // 2
    return out[half:], err + [(key, error) for key, _ in out[:half]]


def _under_wrong_keys(out: list[Any], err: list[Any]) -> tuple[list[Any], list[Any]]:
    keys = [key for key, _ in out]
    return list(zip(keys[1:] + keys[:1], [done for _, done in out], strict=True)), err


def _too_short(out: list[Any], err: list[Any]) -> tuple[list[Any], list[Any]]:
    return [(key, {**done, "vector": done["vector"][:-1]}) for key, done in out], err


#: All the ways in which a job ends that are not as it should.
SPOILS = {
    "lines missing": Spoil(lines=lambda out, err: (out[len(out) // 2 :], err)),
    "a line twice": Spoil(lines=lambda out, err: (out + out[:1], err)),
    "lines with 429": Spoil(lines=partial(_half_fails, error=429)),
    "lines with 500": Spoil(lines=partial(_half_fails, error=500)),
    "lines with 400": Spoil(lines=partial(_half_fails, error=400)),
    "lines expired": Spoil("expired", lines=partial(_half_fails, error="batch_expired")),
    "expired with nothing": Spoil("expired", lines=lambda out, err: ([], [])),
    "failed": Spoil("failed", "invalid_file: a line is not JSON"),
    "failed for quota": Spoil("failed", "token_limit_exceeded: Enqueued token limit reached. Limit: 90,000"),
    "cancelled": Spoil("cancelled"),
    "an output of nothing": Spoil(null_output=True),
    "values under wrong keys": Spoil(lines=_under_wrong_keys),
    "vectors too short": Spoil(lines=_too_short),
}
#: Statuses, and the requests that they answer.
REFUSALS = ((429, "slow down"), (500, "overloaded"), (503, "overloaded"), (404, "not found"), (400, "bad request"))
REQUESTS = ("upload", "create", "look", "list", "download", "delete")


class JobFaults:
    """What is done to the provider of jobs.

    Args:
        provider: of jobs.
        rng: chooses.
        later: has something done after so many seconds.
    """

    def __init__(
        self, provider: JobProvider, rng: random.Random, later: Callable[[float, Callable[[], Any]], None]
    ) -> None:
        self._provider = provider
        self._rng = rng
        self._later = later

    def all(self) -> list[Callable[[], tuple[str, None]]]:
        """Each fault, the more frequent ones several times."""
        return [self._spoil, self._spoil, self._refuse, self._drop, self._drop, self._lag, self._break, self._slow]

    def _spoil(self) -> tuple[str, None]:
        name, spoil = self._rng.choice([*SPOILS.items()])
        self._provider.spoils.append(spoil)
        return name, None

    def _refuse(self) -> tuple[str, None]:
        step, refusal = self._rng.choice(REQUESTS), self._rng.choice(REFUSALS)
        with self._provider.lock:
            self._provider.refuse.setdefault(step, []).extend([refusal] * self._rng.choice([1, 1, 3]))
        return f"{refusal[0]} to {step}", None

    def _drop(self) -> tuple[str, None]:
        """Done, and the answer never goes out."""
        step = self._rng.choice(("create", *REQUESTS))
        with self._provider.lock:
            self._provider.drop[step] += 1
        return f"no answer to {step}", None

    def _lag(self) -> tuple[str, None]:
        """Lists do not show a job, or a look answers 404: for a moment, or for longer than anybody waits."""
        with self._provider.lock:
            if self._rng.random() < 0.3:
                self._provider.hidden_looks = self._rng.choice([1, 3])
                return "looks that lag", None
            few = self._rng.random() < 0.7
            self._provider.hidden_lists = self._rng.choice([1, 2, 4]) if few else 40
            return "lists that lag" if few else "lists that lag for long", None

    def _break(self) -> tuple[str, None]:
        """Downloads that break, and go on where they were, or begin anew."""
        with self._provider.lock:
            self._provider.break_after += [self._rng.randrange(1, 4000) for _ in range(self._rng.choice([1, 2, 6]))]
            self._provider.ranges = self._rng.random() < 0.5
        return "downloads break", None

    def _slow(self) -> tuple[str, None]:
        """Jobs do not end for a while, or at once."""
        provider = self._provider
        provider.looks = self._rng.choice([None, None, 1, 2, 6])
        if provider.looks is not None:
            return "jobs are quick", None
        self._later(self._rng.uniform(1.0, 8.0), lambda: setattr(provider, "looks", 2))
        return "jobs do not end", None


def ease(client: redis.Redis) -> None:
    """End what keeps texts out of jobs for long, as time would: rests, a quota, and that a result was wrong."""
    off = float(client.hget("embed_queue:settings", "economy") or 0)
    if off > client.time()[0] + LONGEST_REST_SECONDS:
        client.hdel("embed_queue:settings", "economy")
    client.hdel("embed_queue:jobs", ":rest", ":quota")


def end_jobs(queue: EmbeddingBatchQueue) -> list[str]:
    """Wait until all jobs are over; returns what is said of those that are not."""
    deadline_mono, left = time.monotonic() + END_SECONDS, ["nobody knows"]
    while left and time.monotonic() < deadline_mono:
        with suppress(redis.RedisError):
            left = [
                f"job {job.name} is {job.state}, {job.status}: {job.note}"
                for job in queue.jobs()
                if job.state != "over"
            ]
        time.sleep(0.2)
    return left


def read_lost(folder: Path) -> set[str]:
    """Names of the jobs of which processes have said that they are lost, so that their texts may be paid for twice."""
    return {name for path in folder.glob("*.log") for name in LOST.findall(path.read_text("utf-8", "replace"))}
