"""Tries in place: how often, how long between them, and who may change that."""

from __future__ import annotations

import pytest

from embedqueue.calls.retry import ATTEMPTS, FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS, default_retry
from embedqueue.values.errors import ConfigurationError, InputRejected, TransientError


def run(*errors, then="done"):
    """Run the default policy against these failures; its outcome, the tries, and the sleeps."""
    slept, left, tries = [], list(errors), 0

    def attempt():
        nonlocal tries
        tries += 1
        if left:
            raise left.pop(0)
        return then

    policy = default_retry().copy(sleep=slept.append)
    try:
        outcome = policy(attempt)
    except Exception as error:
        outcome = error
    return outcome, tries, slept


def test_success_at_once():
    """What works is not tried again."""
    assert run() == ("done", 1, [])


def test_success_later():
    """What works at the third try has slept twice."""
    outcome, tries, slept = run(TransientError(), TransientError())
    assert (outcome, tries, len(slept)) == ("done", 3, 2)


def test_gives_up_with_the_last_error():
    """After five tries the embedder's own last error comes out, not one of tenacity's."""
    errors = [TransientError(str(i)) for i in range(9)]
    outcome, tries, slept = run(*errors)
    assert outcome is errors[ATTEMPTS - 1]
    assert (tries, len(slept)) == (ATTEMPTS, ATTEMPTS - 1)


@pytest.mark.parametrize("error", [InputRejected("bad"), ConfigurationError("key"), ValueError("bug")])
def test_other_errors_are_not_tried_again(error):
    """Trying again does not mend a text, a key or a bug."""
    assert run(error) == (error, 1, [])


def test_full_jitter():
    """Each wait lies between zero and a bound that doubles; over many runs, waits fill the whole of it."""
    runs = [run(*[TransientError()] * ATTEMPTS)[2] for _ in range(300)]
    for i in range(ATTEMPTS - 1):
        bound = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**i)
        waits = [slept[i] for slept in runs]
        assert 0 <= min(waits) < 0.1 * bound
        assert 0.9 * bound < max(waits) <= bound


def test_retry_after():
    """The provider's own wish is the least that is waited, between the tries that it speaks of."""
    _, _, slept = run(TransientError(retry_after=7.0), TransientError(retry_after=0.0), TransientError(retry_after=9))
    assert 7.0 <= slept[0] <= 7.5
    assert slept[1] <= 1.0
    assert slept[2] >= 9.0


def test_retry_after_too_long():
    """With items in hand nobody sits out a long wait: the pause does."""
    outcome, tries, slept = run(TransientError(retry_after=LONGEST_WAIT_SECONDS + 1))
    assert outcome.retry_after == LONGEST_WAIT_SECONDS + 1
    assert (tries, slept) == (1, [])
    assert run(TransientError(retry_after=LONGEST_WAIT_SECONDS))[1] == 2


class Own(TransientError):
    """As somebody's subclass, which sets the wish by itself."""

    def __init__(self, retry_after):
        super().__init__("busy")
        self.retry_after = retry_after


def test_retry_after_that_is_no_number():
    """It is none, or as long as a wait can be; neither ends the tries with an error of ours."""
    outcome, tries, slept = run(Own(float("nan")), Own("soon"), Own(-5))
    assert (outcome, tries) == ("done", 4)
    assert all(0 <= wait <= 2.0 for wait in slept)
    assert run(Own("7"))[2][0] >= 7.0
    forever = Own(float("inf"))
    assert run(forever) == (forever, 1, [])
