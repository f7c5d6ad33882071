"""A named run: long work by a command, which everybody can see and stop."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

#: What may be asked of a run.
Wanted = Literal["pause", "resume", "stop"]
WANTED: tuple[Wanted, ...] = ("pause", "resume", "stop")
#: States in which a process is at work on a run.
AT_WORK = ("running", "paused")
_NAME = re.compile(r"[^\s\x00-\x1f\x7f]{1,100}")


@dataclass(frozen=True, slots=True)
class Run:
    """A backfill, a verify that puts right, or a reembed: how it stands.

    Attributes:
        name: by which it is paused, resumed and stopped; the same command goes on under the same name.
        kind: "backfill", "verify" or "reembed".
        state: "running"; "paused"; "lost": its process was killed, or has lost Redis; "done"; "stopped", because
            somebody asked; "failed".
        done: texts that are dealt with.
        total: of so many; None while they are not counted.
        failed: texts that were given up.
        texts: that were enqueued; of these,
        tokens: estimated, and
        usd: about what they cost in dollars; None where nobody has said what the model costs.
        rate: texts a second, since this process took it up; None where nothing is done yet.
        eta: seconds that it will take from now on, at this rate; None where that is not known, or nothing is left.
        host: the name of the machine where it runs, or ran last.
        pid: of its process.
        began: Unix time at which that process took it up, by the clock of its machine.
        heard_age: seconds since it was heard of.
        words: why it stands still or has failed; "" where nothing is to be said.
    """

    name: str
    kind: str
    state: str
    done: int
    total: int | None
    failed: int
    texts: int
    tokens: int
    usd: float | None
    rate: float | None
    eta: float | None
    host: str
    pid: int
    began: float
    heard_age: float
    words: str

    @property
    def at_work(self) -> bool:
        """Whether a process is at work on it, and hears what is asked of it."""
        return self.state in AT_WORK


def check_run_name(name: str) -> str:
    """A name that a run can have.

    Raises:
        ValueError: it is empty, too long, or has blanks.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"a run's name has 1 to 100 characters and no blanks, unlike {name[:120]!r}")
    return name


def default_run_name(kind: str, *parts: str) -> str:
    """The name of a run that was given none: by what it does, so that the same command has the same name."""
    return re.sub(r"[\s\x00-\x1f\x7f]+", "_", ":".join((kind, *parts)))[:100]
