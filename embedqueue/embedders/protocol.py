"""What the queue asks of an embedder: two names. What else one can tell are small protocols beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: What a limit counts, and for how long.
Measure = Literal["requests", "texts", "tokens"]
Per = Literal["minute", "day"]
#: A text that every healthy provider can embed. It is sent if nothing else shows whether the provider is healthy, or
#: how long its vectors are.
CANARY = "ok"

Vectors: TypeAlias = "NDArray[np.floating[Any]] | Sequence[Sequence[float]]"


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into vectors. Must be thread-safe: ``max_concurrency`` calls run side by side.

    An embedder may also carry ``max_texts``, ``max_tokens`` (what one call may hold; None means no
    known limit), ``task_type`` (what documents are embedded as, where that is the same for all models),
    ``role_of_documents(model)`` (what they are embedded as with a model, or None), ``variant`` (a string of all else
    that decides a vector beside its text and the model, such as the server's address), ``default_model`` (what a queue
    asks for that is given none), ``meet(model)`` (told what a queue will ask for), ``max_text_tokens`` (what one text
    may hold, instead of what is known of the model), ``cuts_long_texts(model)`` (whether longer ones are cut without a
    word: see the option ``on_long``), ``provider`` and ``server`` (whose API it is, and its host and port, for
    observers; see ``CallReport``); the queue uses them where they exist. One that embeds queries otherwise than
    documents is a :class:`QueryEmbedder`, too; what more one can do stands in small protocols beside it.
    """

    @property
    def dimensions(self) -> int | None:
        """Length of every vector that :meth:`embed_batch` returns; None while it has yet to be learned from a call."""

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
class QueryEmbedder(Protocol):
    """Embeds the queries of a search in a role of their own; other embedders embed queries as documents."""

    def embed_queries(self, texts: Sequence[str], model: str) -> Vectors:
        """Embed texts that search, in one call; all else is as with :meth:`Embedder.embed_batch`."""


class QuerySide:
    """An embedder whose ``embed_batch`` embeds queries: in their role, where it has one.

    Args:
        embedder: whose queries.
    """

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    @property
    def dimensions(self) -> int | None:
        """Length of the vectors."""
        return self._embedder.dimensions

    @property
    def provider(self) -> Any:
        """Whose API it is: that of the embedder, or else the name of its class."""
        return getattr(self._embedder, "provider", None) or type(self._embedder).__name__

    @property
    def server(self) -> Any:
        """Host and port that the embedder calls, where it says so."""
        return getattr(self._embedder, "server", None)

    def embed_batch(self, texts: Sequence[str], model: str) -> Vectors:
        """Embed queries; see :class:`Embedder`."""
        if isinstance(self._embedder, QueryEmbedder):
            return self._embedder.embed_queries(texts, model)
        return self._embedder.embed_batch(texts, model)

    def take_tokens(self) -> int | None:
        """What queries were charged, where the embedder says so; see :class:`TokenMeter`."""
        return self._embedder.take_tokens() if isinstance(self._embedder, TokenMeter) else None


def learned_dimensions(embedder: Embedder, model: str) -> int:
    """The length of an embedder's vectors. One that has yet to learn it embeds a short text first.

    Args:
        embedder: any.
        model: as with :meth:`Embedder.embed_batch`, which may raise what it does there.
    """
    if embedder.dimensions is None:
        found = len(embedder.embed_batch([CANARY], model)[0])
        return embedder.dimensions or found
    return embedder.dimensions


def role_of(embedder: Embedder, model: str) -> str | None:
    """What an embedder embeds documents as; it is a part of the space of their vectors. None for no role.

    Args:
        embedder: any.
        model: the model's name as its users write it.
    """
    tell = getattr(embedder, "role_of_documents", None)
    role = tell(model) if callable(tell) else getattr(embedder, "task_type", None)
    return role if isinstance(role, str) else None


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
