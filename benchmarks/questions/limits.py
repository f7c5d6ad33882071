"""14. How much of what a provider allows do ``limits`` use, what is refused, and what do they cost a claim?

The provider allows so many calls a second and a second's worth at once, as those do that say so many a minute.
"""

from __future__ import annotations

import time

import redis

from benchmarks.bench import Bench, Cell, Measured
from benchmarks.children import Worker
from benchmarks.figures import Answer, Row, target
from benchmarks.questions.drain import timed, warm
from benchmarks.questions.scripts import ITEMS, claims_of, enqueue_all
from benchmarks.settings import CALL_TEXTS
from embedqueue import Budget, Limits
from embedqueue.store.budget import BudgetTerms
from embedqueue.store.store import Store

TITLE = "Limits"
DIMENSIONS = 768
LATENCY_MS = 100
#: API calls that the provider allows a second, and a minute.
RATE = 10
LIMITS = Limits(requests_per_minute=60 * RATE)
#: Share of calls that may be refused, and of what is allowed that has to be used.
_MOST_REFUSED, _LEAST_USED = 0.02, 0.95
_CALL_TOKENS = 200_000
_HUGE = 10**9  # it is never reached
#: What a claim is under.
_CLAIMS: dict[str, Limits | None] = {
    "nothing": None,
    "one limit": Limits(requests_per_minute=_HUGE),
    "three limits": Limits(requests_per_minute=_HUGE, texts_per_minute=_HUGE, tokens_per_minute=_HUGE),
    "a budget": None,
}


def run(bench: Bench) -> Answer:
    """One worker and three, with and without limits; then the claim alone."""
    answer = Answer("limits", TITLE, [*_drained(bench), *_claimed(bench)])
    for workers in (1, 3):
        ours = answer.find("embedqueue", limits="set", workers=workers)
        assert ours is not None
        answer.targets.append(target(f"limits, workers: {workers}, share of what is allowed", ours.values, _LEAST_USED))
        refused = [ours.more["refused_share"]]
        answer.targets.append(target(f"limits, workers: {workers}, share refused", refused, _MOST_REFUSED, "at most"))
    return answer


def _drained(bench: Bench) -> list[Row]:
    seconds = 6 if bench.quick else 12
    made: dict[str, list[Worker]] = {}
    with bench.producers(["embedqueue"], DIMENSIONS) as producers:
        producer = producers["embedqueue"]
        try:
            for limits in ("none", "set"):
                options = {"limits": LIMITS} if limits == "set" else {}
                settings = bench.world.settings("embedqueue", DIMENSIONS, options=options)
                made[limits] = [Worker("embedqueue", settings) for _ in range(3)]
                for at, worker in enumerate(made[limits]):
                    warm(bench, "embedqueue", producer, worker, f"lw{limits}{at}:")

            def measure(cell: Cell, turn: int) -> Measured:
                limits, count = cell.situation["limits"], cell.situation["workers"]
                prefix, items = f"l{turn}-{limits}-{count}:", RATE * seconds * CALL_TEXTS
                producer.fill_many(prefix, items)
                bench.world.api.control(rate=RATE)
                rate, _ = timed(bench, "embedqueue", made[limits][:count], prefix, items, DIMENSIONS, LATENCY_MS)
                stats = bench.world.api.stats()
                bench.world.api.control(rate=None)
                took = items / rate
                refused = stats["refused"] / (stats["refused"] + stats["calls"])
                return items / CALL_TEXTS / (RATE * (took + 1)), {"refused_share": refused}

            cells = bench.cells(["embedqueue"], workers=(1, 3), limits=("none", "set"))
            return bench.interleave(TITLE, "of what is allowed", cells, measure)
        finally:
            for worker in [worker for workers in made.values() for worker in workers]:
                worker.kill()


def _claimed(bench: Bench) -> list[Row]:
    client = bench.world.client("embedqueue")

    def measure(cell: Cell, turn: int) -> Measured:
        client.flushdb()
        claim = _claimer(client, cell.situation["claim under"])
        before = bench.world.redis_cpu_seconds()
        claim()
        spent = bench.world.redis_cpu_seconds() - before
        client.flushdb()
        return spent / ITEMS * 1e6, {}

    cells = [Cell("embedqueue", (("claim under", under),)) for under in _CLAIMS]
    return bench.interleave(f"{TITLE}, what they cost", "us of Redis an item", cells, measure)


def _claimer(client: redis.Redis, under: str):  # type: ignore[no-untyped-def]
    store = Store(client, "limits", limits=_CLAIMS[under])
    enqueue_all(store)
    if store.buckets is not None:
        store.buckets.fit(CALL_TEXTS, _CALL_TOKENS)
        store.status()  # makes the buckets, which are empty at first
        time.sleep(0.1)
    budget = None
    if under == "a budget":
        budget = BudgetTerms(Budget(usd_per_day=1000.0, usd_per_million_tokens=0.02), 0.02, CALL_TEXTS, _CALL_TOKENS)
    return lambda: claims_of(store, budget)
