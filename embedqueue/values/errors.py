"""Every error of embedqueue, with who raises it and what the reader can do about it.

All errors carry their facts as attributes and survive pickling (celery and multiprocessing send them around).
"""

from __future__ import annotations

import math
import operator
from typing import Any, Literal

#: Longest wait that is believed, in seconds: beyond a day it is a clock error or a typing error.
LONGEST_WAIT_SECONDS = 86_400.0

Measure = Literal["texts", "tokens", "bytes"]
#: Why a call that failed has no HTTP status: no answer in time, or no connection that held.
Cause = Literal["timeout", "connection"]


def _rebuild(cls: type[Exception], args: tuple[Any, ...], state: dict[str, Any]) -> Exception:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


def twin(error: BaseException) -> BaseException:
    """Another object that says the same, and was never raised; the error itself, where its class makes no such object.

    The class' own ``__init__`` is left out: it may want other arguments than those that it has kept.
    """
    builtin = next(base for base in type(error).__mro__ if base.__module__ == "builtins")
    try:
        made = type(error).__new__(type(error), *error.args)
        builtin.__init__(made, *error.args)  # type: ignore[misc]  # a UnicodeError has its words from there
        made.args = error.args
        made.__dict__.update(error.__dict__)
    except Exception:
        return error
    made.__cause__ = error.__cause__
    made.__suppress_context__ = error.__suppress_context__
    return made


def finite_seconds(value: Any) -> float | None:
    """What an embedder may give as seconds to wait, as a number from 0 to a day; None where it is no number."""
    try:
        seconds = float(value)
    except Exception:  # it may be an object of any kind
        return None
    return None if math.isnan(seconds) else min(max(seconds, 0.0), LONGEST_WAIT_SECONDS)


def _whole(value: Any) -> Any:
    """What an embedder may give as a status, an index or a limit; None where it is no whole number."""
    try:
        return operator.index(value)
    except Exception:
        return None


class EmbedQueueError(Exception):
    """Base of everything that embedqueue raises on its own account."""

    def __reduce__(self) -> Any:
        """Pickle by state, so that keyword-only facts survive the way through another process."""
        return _rebuild, (type(self), self.args, self.__dict__.copy())


class BatchFailed(EmbedQueueError, RuntimeError):
    """The provider could not be used. The item is **still queued** and will be tried again.

    Ends the futures of a call that failed after its in-place tries, and of everybody who waits
    while a probe fails. Nothing is lost: enqueue again to get a new future, or read the hash later.
    """


class ItemRejected(EmbedQueueError):
    """This item will never work as it stands; it is a dead letter now.

    Attributes:
        redis_key: the hash that would have received the vector.
        reason: the provider's words, or ours.

    Look at it with ``dead_letters()``; mend the text and enqueue again, or ``retry_dead()``.
    """

    def __init__(self, redis_key: str, reason: str) -> None:
        super().__init__(f"{redis_key}: {reason}")
        self.redis_key = redis_key
        self.reason = reason


def was_forgotten(redis_key: str) -> ItemRejected:
    """What those get who wait for an item that ``forget()`` has dropped; it is no dead letter."""
    return ItemRejected(redis_key, "forget() has dropped it")


class QueueFull(EmbedQueueError):
    """``enqueue`` refused: more than ``max_pending`` items would wait. Nothing of what was refused was written.

    Attributes:
        max_pending: the limit, in items.
    """

    def __init__(self, max_pending: int) -> None:
        super().__init__(f"more than {max_pending} items would wait (max_pending); nothing of it was written")
        self.max_pending = max_pending


class NotReplicated(EmbedQueueError):
    """Fewer replicas than ``min_replicas`` have said in time that they have what was enqueued.

    It **is queued** all the same, and will be embedded. A failover may lose it, and may not. To call again with the
    same text is safe: while it is unfinished, nothing is queued twice, and the replicas are asked again. (If it has
    been embedded meanwhile it is sent again, but not with ``if_changed``.)

    Attributes:
        min_replicas: how many have to have it.
        replicas: how many said so within ``replica_patience``.
    """

    def __init__(self, min_replicas: int, replicas: int) -> None:
        super().__init__(
            f"{replicas} replicas have it, and min_replicas is {min_replicas}; it is queued, and a failover may lose it"
        )
        self.min_replicas = min_replicas
        self.replicas = replicas


class QueueStopped(EmbedQueueError, RuntimeError):
    """The queue was stopped; start it again, or use another."""


class TransientError(EmbedQueueError):
    """Raised by an embedder: the same call may work later.

    Args:
        message: what happened, without any secret.
        retry_after: seconds that the provider asks to wait, or None; beyond a day, it is a day.
        status: the HTTP status behind it, or None.
        suspect_input: whether one text of the call may be to blame (a 5xx, a 424, a malformed
            answer, a read timeout). The call is then halved once the provider proves healthy.
        cause: "timeout" or "connection", or None where the status says it or neither is known.
    """

    def __init__(
        self,
        message: str = "",
        *,
        retry_after: float | None = None,
        status: int | None = None,
        suspect_input: bool = False,
        cause: Cause | None = None,
    ) -> None:
        super().__init__(message or "the provider failed for now")
        self.retry_after = finite_seconds(retry_after)
        self.status: int | None = _whole(status)
        self.suspect_input = suspect_input
        self.cause = cause


class InputRejected(EmbedQueueError):
    """Raised by an embedder: a text of this call will never work.

    Args:
        message: the provider's words.
        index: position in the call of the text that the provider names, or None if it names none.
        status: the HTTP status behind it, or None.
    """

    def __init__(self, message: str = "", *, index: int | None = None, status: int | None = None) -> None:
        super().__init__(message or "the provider refused an input")
        self.index: int | None = _whole(index)
        self.status: int | None = _whole(status)


class CallTooLarge(InputRejected):
    """Raised by an embedder: the call is too large, and no single text is to blame.

    Args:
        message: the provider's words.
        measure: what was too large: "texts", "tokens" or "bytes".
        limit: the largest value that the provider allows, where it says so.
        status: the HTTP status behind it, or None.
    """

    def __init__(
        self, message: str = "", *, measure: Measure = "bytes", limit: int | None = None, status: int | None = None
    ) -> None:
        super().__init__(message or "the call is too large", status=status)
        self.measure = measure
        self.limit: int | None = _whole(limit)


class OptionError(Exception):
    """An option of a queue or an embedder cannot work; raised as a TypeError or a ValueError.

    Args:
        name: of the option.
        why: what is wrong with it, to be read after the name.
    """

    def __init__(self, name: str, why: str) -> None:
        super().__init__(name, why)
        self.name = name
        self.why = why

    def __str__(self) -> str:
        """The name, and what is wrong."""
        return f"{self.name} {self.why}"


class OptionTypeError(OptionError, TypeError):
    """An option of the wrong type."""


class OptionValueError(OptionError, ValueError):
    """An option out of range."""


class ConfigurationError(EmbedQueueError):
    """Raised by an embedder: key, credit, model, country or option. Nothing works until somebody acts."""
