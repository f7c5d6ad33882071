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
    ``meet(model)`` (told what a queue will ask for), ``max_text_tokens`` (what one text may hold, instead of what is
    known of the model), ``cuts_long_texts(model)`` (whether longer ones are cut without a word: see the option
    ``on_long``), ``provider`` and ``server`` (whose API it is, and its host and port, for observers; see
    ``CallReport``); the queue uses them where they exist.
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
