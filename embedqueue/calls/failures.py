"""How a call can fail, beside the errors that embedders raise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from embedqueue.values.errors import BatchFailed, ConfigurationError, TransientError
from embedqueue.values.words import said_by


class Unserved(Exception):
    """The provider, not a text, is at fault: the rest of the call goes back to pending.

    What it says goes to the log, Redis, the dashboard and the waiters of others: no text of the call is in it.

    Args:
        cause: what the embedder raised.
        texts: of the call.

    Attributes:
        retry_after: seconds that the provider asks for, or 0.
        account: somebody has to act (key, credit, model) before anything works.
    """

    def __init__(self, cause: BaseException, texts: Sequence[str]) -> None:
        super().__init__(said_by(cause, texts))
        self.retry_after = getattr(cause, "retry_after", None) or 0.0
        self.account = isinstance(cause, ConfigurationError)

    def for_waiter(self) -> BatchFailed:
        """What the futures of the call get."""
        return BatchFailed(f"the call failed and its items are still queued: {self}")


class Stopping(Exception):
    """The queue stops: leave everything as it is."""


class Faulty(TransientError):
    """No row of an answer is fit to be written."""

    def __init__(self) -> None:
        super().__init__("the vector holds NaN or infinity, or is all zeros", suspect_input=True)


class Partial(Exception):
    """Some rows of an answer are not fit to be written; the others are.

    Attributes:
        rows: all of them.
        faulty: indices of those that are not, in order.
    """

    def __init__(self, rows: Any, faulty: list[int]) -> None:
        super().__init__(f"{len(faulty)} of {len(rows)} vectors hold NaN or infinity, or are all zeros")
        self.rows = rows
        self.faulty = faulty
