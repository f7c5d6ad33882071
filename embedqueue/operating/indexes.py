"""Whether the vector indexes over a queue's embeddings fit its vectors: Redis leaves out what does not fit silently."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from redis.exceptions import RedisError

from embedqueue.settings.settings import Settings
from embedqueue.values.provenance import model_name
from embedqueue.values.vectors import index_type

from .finding import Finding


def examine_indexes(settings: Settings, client: Any, others: Mapping[str, Settings]) -> Iterator[Finding]:
    """Look at each index that has the queue's embedding field. What hashes use is never advised to be dropped.

    Args:
        settings: of the queue.
        client: of its Redis, with RESP2's flat lists of bytes for answers.
        others: settings of the application's other queues by name, whose indexes are theirs.
    """
    try:
        names = client.execute_command("FT._LIST")
    except RedisError:
        return  # no search module, or not for this user
    database = client.connection_pool.connection_kwargs.get("db", 0)
    if database:
        words = f"hashes of database {database} are in no index, for Redis indexes database 0 alone: to search, set"
        yield Finding("warning", "index", f"{words} {settings.spelled('REDIS_URL')} to database 0")
        return
    for name in names:
        try:
            reply = client.execute_command("FT.INFO", name)
        except RedisError:
            continue  # dropped meanwhile
        facts = dict(zip(reply[::2], reply[1::2], strict=False))
        for known in _attributes(facts.get(b"attributes", [])):
            if known.get("identifier") == settings.option("embedding_field") and known.get("type") == "VECTOR":
                yield _judged(settings, client, others, _text(name), known, facts)


def _judged(
    settings: Settings,
    client: Any,
    others: Mapping[str, Settings],
    name: str,
    known: dict[str, Any],
    facts: dict[bytes, Any],
) -> Finding:
    dimensions, kind, ours = int(known.get("dim", 0)), known.get("data_type", ""), settings.width
    ours = ours or dimensions  # not learned yet
    written = index_type(settings.option("vector_type"))
    hashes, left_out = int(facts.get(b"num_docs", 0)), int(facts.get(b"hash_indexing_failures", 0))
    told = f"{name}: {dimensions} dimensions, {kind}, {hashes} hashes"
    if (dimensions, kind) == (ours, written):
        if left_out:
            words = f"{name} could not index {left_out} hashes: backfill those whose vector has another length"
            return Finding("warning", "index", words)
        return Finding("ok", "index", told)
    for other, theirs in others.items():
        fits = (theirs.width, index_type(theirs.option("vector_type"))) == (dimensions, kind)
        if fits and theirs.option("embedding_field") == settings.option("embedding_field"):
            return Finding("ok", "index", f"{told}; it is of the queue {other}")
    holds = f"{name} holds vectors of {dimensions} {kind} numbers, these settings give {ours} of {written}"
    if hashes or float(facts.get(b"percent_indexed", 1)) < 1:
        model = _model_of(settings, client, name)
        if model not in (None, model_name(settings.model)) and not left_out:
            return Finding("ok", "index", f"{told}; its hashes have vectors of another model, {model}")
        words = (
            f"create another beside it (embedqueue index create --name ...), and keep it while {hashes} hashes use it"
        )
        return Finding("warning", "index", f"{holds}: if this queue's are to be found, {words}")
    drop = f"drop it (FT.DROPINDEX {name}) and create it anew"
    if left_out:
        return Finding("problem", "index", f"{holds}: {left_out} hashes were left out, and none is in it: {drop}")
    return Finding("warning", "index", f"{holds}: no hash is in it; if it is meant for this queue, {drop}")


def _model_of(settings: Settings, client: Any, name: str) -> str | None:
    """The model that a vector in an index is of, as its hash says; None where that is not known."""
    field = settings.option("provenance_field")
    if field is None:
        return None
    try:
        reply = client.execute_command("FT.SEARCH", name, "*", "LIMIT", 0, 1, "RETURN", 1, field)
    except RedisError:
        return None
    values = reply[2] if len(reply) > 2 else []
    return str(_text(values[1])).partition(" ")[0].rsplit("/", 2)[0] if len(values) > 1 else None


def _attributes(found: Iterable[list[Any]]) -> Iterator[dict[str, Any]]:
    """Names and values of each attribute; a word without a value, such as UNF, may stand at the end."""
    for attribute in found:
        pairs = zip(attribute[::2], attribute[1::2], strict=False)
        yield {str(_text(key)).lower(): _text(value) for key, value in pairs}


def _text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
