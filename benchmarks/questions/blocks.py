"""11. For how long each script holds Redis up, with a million items waiting, 100,000 in flight and 100,000 dead.

While a script runs, Redis serves nobody. The times are Redis' own, from its slow log: the longest of some runs.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import redis

from benchmarks.bench import Bench, Cell, Measured
from benchmarks.figures import Answer, target
from benchmarks.settings import FIELD
from embedqueue.store.jobs import MOVE_BYTES, MOVE_ITEMS, Job
from embedqueue.store.records import Asked, Terms
from embedqueue.store.store import Store
from embedqueue.values.item import decode_member, encode_member
from embedqueue.values.provenance import digest

TITLE = "For how long a script holds Redis up"
_NAMESPACE = "blocks"
_PART = 10_000
_DIMENSIONS = 3072
#: Such that all that waits may wait for a batch job: seconds before it is due, and the base of scores.
_JOBS_FOR = (-1e10, 0.0)
_LIMITS = {"probe_limit": 50, "lease_seconds": 3600.0, "max_deliveries": 5}
_TERMS = Terms(FIELD, f"{FIELD}_of", "model", _DIMENSIONS, f"model/{_DIMENSIONS}/-", "create")

Step = tuple[str, Callable[[], object]]


def run(bench: Bench) -> Answer:
    """Each step at its full size; all of them are ours."""
    waiting, in_flight, dead = (100_000, 10_000, 10_000) if bench.quick else (1_000_000, 100_000, 100_000)
    client = bench.world.client("embedqueue")
    steps = dict(_steps(client, waiting, in_flight, dead))
    cells = [Cell("embedqueue", (("step", name),)) for name in steps]

    def measure(cell: Cell, turn: int) -> Measured:
        client.config_resetstat()
        client.execute_command("SLOWLOG", "RESET")
        steps[cell.situation["step"]]()
        entries: Any = client.slowlog_get(1000)
        longest = max((entry["duration"] for entry in entries if b"SLOWLOG" not in entry["command"]), default=0)
        return longest / 1000, {}

    client.config_set("slowlog-log-slower-than", 0)
    client.config_set("slowlog-max-len", 2000)
    try:
        rows = bench.interleave(TITLE, "ms of Redis, the longest command", cells, measure)
    finally:
        client.config_set("slowlog-log-slower-than", 10_000)
        client.flushdb()
    answer = Answer("blocks", TITLE, rows)
    for row in rows:
        step = str(row.at["step"])
        answer.targets.append(target(step, row.values, 60 if "enqueue_many" in step else 10, "at most"))
    return answer


def _pairs(prefix: str, count: int) -> Iterator[list[bytes]]:
    """Parts of redis_keys and members, as an enqueue takes them."""
    keys = (f"{prefix}:{number:08d}" for number in range(count))
    while part := list(itertools.islice(keys, _PART)):
        members = [encode_member(key, f"a text of a usual length, as there are very many: {key}") for key in part]
        yield [one for key, member in zip(part, members, strict=True) for one in (key.encode(), member)]


def _fill(store: Store, client: redis.Redis, waiting: int, in_flight: int, dead: int, owners: Iterator[str]) -> None:
    for count, prefix in ((dead, "d"), (in_flight, "f"), (waiting, "p")):
        for part in _pairs(prefix, count):
            store.enqueue([part], max_pending=None, tell_at=50, tell_first=False)
        while prefix != "p" and store.pending_count():
            claim = store.claim(next(owners), 1000, alone=False, **_LIMITS)
            if prefix == "d":
                reason = "the provider refused it"
                store.reject(claim.owner, [(claim.owner, member, reason, False) for member in claim.members])


def _steps(client: redis.Redis, waiting: int, in_flight: int, dead: int) -> Iterator[Step]:
    store = Store(client, _NAMESPACE)
    owners = (f"worker:{number}/3600.000:" for number in itertools.count(1))
    _fill(store, client, waiting, in_flight, dead, owners)
    keys = store.keys
    fresh = itertools.count()
    some = [f"p:{number:08d}" for number in range(waiting // 2, waiting)]
    random.Random(1).shuffle(some)

    def claim(limit: int, urgent: Sequence[str] = (), alone: bool = False) -> Any:
        return store.claim(next(owners), limit, alone=alone, urgent=urgent, terms=_TERMS, **_LIMITS)

    def given(claimed: Any) -> Any:  # put back what a step has claimed
        store.release([(claimed.owner, member) for member in claimed.members])

    def enqueue(count: int, limit: int | None = None) -> None:
        for part in _pairs(f"x{next(fresh)}", count):
            store.enqueue([part], max_pending=limit, tell_at=50, tell_first=False)

    def complete(count: int) -> None:
        claimed, noise = claim(count), np.random.default_rng(1).random(_DIMENSIONS, dtype=np.float32)
        items = [decode_member(member) for member in claimed.members]
        lines = [
            (item.redis_key, item.member, (noise * number).tobytes(), digest(item.text))
            for number, item in enumerate(items)
        ]
        store.complete(claimed.owner, _TERMS, lines)

    def fail() -> None:
        claimed = claim(1000)
        held = [(claimed.owner, member) for member in claimed.members]
        store.fail(claimed.owner, held, first_seconds=1, most_seconds=1, least_seconds=0, reason="down")
        client.delete(*keys.pauses)

    def suspects() -> None:
        """Ten thousand leases run out for the fourth time, and calls are under way."""
        claimed = [claim(1000) for _ in range(10)]
        for one in claimed:
            for member in one.members:
                client.hset(keys.claims, decode_member(member).redis_key, f"1 3 {one.owner}")
                client.zadd(keys.inflight, {member: 1.0})
        while claim(50).ran_out:
            pass

    def stray() -> None:
        client.zadd(keys.pending, {encode_member(f"s:{next(fresh)}", "of another program"): 1.7e9})
        while claim(1).status == "adopt":
            store.adoption.run(_TERMS)

    yield "enqueue of 1", lambda: enqueue(1)
    yield "enqueue_many of 10,000", lambda: enqueue(10_000)
    yield "enqueue_many of 10,000 with max_pending", lambda: enqueue(10_000, 10**9)
    yield "status", store.status
    yield "status for a flush", lambda: (store.status("flush"), store.end_flush("flush"))
    yield "list of 50 items in the middle", lambda: store.items.page("pending", waiting // 2, 50)
    yield "one step of a search for a key", lambda: store.items.find("no such key")
    yield "claim of 1000, and release", lambda: given(claim(1000))
    yield "claim of 200 with 1000 who wait", lambda: given(claim(200, some[:1000]))
    yield "complete of 80 vectors", lambda: complete(80)
    yield "extend of 1000 leases", lambda: store.extend("worker:", 60, client.zrange(keys.inflight, 0, 999))
    yield "failure of a call of 1000", fail
    yield "release of all of a claim", lambda: store.release_all("worker:1/3600.000:")
    yield "release of all of a worker", lambda: store.release_all("nobody:")
    yield "look at 200 that wait", lambda: store.look([Asked(key) for key in some[:200]], _TERMS)
    yield "look at 200 unknown", lambda: store.look([Asked(f"u:{i}") for i in range(200)], _TERMS)
    yield "names of all dead letters", store.dead.names
    yield "a page of dead letters", lambda: store.dead.page(200, dead // 2)
    yield (
        "retry of 1000 dead letters, in parts",
        lambda: store.dead.retry([f"d:{next(fresh):08d}" for _ in range(1000)]),
    )
    yield "10,000 leases that ran out, on their last delivery then", suspects
    yield "a stray behind a million items", stray
    yield from _job_steps(client, store)


def _job_steps(client: redis.Redis, store: Store) -> Iterator[Step]:
    """Items go into batch jobs and come out of them: short ones, and as long as a script moves."""
    jobs, numbers = Store(client, _NAMESPACE, jobs_for=_JOBS_FOR).jobs, itertools.count()
    how = {"least": 1, "most": MOVE_ITEMS, "most_bytes": MOVE_BYTES, "max_deliveries": 5}
    long = [encode_member(f"l:{number}", "word " * 800) for number in range(MOVE_ITEMS)]

    def move() -> str:
        name = f"j{next(numbers)}"
        jobs.lead("boss", 3600)
        found = jobs.outsource("boss", Job(name), _TERMS, **how)
        assert len(found.members) > MOVE_ITEMS // 2
        return name

    def to_the_front() -> None:
        pairs = [part for number, member in enumerate(long) for part in (f"l:{number}".encode(), member)]
        store.enqueue([pairs], max_pending=None, tell_at=50, tell_first=False)
        client.zadd(store.keys.pending, dict.fromkeys(long, 1.0))

    def move_long() -> str:
        to_the_front()
        return move()

    def back(name: str) -> None:
        assert jobs.give_back(name, list(jobs.lines(name)), again=True)

    def pull(due_within: float | str) -> None:
        assert jobs.scripts.call("pull", (), jobs.spec, due_within, MOVE_ITEMS, MOVE_BYTES)

    def keep() -> None:
        jobs.lead("boss", 3600)
        assert jobs.keep("boss", Job("kept"), [(f"k:{number}", digest(str(number))) for number in range(2000)])

    def look_after() -> None:
        for number in range(70):
            jobs.keep("boss", Job(f"kept{number}", note="x" * 300))
        jobs.lead("boss", 3600)

    yield "250 items go into a batch job, and back", lambda: back(move())
    yield "250 items of 4 kB go into a batch job, and back", lambda: back(move_long())
    yield "250 items in a batch job are nearly due", lambda: (move(), pull(1e9))
    yield "250 items of 4 kB in a batch job are nearly due", lambda: (move_long(), pull(1e9))
    yield "250 items that wait for a batch job are pulled", lambda: pull("all")
    yield "2,000 lines of a batch job are kept", keep
    yield "the lease of 70 batch jobs is renewed", look_after
