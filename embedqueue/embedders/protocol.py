"""What the queue asks of an embedder. Anything with these two names will do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.floating[Any]] | Sequence[Sequence[float]]


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into vectors. Must be thread-safe: ``max_concurrency`` calls run side by side.

    An embedder may also carry ``max_texts``, ``max_tokens`` (what one call may hold; None means no
    known limit), ``task_type``, ``variant`` (a string of all else that decides a vector beside its text and the
    model, such as the server's address), ``default_model`` (what a queue asks for that is given none),
    ``meet(model)`` (told what a queue will ask for), ``provider`` and ``server`` (whose API it is, and its host and
    port, for observers; see ``CallReport``); the queue uses them where they exist. What more it can do stands in small
    protocols of their own, such as :class:`TokenMeter`.
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
class TokenMeter(Protocol):
    """An embedder that knows what its calls were charged. The queue estimates the tokens of others.

    The usage belongs to the thread that has called ``embed_batch``, for there calls run side by side: whoever overrides
    ``embed_batch``, or wraps the embedder, need not hand it on.
    """

    def take_tokens(self) -> int | None:
        """Tell what calls of this thread were charged since it asked last, and forget it.

        It is asked before each call, and again after it, be it answered or refused.

        Returns:
            Tokens, as the provider has counted them; None where it has not said.
        """
