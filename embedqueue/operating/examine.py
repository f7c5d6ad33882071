"""What an operator wants to know before trusting a queue: what works, what may hurt some day, what does not."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from redis.exceptions import RedisError

from embedqueue.money.cost import usd
from embedqueue.settings.checks import NAME_NODES, check_call, check_economy, check_key, check_redis
from embedqueue.settings.redis_url import of_cluster
from embedqueue.settings.settings import Settings
from embedqueue.store.door import plain_near
from embedqueue.store.durability import dangers
from embedqueue.values.words import shown_url

from .budget import budget_facts
from .canary import compare
from .finding import Finding
from .indexes import examine_indexes
from .standing import NEARLY_FULL, examine_queue

#: The oldest Redis that has every command of the scripts.
OLDEST_REDIS = (6, 2)
#: Seconds that two clocks may be apart without a word.
MOST_DRIFT_SECONDS = 2.0


def examine(settings: Settings, *, call: bool, others: Mapping[str, Settings] | None = None) -> Iterator[Finding]:
    """Look at Redis and the queue in it, any vector index over the embeddings, the key and the model.

    Args:
        settings: of the queue.
        call: make one real call to the provider.
        others: settings of the application's other queues, by name.
    """
    unreachable, misfit = check_redis(settings), check_economy(settings)
    yield from (Finding("problem", "redis", words) for words in unreachable)
    if not unreachable:
        with plain_near(settings.client(), settings.option("namespace")) as client:
            yield from _examine_server(settings, client)
            yield from _examine_clock(client)
            yield from examine_queue(settings)
            yield from examine_indexes(settings, client, others or {})
            if not misfit:
                yield from _examine_limits(settings)
            yield from _examine_budget(settings)
    vectors: list[Any] = []
    problems = misfit or check_key(settings) or (check_call(settings, vectors) if call else [])
    yield from (Finding("problem", "provider", words) for words in problems)
    if vectors and not unreachable and (swapped := compare(settings, vectors[0])):
        yield Finding("warning", "model", swapped)
    if not problems:
        what = "one call was made, and its vector has" if call else "no call was made; a vector is to have"
        yield Finding(
            "ok", "provider", f"{settings.provider}, {settings.model}: {what} {settings.width or 'unknown'} numbers"
        )


def summary(levels: Collection[str]) -> str:
    """What to say at the end where there is no problem.

    Args:
        levels: of the findings.
    """
    return "It works; the warnings say what may hurt." if "warning" in levels else "All is well."


def _examine_server(settings: Settings, client: Any) -> Iterator[Finding]:
    try:
        info = client.info()
    except RedisError as error:
        yield Finding(
            "ok", "redis", f"it answers; how it keeps its data is not known, for INFO is not allowed ({error})"
        )
        return
    version = str(info.get("redis_version", ""))
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    at = shown_url(settings.redis_url)
    if numbers and numbers < OLDEST_REDIS:
        yield Finding("problem", "redis", f"{version} at {at} is too old: take Redis 6.2 or later")
    else:
        yield Finding("ok", "redis", f"{version} at {at}")
    if info.get("cluster_enabled") and not of_cluster(settings.redis_url):
        yield Finding("problem", "redis", f"this is a node of a Redis Cluster: {NAME_NODES}")
    if info.get("role") == "slave":
        yield Finding("problem", "redis", "this is a replica, where nothing can be written: name its master")
    yield from _examine_persistence(info)
    yield from _examine_memory(info)
    yield from _examine_replicas(info, settings.option("min_replicas") or 0)


def _examine_replicas(info: dict[str, Any], least: int) -> Iterator[Finding]:
    if found := next((danger for danger in dangers(info, least) if danger.about == "replication"), None):
        yield Finding("problem", found.about, f"{found.words}: {found.advice}")
    elif least:
        connected = info.get("connected_slaves", "an unknown number of")
        yield Finding("ok", "replication", f"{connected} replicas are connected, and min_replicas is {least}")


def _examine_persistence(info: dict[str, Any]) -> Iterator[Finding]:
    if info.get("loading"):
        yield Finding("warning", "persistence", "Redis is still loading its data: wait for it")
    if found := next((danger for danger in dangers(info) if danger.about == "persistence"), None):
        yield Finding("warning", found.about, f"{found.words}: {found.advice}")
    elif info.get("aof_last_write_status", "ok") != "ok":
        yield Finding("problem", "persistence", "the append-only file cannot be written: is the disk full?")
    else:
        yield Finding("ok", "persistence", "there is an append-only file")
    if info.get("rdb_last_bgsave_status", "ok") != "ok":
        words = "the last snapshot failed, and then Redis may refuse writes: look at its log and its disk"
        yield Finding("warning", "persistence", words)


def _examine_memory(info: dict[str, Any]) -> Iterator[Finding]:
    policy, most, used = info.get("maxmemory_policy", "unknown"), info.get("maxmemory", 0), info.get("used_memory", 0)
    if found := next((danger for danger in dangers(info) if danger.about == "eviction"), None):
        yield Finding("warning", found.about, f"{found.words}: {found.advice}")
    else:
        yield Finding("ok", "eviction", f"maxmemory-policy {policy} leaves the queue's keys alone")
    if most and used > NEARLY_FULL * most:
        words = f"{used:,} of {most:,} bytes are used: beyond maxmemory, nothing can be enqueued"
        yield Finding("warning", "memory", words)


def _examine_clock(client: Any) -> Iterator[Finding]:
    """Redis' clock is what counts; ours is shown to people and signs requests."""
    before = time.time()
    seconds, micros = client.time()
    after = time.time()
    drift = float(seconds) + float(micros) / 1e6 - (before + after) / 2
    if abs(drift) > MOST_DRIFT_SECONDS + (after - before):
        words = (
            f"Redis' clock is {drift:+.1f} s from this machine's: times that are shown differ so much; run NTP on both"
        )
        yield Finding("warning", "clock", words)
    else:
        yield Finding("ok", "clock", f"Redis' clock is {drift:+.3f} s from this machine's")


def _examine_budget(settings: Settings) -> Iterator[Finding]:
    if settings.option("budget") is None:
        return
    facts = budget_facts(settings)
    if facts["parked"]:
        yield Finding("warning", "budget", f"{facts['parked']}; embedqueue budget raise USD lets more be spent today")
        return
    lefts = [f"{usd(facts[f'{name}_left'])} for this {name}" for name in ("day", "month") if facts[f"usd_per_{name}"]]
    yield Finding("ok", "budget", f"there are left: {', '.join(lefts)} (UTC)")


def _examine_limits(settings: Settings) -> Iterator[Finding]:
    if settings.option("limits") is None:
        return
    queue = settings.queue()
    try:
        left = queue.stats().limits
    except RedisError as error:
        words = f"what is left of them cannot be told ({error}): may this Redis user read and write their key?"
        yield Finding("problem", "limits", words)
        return
    finally:
        queue.stop()
    yield from (Finding("ok", "limits", limit.words) for limit in left)
    if not left:
        yield Finding("ok", "limits", "none: the provider has told none of late")
