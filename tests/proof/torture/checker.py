"""Knows what was promised, and lists every broken promise of a history. Pure."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

from embedqueue.values.provenance import digest as text_digest
from tests.proof.torture.history import OUR_KEYS, OUR_PREFIXES, STEPS_SECONDS, Fault, History, Send, Versions
from tests.proof.torture.others import KEYS as OTHERS_KEYS
from tests.proof.torture.payments import Payments, judge
from tests.proof.torture.producer import RESULT_SECONDS
from tests.proof.torture.reigns import Reigns
from tests.proof.torture.texts import digest, short, space_of, text_of

Promise = Literal[
    "lost", "stale", "provenance", "future", "open", "sent again", "settings", "memory", "stranger", "process"
]
#: Kinds of faults that are no reason to send a text again; the provider's are, where a call met them.
HARMLESS = {"provider", "late", "foreign", "settings", "large", "log", "signals"}
#: Seconds in which a process ends whose handler has stopped the queue, or raised ``SystemExit``.
LEAVE_SECONDS = 30.0
#: What a worker says that may not claim, and those who wait in its process.
BARRED = "this process claims nothing"
#: What is said of an item that others have embedded, in another space than that of whoever waits.
DIFFERENT = "was embedded by workers with another"

#: Seconds for which a fault may still be the reason of a second send: a time-out, a lease, and the wait for a retry.
AFTERMATH_SECONDS = 8.0
#: Where Redis was away for so long (seconds), a future need not end in time: on a busy machine it starts slowly.
OUTAGE_SECONDS = 10.0
#: What is said of an item of which nothing tells what became of it.
GONE = "neither queued, nor dead"
#: What stands beside a vector.
LINE = re.compile(r"(?P<space>\S+) (?P<digest>[0-9a-f]{16}) (?P<stamp>\d+)")
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
        payments: of batch jobs.
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
    payments: Payments = field(default_factory=Payments)
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
        self._hands: dict[str, list[tuple[float, str, int]]] = defaultdict(list)  # by key: when, event, version
        self._written: set[tuple[str, str]] = set()  # key and vector, by another program
        self._junk: set[str] = set()
        self._strangers: set[str] = set()
        self._forgotten: dict[str, list[dict]] = defaultdict(list)  # by key: lines that tell of it
        self._reigns = Reigns(history.lines)
        self._clocked = any(fault.kind == "clock" for fault in history.faults)
        self._provider_failed = any(fault.kind == "provider" for fault in history.faults)

    def verdict(self) -> Verdict:
        self._read()
        self._items()
        self._books()
        self._beside()
        self._one_space()
        self._futures()
        self._sends()
        self._sizes()
        self._settings()
        self._names()
        self._processes()
        return self._verdict

    def _break(self, promise: Promise, what: str, at: float = 0.0) -> None:
        self._verdict.broken.append(Broken(promise, what, at))

    def _read(self) -> None:
        for line in self._history.lines:
            if line["event"] in ("taken", "returned"):
                self._hands[line["key"]].append((line["at"], line["event"], line["version"]))
                if "vector" in line:
                    self._written.add((line["key"], line["vector"]))
            elif line["event"] == "stripped":
                self._written.add((line["key"], line["vector"]))
            elif line["event"] == "junk":
                self._junk.add(line["name"])
            elif line["event"] in ("forgets", "forgot"):
                self._forgotten[line["key"]].append(line)
            elif line["event"] == "differs":
                self._strangers.add(line["process"])
            for key, version in line.get("versions", {}).items():
                if line["event"] == "try":
                    self._tried[key] = max(self._tried[key], version)
                    self._asked[short(text_of(key, version))] += 1
                    self._hands[key].append((line["at"], "try", version))
                elif line["event"] == "accepted":
                    self._verdict.items += 1
                    if version >= self._accepted.get(key, (0, 0.0))[0]:
                        self._accepted[key] = version, line["at"]

    def _items(self) -> None:
        """Each accepted item has its vector, a dead letter with a reason, or a place in the queue."""
        history, verdict = self._history, self._verdict
        verdict.keys, verdict.dead = len(self._accepted), len(history.dead)
        for name in sorted(self._junk - set(history.dead)):
            self._break("lost", f"{name!r}, which nobody can embed, is no dead letter")
        for key, reason in history.dead.items():
            if not reason:
                self._break("lost", f"{key} is a dead letter without a reason")
            elif not self._provider_failed and key not in self._junk:
                self._break("lost", f"{key} is a dead letter although the provider was well: {reason[:100]}")
        for key, (version, at) in self._accepted.items():
            if self._was_forgotten(key, at):
                self._left_alone(key)
                continue
            if key in history.dead or (key not in history.live and self._was_taken(key, version)):
                continue
            if key in history.live:
                self._break("lost", f"{key} is still in the queue, which had time to drain", at)
                continue
            if key in OTHERS_KEYS and self._clocked:
                version = 1  # its texts are as old as their scores say, and the clock was set
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

    def _was_forgotten(self, key: str, since: float) -> bool:
        """Whether a key was forgotten, or may have been, after its last text was accepted."""
        return any(line["at"] >= since for line in self._forgotten[key])

    def _left_alone(self, key: str) -> None:
        """What a hash held when its key was forgotten stands there, unless a newer text was tried since."""
        last = self._forgotten[key][-1]
        newer = any(at >= last["at"] for at, event, _ in self._hands[key] if event == "try")
        if "hash" in last and not newer and self._history.hashes.get(key, digest([])) != last["hash"]:
            self._break("stale", f"{key} was forgotten, and its hash has changed since", last["at"])

    def _was_taken(self, key: str, version: int, since: float = 0.0) -> bool:
        """Whether another program had this item in the end, or may have; or has taken any of the key since a time."""
        if since:
            return any(event == "taken" and at >= since for at, event, _ in self._hands[key])
        events = sorted(at_event for at_event in self._hands[key] if at_event[2] == version)
        if self._clocked:  # what was put back may be older by its score than the vector in the hash
            events = [at_event for at_event in events if at_event[1] != "returned"]
        return bool(events) and events[-1][1] == "taken"

    def _books(self) -> None:
        """What the queue knows of itself agrees, and ends."""
        for what in self._history.leftovers:
            self._break("lost", f"the queue's books do not agree: {what}")
        stepped = max(STEPS_SECONDS) if self._clocked else 0.0
        for name, seconds in self._history.flushes.items():
            if seconds > FLUSH_SECONDS + 2 * stepped:
                self._break("lost", f"flush {name} is counted for {seconds:.0f} s more, although nobody asks for it")

    def _beside(self) -> None:
        """What stands beside a vector is of it; no stamp goes back; nobody else's fields stand there."""
        last: dict[str, tuple[int, int]] = {}  # of each key: stamp, version
        for seen in self._history.seen:
            key = seen.redis_key
            if seen.others:
                self._break("settings", f"{key} has fields that are not ours: {', '.join(seen.others)}", seen.at)
            version = self._versions.find(key, seen.vector, self._tried[key])
            line = LINE.fullmatch(seen.line)
            theirs = (key, seen.vector) in self._written  # another program does not tell what its vectors are of
            if line is None:
                if seen.line or (version is not None and not theirs):
                    self._break("provenance", f"beside the vector of {key} stands {seen.line!r}", seen.at)
                continue
            stamp, (last_stamp, last_version) = int(line["stamp"]), last.get(key, (0, 0))
            if stamp < last_stamp:
                self._break("provenance", f"the stamp of {key} went back from {last_stamp} to {stamp}", seen.at)
            if theirs or version is None:
                continue
            model = self._versions.model(key, seen.vector)
            if line["space"] != space_of(model):
                what = f"{key} has a vector of {space_of(model)}, and {line['space']} stands beside it"
                self._break("provenance", what, seen.at)
            elif not self._reigns.ruled(model, seen.since, seen.until):
                self._break("provenance", f"{key} was given a vector of {model} while another model ruled", seen.at)
            if line["digest"] != text_digest(text_of(key, version)):
                self._break("provenance", f"{key} has the vector of version {version}, and another's digest", seen.at)
            if version > last_version and stamp == last_stamp:
                self._break("provenance", f"versions {last_version} and {version} of {key} have one stamp", seen.at)
            last[key] = stamp, version

    def _one_space(self) -> None:
        """After the last change of the model, and all texts embedded anew, every vector is of the space that rules."""
        history, last = self._history, {seen.redis_key: seen for seen in self._history.seen}
        for key, seen in last.items() if history.model else ():
            theirs = (key, seen.vector) in self._written or key in history.dead
            if not theirs and seen.line.partition(" ")[0] != space_of(history.model):
                self._break("provenance", f"{key} has {seen.line!r} in the end, while {history.model} rules", seen.at)

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
        left = {line["process"] for line in self._history.lines if line["event"] == "leaving"}
        for (process, _), line in open_.items():
            if process not in self._history.killed | left:  # who left by sys.exit does not wait: see "unfinished"
                self._break("open", f"a future of {line['key']} in {process} never ended", line["at"])

    def _ended(self, line: dict) -> None:
        key, version = line["key"], line["version"]
        self._verdict.futures += 1
        if "vector" not in line:
            excused = self._reigns.began(line["at"] - RESULT_SECONDS, line["at"])
            if (
                line.get("error") == "TimeoutError"
                and self._outage_seconds(line["at"]) < OUTAGE_SECONDS
                and not excused
            ):
                self._break(
                    "open",
                    f"the future of {key}, version {version}, did not end in time: {line.get('state')}",
                    line["at"],
                )
            words, since = line.get("words", ""), line.get("since", 0.0)
            told = line.get("error") == "BatchFailed" and (BARRED in words or DIFFERENT in words)
            at_odds = self._is_stranger(line["process"]) or self._reigns.was_at_odds(line["process"], line["at"])
            if told and not at_odds:
                self._break(
                    "settings", f"{line['process']} was refused, and has the settings of all: {words}", line["at"]
                )
            refused = self._provider_failed and GONE not in words
            gone = self._was_taken(key, 0, since) or self._was_forgotten(key, since)
            if line.get("error") == "ItemRejected" and not (refused or gone):
                self._break("future", f"{key}, version {version}, was rejected for no reason: {words}", line["at"])
            return
        self._verdict.vectors += 1
        got = self._versions.find(key, line["vector"], self._tried[key])
        if got is not None and self._is_of_another(key, line):
            self._break("future", f"a future of {key} in {line['process']} got a vector of another model", line["at"])
        if got is None or got < version:
            self._break("future", f"the future of {key}, version {version}, got version {got}", line["at"])
        elif line.get("hash"):
            held = self._versions.find(key, line["hash"], self._tried[key])
            if held is None or held < got:
                self._break("future", f"the future of {key} got version {got} while its hash held {held}", line["at"])

    def _is_of_another(self, key: str, line: dict) -> bool:
        """Whether a future got a vector of another model than its process has. Strangers end by what they may know."""
        model = self._versions.model(key, line["vector"])
        theirs = (key, line["vector"]) in self._written or self._is_stranger(line["process"])
        return model != self._reigns.of(line["process"]) and not theirs

    def _outage_seconds(self, until: float) -> float:
        """For how long Redis was away while somebody waited until then."""
        since = until - RESULT_SECONDS
        times = [
            min(fault.end, until) - max(fault.start, since)
            for fault in self._history.faults
            if fault.kind in ("redis", "failover", "cluster")
        ]
        return sum(seconds for seconds in times if seconds > 0)

    def _sends(self) -> None:
        """No text is sent more often than it was asked for, failed, or was hit by a fault."""
        by_text: dict[str, list[Send]] = defaultdict(list)
        for send in self._history.sends:
            by_text[send.text].append(send)
        hit = {text: self._hits(sends) for text, sends in by_text.items()} if self._history.jobs else {}
        self._verdict.payments = payments = judge(self._history, self._asked, hit)
        in_jobs = {text for job in self._history.jobs for text in job.texts}
        for text, why, at in payments.unexplained:
            self._break("sent again", f"{text.strip()!r}: {why}", at)
        for text, sends in by_text.items():
            failed = sum(send.failed for send in sends)
            self._verdict.sent += len(sends)
            self._verdict.failed_sends += failed
            self._verdict.most_sent = max(self._verdict.most_sent, len(sends))
            extra = len(sends) - failed - self._asked[text]
            if extra <= 0 or text in in_jobs:
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
            if fault.kind not in HARMLESS
            and fault.start <= last
            and fault.end + AFTERMATH_SECONDS >= first
            and (fault.process is None or fault.process.partition(".")[0] in processes)
        ]

    def _is_stranger(self, process: str) -> bool:
        return process.partition(".")[0] in self._strangers

    def _settings(self) -> None:
        """Who has other settings claims nothing, so it has nothing to send."""
        for send in self._history.sends:
            if self._is_stranger(send.process):
                self._break("settings", f"{send.process} has other settings, and sent {send.text!r}", send.at)
            elif send.process and not self._reigns.may_send(send.process, send.at):
                model = self._reigns.of(send.process)
                self._break("settings", f"{send.process} has {model}, and sent {send.text!r} long after", send.at)

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

    def _names(self) -> None:
        ours = OUR_KEYS | set(self._tried)
        for name in sorted(name for name in self._history.names - ours if not name.startswith(OUR_PREFIXES)):
            self._break("stranger", f"a key was written that is not ours: {name!r}")

    def _processes(self) -> None:
        history = self._history
        ended = {line["process"] for line in history.lines if line["event"] == "stopped"}
        begun = {line.get("child", line["process"]) for line in history.lines}  # a fork names its child
        for process in sorted(begun - ended - history.killed):
            self._break("process", f"{process} ended by itself, with exit code {history.exits.get(process)}")
        left: dict[str, float] = {}
        for line in history.lines:
            if line["event"] == "leaving":
                left[line["process"]] = line["at"]
            elif line["event"] == "stopped" and line["at"] - left.get(line["process"], line["at"]) > LEAVE_SECONDS:
                seconds = line["at"] - left[line["process"]]
                self._break("process", f"{line['process']} took {seconds:.0f} s to end", line["at"])
        for text in history.complaints:
            self._break("process", f"an error that nobody handled: {text}")


def told(payments: Payments) -> str:
    """What batch jobs came to, in a sentence."""
    reasons = ", ".join(f"{count} ({reason})" for reason, count in payments.reasons.most_common() if count)
    return (
        f"batch jobs {payments.jobs} with {payments.texts} texts, {payments.lost} of them lost; "
        f"texts of jobs that were paid for once more: {reasons or 'none'}"
    )


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
