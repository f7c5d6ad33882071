"""What the page shows, the same in both applications."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from redis.exceptions import RedisError

from embedqueue import EmbeddingBatchQueue, EmbedQueueError

from .search import nearest, searchable

#: Notes to begin with, for people who want to search before they write.
SAMPLES = (
    "Water the tomatoes before nine, the balcony gets the sun at noon.",
    "The car makes a grinding noise when I brake. Call the garage on Monday.",
    "Grandma's soup: carrots, leek, celery, a bay leaf, two hours on low heat.",
    "Passport runs out in March. Book an appointment at the town hall.",
    "Lisbon in May: the yellow tram, grilled sardines, a room near the river.",
    "The baby slept six hours! First tooth on the lower left.",
    "Dentist says to floss more and come back in half a year.",
    "Guitar: practise the change from F to C, slowly, with the metronome.",
    "The cat is scratching at the new sofa again. Try a sisal post.",
    "Rent goes up by forty from January. Check the contract.",
)

#: Questions about them, each in other words.
QUESTIONS = ("a holiday in Portugal", "noise from the vehicle", "kitten damaged the couch")
#: A note is a hit if it is at least so near, in parts of the nearest one's similarity.
NEAR_ENOUGH = 0.4


def show(
    queue: EmbeddingBatchQueue,
    client: Any,
    keys: Sequence[str],
    read: Callable[[Sequence[str]], Mapping[str, str]],
    question: str,
) -> dict[str, Any]:
    """Everything that the template needs.

    Args:
        queue: whose state is shown.
        client: of the Redis that has the notes' vectors.
        keys: the notes to list.
        read: the texts of notes by key; without those that are gone.
        question: what the visitor looks for, or "".
    """
    ready = searchable(queue, client, keys)
    given_up = {letter.redis_key for letter in queue.dead_letters(max_bytes=0)}  # their keys, without long texts
    states = {key: "searchable" if key in ready else "dead" if key in given_up else "waiting" for key in keys}
    texts = read(keys)
    return {
        "stats": queue.stats(),
        "interval": queue.options.flush_interval,
        "questions": QUESTIONS if set(texts.values()) & set(SAMPLES) and not question else (),
        "notes": [{"key": key, "text": texts[key], "state": states[key]} for key in keys if key in texts],
        "question": question,
        **(_found(queue, read, question) if question else {}),
    }


def _found(
    queue: EmbeddingBatchQueue, read: Callable[[Sequence[str]], Mapping[str, str]], question: str
) -> dict[str, Any]:
    try:
        hits = nearest(queue, question)
    except (EmbedQueueError, RedisError) as error:
        return {"trouble": str(error)}
    hits = [hit for hit in hits if hit is hits[0] or hit.score >= hits[0].score * NEAR_ENOUGH]
    texts = read([hit.redis_key for hit in hits])
    return {"hits": [{"text": texts[hit.redis_key], "score": hit.score} for hit in hits if hit.redis_key in texts]}
