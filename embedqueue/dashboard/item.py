"""One item: where it stands and why, its way so far, and, of a dead letter, the whole reason."""

from __future__ import annotations

from typing import Any

from flask import abort

from embedqueue.operating.hiding import cut
from embedqueue.operating.shown import explained, form_id, name_of, names, whole_reason
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
    letter = None
    if not key:
        found = store.dead.find(names(queue, [letter_id])[:1])
        if not found:
            abort(404, "There is no such dead letter any more.")
        letter = found[0]
        key = letter.redis_key
    if key:
        _check(queue, key)
        facts, letter = explained(queue, key, show_texts)
    else:
        facts = {"state": "dead", "because": whole_reason(found[0], show_texts), "hash": None}
    if letter is not None:
        facts |= {"because": facts["because"] or "no reason is known", "deliveries": letter.deliveries}
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
        "now": store.figures.now(),
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
