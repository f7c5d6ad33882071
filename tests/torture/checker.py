"""Knows what was promised: reads the processes' journals, looks at Redis, and lists every broken promise."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import redis

from tests.provider import vector_of
from tests.torture.actor import DIMENSIONS, digest, text_of


@dataclass
class Verdict:
    """What a run came to."""

    items: int = 0
    keys: int = 0
    dead: int = 0
    futures: int = 0
    futures_with_vector: int = 0
    sent: int = 0
    sent_again: int = 0
    most_sent: int = 0
    faults: list[str] = field(default_factory=list)


class Hashes:
    """Versions by the vectors in the hashes; watched while the rig runs, since a stale write may be mended later."""

    def __init__(self) -> None:
        self._versions: dict[str, dict[str, int]] = defaultdict(dict)
        self._seen: Counter[str] = Counter()
        self.faults: list[str] = []

    def version(self, redis_key: str, vector: str, newest: int) -> int | None:
        """Which version of a key's text this vector (its digest) is of, or None."""
        known = self._versions[redis_key]
        for version in range(len(known) + 1, newest + 1):
            known[digest(vector_of(text_of(redis_key, version), DIMENSIONS))] = version
        return known.get(vector)

    def watch(self, client: redis.Redis) -> None:
        """One look at all hashes: no version may ever go back."""
        for name in client.scan_iter("doc:*", count=500):
            stored = client.hget(name, "embedding")
            if stored is None:
                continue
            redis_key = name.decode()
            version = self.version(redis_key, _digest_of_bytes(stored), self._seen[redis_key] + 300)
            if version is None:
                self.faults.append(f"{redis_key} holds a vector that is of none of its texts")
            elif version < self._seen[redis_key]:
                self.faults.append(f"{redis_key} went back from version {self._seen[redis_key]} to {version}")
            else:
                self._seen[redis_key] = version


def _digest_of_bytes(stored: bytes) -> str:
    import numpy as np

    return digest(np.frombuffer(stored, dtype="<f4"))


def read_journals(folder: Path) -> list[dict]:
    """All lines that the processes wrote; a line that a kill cut off is left out."""
    lines = []
    for path in sorted(folder.glob("*.journal")):
        for line in path.read_text("utf-8").splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                continue
    return lines


def check(client: redis.Redis, folder: Path, hashes: Hashes, sent: Counter[str], *, faults_injected: int) -> Verdict:
    """Compare what was promised with what is.

    Args:
        client: of the Redis, at rest.
        folder: with the journals.
        hashes: what was watched.
        sent: how often the provider was sent each text.
        faults_injected: how many; each may make a text be sent once more than it was asked for.
    """
    verdict = Verdict(faults=list(hashes.faults))
    accepted: dict[str, int] = defaultdict(int)
    tried: dict[str, int] = defaultdict(int)
    asked: Counter[str] = Counter()
    lines = read_journals(folder)
    for line in lines:
        if line["event"] == "try":
            asked.update(text_of(key, version) for key, version in line["versions"].items())
        for key, version in line.get("versions", {}).items():
            book = accepted if line["event"] == "accepted" else tried
            book[key] = max(book[key], version)
            verdict.items += line["event"] == "accepted"
    verdict.keys = len(accepted)
    hashes.watch(client)
    verdict.faults += hashes.faults[len(verdict.faults) :]
    for key, version in accepted.items():
        stored = client.hget(key, "embedding")
        found = hashes.version(key, _digest_of_bytes(stored), tried[key]) if stored else 0
        if client.hexists("embed_queue:dead:info", key):
            verdict.dead += 1
        elif client.hexists("embed_queue:latest", key):
            verdict.faults.append(f"{key} was left unfinished")
        elif found is None or found < version:
            verdict.faults.append(f"LOST: {key} was accepted in version {version}, its hash holds {found}")
    for line in lines:
        if line["event"] == "ended":
            verdict.futures += 1
            if "vector" in line:
                verdict.futures_with_vector += 1
                got = hashes.version(line["key"], line["vector"], tried[line["key"]])
                if got is None or got < line["version"]:
                    verdict.faults.append(f"future of {line['key']} version {line['version']} got version {got}")
            elif line["error"] == "TimeoutError":
                verdict.faults.append(f"future of {line['key']} version {line['version']} did not end")
    _check_sends(verdict, sent, asked, faults_injected)
    strangers = [name for name in client.scan_iter(count=1000) if not name.startswith((b"doc:", b"embed_queue:"))]
    verdict.faults += [f"a key that is not ours: {name!r}" for name in strangers]
    return verdict


def _check_sends(verdict: Verdict, sent: Counter[str], asked: Counter[str], faults_injected: int) -> None:
    texts = {text: count for text, count in sent.items() if text != "ok"}  # "ok" is the canary
    verdict.sent = sum(texts.values())
    verdict.sent_again = sum(max(0, count - asked[text]) for text, count in texts.items())
    verdict.most_sent = max(texts.values(), default=0)
    for text, count in texts.items():
        if count > asked[text] + faults_injected:
            verdict.faults.append(f"a text was sent {count} times and asked for {asked[text]} times: {text[:40]}")


def drain_rest(queue, seconds: float) -> None:
    """Let a healthy worker finish what is left."""
    deadline_mono = time.monotonic() + seconds
    while time.monotonic() < deadline_mono:
        try:
            queue.flush(timeout=max(0.1, deadline_mono - time.monotonic()))
            return
        except (redis.RedisError, TimeoutError):
            continue
