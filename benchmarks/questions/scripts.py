"""10. Microseconds of Redis' own CPU an item: each step of an item beside bare commands that write the same bytes.

It shows what a promise costs where it is kept: in Redis, whose one thread serves everybody. Nothing else runs then.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Sequence

import redis

from benchmarks import corpus
from benchmarks.bench import Bench, Cell, Measured
from benchmarks.figures import Answer
from benchmarks.settings import CALL_TEXTS, FIELD
from embedqueue.store.budget import BudgetTerms
from embedqueue.store.records import Terms, Unless, Within
from embedqueue.store.store import Store
from embedqueue.values.item import decode_member, encode_member
from embedqueue.values.provenance import digest

TITLE = "What each step costs in Redis"
ITEMS = 10_000
_CHUNK = 1000
_NAMESPACE = "scripts"
#: Steps and, where it matters, the dimensions of the vectors.
_STEPS = (
    ("enqueue", None),
    ("enqueue_many", None),
    ("enqueue_many, within", None),
    ("enqueue_many, unchanged", 768),  # if_changed=True, and every hash has its vector: nothing is queued
    ("claim", None),
    ("complete", 768),
    ("complete", 3072),
    ("complete, no provenance", 768),
    ("complete, no provenance", 3072),
)
#: Those of them that bare commands do as well.
_BARE = ("enqueue", "enqueue_many", "complete")
Work = Callable[[], object]


def run(bench: Bench) -> Answer:
    """Ours, and redis-py's ZADD or HSET, where there is something bare to compare."""
    cells = [
        Cell(name, (("step", step), ("dimensions", dimensions)))
        for step, dimensions in _STEPS
        for name in ("zadd", "embedqueue")
        if name == "embedqueue" or step in _BARE
    ]

    def measure(cell: Cell, turn: int) -> Measured:
        client = bench.world.client(cell.contender)
        make = _ours if cell.contender == "embedqueue" else _bare
        work = make(client, cell.situation["step"], cell.situation["dimensions"])
        before = bench.world.redis_cpu_seconds()
        work()
        spent = bench.world.redis_cpu_seconds() - before
        some = next(iter(client.scan_iter("doc:*", _type="HASH")), None)
        memory = {} if some is None else {"bytes_a_hash": float(client.memory_usage(some) or 0)}
        client.flushdb()
        return spent / ITEMS * 1e6, memory

    rows = bench.interleave(TITLE, "us of Redis an item", cells, measure)
    return Answer("scripts", TITLE, rows)


def _members() -> list[tuple[str, bytes]]:
    return [(key, encode_member(key, text)) for key, text in corpus.pairs("doc:", ITEMS)]


def _vectors(dimensions: int) -> list[bytes]:
    """As many as there are items, all different from the first byte to the last."""
    noise = os.urandom(4 * dimensions + ITEMS)
    return [noise[at : at + 4 * dimensions] for at in range(ITEMS)]


def _ours(client: redis.Redis, step: str, dimensions: int | None) -> Work:
    """The scripts, as the queue calls them; what comes before the step is done already."""
    store = Store(client, _NAMESPACE)
    pairs = [(key.encode(), member) for key, member in _members()]
    size = 1 if step == "enqueue" else _CHUNK
    groups = [[part for pair in pairs[at : at + size] for part in pair] for at in range(0, ITEMS, size)]

    within = Within([86_400.0] * _CHUNK, 3600.0) if step.endswith("within") else None

    def enqueue(conditions: Sequence[Unless] = ()) -> None:
        for group, unless in itertools.zip_longest(groups, conditions):
            store.enqueue([group], max_pending=None, tell_at=2 * ITEMS, tell_first=False, unless=unless, within=within)

    if step.startswith("enqueue") and dimensions is None:
        return enqueue
    enqueue()
    if step == "claim":
        return lambda: claims_of(store)
    items = [[decode_member(member) for member in members] for members in claims_of(store)]
    vectors = iter(_vectors(dimensions or 0))
    calls = [[(item.redis_key, item.member, next(vectors), digest(item.text)) for item in call] for call in items]
    provenance = None if step.endswith("no provenance") else f"{FIELD}_of"
    terms = Terms(FIELD, provenance, "m", dimensions, f"m/{dimensions}/-", "create")

    def complete() -> None:
        for call in calls:
            store.complete("w:1/60:", terms, call)

    if not step.startswith("enqueue"):
        return complete
    complete()
    of = [digest(text) for _, text in corpus.pairs("doc:", ITEMS)]
    size_bytes = 4 * (dimensions or 0)
    conditions = [Unless(terms, size_bytes, of[at : at + _CHUNK]) for at in range(0, ITEMS, _CHUNK)]
    return lambda: enqueue(conditions)


def enqueue_all(store: Store) -> None:
    """All items, as many at once as there are of ``enqueue_many``."""
    pairs = [(key.encode(), member) for key, member in _members()]
    for at in range(0, ITEMS, _CHUNK):
        group = [part for pair in pairs[at : at + _CHUNK] for part in pair]
        store.enqueue([group], max_pending=None, tell_at=2 * ITEMS, tell_first=False)


def claims_of(store: Store, budget: BudgetTerms | None = None) -> list[list[bytes]]:
    """Claim all of them, a call's worth at a time."""
    how = {"probe_limit": CALL_TEXTS, "lease_seconds": 60.0, "max_deliveries": 5, "alone": False, "budget": budget}
    owners = [f"w:{number}/60:" for number in range(1, ITEMS // CALL_TEXTS + 1)]
    found = [store.claim(owner, CALL_TEXTS, **how).members for owner in owners]
    assert sum(map(len, found)) == ITEMS
    return found


def _bare(client: redis.Redis, step: str, dimensions: int | None) -> Work:
    """Commands that write the same bytes, one a call or in pipelines as large as ours."""
    members = _members()
    if step == "enqueue":
        return lambda: [client.zadd("pending", {member: time.time()}) for _, member in members]
    size = _CHUNK if step == "enqueue_many" else CALL_TEXTS
    vectors = _vectors(dimensions) if dimensions else []

    def write() -> None:
        for at in range(0, ITEMS, size):
            pipeline = client.pipeline(transaction=False)
            if vectors:
                for (key, _), vector in zip(members[at : at + size], vectors[at : at + size], strict=True):
                    pipeline.hset(key, FIELD, vector)
            else:
                pipeline.zadd("pending", {member: time.time() for _, member in members[at : at + size]})
            pipeline.execute()

    return write
