"""What an operator wants to know before trusting a queue: what works, what may hurt some day, what does not."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from redis.exceptions import RedisError

from embedqueue.money.cost import usd
from embedqueue.settings.checks import NO_CLUSTER, check_call, check_key, check_redis
from embedqueue.settings.settings import Settings
from embedqueue.store.durability import dangers
from embedqueue.values.words import shown_url

from .budget import budget_facts

#: The oldest Redis that has every command of the scripts.
OLDEST_REDIS = (6, 2)
#: Part of maxmemory from which one should know.
NEARLY_FULL = 0.9
#: Seconds that two clocks may be apart without a word.
MOST_DRIFT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What a look at one thing brought.

    Attributes:
        level: "ok", "warning" (it works, and may hurt some day) or "problem" (it does not work).
        about: the thing.
        words: a sentence; for all but "ok" it says what to do.
    """

    level: Literal["ok", "warning", "problem"]
    about: str
    words: str


def examine(settings: Settings, *, call: bool) -> Iterator[Finding]:
    """Look at Redis, the key and the model, and any vector index over the embeddings.

    Args:
        settings: of the queue.
        call: make one real call to the provider.
    """
    unreachable = check_redis(settings)
    yield from (Finding("problem", "redis", words) for words in unreachable)
    if not unreachable:
        client = settings.client(decode_responses=False, protocol=2)
        try:
            yield from _examine_server(settings, client)
            yield from _examine_clock(client)
            yield from _examine_indexes(settings, client)
            yield from _examine_budget(settings)
        finally:
            client.close()
    problems = check_key(settings) or (check_call(settings) if call else [])
    yield from (Finding("problem", "provider", words) for words in problems)
    if not problems:
        what = "one call was made, and its vector has" if call else "no call was made; a vector is to have"
        yield Finding("ok", "provider", f"{settings.provider}, {settings.model}: {what} {settings.dimensions} numbers")


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
    if info.get("cluster_enabled"):
        yield Finding("problem", "redis", f"this is a node of a Redis Cluster, {NO_CLUSTER}: name a Redis of its own")
    if info.get("role") == "slave":
        yield Finding("problem", "redis", "this is a replica, where nothing can be written: name its master")
    yield from _examine_persistence(info)
    yield from _examine_memory(info)


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


def _examine_indexes(settings: Settings, client: Any) -> Iterator[Finding]:
    """Redis leaves hashes whose vector has other dimensions out of an index without a word to whoever wrote them."""
    try:
        names = client.execute_command("FT._LIST")
    except RedisError:
        return  # no search module, or not for this user
    for name in names:
        try:
            reply = client.execute_command("FT.INFO", name)
        except RedisError:
            continue  # dropped meanwhile
        facts = dict(zip(reply[::2], reply[1::2], strict=False))
        for attribute in facts.get(b"attributes", []):
            known = {str(_text(key)).lower(): _text(value) for key, value in _pairs(attribute)}
            if known.get("identifier") == settings.option("embedding_field") and known.get("type") == "VECTOR":
                yield _examine_index(settings, _text(name), known, facts)


def _examine_index(settings: Settings, name: str, known: dict[str, Any], facts: dict[bytes, Any]) -> Finding:
    dimensions, kind = int(known.get("dim", 0)), known.get("data_type", "")
    failures = int(facts.get(b"hash_indexing_failures", 0))
    if dimensions != settings.dimensions or kind != "FLOAT32":
        words = (
            f"{name} holds vectors of {dimensions} {kind} numbers, the model gives {settings.dimensions} of FLOAT32: "
            f"drop it (FT.DROPINDEX {name}) and create it anew"
        )
        return Finding("problem", "index", words)
    if failures:
        words = f"{name} could not index {failures} hashes: backfill those whose vector has another length"
        return Finding("warning", "index", words)
    return Finding("ok", "index", f"{name}: {dimensions} dimensions, {kind}, {_text(facts.get(b'num_docs'))} hashes")


def _text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _pairs(attribute: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Names and values; a word without a value, such as UNF, may stand at the end."""
    return zip(attribute[::2], attribute[1::2], strict=False)
