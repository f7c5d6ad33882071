"""What the queue asks of an embedder: two names. What else one can tell are small protocols beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

#: What a limit counts, and for how long.
Measure = Literal["requests", "texts", "tokens"]
Per = Literal["minute", "day"]

Vectors = NDArray[np.floating[Any]] | Sequence[Sequence[float]]


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into vectors. Must be thread-safe: ``max_concurrency`` calls run side by side.

    An embedder may also carry ``max_texts``, ``max_tokens`` (what one call may hold; None means no
    known limit), ``task_type``, ``variant`` (a string of all else that decides a vector beside its text and the
    model, such as the server's address), ``default_model`` (what a queue asks for that is given none) and
    ``meet(model)`` (told what a queue will ask for); the queue uses them where they exist.
    """

    @property
    def dimensions(self) -> int:
        """Length of every vector that :meth:`embed_batch` returns."""

    def embed_batch(self, texts: Sequence[str], model: str) -> Vectors:
        """Embed ``texts`` in one call. It should have a time limit of its own.

        After ten minutes without an answer the queue waits no longer: the texts are sent, and paid for, again.

        Args:
            texts: at least one text, none of them blank.
            model: the model's name as its users write it, with or without the vendor's prefix.

        Returns:
            One vector a text, in order: a float array of shape ``(len(texts), dimensions)`` or a
            list of lists.

        Raises:
            TransientError: the same call may work later.
            InputRejected: a text of the call will never work (``CallTooLarge``: the call, not a text).
            ConfigurationError: nothing will work until somebody acts.
        """


@runtime_checkable
class TellsUsage(Protocol):
    """An embedder that knows what its calls took. Optional: without it, tokens are estimated."""

    def tokens_used(self) -> int | None:
        """The tokens of the last call that this thread has made, as the provider counts them; None if it does not."""


@dataclass(frozen=True, slots=True)
class RateSeen:
    """What a provider has said of one of its limits.

    Attributes:
        measure: what it counts.
        per: for how long.
        limit: how much may be sent in that time.
        left: how much of it is left now; None where that is not said.
    """

    measure: Measure
    per: Per
    limit: int
    left: int | None = None


@runtime_checkable
class TellsRates(Protocol):
    """An embedder that knows what its provider says of limits. Optional; ``limits="auto"`` asks for it."""

    def rates_seen(self) -> Sequence[RateSeen]:
        """What was said with the last answer that this thread has got; empty for nothing."""
