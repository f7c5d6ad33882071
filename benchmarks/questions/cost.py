"""6. Texts sent to the provider per text given, when texts repeat and keys are written twice in the window."""

from __future__ import annotations

import random

from benchmarks import corpus
from benchmarks.bench import Bench, Cell, Measured
from benchmarks.figures import Answer, Row, Target
from benchmarks.questions.drain import warm
from benchmarks.settings import FIELD

TITLE = "Cost: texts sent per text given"
KEYS = 2_000
REPEATED = 0.3
WRITTEN_TWICE = 0.1
DIMENSIONS = 768
#: embedqueue with its cache, shown as a contender of its own.
CACHED = "embedqueue, cache on"


def workload(prefix: str) -> list[tuple[str, str]]:
    """Pairs as they are given: 30% of the texts stood before, 10% of the keys come again with a new text."""
    chance = random.Random(3)
    texts = [corpus.text(f"{prefix}text-{i}") for i in range(KEYS)]
    for i in range(1, KEYS):
        if chance.random() < REPEATED:
            texts[i] = texts[chance.randrange(i)]
    first = [(f"{prefix}{i}", text) for i, text in enumerate(texts)]
    again = chance.sample(range(KEYS), int(KEYS * WRITTEN_TWICE))
    return first + [(f"{prefix}{i}", corpus.text(f"{prefix}new-{i}")) for i in again]


def run(bench: Bench) -> Answer:
    """The whole window stands before the worker begins. Huey stands for all task queues: none looks at the texts."""
    answer = Answer("cost", TITLE)
    names = bench.present("embedqueue", "asyncio", "huey")
    answer.rows += _measure(bench, names, {})
    cached = _measure(bench, ["embedqueue"], {"cache_ttl": 600.0, "namespace": "cached"})
    for row in cached:
        row.contender = CACHED
    answer.rows += cached
    for row in answer.rows:
        where = f"cost, {row.contender}, {row.at['window']} window"
        if row.contender == "embedqueue":
            answer.targets.append(_exact(f"{where}: texts sent per item", row.more["sent_per_item"], 1.0))
        if row.contender == CACHED:
            answer.targets.append(_exact(f"{where}: texts sent per distinct text", row.more["sent_per_distinct"], 1.0))
        if row.contender in ("embedqueue", CACHED):
            answer.targets.append(_exact(f"{where}: equal texts in one call", row.more["repeats_in_call"], 0.0))
    return answer


def _exact(what: str, value: float, wanted: float) -> Target:
    return Target(what, value, value, value, wanted, "at most")


def _measure(bench: Bench, names: list[str], options: dict[str, object]) -> list[Row]:
    world = bench.world
    settings = {name: world.settings(name, DIMENSIONS, options=options) for name in names}
    with bench.producers(names, DIMENSIONS, options=options) as producers, bench.workers(settings) as workers:

        def measure(cell: Cell, turn: int) -> Measured:
            name, window = cell.contender, cell.situation["window"]
            warm(bench, name, producers[name], workers[name], f"cw{turn}-{window}:")
            prefix = f"c{turn}:"
            pairs = workload(prefix)
            if window == "second":  # the same texts under other keys, after the first window
                pairs = [(key.replace(":", ":again-", 1), text) for key, text in pairs]
                prefix = f"{prefix}again-"
            world.api.control(latency=0.02, reset=True)
            producers[name].fill(pairs)
            workers[name].thaw()
            if world.wait(name, prefix, KEYS, timeout=60) < KEYS:
                raise AssertionError(f"{name} left items without vectors")
            workers[name].freeze()
            stats = world.api.stats()
            live = dict(pairs)
            more = {
                "sent_per_item": stats["texts"] / len(live),
                "sent_per_distinct": stats["texts"] / len(set(live.values())),
                "repeats_in_call": stats["repeats_in_call"],
                "stale": _stale(bench, name, live),
            }
            return stats["texts"] / len(pairs), more

        cells = bench.cells(names, window=("first", "second"))
        rows = bench.interleave(f"{TITLE}{', cached' if options else ''}", "texts sent per text given", cells, measure)
    for name in names:
        bench.empty(name)
    return rows


def _stale(bench: Bench, name: str, live: dict[str, str]) -> int:
    """Hashes that do not carry the vector of their key's newest text."""
    pipeline = bench.world.client(name).pipeline(transaction=False)
    for key in live:
        pipeline.hget(key, FIELD)
    wanted = [corpus.vector(text.encode(), DIMENSIONS) for text in live.values()]
    wrong = sum(vector != right for vector, right in zip(pipeline.execute(), wanted, strict=True))
    if name == "embedqueue" and wrong:
        raise AssertionError(f"{wrong} hashes carry the vector of an older text")
    return int(wrong)
