"""Knows what was promised, and lists every broken promise of a history. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

from tests.proof.torture.actor import RESULT_SECONDS, text_of
from tests.proof.torture.history import OUR_KEYS, OUR_PREFIXES, STEPS_SECONDS, Fault, History, Send, Versions

Promise = Literal["lost", "stale", "future", "open", "sent again", "memory", "stranger", "process"]

#: Seconds for which a fault may still be the reason of a second send: a time-out, a lease, and the wait for a retry.
AFTERMATH_SECONDS = 8.0
#: Where Redis was away for so long (seconds), a future need not end in time: on a busy machine it starts slowly.
OUTAGE_SECONDS = 10.0
#: Seconds for which a flush is counted that nobody asks about; ``status.lua`` has the same.
FLUSH_SECONDS = 300
#: A process may be this much larger (MB) towards its end than it was after its beginning.
GROWTH_MB = 24.0
#: Samples of a process' size from which its growth is judged; one a second.
LEAST_SAMPLES = 40


@dataclass(frozen=True)
class Broken:
    """One broken promise; ``at`` is when it broke, as well as that is known, or 0."""

    promise: Promise
    what: str
    at: float = 0.0


@dataclass
class Verdict:
    """What a run came to.

    Attributes:
        again: sends of a text beyond those that were asked for or got no good answer, with the fault that hit it.
    """

    items: int = 0
    keys: int = 0
    dead: int = 0
    futures: int = 0
    vectors: int = 0
    sent: int = 0
    failed_sends: int = 0
    most_sent: int = 0
    largest_growth_mb: float = 0.0
    again: list[tuple[Send, Fault | None]] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)


def check(history: History, versions: Versions | None = None) -> Verdict:
    """Compare what was promised with what happened."""
    return _Check(history, versions or Versions()).verdict()


class _Check:
    def __init__(self, history: History, versions: Versions) -> None:
        self._history = history
        self._versions = versions
        self._verdict = Verdict()
        self._tried: dict[str, int] = defaultdict(int)
        self._accepted: dict[str, tuple[int, float]] = {}
        self._asked: Counter[str] = Counter()

    def verdict(self) -> Verdict:
        self._read()
        self._items()
        self._futures()
        self._sends()
        self._sizes()
        self._strangers()
        self._processes()
        return self._verdict

    def _break(self, promise: Promise, what: str, at: float = 0.0) -> None:
        self._verdict.broken.append(Broken(promise, what, at))

    def _read(self) -> None:
        for line in self._history.lines:
            for key, version in line.get("versions", {}).items():
                if line["event"] == "try":
                    self._tried[key] = max(self._tried[key], version)
                    self._asked[text_of(key, version)] += 1
                elif line["event"] == "accepted":
                    self._verdict.items += 1
                    if version >= self._accepted.get(key, (0, 0.0))[0]:
                        self._accepted[key] = version, line["at"]

    def _items(self) -> None:
        """Each accepted item has its vector, a dead letter with a reason, or a place in the queue."""
        history, verdict = self._history, self._verdict
        verdict.keys, verdict.dead = len(self._accepted), len(history.dead)
        provider_failed = any(fault.kind == "provider" for fault in history.faults)
        for key, reason in history.dead.items():
            if not reason:
                self._break("lost", f"{key} is a dead letter without a reason")
            elif not provider_failed:
                self._break("lost", f"{key} is a dead letter although the provider was well: {reason[:100]}")
        for key, (version, at) in self._accepted.items():
            if key in history.dead:
                continue
            if key in history.live:
                self._break("lost", f"{key} is still in the queue, which had time to drain", at)
                continue
            vector = history.hashes.get(key)
            found = self._versions.find(key, vector, self._tried[key]) if vector else None
            if vector and found is None:
                self._break("stale", f"{key} holds a vector of none of its texts", at)
            elif found is None:
                self._break("lost", f"{key} was accepted in version {version} and has no vector", at)
            elif found < version:
                self._break("stale", f"{key} was accepted in version {version} and holds that of {found}", at)
        for at, what in history.watched:
            self._break("stale", what, at)
        for what in history.leftovers:
            self._break("lost", f"the queue's books do not agree: {what}")
        stepped = max(STEPS_SECONDS) if any(fault.kind == "clock" for fault in history.faults) else 0.0
        for name, seconds in history.flushes.items():
            if seconds > FLUSH_SECONDS + 2 * stepped:
                self._break("lost", f"flush {name} is counted for {seconds:.0f} s more, although nobody asks for it")

    def _futures(self) -> None:
        """Each future ended, unless its process was killed, with what its hash held then, or newer."""
        open_: dict[tuple[str, int], dict] = {}
        for line in self._history.lines:
            if line["event"] == "waits":
                open_[line["process"], line["future"]] = line
            elif line["event"] == "ended":
                open_.pop((line["process"], line["future"]), None)
                self._ended(line)
            elif line["event"] == "unfinished":
                self._break("open", f"{line['count']} futures of {line['process']} were open after stop()", line["at"])
        for (process, _), line in open_.items():
            if process not in self._history.killed:
                self._break("open", f"a future of {line['key']} in {process} never ended", line["at"])

    def _ended(self, line: dict) -> None:
        key, version = line["key"], line["version"]
        self._verdict.futures += 1
        if "vector" not in line:
            if line.get("error") == "TimeoutError" and self._outage_seconds(line["at"]) < OUTAGE_SECONDS:
                self._break(
                    "open",
                    f"the future of {key}, version {version}, did not end in time: {line.get('state')}",
                    line["at"],
                )
            return
        self._verdict.vectors += 1
        got = self._versions.find(key, line["vector"], self._tried[key])
        if got is None or got < version:
            self._break("future", f"the future of {key}, version {version}, got version {got}", line["at"])
        elif line.get("hash"):
            held = self._versions.find(key, line["hash"], self._tried[key])
            if held is None or held < got:
                self._break("future", f"the future of {key} got version {got} while its hash held {held}", line["at"])

    def _outage_seconds(self, until: float) -> float:
        """For how long Redis was away while somebody waited until then."""
        since = until - RESULT_SECONDS
        times = [
            min(fault.end, until) - max(fault.start, since)
            for fault in self._history.faults
            if fault.kind in ("redis", "failover")
        ]
        return sum(seconds for seconds in times if seconds > 0)

    def _sends(self) -> None:
        """No text is sent more often than it was asked for, failed, or was hit by a fault."""
        by_text: dict[str, list[Send]] = defaultdict(list)
        for send in self._history.sends:
            by_text[send.text].append(send)
        for text, sends in by_text.items():
            failed = sum(send.failed for send in sends)
            self._verdict.sent += len(sends)
            self._verdict.failed_sends += failed
            self._verdict.most_sent = max(self._verdict.most_sent, len(sends))
            extra = len(sends) - failed - self._asked[text]
            if extra <= 0:
                continue
            hits = self._hits(sends)
            self._verdict.again += [(sends[-1], hits[-1] if hits else None)] * extra
            if extra > len(hits):
                what = f"{len(sends)} times, {self._asked[text]} times asked for, {failed} times without a good answer"
                self._break("sent again", f"{text.strip()!r} was sent {what}; {len(hits)} faults hit it", sends[-1].at)

    def _hits(self, sends: list[Send]) -> list[Fault]:
        """Faults that may be the reason for sending a text again, other than the provider's own failures."""
        processes = {send.process for send in sends}
        first, last = sends[0].at, sends[-1].at
        return [
            fault
            for fault in self._history.faults
            if fault.kind != "provider"
            and fault.start <= last
            and fault.end + AFTERMATH_SECONDS >= first
            and (fault.process is None or fault.process.partition(".")[0] in processes)
        ]

    def _sizes(self) -> None:
        """The median of a process' last samples is not far above that of the samples after its beginning."""
        sizes: dict[str, list[float]] = defaultdict(list)
        for line in self._history.lines:
            if line["event"] == "size":
                sizes[line["process"]].append(line["mb"])
        for process, samples in sizes.items():
            if len(samples) < LEAST_SAMPLES:
                continue
            part = len(samples) // 5
            growth = median(samples[-part:]) - median(samples[part : 2 * part])
            self._verdict.largest_growth_mb = max(self._verdict.largest_growth_mb, growth)
            if growth > GROWTH_MB:
                self._break("memory", f"{process} grew by {growth:.0f} MB in {len(samples)} s")

    def _strangers(self) -> None:
        ours = OUR_KEYS | set(self._tried)
        for name in sorted(name for name in self._history.names - ours if not name.startswith(OUR_PREFIXES)):
            self._break("stranger", f"a key was written that is not ours: {name!r}")

    def _processes(self) -> None:
        history = self._history
        ended = {line["process"] for line in history.lines if line["event"] == "stopped"}
        begun = {line.get("child", line["process"]) for line in history.lines}  # a fork names its child
        for process in sorted(begun - ended - history.killed):
            self._break("process", f"{process} ended by itself, with exit code {history.exits.get(process)}")
        for text in history.complaints:
            self._break("process", f"an error that nobody handled: {text}")


def table(history: History, verdict: Verdict) -> str:
    """Fault by fault, in Markdown: what it was, how often, what was at stake, and what came of it."""
    rows: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for fault in history.faults:
        rows[fault.kind, fault.name].update(times=1, stake=fault.at_stake)
    for _, cause in verdict.again:
        if cause is not None:
            rows[cause.kind, cause.name]["again"] += 1
    for broken in verdict.broken:
        if broken.promise in ("lost", "stale"):
            earlier = [fault for fault in history.faults if fault.start <= broken.at] or history.faults[:1]
            if earlier:
                rows[earlier[-1].kind, earlier[-1].name][broken.promise] += 1
    lines = ["| fault | injected | items at stake | lost | stale | sent twice |", "|---|---:|---:|---:|---:|---:|"]
    total: Counter[str] = Counter()
    for (kind, name), row in sorted(rows.items()):
        total.update(row)
        lines.append(_row(f"{kind}: {name}", row))
    return "\n".join([*lines, _row("**all**", total)])


def _row(name: str, row: Counter[str]) -> str:
    values = (row["times"], row["stake"], row["lost"], row["stale"], row["again"])
    return f"| {name} | " + " | ".join(f"{value:,}" for value in values) + " |"
