"""Help for tests of what uses embedqueue: no network, no real Redis, no thread, no sleep.

In a test of a web view::

    queue = eager_queue(embedder := FakeEmbedder())     # put it where the application keeps its queue
    client.post("/notes", data={"text": "Hello"})
    assert queue.redis.hget("note:1", "embedding") == embedder.bytes_of("Hello")
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import tenacity
from numpy.typing import NDArray
from redis import Redis

from .calls.pool import Pool
from .embedders.protocol import Embedder
from .engine import Engine
from .futures.intake import Pair
from .queue import EmbeddingBatchQueue
from .search.exact import ExactSearch
from .values.locks import Condition, Event
from .values.vectors import FLOAT32, VectorType, to_bytes
from .work.durations import ADOPTIONS

T = TypeVar("T")

#: Seconds that a held call waits for ``release()`` at most: a forgotten one must not hang a test run.
PATIENCE_SECONDS = 30.0
#: What a text's own direction weighs beside each of its words.
OWN_SHARE = 0.05

Rule = Callable[[Sequence[str]], BaseException | None]


class FakeEmbedder:
    """An embedder without a network: the vector of a text depends on the text alone. Thread-safe.

    Texts that share words are near each other, so an application can test its search; no two texts have equal vectors.

    Args:
        dimensions: length of the vectors.
        rule: called with the texts of each call; returns the error that the call raises, or None.

    Attributes:
        calls: the texts of each call, in the order of their arrival.
        texts: every text that was sent, in order.
        arrived: set when a call arrives; ``hold()`` clears it.
    """

    def __init__(self, dimensions: int = 8, rule: Rule | None = None) -> None:
        self.dimensions = dimensions
        self.rule = rule
        self.calls: list[list[str]] = []
        self.texts: list[str] = []
        self.arrived = Event()
        self._changed = Condition()  # guards calls and what follows
        self._errors: list[BaseException] = []
        self._held = False

    def vector_of(self, text: str) -> NDArray[np.float32]:
        """The vector of a text, (dimensions,) float32 of length 1: its words' directions, and a little of its own."""
        total = OWN_SHARE * self._direction(text)
        for word in re.findall(r"\w+", text.lower()):
            total += self._direction(word)
        return (total / np.linalg.norm(total)).astype(FLOAT32)

    def _direction(self, text: str) -> NDArray[np.float64]:
        digest = hashlib.shake_256(text.encode("utf-8", "surrogatepass")).digest(4 * self.dimensions)
        numbers = np.frombuffer(digest, "<i4").astype(np.float64)
        return numbers / np.linalg.norm(numbers)

    def bytes_of(self, text: str, vector_type: VectorType = "float32") -> bytes:
        """The vector of a text as its hash holds it: 4 bytes for each dimension, or 2 with "float16"."""
        return to_bytes(self.vector_of(text), vector_type)

    @property
    def sent(self) -> Counter[str]:
        """How often each text was sent."""
        with self._changed:
            return Counter(self.texts)

    def embed_batch(self, texts: Sequence[str], model: str) -> NDArray[np.float32]:
        """Embed texts; see :class:`embedqueue.Embedder`."""
        with self._changed:
            self.calls.append(list(texts))
            self.texts += texts
            error = self._errors.pop(0) if self._errors else None
            self.arrived.set()
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: not self._held, PATIENCE_SECONDS):
                raise AssertionError(f"a held call was not released within {PATIENCE_SECONDS:.0f} s")
        if error is None and self.rule is not None:
            error = self.rule(texts)
        if error is not None:
            raise error
        return np.stack([self.vector_of(text) for text in texts])

    def fail_with(self, error: BaseException, times: int = 1) -> None:
        """Let the next ``times`` calls raise ``error``; for these, the rule is not asked."""
        with self._changed:
            self._errors += [error] * times

    def hold(self) -> None:
        """Hold calls from now on: they arrive, are recorded, and wait for ``release()``, up to 30 seconds."""
        with self._changed:
            self._held = True
            self.arrived.clear()

    def release(self) -> None:
        """Let the held calls go on, and hold no more."""
        with self._changed:
            self._held = False
            self._changed.notify_all()

    def wait_for_calls(self, count: int, timeout: float = 5.0) -> bool:
        """Wait until calls have arrived.

        Args:
            count: how many, since the embedder was made.
            timeout: seconds to wait at most.

        Returns:
            Whether they have arrived.
        """
        with self._changed:
            return self._changed.wait_for(lambda: len(self.calls) >= count, timeout)


class _NoPool(Pool):
    """Runs each call in the thread that submits it, at once: also one within another, whose observer enqueues."""

    def submit(self, call: Callable[[], None]) -> None:
        with self._lock:
            if self._closed:
                return
            self._unfinished += 1
        self._make(call)
        with self._lock:
            self._unfinished -= 1
            self._moved.notify_all()


class EagerQueue(EmbeddingBatchQueue):
    """A queue without threads: items are embedded, or given up, before ``enqueue`` returns. Callbacks run there, too.

    If the provider fails, futures end with ``BatchFailed`` at once: there is one try, unless a ``retry`` policy is
    given, and no pause. The item waits for the next ``enqueue`` or ``flush()``. No replicas are waited for, and there
    are no limits, no budget and no batch jobs. An eager ``successor`` embeds what goes to the second field.

    Args:
        embedder: usually a :class:`FakeEmbedder`.
        redis: any client; kept as an attribute.
        args: as :class:`embedqueue.EmbeddingBatchQueue` has them, as well as ``options``.
    """

    def __init__(self, embedder: Embedder, redis: Redis, *args: Any, **options: Any) -> None:
        one_try = tenacity.Retrying(stop=tenacity.stop_after_attempt(1), sleep=lambda seconds: None)
        # A fake Redis has no replicas, and a fake embedder no batch jobs.
        fixed = {"worker": True, "min_replicas": 0, "limits": None, "budget": None, "economy": False}
        super().__init__(embedder, redis, *args, **{"retry": one_try, "history": False, **options, **fixed})
        self.redis = redis
        self._warned_not_started = True  # there is no worker to start, so no need to warn
        self._turn = threading.RLock()  # one thread drains at a time; reentrant, for a callback may enqueue
        self._claims = 0  # guarded by the turn

    def flush_now(self) -> None:
        """Drain in this thread."""
        engine, limits, options = self._ready(), self._engine.caller.limits, self._options
        adoptions = 0
        with self._turn:
            self.redis.delete(*engine.store.keys.pauses)  # a test has no time to rest
            while True:
                self._claims += 1
                claim = engine.store.claim(
                    f"{engine.name}{self._claims}:",
                    limits.texts,
                    probe_limit=limits.texts,
                    lease_seconds=options.lease_seconds,
                    max_deliveries=options.max_deliveries,
                    alone=True,
                    unordered=adoptions >= ADOPTIONS,
                    terms=engine.terms(),
                )
                adoptions = adoptions + 1 if claim.status == "adopt" else 0
                if claim.status == "adopt":
                    for _ in engine.worker.put_in_order():
                        pass
                    continue
                if claim.status == "late":  # a test has moved the clock; now we know the time
                    continue
                engine.worker.heed(claim)
                engine.dispatch.begin(claim)  # even without members: the claim may have rejected some
                failed = self.redis.exists(*engine.store.keys.pauses)  # one try, however short its pause
                if failed or not claim.members:
                    break
            if isinstance(self._options.successor, EagerQueue):  # while the model is being changed, texts go to both
                self._options.successor.flush_now()

    def embed_query(self, text: str, timeout: float | None = None) -> list[float]:
        """Embed in this thread; see :meth:`embedqueue.EmbeddingBatchQueue.embed_query`."""
        self.redis.delete(*self._ready().store.keys.pauses)
        return super().embed_query(text, timeout)

    def _put(self, pairs: Sequence[Pair], put: Callable[[], T]) -> T:
        with self._turn:
            done = super()._put(pairs, put)
            self.flush_now()
        return done

    def _start_worker(self) -> None:
        pass

    def _new_engine(self) -> Engine:
        engine = super()._new_engine()
        engine.pool = engine.dispatch.pool = _NoPool(lambda: 1, "", lambda: None)
        engine.waiters.callbacks = None
        engine.intake.tells = False
        if engine.settle.sinking is not None:
            engine.settle.sinking.patient = False
        engine.queries.inline = True
        engine.search = ExactSearch(
            engine.store.client, self._options.embedding_field, namespace=self._options.namespace
        )
        return engine


def eager_queue(embedder: Embedder | None = None, redis: Redis | None = None, **options: Any) -> EagerQueue:
    """A queue for tests: items are finished when ``enqueue`` returns.

    Args:
        embedder: by default a :class:`FakeEmbedder`.
        redis: a client; by default a fake Redis of this queue's own, which needs ``fakeredis[lua]``.
        options: those of :class:`embedqueue.EmbeddingBatchQueue`.
    """
    return EagerQueue(FakeEmbedder() if embedder is None else embedder, redis or fake_redis(), **options)


def fake_redis() -> Redis:
    """A client of a new fake Redis, which nobody else uses.

    Raises:
        ImportError: fakeredis or the Lua that its scripts need is not installed.
    """
    try:
        import fakeredis
        import lupa  # type: ignore[import-not-found,import-untyped,unused-ignore]  # noqa: F401  # it runs scripts
    except ImportError:
        raise ImportError(
            'embedqueue: eager queues need a fake Redis: pip install "fakeredis[lua]", or give a client of a real one'
        ) from None
    client: Redis = fakeredis.FakeRedis(server=fakeredis.FakeServer())
    return client
