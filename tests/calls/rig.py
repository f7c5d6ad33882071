"""One call without Redis, threads or real sleep, with a fake embedder; for the tests of the caller and of halving."""

from __future__ import annotations

import math
import threading

import pytest

from embedqueue.calls.batching import Limits
from embedqueue.calls.caller import CANARY, Caller
from embedqueue.calls.concurrency import Concurrency
from embedqueue.calls.failures import Unserved
from embedqueue.calls.halving import Halving
from embedqueue.calls.retry import default_retry
from embedqueue.testing import FakeEmbedder
from embedqueue.values.errors import CallTooLarge, InputRejected

TEXTS = [f"text {i}" for i in range(50)]
LOG2 = math.ceil(math.log2(len(TEXTS)))
OURS = object()


class Rig:
    """A caller with a fake embedder, recorded sleeps, and what came out."""

    def __init__(self, embedder=None, rule=None, *, retry=OURS, limits=Limits(50, 10**6)):
        self.embedder = embedder or FakeEmbedder(rule=rule)
        self.slept: list[float] = []
        self.stopping = threading.Event()
        policy = default_retry().copy(sleep=self.slept.append) if retry is OURS else retry
        self.caller = Caller(self.embedder, "model", policy, limits, Concurrency(4), self.stopping)
        self.delivered: dict[str, bytes] = {}
        self.refused: dict[str, str] = {}

    def serve(self, texts=TEXTS, *, probe=False):
        def deliver(served, vectors):
            assert not self.delivered.keys() & set(served), "delivered twice"
            self.delivered.update(zip(served, vectors, strict=True))

        def refuse(text, reason):
            assert text not in self.delivered
            assert text not in self.refused
            self.refused[text] = reason

        Halving(self.caller, probe=probe, deliver=deliver, refuse=refuse).serve(list(texts))
        return self

    def unserved(self, texts=TEXTS, *, probe=False) -> Unserved:
        with pytest.raises(Unserved) as failure:
            self.serve(texts, probe=probe)
        assert not self.refused, "buried, though the provider is at fault"
        return failure.value

    def check(self, *bad):
        """All texts are served with their own vectors, but for the bad ones, which are refused."""
        assert set(self.refused) == set(bad)
        assert set(self.delivered) == set(TEXTS) - set(bad)
        for text, vector in self.delivered.items():
            assert vector == self.embedder.bytes_of(text)

    @property
    def calls(self):
        return self.embedder.calls

    @property
    def canaries(self):
        return self.calls.count([CANARY])


def poison(*bad, error=InputRejected, **facts):
    """A rule: a call with any of these texts fails."""
    return lambda texts: error("the provider's words", **facts) if set(bad) & set(texts) else None


def limited(most, **facts):
    """A rule: a call of more texts is too large."""
    return lambda texts: CallTooLarge("too large", measure="texts", **facts) if len(texts) > most else None
