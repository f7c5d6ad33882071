"""The default policy for tries of one call: exponential, full jitter, and what the provider asks for.

The jitter follows "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015): the wait is uniform
between zero and the bound, so that many processes do not come back together.
"""

from __future__ import annotations

import tenacity

from embedqueue.values.errors import TransientError, finite_seconds

#: Tries of one call before its items are released.
ATTEMPTS = 5
#: Seconds that bound the first wait; doubled each time.
FIRST_WAIT_SECONDS = 0.5
#: Seconds that bound any wait, and the longest Retry-After that is sat out with items in hand.
LONGEST_WAIT_SECONDS = 20.0


def _retry_after(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return finite_seconds(getattr(error, "retry_after", None)) or 0.0


class wait_as_told(tenacity.wait_random_exponential):  # noqa: N801 - as tenacity names its own
    """Full jitter, but never less than the provider asks for."""

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        """Seconds to wait before the next try."""
        return max(super().__call__(retry_state), _retry_after(retry_state))


class stop_when_told_long(tenacity.stop.stop_base):  # noqa: N801 - as tenacity names its own
    """Stop when the provider asks for more patience than items in hand allow."""

    def __call__(self, retry_state: tenacity.RetryCallState) -> bool:
        """Whether to stop."""
        return _retry_after(retry_state) > LONGEST_WAIT_SECONDS


def default_retry() -> tenacity.Retrying:
    """The policy that a queue uses where its user gives none."""
    return tenacity.Retrying(
        stop=tenacity.stop_after_attempt(ATTEMPTS) | stop_when_told_long(),
        wait=wait_as_told(multiplier=FIRST_WAIT_SECONDS, max=LONGEST_WAIT_SECONDS),
        retry=tenacity.retry_if_exception_type(TransientError),
        reraise=True,
    )
