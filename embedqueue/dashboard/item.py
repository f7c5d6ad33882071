"""One item: where it stands and why, its way so far, and, of a dead letter, the whole reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flask import abort

from embedqueue.operating.explain import explain
from embedqueue.operating.hiding import Reader, cut
from embedqueue.operating.shown import WHOLE_BYTES, form_id, name_of, names
from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.store.records import named_member
from embedqueue.values.item import check_pair, decode_member

from . import asked

#: Characters of a text that its page shows.
TEXT_CHARS = 4000
#: States in words and tones.
TONES = {
    "waiting": "busy",
    "in flight": "busy",
    "in a job": "busy",
    "written": "good",
    "dead": "bad",
    "unknown": "warn",
}
#: What is told of an item, in this order: names of explain's facts, and of times.
FACTS = {
    "hash": "In the hash",
    "worker": "Worker",
    "job": "Batch job",
    "deliveries": "Leases that ran out",
    "text_chars": "Characters of the text",
    "too_long": "Too long for the model",
}
WAY = {
    "pending_since": "Enqueued",
    "in_flight_until": "Claimed; the lease ends",
    "died_at": "Given up",
    "written_at": "Vector written",
}


def shown(queue: EmbeddingBatchQueue, show_texts: bool) -> dict[str, Any]:
    """All that is known of the item that the address names.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    key, letter_id = asked.parameter("key"), asked.parameter("letter")
    if not key and not letter_id:
        asked.wrong("The address names no key.")
    store = queue._engine.store
    found = store.dead.find([key] if key else names(queue, [letter_id])[:1])
    letter = found[0] if found else None
    if not key:
        if letter is None:
            abort(404, "There is no such dead letter any more.")
        key = letter.redis_key
    facts: dict[str, Any] = {"state": "dead", "because": "", "hash": None}
    if key:
        _check(queue, key)
        facts = explain(queue, key)
        letter = letter if facts["state"] == "dead" else None
    if letter is not None:
        long = len(letter.member) > WHOLE_BYTES and not show_texts
        reason = Reader(show_texts).reason_of(replace(letter, member=b"") if long else letter)
        facts |= {"because": reason or "no reason is known", "deliveries": letter.deliveries}
        facts |= {"died_at": letter.died_at, "text_chars": len(letter.text)}
    text = None
    if show_texts:
        text = letter.text if letter is not None else _text(queue, key)
    return {
        "key": key,
        "facts": facts,
        "tone": TONES.get(facts["state"], "warn"),
        "details": [(words, facts[name]) for name, words in FACTS.items() if facts.get(name) is not None],
        "way": [(words, facts[name]) for name, words in WAY.items() if facts.get(name) is not None],
        "now": store.status().now,
        "text": cut(text, TEXT_CHARS) if text else None,
        "letter_id": form_id(name_of(letter)) if letter is not None else None,
    }


def _check(queue: EmbeddingBatchQueue, key: str) -> None:
    try:
        check_pair(key, "", queue.options.namespace, None)
    except ValueError as error:
        asked.wrong(f"There can be no such key: {error}.")


def _text(queue: EmbeddingBatchQueue, key: str) -> str:
    store = queue._engine.store
    entry: Any = store.client.hget(store.keys.latest, key)
    return decode_member(named_member(entry)).text if entry else ""
