"""The side of the web application: puts items in, and counts how many it can."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from benchmarks import corpus
from benchmarks.settings import CALL_TEXTS, Settings

Pairs = Sequence[tuple[str, str]]


class BaseProducer:
    """What a contender's producer can do; a synchronous one defines only ``enqueue`` and ``fill``."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def enqueue(self, redis_key: str, text: str) -> object:
        """Take one item in, durably."""
        raise NotImplementedError

    def fill(self, pairs: Pairs) -> None:
        """Take many items in, in the quickest way that the package documents."""
        raise NotImplementedError

    def fill_many(self, prefix: str, count: int, first: int = 0, chars: int = corpus.TEXT_CHARS) -> float:
        """Fill with items made here; answers the seconds of the filling alone."""
        pairs = corpus.pairs(prefix, count, first, chars)
        begin = time.perf_counter()
        self.fill(pairs)
        return time.perf_counter() - begin

    def burst(self, prefix: str, threads: int, seconds: float) -> float:
        """Items a second that ``threads`` callers get in, one item a call."""
        return in_threads(threads, seconds, lambda name: self.enqueue(prefix + name, corpus.text(prefix + name)))


def in_threads(threads: int, seconds: float, call: Callable[[str], object]) -> float:
    """Calls a second, of ``call(name)`` from so many threads for so long."""
    counts = [0] * threads
    gate = threading.Barrier(threads + 1)
    end = 0.0

    def run(number: int) -> None:
        gate.wait()
        while time.perf_counter() < end:
            call(f"{number}-{counts[number]}")
            counts[number] += 1

    crew = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in crew:
        thread.start()
    begin = time.perf_counter()
    end = begin + seconds
    gate.wait()
    for thread in crew:
        thread.join()
    return sum(counts) / (time.perf_counter() - begin)


def by_call(pairs: Pairs) -> list[tuple[list[str], list[str]]]:
    """Keys and texts, one task per API call: what a user of a task queue writes to get throughput."""
    parts = [pairs[at : at + CALL_TEXTS] for at in range(0, len(pairs), CALL_TEXTS)]
    return [([key for key, _ in part], [text for _, text in part]) for part in parts]
