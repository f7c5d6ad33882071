"""One call: tries in place, the user's policy, and a provider that fails for everything."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tenacity

from embedqueue.calls.batching import Limits
from embedqueue.calls.failures import Stopping
from embedqueue.calls.retry import ATTEMPTS
from embedqueue.testing import FakeEmbedder
from embedqueue.values.errors import CallTooLarge, ConfigurationError, InputRejected, TransientError
from tests.calls.rig import TEXTS, Rig, poison

# -- when all goes well ------------------------------------------------------------------------------------------------


def test_one_call():
    """Texts that fit travel in one call, and each gets its own vector."""
    rig = Rig().serve()
    rig.check()
    assert rig.calls == [TEXTS]
    assert (rig.caller.calls, rig.caller.texts_sent, rig.caller.failed_calls) == (1, 50, 0)


@pytest.mark.parametrize("answer", ["lists", "float64", "tuples"])
def test_answers(answer):
    """An embedder may answer with lists, tuples or arrays of another float."""
    as_asked = {"lists": np.ndarray.tolist, "float64": np.float64, "tuples": lambda rows: tuple(map(tuple, rows))}
    fake = FakeEmbedder()
    real = fake.embed_batch
    fake.embed_batch = lambda texts, model: as_asked[answer](real(texts, model))
    Rig(fake).serve().check()


def test_model_is_handed_on():
    """The embedder gets a sequence of str and the model."""
    got = []
    fake = FakeEmbedder()
    real = fake.embed_batch
    fake.embed_batch = lambda texts, model: (got.append(model), real(texts, model))[1]
    Rig(fake).serve()
    assert got == ["model"]


# -- the provider is at fault ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        InputRejected("400: a key that is not called one"),
        InputRejected("400: input[0]", index=0),
        CallTooLarge("413 from a broken proxy"),
        CallTooLarge("at most 10", measure="texts", limit=10),
        TransientError("500", status=500, suspect_input=True),
        TransientError("429", status=429),
        TransientError("no connection"),
        ConfigurationError("401"),
        ValueError("a bug in the embedder"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("probe", [False, True])
def test_provider_wide(error, probe):
    """What fails for every text, the canary included, buries none of them, and costs only a handful of calls."""
    rig = Rig(rule=lambda texts: error)
    failure = rig.unserved(probe=probe)
    assert str(error) in str(failure)
    assert rig.delivered == {}
    assert len(rig.calls) <= ATTEMPTS + 1
    assert failure.account == isinstance(error, ConfigurationError)


def test_limits_are_not_learned_from_a_broken_provider():
    """A proxy that answers 413 to everything for a moment must not make us send one text a call for ever."""
    rig = Rig(rule=lambda texts: CallTooLarge("413"))
    rig.unserved()
    assert rig.caller.limits == Limits(50, 10**6)


def test_configuration_is_not_tried_again():
    """A key does not get better by trying: one call, no canary."""
    rig = Rig(rule=lambda texts: ConfigurationError("set OPENAI_API_KEY"))
    assert "set OPENAI_API_KEY" in str(rig.unserved().for_waiter())
    assert len(rig.calls) == 1


def test_transient_is_tried_in_place():
    """The call stays whole: it is tried again with all of its texts, then given back."""
    rig = Rig(rule=lambda texts: TransientError("503", status=503))
    rig.unserved()
    assert rig.calls == [TEXTS] * ATTEMPTS
    assert len(rig.slept) == ATTEMPTS - 1


def test_transient_then_well():
    """A call that works at the third try is served."""
    rig = Rig()
    rig.embedder.fail_with(TransientError("503", suspect_input=True), times=2)
    rig.serve().check()
    assert rig.calls == [TEXTS] * 3


def test_retry_after():
    """What the provider asks for is slept in place, and handed on when it is too long for that."""
    rig = Rig()
    rig.embedder.fail_with(TransientError("429", retry_after=3.0, status=429))
    rig.serve().check()
    assert len(rig.slept) == 1
    assert rig.slept[0] >= 3.0
    rig = Rig(rule=lambda texts: TransientError("429", retry_after=600.0, status=429))
    assert rig.unserved().retry_after == 600.0
    assert (len(rig.calls), rig.slept) == (1, [])


def test_probe_is_one_try():
    """A probe of a failing provider is one call without any wait."""
    rig = Rig(rule=lambda texts: TransientError("503", status=503))
    rig.unserved(probe=True)
    assert (len(rig.calls), rig.slept) == (1, [])


def test_wrong_dimensions():
    """An embedder that is set to the wrong dimensions buries nothing, and the reason says what to set."""
    fake = FakeEmbedder(dimensions=8)
    fake.embed_batch = lambda texts, model: np.ones((len(texts), 12))
    rig = Rig(fake)
    failure = rig.unserved()
    assert "give it dimensions=12" in str(failure)
    assert failure.account, "somebody has to act"
    assert rig.caller.calls == 2, "once may be a fault of the moment"


def test_wrong_dimensions_of_one_text():
    """Alone it may be the text's fault; another text that has them, too, says that it is not."""
    fake = FakeEmbedder(dimensions=8)
    fake.embed_batch = lambda texts, model: np.ones((len(texts), 12))
    assert "give it dimensions=12" in str(Rig(fake).unserved(["alone"]))
    odd = FakeEmbedder(dimensions=8)
    embed = odd.embed_batch
    odd.embed_batch = lambda texts, model: np.ones((1, 12)) if texts == ["odd"] else embed(texts, model)
    assert "12 dimensions" in Rig(odd).serve(["odd"]).refused["odd"]


@pytest.mark.parametrize("answer", [None, [], [[1.0] * 8] * 2, [[1.0] * 8] * 51, "text", {"data": []}], ids=repr)
def test_broken_answers(answer):
    """Too few vectors, too many, or none at all: the provider's fault, tried again, never paired with a gap."""
    fake = FakeEmbedder()
    fake.embed_batch = lambda texts, model: answer
    rig = Rig(fake)
    rig.unserved()
    assert rig.delivered == {}
    assert len(rig.slept) == ATTEMPTS - 1


# -- policies of the user ----------------------------------------------------------------------------------------------


def test_policy_stop():
    """The user's policy decides how often."""
    rig = Rig(rule=lambda texts: TransientError("503"), retry=tenacity.Retrying(stop=tenacity.stop_after_attempt(2)))
    rig.unserved()
    assert len(rig.calls) == 2


@pytest.mark.parametrize("retry", [tenacity.retry_always, lambda state: True, tenacity.retry_if_exception_type()])
@pytest.mark.parametrize("error", [InputRejected("bad"), ConfigurationError("key")], ids=repr)
def test_policy_that_retries_everything(retry, error):
    """Whatever the policy says, what cannot work later is not tried again."""
    policy = tenacity.Retrying(retry=retry, stop=tenacity.stop_after_attempt(9), sleep=lambda seconds: None)
    rig = Rig(rule=lambda texts: error, retry=policy)
    rig.unserved(["text"])
    assert len(rig.calls) <= 2


def test_policy_that_retries_results():
    """A policy that would retry a good result does not pay for it again."""
    policy = tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda rows: True) | tenacity.retry_if_exception_type(),
        stop=tenacity.stop_after_attempt(3),
        sleep=lambda seconds: None,
    )
    rig = Rig(retry=policy).serve()
    rig.check()
    assert len(rig.calls) == 1


def test_policy_that_never_retries():
    """A policy may leave all patience to the pause."""
    rig = Rig(rule=lambda texts: TransientError("503"), retry=tenacity.Retrying(retry=tenacity.retry_never))
    rig.unserved()
    assert len(rig.calls) == 1


def test_policy_with_an_answer_of_its_own():
    """A policy that answers instead of raising does not pass for vectors."""
    policy = tenacity.Retrying(stop=tenacity.stop_after_attempt(2), retry_error_callback=lambda state: None)
    assert "503" in str(Rig(rule=lambda texts: TransientError("503"), retry=policy).unserved())


def test_policy_that_breaks():
    """A policy whose hook raises is a fault of the set-up: its items are given back, and the cause is named."""

    def before_sleep(state):
        raise LookupError("no such metric")

    policy = tenacity.Retrying(stop=tenacity.stop_after_attempt(2), before_sleep=before_sleep)
    failure = Rig(rule=lambda texts: TransientError("503"), retry=policy).unserved()
    assert "no such metric" in str(failure)
    assert failure.account


def test_policy_hooks_and_sleep():
    """Hooks run, and a sleep of the user's own is used as it is."""
    slept, told = [], []
    policy = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(3),
        wait=tenacity.wait_fixed(7),
        sleep=slept.append,
        before_sleep=lambda state: told.append(state.attempt_number),
    )
    Rig(rule=lambda texts: TransientError("503"), retry=policy).unserved()
    assert (slept, told) == ([7, 7], [1, 2])


def test_policy_is_not_shared():
    """Calls that run side by side under one policy count their own attempts."""
    policy = tenacity.Retrying(stop=tenacity.stop_after_attempt(3), sleep=lambda seconds: None)
    barrier = threading.Barrier(4)

    def rule(texts):
        barrier.wait(45)
        return TransientError("503")

    rig = Rig(rule=rule, retry=policy)
    with ThreadPoolExecutor(4) as pool:
        for failure in [pool.submit(rig.unserved, [f"text {i}"]) for i in range(4)]:
            failure.result(45)
    assert rig.embedder.sent == {f"text {i}": 3 for i in range(4)}


# -- stopping, threads -------------------------------------------------------------------------------------------------


def test_stop_ends_a_wait():
    """A wait between tries ends when the queue stops."""
    rig = Rig(rule=lambda texts: TransientError("503", retry_after=15.0), retry=None)
    with ThreadPoolExecutor(1) as pool:
        serving = pool.submit(rig.serve)
        assert rig.embedder.arrived.wait(45)
        rig.stopping.set()
        with pytest.raises(Stopping):
            serving.result(45)
    assert len(rig.calls) == 1


def test_stopped_queue_calls_nobody():
    """After stop() no call is begun."""
    rig = Rig()
    rig.stopping.set()
    with pytest.raises(Stopping):
        rig.serve()
    assert rig.calls == []


def test_side_by_side():
    """Many threads share a caller: texts and vectors never get mixed up, and every call is counted."""
    rig = Rig(rule=poison(*(f"bad {i}" for i in range(16))))
    with ThreadPoolExecutor(16) as pool:
        futures = [pool.submit(rig.serve, [f"bad {i}", *(f"{i}: {j}" for j in range(20))]) for i in range(16)]
        for future in futures:
            future.result(45)
    assert set(rig.refused) == {f"bad {i}" for i in range(16)}
    assert len(rig.delivered) == 16 * 20
    assert all(vector == rig.embedder.bytes_of(text) for text, vector in rig.delivered.items())
    assert rig.caller.calls == len(rig.calls)
    assert rig.caller.texts_sent == sum(map(len, rig.calls))
