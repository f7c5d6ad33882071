"""What the rig does to processes, to Redis, to its clock, to the provider and to the network: one fault at a time."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

import redis

from embedqueue.demo.localredis import LocalRedis
from embedqueue.store.scripts import script_text
from tests.proof.torture.answers import ACCOUNT, REFUSALS, TRANSIENT, malformed, redirects
from tests.proof.torture.cluster import ClusterFaults, ClusterServer
from tests.proof.torture.history import STEPS_SECONDS, Fault
from tests.proof.torture.jobs import JobFaults, JobProvider
from tests.proof.torture.models import ModelChanges
from tests.proof.torture.network import SPOILS, Proxy
from tests.proof.torture.others import OtherProgram
from tests.proof.torture.texts import DIMENSIONS
from tests.proof.torture.topology import ClockedRedis, Replicated
from tests.provider import Answer, Provider, fail, hang, trickle

#: What may be asked for: all but the last two go together, but for what the rig refuses by name.
KINDS = (
    "process",
    "signals",
    "redis",
    "clock",
    "network",
    "late",
    "provider",
    "foreign",
    "settings",
    "large",
    "log",
    "model",
    "jobs",
    "failover",
    "cluster",
)
#: Those that have servers of their own.
ELSEWHERE = ("failover", "cluster")
#: What has to be asked for by name.
ASKED_FOR = ("model", "jobs", *ELSEWHERE)
#: All that go together, but for that.
TOGETHER = tuple(kind for kind in KINDS if kind not in ASKED_FOR)
#: What goes with each of these: they have no proxy before them.
WITH_SERVERS = {"process", "signals", "provider", "settings", "large", "log"}
#: The commands of which copies come late. What is rare is held as soon as it comes, the others once each time.
LATE_SCRIPTS = ("enqueue", "claim", "complete", "release", "release_all", "reject", "fail")
#: Seconds for which a copy is held, at most: longer than a client waits for an answer, and than a lease.
LATE_SECONDS = 4.0
#: How often the other program puts back what it has, instead of something else: there is time for newer texts before.
BACK = 0.3
#: Texts of the largest call of the rig; malformed answers are made for it and for a single text.
CALL_TEXTS = (1, 20)

#: What it is called, the process that it hit (None: everybody), and whether it went through.
Injected = tuple[str, str | None]


class Hosts(Protocol):
    """The processes, as far as faults need them."""

    def pick(self, rng: random.Random) -> tuple[str, int] | None:
        """Name and process id of one that may be hit."""

    def killed(self, name: str) -> None:
        """It was killed without warning."""


class Faults:
    """Injects faults, and remembers them.

    Args:
        kinds: of KINDS.
        rng: chooses.
        server: the Redis.
        provider: the provider.
        hosts: the processes.
        proxies: by what they lead to.
        lease_seconds: of the queues.
        other: the other program at the same queue.
        models: changes the model.
        jobs: the provider of batch jobs, where there is one.
    """

    def __init__(
        self,
        kinds: set[str],
        rng: random.Random,
        server: LocalRedis | Replicated | ClusterServer,
        provider: Provider,
        hosts: Hosts,
        proxies: dict[str, Proxy],
        lease_seconds: float,
        other: OtherProgram,
        models: ModelChanges,
        jobs: JobProvider | None = None,
    ) -> None:
        self.injected: list[Fault] = []
        self._rng = rng
        self._provider = provider
        self._hosts = hosts
        self._proxies = proxies
        self._lease_seconds = lease_seconds
        self._server = server
        self._other = other
        self._jobs = jobs
        self._models = models
        self._later: list[tuple[float, Callable[[], Any]]] = []  # (monotonic, what undoes a fault)
        self._answers = {count: list(malformed(count, DIMENSIONS).items()) for count in CALL_TEXTS}
        self._answers[1] += redirects("http://127.0.0.1:9/v1/embeddings").items()
        table: dict[str, list[Callable[[], Injected | None]]] = {
            "process": [self._kill, self._kill, self._terminate, self._freeze, self._fork],
            "redis": RedisFaults(server, rng).all() if isinstance(server, LocalRedis) else [],
            "clock": [self._clock],
            "provider": [self._status, self._status, self._malformed, self._malformed, self._slow, self._outage],
            "network": [partial(self._network, name, how) for name in proxies for how in SPOILS],
            "late": [partial(self._late, name) for name in LATE_SCRIPTS],
            "signals": [self._interrupt],
            "foreign": [partial(self._do_foreign, deed) for deed in (other.take, other.take, other.leave, other.junk)],
            "model": [partial(models.deploy, self._fault_later)],
            "failover": [partial(self._fail_over, kill=False), partial(self._fail_over, kill=True)],
        }
        if jobs is not None:
            table["jobs"] = list(JobFaults(jobs, rng, self._do_later).all())
        if isinstance(server, ClusterServer):
            table["cluster"] = list(ClusterFaults(server, rng, other.write).all())
        # "settings", "large" and "log" are not injected: processes are as they are from their start.
        self._table = {kind: table[kind] for kind in sorted(kinds) if kind in table}

    def one(self) -> None:
        """Inject a fault of a kind at random, after undoing what has lasted long enough."""
        self._undo(until_mono=time.monotonic())
        if not self._table:
            return
        kind = self._rng.choice(list(self._table))
        at_stake, start = self._at_stake(), time.time()
        what = self._rng.choice(self._table[kind])()
        if what is not None:
            name, process = what
            self.injected.append(Fault(name, kind, start, time.time(), process, at_stake))

    def end(self) -> None:
        """Undo what would last."""
        self._models.end()
        self._undo(until_mono=float("inf"))
        self._other.end()
        if self._jobs is not None:
            self._jobs.behave()
        with self._provider._changed:
            self._provider._script.clear()
        self._provider.release()
        for proxy in self._proxies.values():
            proxy.heal()

    def _do_later(self, seconds: float, deed: Callable[[], Any]) -> None:
        self._later.append((time.monotonic() + seconds, deed))

    def _fault_later(self, seconds: float, deed: Callable[[], Injected | None]) -> None:
        """The second and the third part of a model change."""

        def happen() -> None:
            at_stake, start = self._at_stake(), time.time()
            what = deed()
            if what is not None:
                name, process = what
                self.injected.append(Fault(name, "model", start, time.time(), process, at_stake))

        self._do_later(seconds, happen)

    def _undo(self, until_mono: float) -> None:
        for entry in [entry for entry in self._later if entry[0] <= until_mono]:
            self._later.remove(entry)
            entry[1]()

    def _at_stake(self) -> int:
        with suppress(redis.RedisError):
            found: Any = self._server.client(socket_timeout=1).hlen("embed_queue:latest")
            return int(found)
        return 0

    # -- processes ---------------------------------------------------------------------------------------------

    def _signal(self, number: int) -> tuple[str, int] | None:
        found = self._hosts.pick(self._rng)
        if found is not None:
            with suppress(ProcessLookupError):
                os.kill(found[1], number)
        return found

    def _kill(self) -> Injected | None:
        found = self._signal(signal.SIGKILL)
        if found is None:
            return None
        self._hosts.killed(found[0])
        return "SIGKILL", found[0]

    def _terminate(self) -> Injected | None:
        found = self._signal(signal.SIGTERM)
        return found and ("SIGTERM", found[0])

    def _freeze(self) -> Injected | None:
        """Stopped for longer than a lease: when it goes on, others have done its work."""
        found = self._signal(signal.SIGSTOP)
        if found is None:
            return None
        name, pid = found
        start, stake = time.time(), self._at_stake()

        def thaw() -> None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
            # noted at its end, too: what it has in hand is sent again only now
            self.injected.append(Fault("SIGSTOP beyond the lease", "process", start, time.time(), name, stake))

        seconds = self._lease_seconds * self._rng.uniform(1.2, 2.5)
        self._later.append((time.monotonic() + seconds, thaw))
        return None

    def _fork(self) -> Injected | None:
        found = self._signal(signal.SIGUSR1)
        return found and ("fork", found[0])

    def _interrupt(self) -> Injected | None:
        found = self._signal(signal.SIGUSR2)
        return found and ("SIGUSR2", found[0])

    # -- another program ---------------------------------------------------------------------------------------

    def _do_foreign(self, deed: Callable[[], str | None]) -> Injected | None:
        with suppress(redis.RedisError):
            back = self._other.put_back if self._rng.random() < BACK else None
            name = (back and back()) or deed()
            return name and (name, None)
        return None

    # -- the clock, the master ---------------------------------------------------------------------------------

    def _clock(self) -> Injected:
        """To and fro around the real time; so the steps do not add up to a year."""
        assert isinstance(self._server, ClockedRedis)
        size = self._rng.choice(STEPS_SECONDS)
        forth = self._rng.random() < 0.5
        before = self._server.offset
        self._server.step(size if forth else -size)
        word = "forth" if self._server.offset > before else "back"
        return f"stepped {word}, to {'+' if forth else '-'}{size:g} s", None

    def _fail_over(self, *, kill: bool) -> Injected:
        assert isinstance(self._server, Replicated)
        self._server.fail_over(kill=kill)
        return ("master killed, replica promoted" if kill else "SENTINEL FAILOVER"), None

    # -- the provider ------------------------------------------------------------------------------------------

    def _status(self) -> Injected:
        name, answer = self._rng.choice([*TRANSIENT.items(), *REFUSALS.items(), *ACCOUNT.items()])
        self._provider.script(*[answer] * self._rng.choice([1, 1, 4]))
        return f"status {name}", None

    def _malformed(self) -> Injected:
        name, answer = self._rng.choice(self._answers[self._rng.choice(CALL_TEXTS)])
        self._provider.script(answer)
        return f"malformed, {name.partition(':')[0]}", None

    def _slow(self) -> Injected:
        """A byte now and then: no read ever times out, but the call takes longer than its deadline."""
        slow: Answer = self._rng.choice([trickle(1.0), trickle(1.0, from_head=True), trickle(0.05), hang()])
        self._provider.script(slow)
        return ("hangs" if slow.manner == "hang" else f"trickles, {slow.interval:g} s a byte"), None

    def _outage(self) -> Injected:
        """503 for everybody, for some seconds: long enough for the pause to grow."""
        self._provider.rule = lambda texts: fail(503)

        def end() -> None:
            self._provider.rule = None

        self._later.append((time.monotonic() + self._rng.uniform(1.0, 5.0), end))
        return "outage, 503", None

    # -- the network -------------------------------------------------------------------------------------------

    def _network(self, name: str, how: Any) -> Injected:
        upwards = self._rng.random() < 0.5
        self._proxies[name].spoil(how, upwards=upwards)
        way = {("redis", True): "to Redis", ("redis", False): "from Redis"}
        return f"{how} {way.get((name, upwards), 'to the API' if upwards else 'from the API')}", None

    def _late(self, script: str) -> None:
        """A copy of the next command of a kind comes late; noted when it does."""
        mark = hashlib.sha1(script_text(script).encode()).hexdigest().encode()
        start, stake = time.time(), self._at_stake()

        def delivered() -> None:
            self.injected.append(Fault(f"held and reset: {script}", "late", start, time.time(), None, stake))

        self._proxies["redis"].hold_and_reset(mark, self._rng.uniform(0.0, LATE_SECONDS), delivered)


class RedisFaults:
    """What is done to one Redis."""

    def __init__(self, server: LocalRedis, rng: random.Random) -> None:
        self._server = server
        self._rng = rng

    def all(self) -> list[Callable[[], Injected]]:
        """Each fault; each undoes itself."""
        faults = {
            "restarted": self._server.restart,
            "killed and restarted": self._kill,
            "SCRIPT FLUSH": lambda: self._client().script_flush(),
            "CLIENT KILL": self._cut_clients,
            "CLIENT PAUSE": self._pause,
            "REPLICAOF (read-only)": self._read_only,
            "maxmemory, noeviction": self._full,
            "DEBUG SLEEP": self._sleep,
            "busy in a script": self._busy,
            "notices dropped": lambda: self._client().delete("embed_queue:events"),
        }
        return [partial(self._do, name, fault) for name, fault in faults.items()]

    def _do(self, name: str, fault: Callable[[], Any]) -> Injected:
        fault()
        return name, None

    def _client(self) -> redis.Redis:
        return self._server.client(socket_timeout=10)

    def _kill(self) -> None:
        self._server.kill()
        self._server.start()

    def _cut_clients(self) -> None:
        with suppress(redis.RedisError):
            self._client().execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def _pause(self) -> None:
        self._client().execute_command("CLIENT", "PAUSE", self._rng.choice([200, 1000, 2500]), "ALL")

    def _read_only(self) -> None:
        client = self._client()
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        time.sleep(self._rng.uniform(0.1, 0.8))
        client.execute_command("REPLICAOF", "NO", "ONE")

    def _full(self) -> None:
        client = self._client()
        client.config_set("maxmemory", 1)
        time.sleep(self._rng.uniform(0.1, 0.8))
        client.config_set("maxmemory", 0)

    def _sleep(self) -> None:
        self._client().execute_command("DEBUG", "SLEEP", self._rng.choice([0.3, 1.0, 2.5]))

    def _busy(self) -> None:
        """A script of somebody else's that does not end, until somebody ends it."""

        def run() -> None:
            with suppress(redis.RedisError):
                self._client().eval("while true do end", 0)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        time.sleep(self._rng.uniform(0.2, 0.8))
        while thread.is_alive():  # NOTBUSY, until it has run for the server's limit
            with suppress(redis.RedisError):
                self._client().script_kill()
            thread.join(0.05)
