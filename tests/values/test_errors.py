"""Errors carry facts, survive pickling, and have the bases that users catch."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import embedqueue
from embedqueue.values.errors import (
    BatchFailed,
    CallTooLarge,
    ConfigurationError,
    EmbedQueueError,
    InputRejected,
    ItemRejected,
    QueueFull,
    QueueStopped,
    TransientError,
    twin,
)
from tests.parts import Keyworded

EXAMPLES = [
    BatchFailed("down"),
    ItemRejected("doc:1", "too long"),
    QueueFull(7),
    QueueStopped("the queue is stopped"),
    TransientError("busy", retry_after=2.5, status=503, suspect_input=True, cause="timeout"),
    TransientError(),
    InputRejected("input[3] is empty", index=3, status=400),
    InputRejected(),
    CallTooLarge("at most 100", measure="texts", limit=100, status=413),
    ConfigurationError("no key"),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("way", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy])
def test_pickle(error, way):
    """An error that went through another process has its type, words and facts."""
    again = way(error)
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.args == error.args
    assert vars(again) == vars(error)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_words(error):
    """Each is one of ours and says something."""
    assert isinstance(error, EmbedQueueError)
    assert str(error)


def test_bases():
    """The bases that docs/design.md promises."""
    assert issubclass(BatchFailed, RuntimeError)
    assert issubclass(QueueStopped, RuntimeError)
    assert issubclass(CallTooLarge, InputRejected)
    assert not issubclass(InputRejected, TransientError)


def test_facts():
    """What docs/design.md promises of each error's attributes."""
    assert TransientError(retry_after=3).retry_after == 3
    assert TransientError().retry_after is None
    assert ItemRejected("doc:1", "why").redis_key == "doc:1"
    assert ItemRejected("doc:1", "why").reason == "why"
    assert "why" in str(ItemRejected("doc:1", "why"))
    assert QueueFull(9).max_pending == 9


def test_all_public():
    """Everything in ``__all__`` is there, and every error of the tree is in it."""
    assert all(hasattr(embedqueue, name) for name in embedqueue.__all__)
    assert {type(error).__name__ for error in EXAMPLES} | {"EmbedQueueError"} <= set(embedqueue.__all__)


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [(2, 2.0), ("2.5", 2.5), (-1, 0.0), (float("-inf"), 0.0), (float("inf"), 86_400.0), (10**400, None)]
    + [(1e300, 86_400.0), (float("nan"), None), (None, None), ("soon", None), ([], None), (object(), None)],
)
def test_seconds_to_wait_are_a_number_within_a_day(asked, seconds):
    """Whatever an embedder of one's own has read: what follows reckons with it."""
    assert TransientError(retry_after=asked).retry_after == seconds


@pytest.mark.parametrize(("given", "number"), [(3, 3), (np.int64(3), 3), ("3", None), (3.0, None), (None, None)])
def test_status_index_and_limit_are_whole_numbers(given, number):
    """What is none says nothing: it must not raise where a call is cut."""
    assert TransientError(status=given).status == number
    assert InputRejected(index=given, status=given).index == number
    error = CallTooLarge(limit=given, status=given)
    assert (error.limit, error.status) == (number, number)


class Whole(Exception):
    """A class that makes no object but in its own way."""

    def __new__(cls, *, key):
        return super().__new__(cls, key)

    def __init__(self, *, key):
        super().__init__(key)


@pytest.mark.parametrize(
    "error",
    [
        *EXAMPLES,
        Keyworded("no", status=503),
        UnicodeEncodeError("utf-8", "\udcff", 0, 1, "no"),
        FileNotFoundError(2, "no"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_twin(error):
    """It says the same, and what raising adds to the one is not seen in the other."""
    with pytest.raises(type(error)):
        raise error
    made = twin(error)
    assert type(made) is type(error)
    assert (str(made), made.args, vars(made)) == (str(error), error.args, vars(error))
    assert made.__traceback__ is None


def test_of_an_error_that_cannot_be_made_again_there_is_one():
    error = Whole(key="k")
    assert twin(error) is error
