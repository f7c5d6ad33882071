"""What it would cost to embed dead letters once more: the question before a retry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from embedqueue.money.cost import tokens_and_dollars
from embedqueue.money.prices import dollars_of, price_by
from embedqueue.queue import EmbeddingBatchQueue
from embedqueue.values.stats import DeadLetter
from embedqueue.values.tokens import tokens_of_bytes

from .control import dead_letters

#: Letters that are looked at; of more, the mean of these counts. So many are asked for by name at a time.
LOOKED_LETTERS, NAMED_LETTERS = 2000, 100


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a retry would send.

    Attributes:
        letters: how many there are.
        tokens: of all of them, estimated.
        words: letters, tokens and dollars in words, as far as the price is known.
        looked: of how many the sizes are known; the others are taken to be as long as these.
    """

    letters: int
    tokens: int
    words: str
    looked: int


def estimate(queue: EmbeddingBatchQueue, names: Sequence[str | bytes] | None, prices: Mapping[str, float]) -> Estimate:
    """What it costs to embed dead letters.

    Args:
        queue: whose letters they are.
        names: of the letters; None for all.
        prices: dollars for a million tokens, by model; they come before those of the queue.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    found = dead_letters(queue) if names is None else _named(queue, names)
    sizes = [letter.size_bytes or len(letter.member) for letter in islice(found, LOOKED_LETTERS)]
    count = queue.stats().dead if names is None else len(names)
    if len(sizes) < LOOKED_LETTERS:
        count = len(sizes)  # some of the names may have no letter any more
    tokens = sum(map(tokens_of_bytes, sizes)) * count // max(1, len(sizes))
    options = queue.options
    price = price_by(replace(options, prices={**(options.prices or {}), **prices}))
    words = tokens_and_dollars(count, tokens, dollars_of(tokens, price), options.model)
    return Estimate(count, tokens, words, len(sizes))


def _named(queue: EmbeddingBatchQueue, names: Sequence[str | bytes]) -> Iterator[DeadLetter]:
    for at in range(0, len(names), NAMED_LETTERS):
        yield from queue._engine.store.dead.find(names[at : at + NAMED_LETTERS])
