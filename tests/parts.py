"""What these tests are made of: an embedder that tells of each call and answers when it may, and looks at Redis."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import redis
import tenacity

from embedqueue import EmbeddingBatchQueue
from tests.provider import vector_of

#: Longest wait for what must come, in seconds: plenty on a busy machine, and never spent when all is well.
PATIENCE_SECONDS = 15.0
DIMENSIONS = 8
#: A policy that gives up at the first failure.
ONE_TRY = tenacity.Retrying(stop=tenacity.stop_after_attempt(1))


class GatedEmbedder:
    """An embedder in this process. ``hold()`` keeps calls back until ``release()``; what ``fault`` gives is raised."""

    def __init__(self, dimensions: int = DIMENSIONS) -> None:
        self.dimensions = dimensions
        self.fault: Callable[[Sequence[str]], BaseException | None] | None = None
        self._changed = threading.Condition()  # guards what follows
        self._held = False
        self.calls: list[list[str]] = []
        self.returned = 0

    def embed_batch(self, texts: Sequence[str], model: str) -> np.ndarray:
        with self._changed:
            self.calls.append(list(texts))
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._held, 2 * PATIENCE_SECONDS)
            self.returned += 1
            self._changed.notify_all()
        error = self.fault and self.fault(texts)
        if error:
            raise error
        return np.stack([vector_of(text, self.dimensions) for text in texts])

    def hold(self) -> None:
        self._held = True

    def release(self) -> None:
        with self._changed:
            self._held = False
            self._changed.notify_all()

    def wait_for_calls(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.calls) >= count, PATIENCE_SECONDS), f"{self.calls} only"

    def wait_for_returns(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.returned >= count, PATIENCE_SECONDS)

    @property
    def sent(self) -> Counter[str]:
        return Counter(text for texts in self.calls for text in texts)


def stored(text: str, dimensions: int = DIMENSIONS) -> bytes:
    """What the hash of a text must hold."""
    return vector_of(text, dimensions).astype("<f4").tobytes()


def expected(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """What the future of a text must hold."""
    return vector_of(text, dimensions).tolist()


def eventually(condition: Callable[[], object], what: str = "") -> None:
    """Wait for what only Redis can tell. For all else there are events."""
    deadline_mono = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline_mono, f"never: {what}"
        time.sleep(0.005)


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


def in_flight(client: redis.Redis, namespace: str = "embed_queue") -> int:
    return client.zcard(f"{namespace}:inflight")


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def join(*threads: threading.Thread) -> None:
    """All of them end, or the test fails."""
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive(), f"{thread.name} hangs"
