"""Long work under a name: it tells everybody how it stands, and is paused and stopped by anybody."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Self

from redis.exceptions import RedisError

from embedqueue.money.cost import usd
from embedqueue.store.runs import Runs, Taken
from embedqueue.values.errors import EmbedQueueError
from embedqueue.values.locks import Event
from embedqueue.values.runs import Run, Wanted, check_run_name
from embedqueue.values.words import printable

#: Seconds between two notes of how a run stands, and for which one holds: then one that was killed is known as lost.
NOTE_SECONDS = 2.0
HOLDS_SECONDS = 15.0
#: Seconds for which the end of a run waits for a note that is under way.
LAST_NOTE_SECONDS = 2.0


class Stopped(EmbedQueueError):
    """Somebody has asked a run to stop; what it has done stays, and the same command goes on."""


class NamedRun:
    """Makes work a named run, as a context. ``check`` is called now and then by who works; a thread notes the rest.

    Args:
        runs: of the namespace.
        name: of the run.
        kind: "backfill", "verify" or "reembed".
        paused: called with True when it begins to stand still because somebody has asked, and with False in the end.

    Raises:
        ValueError: no possible name.
        EmbedQueueError: from ``__enter__``: another process is at work on it.
    """

    def __init__(self, runs: Runs, name: str, kind: str, paused: Callable[[bool], object] = bool) -> None:
        self._runs = runs
        self.name = check_run_name(name)
        self._paused = paused
        self._owner = uuid.uuid4().hex[:12]
        self._facts: dict[str, Any] = {
            "kind": kind, "state": "running", "done": 0, "total": None, "failed": 0, "texts": 0, "tokens": 0,
            "usd": None, "rate": None, "host": socket.gethostname(), "pid": os.getpid(), "began": time.time(),
            "words": "",
        }  # fmt: skip
        self._began_mono = time.monotonic()
        self._first_done: int | None = None
        self._wanted = ""  # written by the thread
        self._lost: EmbedQueueError | None = None  # as well
        self._ended = Event()
        self._changed = Event()  # somebody wants something
        self._thread = threading.Thread(target=self._note_on, name="embedqueue-run", daemon=True)

    def __enter__(self) -> Self:
        """Take the run up; from a process that was killed, too, as soon as it would have been heard of."""
        heard = b""
        while True:
            try:
                self._note(begins=True)
                break
            except Taken as taken:
                if heard not in (b"", taken.heard):
                    raise
                heard = taken.heard
            time.sleep(NOTE_SECONDS / 8)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Say how it ended. A Ctrl-C has stopped it."""
        self._ended.set()
        self._changed.set()
        self._thread.join(LAST_NOTE_SECONDS)
        if self._lost is not None:
            return  # another process is at work on it: it is that one's to tell
        state = "done" if error is None else "stopped" if isinstance(error, Stopped | KeyboardInterrupt) else "failed"
        said = "" if state != "failed" else printable(str(error)) or type(error).__name__
        self._facts |= {"state": state, "words": said[:300]}
        with contextlib.suppress(RedisError, EmbedQueueError):
            self._note(seconds=0.0)

    def report(self, **facts: Any) -> None:
        """Say how it stands: ``done``, ``total``, ``failed``, ``texts``, ``tokens``, ``usd`` or ``words``."""
        self._facts |= facts
        done = self._facts["done"]
        if self._first_done is None and "done" in facts:
            self._first_done = done
            self._began_mono = time.monotonic()
        seconds = time.monotonic() - self._began_mono
        new = done - (self._first_done or 0)
        self._facts["rate"] = new / seconds if new > 0 and seconds > 0 else None

    def line(self) -> str:
        """How it stands, as a line."""
        total, rate = self._facts["total"], self._facts["rate"]
        of = "" if total is None else f" of {total:,}"
        parts = [f"{self._facts['done']:,}{of} done", *_progress(self._facts["failed"], rate, self._left_seconds())]
        parts += [_money(self._facts["texts"], self._facts["usd"])]
        return ", ".join([*parts, *([self._facts["words"]] if self._facts["words"] else [])])

    def _left_seconds(self) -> float | None:
        total, rate = self._facts["total"], self._facts["rate"]
        return (
            (total - self._facts["done"]) / rate if rate and total is not None and total > self._facts["done"] else None
        )

    def check(self) -> None:
        """Stand still for as long as somebody wants it.

        Raises:
            Stopped: somebody wants it to stop.
            EmbedQueueError: another process has taken it up, for this one was not heard of.
        """
        if self._wanted == "pause":
            self._stand_still()
        if self._lost is not None:
            raise self._lost
        if self._wanted == "stop":
            raise Stopped(f"stopped, as somebody has asked; the same command goes on with {self.name}")

    def _stand_still(self) -> None:
        self._paused(True)
        self._facts["state"] = "paused"
        self._changed.set()  # have it noted
        try:
            while self._wanted == "pause" and self._lost is None:
                time.sleep(NOTE_SECONDS / 20)
        finally:
            self._facts["state"] = "running"
            self._paused(False)

    def _note(self, *, seconds: float = HOLDS_SECONDS, begins: bool = False) -> None:
        self._wanted = self._runs.note(self.name, self._owner, seconds, dict(self._facts), begins=begins)

    def _note_on(self) -> None:
        while True:
            self._changed.wait(NOTE_SECONDS)
            self._changed.clear()
            if self._ended.is_set():
                return
            try:
                self._note()
            except EmbedQueueError as error:
                self._lost = error
                return
            except RedisError:
                pass  # it is told of where the work needs Redis


def describe_runs(runs: Iterable[Run]) -> Iterator[str]:
    """A line for each run, and why it stands still where that is known."""
    for run in runs:
        total = "" if run.total is None else f" of {run.total:,}"
        rate = run.rate if run.state == "running" else None
        parts = [f"{run.done:,}{total} done", *_progress(run.failed, rate, run.eta), _money(run.texts, run.usd)]
        parts += [f"{run.host} {run.pid}, heard of {age(run.heard_age)} ago"]
        yield printable(f"{run.name}  {run.kind} {run.state}: {', '.join(parts)}")
        if run.words:
            yield printable(f"    {run.words}")


def _progress(failed: int, rate: float | None, eta: float | None) -> Iterator[str]:
    if failed:
        yield f"{failed:,} failed"
    if rate:
        yield f"{rate:,.1f}/s"
    if eta is not None:
        yield f"ETA {age(eta)}"


def _money(texts: int, dollars: float | None) -> str:
    cost = "nobody has said what they cost" if dollars is None else f"about {usd(dollars)}"
    return f"{texts:,} texts enqueued, {cost}"


def age(seconds: float) -> str:
    """A length of time as people read it."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


#: What is said where something was asked of a run, by what was asked.
_ASKED = {"pause": "will stand still", "resume": "goes on", "stop": "will stop"}


def ask_run(ask: Callable[[str, Wanted], Run | None], name: str, wanted: Wanted) -> str:
    """Ask something of a run; returns a sentence.

    Args:
        ask: the queue's ``ask_run``.
        name: of the run.
        wanted: "pause", "resume" or "stop".

    Raises:
        EmbedQueueError: there is no such run, or nobody is at work on it.
    """
    run = ask(name, wanted)
    if run is None:
        raise EmbedQueueError(f"there is no run {name!r}: embedqueue runs lists them")
    if not run.at_work:
        raise EmbedQueueError(
            f"nobody is at work on {name!r} ({run.state}): the command that began it takes it up again"
        )
    return f"{name} {_ASKED[wanted]}."
