"""What happened in a run, as plain data: the checker judges nothing else, so it can judge a made-up history, too."""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import redis

from embedqueue.store.keys import Keys
from embedqueue.store.records import named_member
from tests.proof.torture.actor import PROCESS_HEADER
from tests.proof.torture.jobs import JobMade
from tests.proof.torture.texts import MODELS, digest, short, text_of, vector_by
from tests.provider import Call

#: What a queue keeps in Redis; a run has no cache.
OUR_KEYS = {*Keys("embed_queue").all, Keys("embed_queue").workers, "embed_queue:air", Keys("embed_queue").jobs}
#: The sorted sets of which one holds each live item.
PLACES = ("pending", "inflight", "alone")
#: What the names of the queue's other keys begin with.
OUR_PREFIXES = ("embed_queue:history:m:", "embed_queue:history:d:")
#: Seconds by which the server's clock is set: from a correction to a mistake.
STEPS_SECONDS = (0.5, 5.0, 60.0, 3600.0)
#: A provider that takes longer may have been given up by the client, whose time limit for silence is 2 s.
SLOW_SECONDS = 1.5
#: The text by which a queue asks whether the provider is well.
CANARY = "ok"
#: What the log of a process holds where something went wrong that nobody handled.
SCREAMS = re.compile(r"Traceback \(most recent call last\)|Fatal Python error")


@dataclass(frozen=True)
class Fault:
    """One fault that was injected. Times are Unix seconds.

    Attributes:
        name: what was done.
        kind: of which group.
        start: when it began.
        end: when it was over, as far as the rig's own doing goes.
        process: whom it hit; None: everybody.
        at_stake: items that waited or were in flight at that moment.
    """

    name: str
    kind: str
    start: float
    end: float
    process: str | None = None
    at_stake: int = 0


@dataclass(frozen=True)
class Send:
    """A text that arrived at the provider: when, from which process, and whether it got no good answer."""

    text: str
    at: float
    process: str
    failed: bool = False


@dataclass(frozen=True)
class Seen:
    """What a hash was seen to hold, when that was new: the digest of its vector, the line beside it, other fields.

    It was written between ``since``, when the look before this one began, and ``until``, when this one had ended.
    """

    at: float
    redis_key: str
    vector: str
    line: str
    others: tuple[str, ...] = ()
    since: float = 0.0
    until: float = float("inf")


@dataclass
class History:
    """All that the checker knows.

    Attributes:
        lines: of the processes' journals; each has "process", "event" and "at".
        faults: in the order of their starts.
        sends: in the order of their arrivals.
        hashes: redis_key to the digest of its vector, in the end.
        dead: redis_key to the reason of its dead letter.
        live: redis_keys with a place in one of PLACES.
        names: all keys in Redis.
        leftovers: where the queue's own books do not agree: a name without a member, a member without a name.
        flushes: name of a flush that is still counted to the seconds until that ends.
        seen: what hashes held, in the order of the looks.
        watched: (time, what was seen): hashes that went back to an older text.
        killed: processes that the rig ended without warning.
        exits: exit codes of processes, where they are not 0.
        jobs: batch jobs that the provider has taken.
        lost_jobs: names of those of which a process has said that it may have been created and is lost.
        model: that rules in the end, where models have changed.
        complaints: what the processes' logs hold and should not.
    """

    lines: list[dict] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    sends: list[Send] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)
    dead: dict[str, str] = field(default_factory=dict)
    live: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    leftovers: list[str] = field(default_factory=list)
    flushes: dict[str, float] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    watched: list[tuple[float, str]] = field(default_factory=list)
    killed: set[str] = field(default_factory=set)
    exits: dict[str, int] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)
    jobs: list[JobMade] = field(default_factory=list)
    lost_jobs: set[str] = field(default_factory=set)
    model: str = ""


class Versions:
    """Which version of its key's text a vector belongs to, and by which model it is.

    Args:
        models: of the run.
    """

    def __init__(self, models: Sequence[str] = MODELS[:1]) -> None:
        self._models = models
        self._newest: dict[str, int] = defaultdict(int)
        self._known: dict[str, dict[str, tuple[int, str]]] = defaultdict(dict)

    def find(self, redis_key: str, vector: str, newest: int) -> int | None:
        """The version, up to ``newest``, whose vector has this digest; None: none of them."""
        known = self._known[redis_key]
        while vector not in known and self._newest[redis_key] < newest:
            self._newest[redis_key] += 1
            text = text_of(redis_key, self._newest[redis_key])
            for model in self._models:
                known[digest(vector_by(model, text))] = self._newest[redis_key], model
        return known[vector][0] if vector in known else None

    def model(self, redis_key: str, vector: str) -> str:
        """The model of a vector that was found."""
        return self._known[redis_key][vector][1]


class Watch:
    """Looks at the hashes while the rig runs: a stale write may be overwritten before the end."""

    #: A key is at most so many versions further than when it was last seen.
    AHEAD = 2000

    def __init__(self, versions: Versions) -> None:
        self._versions = versions
        self._newest: dict[str, int] = {}
        self._last: dict[str, tuple[str, str, tuple[str, ...]]] = {}
        self.seen: list[Seen] = []
        self._spoken: set[str] = set()
        self._looked_at = 0.0
        self.found: list[tuple[float, str]] = []

    def look(self, client: redis.Redis, at: float) -> dict[str, str]:
        """Look at all hashes once; returns the digests of their vectors."""
        vectors, hashes = {}, read_hashes(client)
        since, self._looked_at, until = self._looked_at, at, time.time()
        for redis_key, found in hashes.items():
            if self._last.get(redis_key) != found:
                self._last[redis_key] = found
                self.seen.append(Seen(at, redis_key, *found, since, until))
            vectors[redis_key] = vector = found[0]
            seen = self._newest.get(redis_key, 0)
            version = self._versions.find(redis_key, vector, seen + self.AHEAD)
            if version is None:
                self._speak(at, f"{redis_key} holds a vector of none of its texts")
            elif version < seen:
                self._speak(at, f"{redis_key} went back from version {seen} to {version}")
            else:
                self._newest[redis_key] = version
        return vectors

    def _speak(self, at: float, what: str) -> None:
        if what not in self._spoken:
            self._spoken.add(what)
            self.found.append((at, what))


def read_hashes(client: redis.Redis) -> dict[str, tuple[str, str, tuple[str, ...]]]:
    """Of each hash of the producers: the digest of its vector, the line beside it, and its other fields."""
    found = {}
    names = list(client.scan_iter("doc:*", count=1000))
    for at in range(0, len(names), 1000):
        part = names[at : at + 1000]
        pipeline = client.pipeline(transaction=False)
        for name in part:
            pipeline.hgetall(name)
        for name, stored in zip(part, pipeline.execute(), strict=True):
            vector = np.frombuffer(stored.pop(b"embedding", b""), dtype="<f4")
            line = stored.pop(b"embedding_of", b"").decode()
            found[name.decode()] = digest(vector), line, tuple(sorted(field.decode() for field in stored))
    return found


def read_journals(folder: Path) -> Iterator[dict]:
    """All lines that the processes wrote; a line that a kill cut off is left out."""
    for path in sorted(folder.glob("*.journal")):
        for line in path.read_text("utf-8", "replace").splitlines():
            try:
                yield {**json.loads(line), "process": path.stem}
            except ValueError:
                continue


def read_complaints(folder: Path) -> list[str]:
    """Of each log that shows an error that nobody handled, the part from shortly before the first one."""
    texts = [(path.name, path.read_text("utf-8", "replace")) for path in sorted(folder.glob("*.log"))]
    found = [(name, text, SCREAMS.search(text)) for name, text in texts]
    return [
        f"{name}: {text[max(0, scream.start() - 300) : scream.start() + 3000]}"
        for name, text, scream in found
        if scream
    ]


def read_sends(calls: list[Call]) -> list[Send]:
    """What the provider was sent, text by text, without the canary."""
    sends = []
    for call in calls:
        slow = call.ended is None or call.ended - call.started > SLOW_SECONDS
        failed = slow or call.status != 200 or call.answer is not None
        process = call.headers.get(PROCESS_HEADER.lower(), "")
        sends += [Send(short(text), call.started, process, failed) for text in call.texts if text != CANARY]
    return sends


def read_redis(history: History, client: redis.Redis) -> None:
    """How the queue stands at rest."""
    history.names = {name.decode("utf-8", "replace") for name in client.scan_iter(count=1000)}
    for name, info in client.hgetall("embed_queue:dead:info").items():
        history.dead[name.decode()] = str(json.loads(info).get("reason", ""))
    places = {name: client.zrange(f"embed_queue:{name}", 0, -1) for name in PLACES}
    standing = [member for members in places.values() for member in members]
    living = set(standing)
    latest = {key.decode(): named_member(entry) for key, entry in client.hgetall("embed_queue:latest").items()}
    history.live = {key for key, member in latest.items() if member in living}
    history.leftovers += [f"latest names {key!r}" for key in sorted(set(latest) - history.live)]
    claims = {key.decode() for key in client.hkeys("embed_queue:claims")}
    history.leftovers += [f"claims name {key!r}" for key in sorted(claims - history.live)]
    history.leftovers += [f"nothing names {member[:100]!r}" for member in sorted(living - set(latest.values()))]
    if len(standing) != len(latest):
        history.leftovers.append(f"latest has {len(latest)} entries, and members stand in {len(standing)} places")
    now = float(client.time()[0])
    for name, flush in client.hgetall("embed_queue:flushes").items():
        history.flushes[name.decode()] = float(flush.split()[2]) - now
