"""What our future takes for granted about private parts of ``concurrent.futures``."""

from __future__ import annotations

import asyncio
import concurrent.futures
from concurrent.futures import Future, _base

import pytest

from embedqueue.futures.future import EmbeddingFuture, end_future

#: The fields that Future.__init__ makes: EmbeddingFuture.__init__ makes some of them, and its properties the others.
FIELDS = {"_condition", "_state", "_result", "_exception", "_waiters", "_done_callbacks"}


def test_the_contract_with_concurrent_futures():
    """A Python that changes one of these needs a change of futures/future.py; each message says which."""
    made = set(vars(Future()))
    assert made == FIELDS, f"Future.__init__ makes other fields: {made ^ FIELDS}; EmbeddingFuture has to have them"
    assert all(hasattr(EmbeddingFuture(), name) for name in FIELDS)
    states = (_base.PENDING, _base.RUNNING, _base.CANCELLED)
    assert states == ("PENDING", "RUNNING", "CANCELLED"), "the states have other names"

    wanted: list[str] = []
    plain, ours = Future(), EmbeddingFuture("a", wanted.append)
    assert plain._state == _base.PENDING, "a new future is in another state"
    plain.cancel()
    assert plain._state == _base.CANCELLED, "cancel() leaves another state, in which waiters are to be told"

    seen = []
    plain = Future()
    plain.add_done_callback = seen.append
    asyncio.run(_wrapped(plain))
    assert seen, "wrap_future() adds no callback"
    assert seen[0].__module__ == "asyncio.futures", "a callback of wrap_future() is not known by its module"

    concurrent.futures.wait([ours], 0)
    assert wanted, "wait() does not read _waiters"
    wanted.clear()
    plain = Future()
    plain.set_result(None)
    next(concurrent.futures.as_completed([ours, plain]))
    assert wanted, "as_completed() does not read _waiters"

    with ours._condition:
        ours.add_done_callback(seen.append)  # it would hang, were the condition not reentrant

    end_future(ours, b"\0\0\x80?")
    assert type(ours._outcome) is bytes, "set_result() reads _result: floats are made for those who do not ask"
    assert ours.result(0) == [1.0], "result() does not read _result"
    failed, error = EmbeddingFuture(), ValueError("words")
    failed.set_exception(error)
    assert failed.exception(0) is not error, "exception() does not read _exception"
    with pytest.raises(ValueError) as raised:
        failed.result(0)
    assert raised.value is not error, "result() does not read _exception"


async def _wrapped(future):
    asyncio.wrap_future(future)
