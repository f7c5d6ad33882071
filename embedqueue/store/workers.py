"""Who works: an entry for each worker, which expires unless it is renewed."""

from __future__ import annotations

import json
from typing import Any

from embedqueue.values.stats import LiveWorker

from .clients import read_dated
from .keys import Keys
from .scripts import Scripts

#: Characters of a fact that are read: anybody may write into the key.
FACT_CHARS = 200


class Workers:
    """Announces workers and tells of them. Thread-safe.

    Every method raises ``redis.RedisError`` where Redis does not answer or refuses.

    Args:
        scripts: of the queue.
        keys: of the queue.
    """

    def __init__(self, scripts: Scripts, keys: Keys) -> None:
        self._call = scripts.call
        self._background: Any = scripts.background
        self._key = keys.workers

    def announce(self, name: str, seconds: float, age_seconds: float, facts: dict[str, Any], *, tidy: bool) -> None:
        """Say that a worker works.

        Args:
            name: under which it claims, without the colon.
            seconds: for which that holds if nothing more is heard of it.
            age_seconds: since it began to work.
            facts: ``host``, ``pid``, ``version``, ``model``, ``space`` and ``doing``, as ``LiveWorker`` has them.
            tidy: drop what workers that are gone have left.
        """
        words = json.dumps(facts, separators=(",", ":"))
        self._call("announce", (self._key,), name, seconds, age_seconds, words, int(tidy))

    def leave(self, name: str) -> None:
        """Say that a worker works no more."""
        self._background.hdel(self._key, name)

    def all(self) -> list[LiveWorker]:
        """Those that work now, by host and pid, in one round trip."""
        now, entries = read_dated(self._background, self._key)
        found = (_read(name, entry, now) for name, entry in entries.items())
        return sorted((worker for worker in found if worker is not None), key=lambda it: (it.host, it.pid, it.name))


def _read(name: bytes, entry: bytes, now: float) -> LiveWorker | None:
    """A worker of the key; None where it is gone, or the entry is not of ours."""
    try:
        until, seconds, since, words = entry.split(b" ", 3)
        left, facts = float(until) - now, json.loads(words)
        if not 0 < left <= float(seconds) + 1:  # as ``works`` in prelude_claims.lua
            return None
        texts = {key: str(facts[key])[:FACT_CHARS] for key in ("host", "version", "model", "space", "doing")}
        return LiveWorker(
            name=name.decode(), pid=int(facts["pid"]), since=float(since), heard_age=float(seconds) - left, **texts
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
