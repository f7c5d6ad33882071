"""The named runs of a namespace: an entry for each in one hash, which everybody may read."""

from __future__ import annotations

import json
from typing import Any

from embedqueue.values.errors import EmbedQueueError
from embedqueue.values.runs import AT_WORK, Run, Wanted

from .clients import read_dated
from .keys import Keys
from .scripts import Scripts

#: Runs that have ended and are kept, the latest.
KEPT = 50
#: Characters of a text that are read: anybody may write into the key.
_READ_CHARS = 500


class Taken(EmbedQueueError):
    """Another process is at work on a run.

    Attributes:
        heard: changes whenever that process is heard of.
    """

    def __init__(self, words: str, heard: bytes) -> None:
        super().__init__(words)
        self.heard = heard


class Runs:
    """Notes runs and tells of them. Thread-safe; every method raises ``redis.RedisError`` where Redis does not answer.

    Args:
        scripts: of the queue.
        keys: of the queue.
    """

    def __init__(self, scripts: Scripts, keys: Keys) -> None:
        self._call = scripts.call
        self._background: Any = scripts.background
        self._key = keys.runs

    def note(self, name: str, owner: str, seconds: float, facts: dict[str, Any], *, begins: bool = False) -> str:
        """Say how a run stands.

        Args:
            name: of the run.
            owner: a word of its own for the process that is at work on it.
            seconds: for which that holds if nothing more is heard; 0 at its end.
            facts: ``kind``, ``state``, ``done``, ``total``, ``failed``, ``texts``, ``tokens``, ``usd``, ``host``,
                ``pid``, ``began`` and ``words`` as :class:`Run` has them; ``rate`` as well.
            begins: take it up.

        Returns:
            What somebody wants: "pause", "resume", "stop" or "".

        Raises:
            Taken: another process is at work on it.
        """
        if begins:
            self._tidy()
        words = json.dumps(facts, separators=(",", ":"))
        state, said = self._call("note_run", (self._key,), name, owner, f"{seconds:g}", words, int(begins))
        if state == b"taken":
            other = _read(name, said, 0.0)
            where = f" on {other.host}, process {other.pid}" if other else ""
            words = f"a run {name!r} is at work already{where}: take another --name, or stop that one"
            raise Taken(words, said.split(b" ", 2)[1])
        return str(said.decode())

    def ask(self, name: str, wanted: Wanted) -> Run | None:
        """Want something of a run. Returns how it stands; None where there is none."""
        run = next((one for one in self.all() if one.name == name), None)
        if run is not None and run.at_work:
            self._background.hset(self._key, f"? {name}", wanted)
        return run

    def all(self) -> list[Run]:
        """All runs that are known, the latest first, in one round trip."""
        now, entries = read_dated(self._background, self._key)
        found = (_read(name.decode("utf-8", "replace"), entry, now) for name, entry in entries.items())
        return sorted((run for run in found if run is not None), key=lambda run: -run.began)

    def _tidy(self) -> None:
        ended = [run.name for run in self.all() if not run.at_work]
        for name in ended[KEPT:]:
            self._background.hdel(self._key, name, f"? {name}")


def _read(name: str, entry: bytes, now: float) -> Run | None:
    """A run of the key; None where the entry is not of ours."""
    try:
        _, until, seconds, words = entry.split(b" ", 3)
        left, facts = float(until) - now, json.loads(words)
        state = str(facts["state"])
        if state in AT_WORK and not 0 < left <= float(seconds) + 1:
            state = "lost"
        total, done, rate = facts["total"], int(facts["done"]), facts["rate"]
        at_work = state == "running" and rate and total is not None and total > done
        return Run(
            name=name,
            kind=str(facts["kind"])[:_READ_CHARS],
            state=state[:_READ_CHARS],
            done=done,
            total=None if total is None else int(total),
            failed=int(facts["failed"]),
            texts=int(facts["texts"]),
            tokens=int(facts["tokens"]),
            usd=None if facts["usd"] is None else float(facts["usd"]),
            rate=None if rate is None else float(rate),
            eta=(total - done) / rate if at_work else None,
            host=str(facts["host"])[:_READ_CHARS],
            pid=int(facts["pid"]),
            began=float(facts["began"]),
            heard_age=max(0.0, float(seconds) - left),
            words=str(facts["words"])[:_READ_CHARS],
        )
    except (ValueError, KeyError, TypeError, RecursionError, ZeroDivisionError):
        return None
