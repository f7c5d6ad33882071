"""What these tests are made of: an embedder that tells of each call and answers when it may, and looks at Redis."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import redis
import tenacity

from embedqueue import EmbeddingBatchQueue
from embedqueue.demo.localredis import LocalRedis, NoRedis
from embedqueue.testing import FakeEmbedder
from embedqueue.values.provenance import digest
from embedqueue.values.threads import start
from tests.provider import vector_of

#: Longest wait for what must come, in seconds: plenty on a busy machine, and never spent when all is well. It is less
#: than a lease of 60 s: what comes only when one has run out comes too late.
PATIENCE_SECONDS = 45.0
#: Longest that a program may take from its start to its end, in seconds, on a machine where many start at once.
PROGRAM_SECONDS = 100.0
DIMENSIONS = 8
#: A policy that gives up at the first failure.
ONE_TRY = tenacity.Retrying(stop=tenacity.stop_after_attempt(1))


class GatedEmbedder(FakeEmbedder):
    """The fake that users have; its waits fail the test, and ``expected`` and ``stored`` are right of it."""

    def __init__(self, dimensions: int = DIMENSIONS) -> None:
        super().__init__(dimensions)
        self._returns = threading.Semaphore(0)

    def vector_of(self, text: str) -> np.ndarray:
        return vector_of(text, self.dimensions)

    def embed_batch(self, texts: Sequence[str], model: str) -> np.ndarray:
        try:
            return super().embed_batch(texts, model)
        finally:
            self._returns.release()

    def wait_for_calls(self, count: int, timeout: float = PATIENCE_SECONDS) -> bool:
        assert super().wait_for_calls(count, timeout), f"{self.calls} only"
        return True

    def wait_for_return(self) -> None:
        """Wait until a call that nobody has waited for so far is back."""
        assert self._returns.acquire(timeout=PATIENCE_SECONDS), "no call is back"


class Unlearned(GatedEmbedder):
    """One that learns the length of its vectors by its first call."""

    def __init__(self, dimensions: int = DIMENSIONS) -> None:
        super().__init__(dimensions)
        self._length = dimensions
        self.dimensions = None

    def vector_of(self, text: str) -> np.ndarray:
        return vector_of(text, self._length)

    def embed_batch(self, texts: Sequence[str], model: str) -> np.ndarray:
        rows = super().embed_batch(texts, model)
        self.dimensions = self._length
        return rows


class Keyworded(Exception):
    """As those of HTTP libraries, which a provider of credentials raises: ``copy.copy`` cannot make it again."""

    def __init__(self, words: str, *, status: int) -> None:
        super().__init__(f"answered: {words}")
        self.status = status


def stored(text: str, dimensions: int = DIMENSIONS) -> bytes:
    """What the hash of a text must hold."""
    return vector_of(text, dimensions).astype("<f4").tobytes()


def provenance(text: str) -> str:
    """What stands beside the vector of a text, as a worker of another process writes it."""
    return f"gemini-embedding-001/{DIMENSIONS}/- {digest(text)} 1"


def expected(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """What the future of a text must hold."""
    return vector_of(text, dimensions).tolist()


def eventually(condition: Callable[[], object], what: str = "", seconds: float = PATIENCE_SECONDS) -> None:
    """Wait for what only Redis or another process can tell. For all else there are events."""
    deadline_mono = time.monotonic() + seconds
    nap = 0.005  # and longer, up to 50 ms: to look costs this process and Redis more than they have to do meanwhile
    while not condition():
        assert time.monotonic() < deadline_mono, f"never: {what}"
        time.sleep(nap)
        nap = min(0.05, 1.5 * nap)


class Strikes:
    """Has the main thread run a function in a signal's handler, wherever it is. A context manager, for the main thread.

    A signal that comes just before a wait begins is handled when that is over: it is sent until it was heard.

    Args:
        act: called once for each strike; what it raises comes out of what the main thread does.
    """

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act
        self._due = self._done = 0
        self._sending = threading.Lock()

    def strike(self) -> None:
        """Return when the handler has begun."""
        main = threading.main_thread().ident
        assert main is not None
        with self._sending:
            self._due += 1
            eventually(lambda: self._done == self._due or signal.pthread_kill(main, signal.SIGUSR1), "it is struck")

    def _handle(self, *_: object) -> None:
        if self._done < self._due:
            self._done += 1
            self._act()

    def __enter__(self) -> Self:
        self._usual = signal.signal(signal.SIGUSR1, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        with self._sending:
            signal.signal(signal.SIGUSR1, self._usual)


def stand_still(pid: int) -> None:
    """SIGSTOP, and wait until it has come to all threads: to the first one it comes when that has a processor."""
    os.kill(pid, signal.SIGSTOP)
    tasks = Path(f"/proc/{pid}/task")

    def stopped() -> bool:
        with contextlib.suppress(OSError):  # one of them has ended
            return all((task / "stat").read_text().rpartition(") ")[2].startswith("T") for task in tasks.iterdir())
        return False

    if tasks.exists():
        eventually(stopped, f"{pid} stands still")


def start_held(
    make_queue: Callable[..., EmbeddingBatchQueue],
    embedder: GatedEmbedder,
    texts: Sequence[str],
    *,
    calls: int = 1,
    **options: Any,
) -> EmbeddingBatchQueue:
    """A queue of one text a call with as many calls under way, held back, as it may; the other texts wait."""
    queue = make_queue(start=False, api_batch_limit=1, max_concurrency=calls, **options)
    embedder.hold()
    queue.enqueue_many((f"doc:{i}", text) for i, text in enumerate(texts))
    queue.start()
    embedder.wait_for_calls(calls)
    return queue


def local_redis(**kwargs: Any) -> Iterator[LocalRedis]:
    """A Redis server of the test's own, for ``yield from``; where there is no program: skip at home, fail in CI."""
    import pytest  # not in the children that import this file

    try:
        server = LocalRedis(**kwargs).start()
    except NoRedis as missing:
        if os.environ.get("CI"):
            pytest.fail(f"CI must have a Redis: {missing}")
        pytest.skip(str(missing))
    try:
        yield server
    finally:
        server.close()


def in_flight(client: redis.Redis, namespace: str = "embed_queue") -> int:
    return client.zcard(f"{namespace}:inflight")


def renewed(client: redis.Redis, times: int = 4) -> None:
    """The leases of what is in flight are renewed so often, which together takes longer than a lease."""

    def last_end() -> float:
        [(_, end)] = client.zrange("embed_queue:inflight", -1, -1, withscores=True)
        return end

    for _ in range(times):
        before = last_end()
        eventually(lambda before=before: last_end() > before, "the lease is renewed")


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    start(thread)
    return thread


def interrupt_wait(condition: threading.Condition) -> None:
    """Have a signal's handler raise when the next wait has just freed the condition's lock."""
    release = condition._release_save

    def release_and_raise():
        release()
        raise KeyboardInterrupt("of a handler")

    condition._release_save = release_and_raise


def join(*threads: threading.Thread) -> None:
    """All of them end, or the test fails."""
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive(), f"{thread.name} hangs"
