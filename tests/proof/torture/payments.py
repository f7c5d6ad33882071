"""Judges payments for texts of batch jobs: by two jobs only in the window, by a call as well with a reason. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.proof.torture.history import Fault, History, Send
from tests.proof.torture.jobs import ECONOMY, JobMade
from tests.proof.torture.texts import short, text_of, version_of

#: Texts of a job that a call embeds as well, so that its result is verified; a process that takes over does it again.
COMPARED = 8
#: Seconds from what is the reason of a call until that call, at most: a pause, a lease, and waits for a retry.
REASON_SECONDS = 20.0


@dataclass
class Payments:
    """What was paid for.

    Attributes:
        jobs: that the provider has taken.
        texts: of these jobs.
        lost: jobs of which it is not known whether they were created, so that their texts were sent again.
        reasons: how many texts were paid for beyond what was asked, by the reason.
        unexplained: what has none: (text, why that is one payment too many, when).
    """

    jobs: int = 0
    texts: int = 0
    lost: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    unexplained: list[tuple[str, str, float]] = field(default_factory=list)


def judge(history: History, asked: Counter[str], hits: dict[str, list[Fault]]) -> Payments:
    """Find the reason of each payment for a text of a job, beyond those that were asked for.

    Args:
        history: all that is known.
        asked: how often a text was enqueued.
        hits: by text, faults that hit calls which had it; not the provider's own.
    """
    return _Judge(history, asked, hits).payments()


class _Judge:
    def __init__(self, history: History, asked: Counter[str], hits: dict[str, list[Fault]]) -> None:
        self._history = history
        self._asked = asked
        self._hits = hits
        self._payments = Payments(jobs=len(history.jobs), lost=len(history.lost_jobs))
        self._jobs: dict[str, list[JobMade]] = defaultdict(list)
        for job in history.jobs:
            for text in job.texts:
                self._jobs[text].append(job)
        self._sends: dict[str, list[Send]] = defaultdict(list)
        for send in history.sends:
            if send.text in self._jobs and not send.failed:
                self._sends[send.text].append(send)
        self._waited: dict[str, list[float]] = defaultdict(list)
        self._due: dict[str, list[float]] = defaultdict(list)
        self._pulled: list[float] = []
        self._compared: Counter[str] = Counter()  # by job
        for line in history.lines:
            if line["event"] == "waits":
                self._waited[line["key"]].append(line["at"])
            elif line["event"] == "flushes" and line["outsourced"] == "pull":
                self._pulled.append(line["at"])
            elif line["event"] == "accepted" and line.get("within"):
                for key, version in line["versions"].items():
                    due = line["at"] + line["within"] - ECONOMY["economy_deadline"]
                    self._due[short(text_of(key, version))].append(due)

    def payments(self) -> Payments:
        found = self._payments
        found.texts = sum(len(jobs) for jobs in self._jobs.values())
        for text, jobs in self._jobs.items():
            self._in_jobs(text, jobs)
            self._by_calls(text, jobs)
        return found

    def _in_jobs(self, text: str, jobs: list[JobMade]) -> None:
        """No text is in more jobs than it was asked for, but for those that were lost."""
        extra = len(jobs) - self._asked[text]
        lost = sum(job.name in self._history.lost_jobs for job in jobs)
        self._payments.reasons["in a job that was lost in the window"] += max(0, min(extra, lost))
        if extra > lost:
            self._complain(text, f"it was in {len(jobs)} jobs, of which {lost} were lost", jobs[-1].at)

    def _by_calls(self, text: str, jobs: list[JobMade]) -> None:
        """What was in a job is sent by a call for a reason."""
        sends = sorted(self._sends[text], key=lambda send: send.at)
        extra = min(len(sends), max(0, len(sends) + len(jobs) - max(self._asked[text], len(jobs))))
        for send in sends[len(sends) - extra :]:
            reason = next(self._reasons(text, send, jobs), None)
            if reason is None:
                self._complain(text, "it was in a job, and was sent by a call for no reason", send.at)
            else:
                self._payments.reasons[reason] += 1

    def _reasons(self, text: str, send: Send, jobs: list[JobMade]) -> Iterator[str]:
        named = version_of(text)
        if any(_soon(send.at, at) for at in (self._waited[named[0]] if named else [])):
            yield "somebody waited"
        if any(job.faulty or job.name in self._history.lost_jobs for job in jobs):
            yield "its job had left it"
        if any(_soon(send.at, at) for at in self._pulled):
            yield "pulled"
        if any(send.at >= due - 1 for due in self._due[text]):
            yield "nearly due"
        for job in jobs:
            if self._compared[job.name] < COMPARED:
                self._compared[job.name] += 1
                yield "a result was verified"
        if self._hits.get(text):
            yield "a fault hit its call"

    def _complain(self, text: str, why: str, at: float) -> None:
        self._payments.unexplained.append((text, f"{why}; asked for {self._asked[text]} times", at))


def _soon(at: float, reason_at: float) -> bool:
    return reason_at - 1 <= at <= reason_at + REASON_SECONDS
