"""How a call can fail, beside the errors that embedders raise. None of these reaches a user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from embedqueue.values.errors import BatchFailed, ConfigurationError, TransientError, finite_seconds
from embedqueue.values.vectors import VectorType
from embedqueue.values.words import said_by


class Unserved(Exception):
    """The provider is at fault, and not a text: what is left of the call is released.

    Its words quote no text of the call, for they go to the log, to Redis, to the dashboard and to who waits elsewhere.

    Args:
        cause: what the embedder raised.
        texts: of the call.

    Attributes:
        cause: as given.
        reason: of the pause that follows.
        retry_after: seconds that the provider asks us to wait; 0 if it does not.
        account: whether nothing works until somebody acts (key, credit, model).
    """

    def __init__(self, cause: BaseException, texts: Sequence[str]) -> None:
        super().__init__(said_by(cause, texts))
        self.cause = cause
        self.reason = f"the provider failed: {self}"
        self.retry_after = finite_seconds(getattr(cause, "retry_after", None)) or 0.0
        self.account = isinstance(cause, ConfigurationError)

    def for_waiter(self) -> BatchFailed:
        """The error with which the futures of the call end."""
        return BatchFailed(f"the call failed and its items are still queued: {self}")


class Unforeseen(Unserved):
    """What no code of ours should raise: what is left of the call is released all the same.

    Args:
        cause: what was raised.
        texts: of the call.
    """

    def __init__(self, cause: BaseException, texts: Sequence[str]) -> None:
        super().__init__(cause, texts)
        kind = type(cause).__name__
        self.args = (str(self) if str(self) == kind else f"{kind}: {self}",)
        self.reason = f"a call failed in a way that it should not: {self}"
        self.retry_after = 0.0


class Stopping(Exception):
    """The queue stops. Leave everything as it is: whoever stops it releases all items."""


class OverLimits(TransientError):
    """Our own limits let nothing be sent for long: nobody was asked.

    Args:
        seconds: for how long.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the limits let nothing more be sent for {seconds:.0f} s", retry_after=seconds)


class Faulty(TransientError):
    """No row of an answer can be written.

    Args:
        vector_type: as which it cannot.
    """

    def __init__(self, vector_type: VectorType = "float32") -> None:
        super().__init__(f"the vector holds NaN or infinity, or is all zeros, as {vector_type}", suspect_input=True)


class Partial(Exception):
    """Some rows of an answer cannot be written; the others can.

    Attributes:
        rows: all of them, of shape (texts, dimensions), of the type that is written.
        faulty: indices of those that cannot, in order.
    """

    def __init__(self, rows: Any, faulty: list[int]) -> None:
        super().__init__(f"{len(faulty)} of {len(rows)} vectors hold NaN or infinity, or are all zeros")
        self.rows = rows
        self.faulty = faulty
