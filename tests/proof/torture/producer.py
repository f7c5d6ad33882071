"""What a producer of the rig does: it owns its keys, enqueues in every way, waits for some, flushes and forgets."""

from __future__ import annotations

import contextlib
import itertools
import random
import time
from collections import deque
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import redis

from embedqueue import EmbeddingBatchQueue, EmbedQueueError
from embedqueue.store.records import named_member
from tests.proof.torture import failpoints
from tests.proof.torture.jobs import PATIENCES
from tests.proof.torture.texts import LONG_CHARS, digest, text_of

if TYPE_CHECKING:
    from tests.proof.torture.actor import Journal

#: Seconds that a producer waits for a future: a call may fail thrice, its worker die, and the next probe fail, too.
RESULT_SECONDS = 40.0
#: How often a producer flushes instead of enqueuing.
FLUSHES = 0.01
#: The same with batch jobs: how often it forgets a key, and how much of the rest may wait for a job.
FORGETS, PATIENT = 0.02, 0.7
#: Futures that a producer keeps without waiting for them; all of them have to end with the queue.
KEPT_FUTURES = 300


class Producer:
    """Owns its keys, so that the order of their texts is known; enqueues in every way, and waits for some."""

    def __init__(
        self,
        queue: EmbeddingBatchQueue,
        journal: Journal,
        rng: random.Random,
        direct: redis.Redis,
        *,
        startle: bool,
        large: bool,
        patient: bool,
    ) -> None:
        self._queue = queue
        self._journal = journal
        self._rng = rng
        self._direct = direct  # past all proxies, to see what a hash holds when its future ends
        self._patient = patient  # whether it has items that may go into batch jobs
        self._startle = startle  # whether callbacks run out of memory
        self._versions = {f"doc:{journal.name}:{i}": 0 for i in range(30)}
        if large:
            self._versions |= {f"doc:{journal.name}:large:{i}": 0 for i in range(2)}
        self._numbers = itertools.count(1)
        self._kept: deque[Future[list[float]]] = deque(maxlen=KEPT_FUTURES)

    def act(self) -> None:
        """Enqueue something, and perhaps wait for it; or flush."""
        try:
            if self._rng.random() < FLUSHES:
                self._flush()
            elif self._patient and self._rng.random() < FORGETS:
                self._forget()
            else:
                self._enqueue()
        except (redis.RedisError, EmbedQueueError) as error:
            self._journal.write("refused", error=type(error).__name__)
            time.sleep(0.05)  # as a client would
        time.sleep(self._rng.uniform(0.0, 0.02))

    def _flush(self) -> None:
        lanes = self._rng.choice(["leave", "wait", "pull"]) if self._patient else "leave"
        self._journal.write("flushes", outsourced=lanes)
        with contextlib.suppress(TimeoutError):
            self._queue.flush(timeout=self._rng.uniform(0.1, 2.0), outsourced=lanes)

    def _forget(self) -> None:
        """Drop a key, wherever its item is; what its hash has then stays there."""
        key = self._rng.choice(sorted(self._versions))
        self._journal.write("forgets", key=key)
        self._queue.forget(key)
        held = {}
        with contextlib.suppress(redis.RedisError):
            held["hash"] = self._stored(key)
        self._journal.write("forgot", key=key, **held)

    def _stored(self, key: str) -> str:
        """The digest of what a hash holds now."""
        self._direct.connection_pool.disconnect()  # a master that was replaced would tell of the past
        return digest(np.frombuffer(self._direct.hget(key, "embedding") or b"", dtype="<f4"))

    def _enqueue(self) -> None:
        keys = self._rng.sample(sorted(self._versions), self._rng.choice([1, 1, 1, 5]))
        for key in keys:
            if self._versions[key] == 0 or self._rng.random() < 0.8:
                self._versions[key] += 1
        named = {key: self._versions[key] for key in keys}
        items = [(key, text_of(key, version)) for key, version in named.items()]
        since = time.time()
        self._journal.write("try", versions=named)
        if any(len(text) > LONG_CHARS for _, text in items):
            self._journal.write("fault", name="a text of 1 MB", kind="large")
        within = self._rng.choice(PATIENCES) if self._patient and self._rng.random() < PATIENT else None
        enqueue, enqueue_many = (
            partial(self._queue.enqueue, within=within),
            partial(self._queue.enqueue_many, within=within),
        )
        futures = [enqueue(*items[0])] if len(items) == 1 else enqueue_many(items)
        self._journal.write("accepted", versions=named, within=within)
        manner = self._rng.random()
        if manner < 0.3:
            self._kept.append(futures[0])
            self._wait(futures[0], keys[0], named[keys[0]], since)
        elif manner < 0.5:
            self._call_back(futures[0], keys[0], named[keys[0]], since)
        elif manner < 0.7:
            self._kept.extend(futures)

    def _wait(self, future: Future[list[float]], key: str, version: int, since: float) -> None:
        number = next(self._numbers)
        self._journal.write("waits", future=number, key=key)
        outcome = _outcome(future, RESULT_SECONDS)
        if "vector" in outcome:
            try:
                outcome["hash"] = self._stored(key)
            except redis.RedisError:
                pass  # it is down at the moment: nobody can say what the hash holds
        elif outcome["error"] == "TimeoutError":
            outcome["state"] = self._state(key)
        self._journal.write("ended", future=number, key=key, version=version, since=since, **outcome)

    def _state(self, key: str) -> str:
        """How an item stands in Redis, for people."""
        client, queue = self._direct, "embed_queue"
        try:
            live = named_member(client.hget(f"{queue}:latest", key) or b"")
            scores = {name: client.zscore(f"{queue}:{name}", live) for name in ("pending", "inflight", "alone")}
            pause, level = client.get(f"{queue}:pause"), client.get(f"{queue}:pause:level")
            claim, now = client.hget(f"{queue}:claims", key), client.time()[0]
            left = client.pttl(f"{queue}:pause")
            return f"live {live[:200]!r} {scores} claim {claim!r} pause {pause!r} {left} ms, level {level!r}, now {now}"
        except redis.RedisError as error:
            return f"Redis does not answer: {error}"

    def _call_back(self, future: Future[list[float]], key: str, version: int, since: float) -> None:
        number = next(self._numbers)
        startle = self._startle and self._rng.random() < 0.1
        self._journal.write("waits", future=number, key=key)

        def done(future: Future[list[float]]) -> None:
            outcome = _outcome(future, 0.0)
            self._journal.write("ended", future=number, key=key, version=version, since=since, **outcome)
            if startle:
                self._journal.write("fault", name="memory error in a callback", kind="process")
                raise failpoints.RigMemoryError("in a callback")

        future.add_done_callback(done)

    @property
    def kept(self) -> list[Future[list[float]]]:
        """Futures that must have ended when the queue has stopped."""
        return list(self._kept)


def _outcome(future: Future[list[float]], timeout: float) -> dict[str, Any]:
    try:
        return {"vector": digest(future.result(timeout=timeout))}
    except (TimeoutError, CancelledError, EmbedQueueError) as error:
        return {"error": type(error).__name__, "words": str(error)[:300]}
