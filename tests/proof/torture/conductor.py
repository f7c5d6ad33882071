"""The conductor: starts everything, injects faults, puts all to rest, and writes down what happened."""

from __future__ import annotations

import bisect
import contextlib
import os
import random
import select
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import redis

from embedqueue import EmbeddingBatchQueue
from embedqueue.demo.localredis import LocalRedis
from tests import nursery
from tests.inside import inside
from tests.proof.torture.actor import Journal, make_queue
from tests.proof.torture.cluster import ClusterServer
from tests.proof.torture.failpoints import EXIT_CODE
from tests.proof.torture.faults import Faults
from tests.proof.torture.history import (
    Fault,
    History,
    Versions,
    Watch,
    read_complaints,
    read_journals,
    read_redis,
    read_sends,
)
from tests.proof.torture.jobs import JobProvider, ease, end_jobs, read_lost
from tests.proof.torture.models import ModelChanges, embed_anew
from tests.proof.torture.network import Proxy
from tests.proof.torture.others import OtherProgram
from tests.proof.torture.texts import MODELS, SETTINGS, short
from tests.proof.torture.topology import ClockedRedis, Replicated, find_faketime
from tests.provider import Provider

#: Seconds for which the rig waits, before the first fault, until its processes are there and a text was accepted.
START_SECONDS = 60.0
#: Seconds that processes may take to end after SIGTERM: they may wait for a future.
END_SECONDS = 60.0
#: Seconds between looks at Redis while they do.
LOOK_SECONDS = 0.5
#: Seconds that a healthy queue may take for what the faults have left.
SETTLE_SECONDS = 60.0
#: Seconds of the longest pause that the rig lets pass; longer ones it ends, for they would be all that it sees.
LONGEST_PAUSE_SECONDS = 4.0
#: Seconds of a lease: short where processes die or stand still, so that others take over while the rig watches; long
#: where none does, for there nothing may be sent twice, however slow the machine.
LEASE_SECONDS = {True: 1.5, False: 20.0}

#: In what a stranger differs: each has a queue with other settings than all others.
DIFFERENCES = ("model", "dimensions", "embedding_field")


@dataclass(frozen=True)
class Plan:
    """What to run."""

    seconds: float
    seed: int
    kinds: frozenset[str]
    producers: int = 3
    workers: int = 2
    pace: float = 0.5
    folder: Path | None = None

    @property
    def lease_seconds(self) -> float:
        """Of every queue of the run."""
        return LEASE_SECONDS[bool(self.kinds & {"process", "redis", "clock", "network", "failover", "cluster"})]

    @property
    def models(self) -> tuple[str, ...]:
        """Of the run."""
        return MODELS if "model" in self.kinds else MODELS[:1]


class Crowd:
    """The processes: a dead one is replaced by another with keys of its own. The first producer is never hit.

    Each has a process group of its own and holds the end of a pipe, its lifeline; its forked children inherit both. So
    the other end of the pipe reads as ended when the last of them has ended, whatever became of their parent.
    """

    def __init__(self, folder: Path, plan: Plan, urls: dict[str, str]) -> None:
        self._folder = folder
        self._plan = plan
        self._urls = urls
        self._born = 0
        self._actors: dict[str, tuple[str, nursery.Process]] = {}  # by name: role and process
        self._models: dict[str, str] = {}  # of those
        self.model = MODELS[0]  # of who is started from now on
        self._lifelines: dict[int, tuple[str, int]] = {}  # by our end of each that still holds: role, process group
        self.victims: set[str] = set()
        self.exits: dict[str, int] = {}
        strangers = 1 if "settings" in plan.kinds else 0
        for role in ["producer"] * plan.producers + ["worker"] * plan.workers + ["stranger"] * strangers:
            self._start(role)

    def _start(self, role: str) -> None:
        self._await_end(role, 0.0)  # close the lifelines that nobody holds any more
        self._born += 1
        name = f"p{self._born}"
        job = "worker" if role == "worker" else "producer"
        command = ["tests.proof.torture.actor", "--role", job, "--name", name]
        for option, url in self._urls.items():
            command += [f"--{option}", url]
        command += ["--folder", str(self._folder), "--lease", str(self._plan.lease_seconds)]
        command += ["--seed", str(self._plan.seed * 1000 + self._born)]
        kinds = self._plan.kinds
        traits = {
            "failpoints": "process" in kinds and self._born % 2 == 0,
            "handlers": "signals" in kinds,
            "large": "large" in kinds,
            "log": "log" in kinds,
        }
        command += [f"--{trait}" for trait, has in traits.items() if has]
        if role == "stranger":
            command += ["--differs", DIFFERENCES[self._born % len(DIFFERENCES)]]
        command += ["--model", self.model]
        ours, theirs = os.pipe()
        try:
            with (self._folder / f"{name}.log").open("wb") as log:
                actor = nursery.start(*command, output=log, lifeline=theirs, start_new_session=True)
        finally:
            os.close(theirs)
        self._actors[name] = role, actor
        self._models[name] = self.model
        self._lifelines[ours] = role, actor.pid

    def await_start(self) -> None:
        """Wait until all have come up and the elder has enqueued something: a fault before that tries nothing."""
        deadline_mono = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline_mono and not self._has_started():
            time.sleep(0.05)

    def _has_started(self) -> bool:
        journals = [self._folder / f"{name}.journal" for name in ("p1", *self._actors)]
        return all(path.exists() for path in journals) and b'"accepted"' in journals[0].read_bytes()

    def pick(self, rng: random.Random) -> tuple[str, int] | None:
        """One that lives, is no elder, and has come so far that it handles signals."""
        fit = [(name, pid) for name, pid, _ in self._fit()]
        return rng.choice(fit) if fit else None

    def _fit(self) -> list[tuple[str, int, str]]:
        return [
            (name, actor.pid, role)
            for name, (role, actor) in self._actors.items()
            if name != "p1" and actor.poll() is None and (self._folder / f"{name}.journal").exists()
        ]

    def has_worker(self) -> bool:
        """Whether a worker has come up that has the model of whoever is started now."""
        return any(role == "worker" and self._models[name] == self.model for name, _, role in self._fit())

    def of_other_models(self) -> list[tuple[str, int, str]]:
        """Those of them that have another model than whoever is started now: name, process id, role."""
        return [one for one in self._fit() if self._models[one[0]] != self.model]

    def killed(self, name: str) -> None:
        """It was killed without warning."""
        self.victims.add(name)

    def replace_dead(self) -> None:
        """Start another process for each that has ended."""
        for name, (role, actor) in list(self._actors.items()):
            if actor.poll() is not None:
                self._bury(name)
                self._start(role)

    def _bury(self, name: str) -> None:
        _, actor = self._actors.pop(name)
        code = actor.returncode
        if code == EXIT_CODE:
            self.victims.add(name)
        elif code != 0 and name not in self.victims:
            self.exits[name] = code

    def end(self, meanwhile: Callable[[], None]) -> None:
        """SIGTERM to the strangers, then to the producers and, when all with their children have ended, to the workers.

        Producers may wait for futures until then; so somebody outside of the crowd has to drain, for its last workers
        may die at a failpoint meanwhile.

        Args:
            meanwhile: called now and then.
        """
        for ending in ("stranger", "producer", "worker"):
            self._signal(ending, signal.SIGTERM)
            deadline_mono = time.monotonic() + END_SECONDS
            while self._await_end(ending, LOOK_SECONDS) and time.monotonic() < deadline_mono:
                meanwhile()
            self._signal(ending, signal.SIGABRT)  # with the stacks of its threads, in its log
        for name, (_, actor) in list(self._actors.items()):
            actor.wait(timeout=60)
            self._bury(name)

    def _signal(self, role: str, number: int) -> None:
        """Send a signal to all of a role that live, and to their children."""
        self._await_end(role, 0.0)  # the number of a group that has ended may be another's by now
        for group in [group for of, group in self._lifelines.values() if of == role]:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, number)

    def _await_end(self, role: str, timeout: float) -> bool:
        """Wait until a process of this role ends with its children; returns whether any are left."""
        lifelines = [line for line, (of, _) in self._lifelines.items() if of == role]
        for line in select.select(lifelines, [], [], timeout)[0] if lifelines else []:
            os.close(line)
            del self._lifelines[line]
            lifelines.remove(line)
        return bool(lifelines)

    def kill_all(self) -> None:
        """However the run ends, none of them stays."""
        for role in ("producer", "stranger", "worker"):
            self._signal(role, signal.SIGKILL)
        for _, actor in self._actors.values():
            actor.wait(timeout=60)


def _reach(server: LocalRedis) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(server.url.removeprefix("unix://"))
    return connection


def _connect(url: str) -> socket.socket:
    address = urlsplit(url)
    return socket.create_connection((address.hostname, address.port))


def _server(plan: Plan, folder: Path) -> LocalRedis | Replicated | ClusterServer:
    if "cluster" in plan.kinds:
        return ClusterServer()
    if "failover" in plan.kinds:
        return Replicated()
    settings = {"appendfsync": "always", "args": ("--enable-debug-command", "yes", "--busy-reply-threshold", "100")}
    faketime = find_faketime()
    if "clock" in plan.kinds and faketime is not None:
        return ClockedRedis(folder, faketime, **settings)
    return LocalRedis(**settings)


@contextlib.contextmanager
def _stage(
    plan: Plan, folder: Path, rng: random.Random
) -> Iterator[tuple[LocalRedis | Replicated | ClusterServer, Provider, JobProvider | None, dict]]:
    """Redis, provider, that of batch jobs if there is one, and proxies in front of them."""
    with _server(plan, folder) as server, Provider() as provider:
        provider.latency = 0.02
        provider.settings.apart = MODELS[1:]
        proxies = {"api": Proxy(partial(_connect, provider.openai_url), rng)}
        if isinstance(server, LocalRedis):
            proxies["redis"] = Proxy(partial(_reach, server), rng)
        jobs = JobProvider(rng) if "jobs" in plan.kinds else None
        if jobs is not None:
            proxies["jobs"] = Proxy(partial(_connect, jobs.url), rng)
        try:
            yield server, provider, jobs, proxies
        finally:
            if jobs is not None:
                jobs.stop()
            for proxy in proxies.values():
                proxy.close()


def _folder(plan: Plan) -> contextlib.AbstractContextManager[str]:
    if plan.folder is None:
        return tempfile.TemporaryDirectory()
    plan.folder.mkdir(parents=True)
    return contextlib.nullcontext(str(plan.folder))


def run(plan: Plan, versions: Versions) -> History:
    """One run; returns what happened."""
    rng = random.Random(plan.seed)
    with _folder(plan) as name, _stage(plan, Path(name), rng) as (server, provider, jobs, proxies):
        folder = Path(name)
        redis_url = f"redis://127.0.0.1:{proxies['redis'].port}" if "redis" in proxies else server.url
        provider_url = f"http://127.0.0.1:{proxies['api'].port}/v1"
        with server.client() as client:  # who has other settings may come first
            client.hset("embed_queue:settings", mapping=SETTINGS)
        urls = {"redis": redis_url, "direct": server.url, "provider": provider_url}
        if jobs is not None:
            urls["jobs"] = f"http://127.0.0.1:{proxies['jobs'].port}"
        crowd = Crowd(folder, plan, urls)
        watch = Watch(versions)
        look = partial(_look, server, watch, provider, with_jobs=jobs is not None)
        history = History()
        other = OtherProgram(partial(server.client, socket_timeout=2), rng, Journal(name, "other").write)
        rule = Journal(name, "rule").write
        models = ModelChanges(server.url, crowd, rng, rule, provider, look)
        try:
            faults = Faults(
                set(plan.kinds), rng, server, provider, crowd, proxies, plan.lease_seconds, other, models, jobs
            )
            crowd.await_start()
            _torture(plan, rng, crowd, faults, look)
            faults.end()
            # who still waits is served by a worker that nothing hits, whatever became of those of the crowd
            with make_queue(
                server.url,
                provider.openai_url,
                worker=True,
                lease_seconds=plan.lease_seconds,
                model=models.ruling,
                jobs_url=jobs.url if jobs is not None else "",
            ) as queue:
                crowd.end(meanwhile=look)
                drain_rest(queue, SETTLE_SECONDS)
                if "model" in plan.kinds:
                    history.model = models.ruling
                    embed_anew(queue, server.client(), models.ruling, read_journals(folder), rule)
                    drain_rest(queue, SETTLE_SECONDS)
                rule("stopped")
                if jobs is not None:
                    history.leftovers += end_jobs(queue)
        finally:
            crowd.kill_all()
        history.lines = list(read_journals(folder))
        if jobs is not None:
            history.jobs, history.lost_jobs = jobs.made(), read_lost(folder)
            history.leftovers += [f"the provider still has the file {name}" for name in sorted(jobs.files)]
        history.hashes = watch.look(server.client(), time.time())
        history.watched, history.seen = watch.found, watch.seen
        history.sends = read_sends(provider.calls)
        history.faults = sorted(faults.injected + _own_faults(history.lines, faults.injected), key=_start)
        history.killed = crowd.victims | {fault.process for fault in history.faults if fault.name.startswith("exit")}
        history.exits = crowd.exits
        history.complaints = read_complaints(folder)
        read_redis(history, server.client())
    return history


def _torture(plan: Plan, rng: random.Random, crowd: Crowd, faults: Faults, look: Callable[[], None]) -> None:
    """Faults, until the time is over; and a look at the hashes, as often as costs little."""
    end_mono = time.monotonic() + plan.seconds
    look_mono = 0.0
    while time.monotonic() < end_mono:
        time.sleep(plan.pace * rng.uniform(0.3, 1.7))  # the pace of the faults is what this waits for
        faults.one()
        crowd.replace_dead()
        began_mono = time.monotonic()
        if began_mono >= look_mono:
            look()
            look_mono = time.monotonic() + max(0.5, 5 * (time.monotonic() - began_mono))


def _look(
    server: LocalRedis | Replicated | ClusterServer, watch: Watch, provider: Provider, *, with_jobs: bool
) -> None:
    """Look at the hashes, if Redis answers, and end a pause that is too long for the rig."""
    shorten(provider)
    with contextlib.suppress(redis.RedisError):
        watch.look(server.client(socket_timeout=2), time.time())
        end_pause(server.client(socket_timeout=2), LONGEST_PAUSE_SECONDS)
        if with_jobs:
            ease(server.client(socket_timeout=2))


def shorten(provider: Provider) -> None:
    """Have a provider forget large texts that it has answered: there may be thousands."""
    with provider._changed:
        for counter in (provider.sent, provider.answered):
            counter.clear()  # the rig counts by calls
        for call in provider.calls:
            if call.ended is not None and call.document:
                call.document = {}
                call.texts = [short(text) for text in call.texts]


def _start(fault: Fault) -> float:
    return fault.start


def _own_faults(lines: list[dict], injected: list[Fault]) -> list[Fault]:
    """What happened to processes from within; at stake is what was at stake at the injected fault before it."""
    starts = sorted(injected, key=_start)
    found = []
    for line in lines:
        if line["event"] == "fault":
            earlier = bisect.bisect(starts, line["at"], key=_start)
            at_stake = starts[earlier - 1].at_stake if earlier else 0
            start = line.get("since", line["at"])
            found.append(Fault(line["name"], line["kind"], start, line["at"], line["process"], at_stake))
    return found


def drain_rest(queue: EmbeddingBatchQueue, seconds: float) -> None:
    """Let a healthy worker finish what is left. A pause from the last fault is ended, as an operator could."""
    deadline_mono = time.monotonic() + seconds
    while time.monotonic() < deadline_mono:
        with contextlib.suppress(redis.RedisError, TimeoutError):
            queue.flush(timeout=2.0, outsourced="wait")
            return
        with contextlib.suppress(redis.RedisError):
            inside(queue).store.unhold()


def end_pause(client: redis.Redis, longest_seconds: float) -> None:
    """End a pause that would last longer, as time would, or an operator: the next call probes."""
    if client.pttl("embed_queue:pause") > 1000 * longest_seconds:
        client.delete("embed_queue:pause")
        client.xadd("embed_queue:events", {"kind": "wake", "by": "", "body": ""})
