"""One process of the rig: a producer that enqueues and waits, or a worker that drains. Started by the conductor."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import redis
import redis.sentinel
import tenacity

from embedqueue import EmbeddingBatchQueue, OpenAIEmbedder
from embedqueue.settings.redis_url import client_of
from embedqueue.values.observer import CallReport, RedisReport
from tests.proof.torture import failpoints
from tests.proof.torture.cluster import ON_CLUSTER, RigCluster, is_cluster
from tests.proof.torture.jobs import ECONOMY, JobsEmbedder
from tests.proof.torture.producer import Producer
from tests.proof.torture.signals import Handler
from tests.proof.torture.texts import DIMENSIONS, MODELS

#: Seconds that a forked child works.
CHILD_SECONDS = 2.0
#: Seconds between looks at whether the machine lets us go on.
STALL_LOOK_SECONDS = 0.1
#: Names the sender of a call.
PROCESS_HEADER = "X-Rig-Process"
#: A larger answer is refused: the rig sends some that would fill the memory.
MAX_RESPONSE_BYTES = 1 << 20
PAGE_MB = os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def size_mb() -> float:
    """The resident memory of this process."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * PAGE_MB


def calm(record: logging.LogRecord) -> bool:
    """A filter of a log in which each traceback is a complaint: takes the others away, and leaves a line.

    No complaint is what a library other than ours has handled and warns of, as urllib3 does of headers that it cannot
    read, and what the rig has raised itself.
    """
    error = record.exc_info[1] if record.exc_info else None
    raised = isinstance(error, failpoints.RIG_ERRORS)
    ours = record.name in ("root", "embedqueue") or record.name.startswith("embedqueue.")
    if error and (raised or not (ours or record.levelno >= logging.ERROR)):
        record.msg, record.args = f"{record.getMessage()} (handled: {error!r})", ()
        record.exc_info = record.exc_text = None
    return True


def swallow(unraisable: sys.UnraisableHookArgs) -> None:
    """A hook that leaves a line, and no complaint, where Python itself swallows the ``sys.exit`` of the rig's handlers.

    It does so with what a handler raises within a destructor, or a callback of a fork.
    """
    if unraisable.exc_type is SystemExit:
        print(f"swallowed by Python: {unraisable.exc_value!r} in {unraisable.object!r}", file=sys.stderr)
    else:
        sys.__unraisablehook__(unraisable)


class Journal:
    """What this process knows, line by line: os.write survives a SIGKILL of the writer."""

    def __init__(self, folder: str, name: str) -> None:
        self.folder, self.name = folder, name
        self._file = os.open(f"{folder}/{name}.journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, event: str, **facts: Any) -> None:
        os.write(self._file, json.dumps({"event": event, "at": time.time(), **facts}).encode() + b"\n")


def make_client(redis_url: str, timeout: float = 2.0) -> redis.Redis:
    """A client; ``sentinel://host:port/name`` asks a Sentinel for the master."""
    if is_cluster(redis_url):
        return RigCluster.of(redis_url, timeout)
    parts = urlsplit(redis_url)
    if parts.scheme != "sentinel":
        return redis.from_url(redis_url, socket_timeout=timeout)
    asked = redis.sentinel.Sentinel([(parts.hostname, parts.port)], socket_timeout=timeout)
    return asked.master_for(parts.path.strip("/"), socket_timeout=timeout)


def make_queue(
    redis_url: str,
    provider_url: str,
    *,
    worker: bool,
    lease_seconds: float,
    name: str = "",
    differs: str = "",
    model: str = MODELS[0],
    jobs_url: str = "",
    on_error: Callable[[CallReport | RedisReport], None] | None = None,
) -> EmbeddingBatchQueue:
    """The queue as every process of the rig has it; ``differs`` names the setting in which one is at odds with all."""
    options: dict[str, Any] = {
        "dimensions": 8 if differs == "dimensions" else DIMENSIONS,
        "timeout": (1, 2),
        "deadline": 3,
        "max_response_bytes": MAX_RESPONSE_BYTES,
        "headers": {PROCESS_HEADER: name},
    }
    kind = partial(JobsEmbedder, jobs_url=jobs_url) if jobs_url else OpenAIEmbedder
    embedder = kind("test-key", provider_url, **options)
    return EmbeddingBatchQueue(
        embedder,
        client_of(redis_url, socket_timeout=2.0) if is_cluster(redis_url) else make_client(redis_url),
        model="another" if differs == "model" else model,
        embedding_field="other" if differs == "embedding_field" else "embedding",
        flush_interval=0.2,
        max_batch_size=20,
        api_batch_limit=20,
        lease_seconds=lease_seconds,
        max_deliveries=50,
        worker=worker,
        on_error=on_error,
        **(ON_CLUSTER if is_cluster(redis_url) else {}),
        **(ECONOMY if jobs_url else {}),
        retry=tenacity.Retrying(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_random_exponential(0.05, 0.5)),
    )


class Actor:
    """The process."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._rng = random.Random(options.seed)
        self._stopping = False
        self._forking = False
        self._children = 0
        self._sampled_mono = 0.0
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, self._on_fork)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are reaped by the kernel
        self._journal = Journal(options.folder, options.name)  # only now: who has one may be sent signals
        if options.failpoints:
            failpoints.arm(self._rng, self._report, on_cluster=is_cluster(options.redis), with_jobs=bool(options.jobs))
        if options.log:
            self._report("handlers and filters of logging that raise", kind="log")

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _on_fork(self, *_: object) -> None:
        self._forking = True

    def _report(self, name: str, kind: str = "process") -> None:
        self._journal.write("fault", name=name, kind=kind)

    def _notice_stalls(self) -> None:
        """A machine that lets this process stand still for long may cost it a lease, as SIGSTOP does."""
        last = time.time()
        while True:
            time.sleep(STALL_LOOK_SECONDS)
            now = time.time()
            if now - last > self._options.lease / 3:
                self._journal.write("fault", name="the machine stood still", kind="slow", since=last)
            last = now

    def _tell(self, report: CallReport | RedisReport) -> None:
        """A call that the rig itself has answered too late, for the machine is busy, may be paid and is made again."""
        if isinstance(report, CallReport) and report.cause == "timeout":
            self._report("a call without an answer in time", kind="slow")

    def run(self) -> None:
        options = self._options
        self._journal.write("started", pid=os.getpid(), model=options.model)
        threading.Thread(target=self._notice_stalls, name="stalls", daemon=True).start()
        if options.differs:
            self._journal.write("differs", setting=options.differs)
            self._report(f"a process with its own {options.differs}", kind="settings")
        # Half of the producers drain as well, as a gunicorn worker does; who has other settings always tries to.
        worker = options.role == "worker" or self._rng.random() < 0.5 or bool(options.differs)
        queue = make_queue(
            options.redis,
            options.provider,
            worker=worker,
            lease_seconds=options.lease,
            name=options.name,
            differs=options.differs,
            model=options.model,
            jobs_url=options.jobs,
            on_error=self._tell,
        )
        self._work(queue, options.role == "producer")

    def _work(self, queue: EmbeddingBatchQueue, produces: bool, seconds: float | None = None) -> None:
        """Produce, or only drain, until the queue is to stop; then see whether every future has ended.

        A forked child works for some seconds, and does not start its queue: that starts at its first use.
        """
        producer = handler = None
        end_mono = float("inf") if seconds is None else time.monotonic() + seconds
        try:
            with queue if seconds is None else contextlib.nullcontext():
                producer = self._producer(queue) if produces else None
                handler = self._handle(queue)
                while not self._stopping and time.monotonic() < end_mono:
                    if producer is not None:
                        producer.act()
                    else:
                        time.sleep(0.1)
                    if self._forking:
                        self._forking = False
                        self._fork(queue)
                    self._sample()
            queue.stop()
            self._be_deaf()
        except SystemExit:  # of a handler, which raises it once
            self._be_deaf()
            queue.stop()
        kept = (producer.kept if producer is not None else []) + (handler.kept if handler is not None else [])
        unfinished = sum(not future.done() for future in kept)
        if unfinished:
            self._journal.write("unfinished", count=unfinished)
        self._journal.write("stopped")

    def _be_deaf(self) -> None:
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)

    def _producer(self, queue: EmbeddingBatchQueue) -> Producer:
        direct, options = make_client(self._options.direct, timeout=1.0), self._options
        return Producer(
            queue,
            self._journal,
            self._rng,
            direct,
            startle=options.failpoints,
            large=options.large,
            patient=bool(options.jobs),
        )

    def _handle(self, queue: EmbeddingBatchQueue) -> Handler | None:
        if not self._options.handlers:
            return None
        handler = Handler(queue, self._journal, f"{self._options.seed} {self._journal.name}", self._stop)
        signal.signal(signal.SIGUSR2, handler.user)
        signal.signal(signal.SIGTERM, handler.term)
        return handler

    def _sample(self) -> None:
        if time.monotonic() - self._sampled_mono >= 1.0:
            self._sampled_mono = time.monotonic()
            self._journal.write("size", mb=round(size_mb(), 2))

    def _fork(self, queue: EmbeddingBatchQueue) -> None:
        """A child in the midst of the work of our threads; it goes on with the same queue and keys of its own."""
        self._children += 1
        name = f"{self._journal.name}.{self._children}"
        signals = {signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # the child must not run its parent's handlers
        pid = os.fork()
        if pid:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
            self._journal.write("forked", child=name, pid=pid)
            return
        code = 1
        try:
            signal.signal(signal.SIGTERM, self._stop)
            for number in (signal.SIGUSR1, signal.SIGUSR2):
                signal.signal(number, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
            self._journal = Journal(self._options.folder, name)
            self._journal.write("started", pid=os.getpid())
            self._rng = random.Random(f"{self._options.seed} {name}")
            self._work(queue, True, CHILD_SECONDS)
            code = 0
        except BaseException:
            logging.exception("a forked child failed")
        finally:
            os._exit(code)


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("role", "name", "redis", "direct", "provider", "folder"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--lease", type=float, required=True)
    parser.add_argument("--differs", default="")
    parser.add_argument("--model", default=MODELS[0])
    parser.add_argument("--jobs", default="")
    for trait in ("failpoints", "large", "log", "handlers"):
        parser.add_argument(f"--{trait}", action="store_true")
    options = parser.parse_args()
    sys.unraisablehook = swallow
    logging.basicConfig(level=logging.WARNING)
    for handler in logging.getLogger().handlers:
        handler.addFilter(calm)
    if options.log:
        failpoints.spoil_logs(random.Random(options.seed))
    threading.current_thread().name = options.name
    Actor(options).run()


if __name__ == "__main__":
    main()
