"""The failure table without Redis: one call, its texts, and what becomes of them when it fails."""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tenacity

from embedqueue.calls.batching import Limits
from embedqueue.calls.caller import CANARY, Caller
from embedqueue.calls.concurrency import Concurrency
from embedqueue.calls.failures import Stopping, Unserved
from embedqueue.calls.halving import Halving
from embedqueue.calls.retry import ATTEMPTS, default_retry
from embedqueue.testing import FakeEmbedder
from embedqueue.values.errors import CallTooLarge, ConfigurationError, InputRejected, TransientError

TEXTS = [f"text {i}" for i in range(50)]
LOG2 = math.ceil(math.log2(len(TEXTS)))
OURS = object()


class Rig:
    """A caller with a fake embedder, recorded sleeps, and what came out."""

    def __init__(self, embedder=None, rule=None, *, retry=OURS, limits=Limits(50, 10**6)):
        self.embedder = embedder or FakeEmbedder(rule=rule)
        self.slept: list[float] = []
        self.stopping = threading.Event()
        policy = default_retry().copy(sleep=self.slept.append) if retry is OURS else retry
        self.caller = Caller(self.embedder, "model", policy, limits, Concurrency(4), self.stopping)
        self.delivered: dict[str, bytes] = {}
        self.refused: dict[str, str] = {}

    def serve(self, texts=TEXTS, *, probe=False):
        def deliver(served, vectors):
            assert not self.delivered.keys() & set(served), "delivered twice"
            self.delivered.update(zip(served, vectors, strict=True))

        def refuse(text, reason):
            assert text not in self.delivered
            assert text not in self.refused
            self.refused[text] = reason

        Halving(self.caller, probe=probe, deliver=deliver, refuse=refuse).serve(list(texts))
        return self

    def unserved(self, texts=TEXTS, *, probe=False) -> Unserved:
        with pytest.raises(Unserved) as failure:
            self.serve(texts, probe=probe)
        assert not self.refused, "buried, though the provider is at fault"
        return failure.value

    def check(self, *bad):
        """All texts are served with their own vectors, but for the bad ones, which are refused."""
        assert set(self.refused) == set(bad)
        assert set(self.delivered) == set(TEXTS) - set(bad)
        for text, vector in self.delivered.items():
            assert vector == self.embedder.bytes_of(text)

    @property
    def calls(self):
        return self.embedder.calls

    @property
    def canaries(self):
        return self.calls.count([CANARY])


def poison(*bad, error=InputRejected, **facts):
    """A rule: a call with any of these texts fails."""
    return lambda texts: error("the provider's words", **facts) if set(bad) & set(texts) else None


def limited(most, **facts):
    """A rule: a call of more texts is too large."""
    return lambda texts: CallTooLarge("too large", measure="texts", **facts) if len(texts) > most else None


# -- when all goes well ------------------------------------------------------------------------------------------


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


# -- one bad text ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 1, 24, 25, 26, 48, 49])
def test_halving(at):
    """One text that the provider refuses is found in O(log n) calls; all others are served, and sleep is not needed."""
    rig = Rig(rule=poison(TEXTS[at])).serve()
    rig.check(TEXTS[at])
    assert "the provider's words" in rig.refused[TEXTS[at]]
    assert len(rig.calls) <= 2 * LOG2 + 2  # each halving two calls, and at most one canary
    assert rig.slept == []


def test_good_texts_are_answered_once():
    """Halving pays for no good text twice: only refused calls hold it again."""
    rig = Rig(rule=poison(TEXTS[30])).serve()
    good = [call for call in rig.calls if TEXTS[30] not in call]
    sent = [text for call in good for text in call if text != CANARY]
    assert sorted(sent) == sorted(set(TEXTS) - {TEXTS[30]})


@pytest.mark.parametrize("at", [0, 3, 49])
def test_named_culprit(at):
    """Where the provider names the text, three calls do: all, the culprit, the others."""

    def rule(texts):
        return InputRejected("input[..]", index=texts.index(TEXTS[at])) if TEXTS[at] in texts else None

    rig = Rig(rule=rule).serve()
    rig.check(TEXTS[at])
    assert len(rig.calls) == 3


def test_wrongly_named_culprit():
    """A provider that counts from one misleads only for a moment: still O(log n), and no good text dies."""
    bad = TEXTS[20]

    def rule(texts):
        return InputRejected("input ..", index=texts.index(bad) + 1) if bad in texts else None

    rig = Rig(rule=rule).serve()
    rig.check(bad)
    assert len(rig.calls) <= 2 * LOG2 + 6


@pytest.mark.parametrize("index", [-1, 50, 10**9])
def test_index_out_of_range(index):
    """A position that does not exist is no position."""
    rig = Rig(rule=poison(TEXTS[7], index=index)).serve()
    rig.check(TEXTS[7])


@pytest.mark.parametrize("bad", [(0, 1), (0, 49), (24, 25), (3, 17, 40)])
def test_some_bad_texts(bad):
    """Several bad texts of one call all stand alone in the end."""
    bad = [TEXTS[i] for i in bad]
    rig = Rig(rule=poison(*bad)).serve()
    rig.check(*bad)
    assert len(rig.calls) <= len(bad) * 2 * LOG2 + 2


def test_all_bad():
    """If every text of a call is bad and a canary succeeds, each is refused."""
    rig = Rig(rule=poison(*TEXTS)).serve()
    rig.check(*TEXTS)
    assert rig.canaries >= 1


def test_alone_and_bad():
    """A bad text that travels alone is refused once the canary has succeeded after it."""
    rig = Rig(rule=poison("text 0")).serve(["text 0"])
    assert set(rig.refused) == {"text 0"}
    assert rig.calls == [["text 0"], [CANARY]]


def test_old_success_is_no_proof():
    """A provider that breaks for good right after a success buries nothing: health must be shown afterwards."""
    rig = Rig().serve(["fine"])
    rig.embedder.rule = lambda texts: InputRejected("400 for everything")
    rig.unserved()


# -- the provider is at fault ------------------------------------------------------------------------------------


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


def test_refused_while_busy():
    """A 429 between the halves of a refused call is waited out like any other; the work goes on."""
    rig = Rig(rule=poison(TEXTS[10]))
    busy = iter([False, True, False, True, True] + [False] * 100)
    inner = rig.embedder.rule
    rig.embedder.rule = lambda texts: TransientError("429", status=429) if next(busy) else inner(texts)
    rig.serve().check(TEXTS[10])
    assert len(rig.slept) == 3


def test_too_large_while_busy():
    """So is one between the parts of a call that was too large."""
    rig = Rig(rule=limited(10, limit=10))
    busy = iter([False, False, True, False, True] + [False] * 100)
    inner = rig.embedder.rule
    rig.embedder.rule = lambda texts: TransientError("429", status=429) if next(busy) else inner(texts)
    rig.serve().check()


# -- a text that looks like a broken provider --------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [TransientError("500: NaN", status=500, suspect_input=True), TransientError("424", status=424, suspect_input=True)],
    ids=str,
)
@pytest.mark.parametrize("at", [0, 20, 49])
def test_poison(error, at):
    """One text that crashes the server is isolated while a canary lives: two times the tries, and O(log n) calls."""
    rig = Rig(rule=lambda texts: error if TEXTS[at] in texts else None).serve()
    rig.check(TEXTS[at])
    assert len(rig.calls) <= 2 * ATTEMPTS + 3 * LOG2 + 3


def test_poison_bug():
    """A text for which the embedder itself has a bug is isolated in the same way, and the error is named."""
    rig = Rig(rule=lambda texts: KeyError("no such token") if TEXTS[5] in texts else None).serve()
    rig.check(TEXTS[5])
    assert "KeyError" in rig.refused[TEXTS[5]]


def test_unsuspicious_failure_is_not_halved():
    """A 429 or a refused connection is nobody's fault: no canary, no halving, whatever else succeeds."""
    rig = Rig(rule=poison(TEXTS[5], error=TransientError, status=429))
    rig.unserved()
    assert rig.calls == [TEXTS] * ATTEMPTS


def test_probe_meets_poison():
    """A poison text under a pause must not keep the queue closed: the probe isolates it, though no status was given."""
    rig = Rig(rule=lambda texts: TransientError("cut off") if TEXTS[5] in texts else None).serve(probe=True)
    rig.check(TEXTS[5])


# -- too large ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("most", "facts", "refusals"),
    [(32, {"limit": 32}, 1), (10, {"limit": 10}, 1), (32, {}, 1), (8, {}, 4), (1, {}, 6), (8, {"limit": 9999}, 4)],
)
def test_too_large(most, facts, refusals):
    """A call that is too large is cut, nothing dies, and the next call is right at once."""
    rig = Rig(rule=limited(most, **facts)).serve()
    rig.check()
    assert sum(len(call) > most for call in rig.calls) <= refusals
    assert rig.caller.limits.texts <= most
    before = len(rig.calls)
    again = [f"again {i}" for i in range(50)]
    rig.serve(again)
    assert not rig.refused
    assert all(len(call) <= most for call in rig.calls[before:])
    assert set(again) <= set(rig.delivered)


def test_too_many_tokens():
    """A stated limit of tokens is learned with a reserve."""

    def rule(texts):
        if sum(map(len, texts)) > 200:
            return CallTooLarge("max 50 tokens", measure="tokens", limit=50, status=400)
        return None

    rig = Rig(rule=rule).serve()
    rig.check()
    assert sum(sum(map(len, call)) > 200 for call in rig.calls) == 1
    assert rig.caller.limits == Limits(50, 45)


def test_one_text_too_large():
    """A single text that is too large for any call is refused, once another has succeeded."""
    huge = "x" * 1000
    rig = Rig(rule=lambda texts: CallTooLarge("413") if huge in texts else None).serve([*TEXTS, huge])
    assert set(rig.refused) == {huge}
    assert set(rig.delivered) == set(TEXTS)


@pytest.mark.parametrize("at", [0, 7, 25, 33, 49])
def test_one_text_that_no_call_may_hold(at):
    """A 413 that is one text's own does not cut its neighbours' calls small, neither now nor later."""
    rig = Rig(rule=poison(TEXTS[at], error=CallTooLarge)).serve()
    rig.check(TEXTS[at])
    assert len(rig.calls) <= 14
    assert rig.caller.limits.texts == 50
    rig.serve([f"again {i}" for i in range(50)])
    assert len(rig.calls[-1]) == 50


def test_too_large_and_bad():
    """Limits are learned and a bad text is found in the same errand."""
    rig = Rig(rule=lambda texts: limited(8, limit=8)(texts) or poison(TEXTS[33])(texts)).serve()
    rig.check(TEXTS[33])
    assert rig.caller.limits.texts == 8


# -- vectors that must not be written ----------------------------------------------------------------------------


def spoiling(*bad, row):
    """An embedder that answers with this row for these texts."""
    fake = FakeEmbedder()
    real = fake.embed_batch

    def embed_batch(texts, model):
        rows = real(texts, model).tolist()
        return [list(row) if text in bad else given for text, given in zip(texts, rows, strict=True)]

    fake.embed_batch = embed_batch
    return fake


NAN, INF = float("nan"), float("inf")
FAULTS = {"nan": [NAN] + [1.0] * 7, "inf": [INF] + [1.0] * 7, "-inf": [1.0] * 7 + [-INF], "zeros": [0.0] * 8}


@pytest.mark.parametrize("row", FAULTS.values(), ids=FAULTS)
def test_faulty_row(row):
    """A row that must not be written is its text's fault when other rows are good: these are paid for once."""
    rig = Rig(spoiling(TEXTS[9], row=row)).serve()
    rig.check(TEXTS[9])
    assert rig.embedder.sent[TEXTS[0]] == 1
    assert rig.embedder.sent[TEXTS[9]] > 1  # as a transient failure, first
    assert "NaN" in rig.refused[TEXTS[9]]


def test_faulty_row_for_a_moment():
    """A row that is good at the second try is written."""
    rig = Rig(spoiling(TEXTS[9], row=FAULTS["nan"]))
    spoilt, tries = rig.embedder.embed_batch, []

    def embed_batch(texts, model):
        tries.append(texts)
        return spoilt(texts, model) if len(tries) == 1 else FakeEmbedder.embed_batch(rig.embedder, texts, model)

    rig.embedder.embed_batch = embed_batch
    rig.serve().check()
    assert rig.embedder.sent[TEXTS[9]] == 2


def test_all_rows_faulty():
    """If no row of a call is good, a canary decides: here the texts are at fault."""
    rig = Rig(spoiling(*TEXTS, row=FAULTS["zeros"])).serve()
    rig.check(*TEXTS)
    assert len(rig.calls) <= ATTEMPTS + 1


def test_all_rows_faulty_for_everything():
    """And here the provider is: it spoils the canary, too."""
    rig = Rig(spoiling(*TEXTS, CANARY, row=FAULTS["nan"]))
    rig.unserved()


@pytest.mark.parametrize("row", [[1.0] * 7, [1.0] * 9, []], ids=["short", "long", "empty"])
def test_one_row_of_another_width(row):
    """A text for which the model gives another width is isolated; the others are served."""
    Rig(spoiling(TEXTS[9], row=row)).serve().check(TEXTS[9])


def test_wrong_dimensions():
    """An embedder that is set to the wrong dimensions buries nothing, and the reason says what to set."""
    fake = FakeEmbedder(dimensions=8)
    fake.embed_batch = lambda texts, model: np.ones((len(texts), 12))
    assert "12 dimensions" in str(Rig(fake).unserved())


@pytest.mark.parametrize("answer", [None, [], [[1.0] * 8] * 2, [[1.0] * 8] * 51, "text", {"data": []}], ids=repr)
def test_broken_answers(answer):
    """Too few vectors, too many, or none at all: the provider's fault, tried again, never paired with a gap."""
    fake = FakeEmbedder()
    fake.embed_batch = lambda texts, model: answer
    rig = Rig(fake)
    rig.unserved()
    assert rig.delivered == {}
    assert len(rig.slept) == ATTEMPTS - 1


# -- policies of the user ----------------------------------------------------------------------------------------


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
        barrier.wait(10)
        return TransientError("503")

    rig = Rig(rule=rule, retry=policy)
    with ThreadPoolExecutor(4) as pool:
        for failure in [pool.submit(rig.unserved, [f"text {i}"]) for i in range(4)]:
            failure.result(20)
    assert rig.embedder.sent == {f"text {i}": 3 for i in range(4)}


# -- stopping, threads -------------------------------------------------------------------------------------------


def test_stop_ends_a_wait():
    """A wait between tries ends when the queue stops."""
    rig = Rig(rule=lambda texts: TransientError("503", retry_after=15.0), retry=None)
    with ThreadPoolExecutor(1) as pool:
        serving = pool.submit(rig.serve)
        assert rig.embedder.arrived.wait(5)
        rig.stopping.set()
        with pytest.raises(Stopping):
            serving.result(5)
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
            future.result(30)
    assert set(rig.refused) == {f"bad {i}" for i in range(16)}
    assert len(rig.delivered) == 16 * 20
    assert all(vector == rig.embedder.bytes_of(text) for text, vector in rig.delivered.items())
    assert rig.caller.calls == len(rig.calls)
    assert rig.caller.texts_sent == sum(map(len, rig.calls))


def test_a_probe_whose_vector_is_unfit_is_tried_again_before_anybody_is_blamed():
    """A probe is tried once, but one spoilt row may be a moment's."""

    class SpoilsOnce(FakeEmbedder):
        spoilt = 1

        def embed_batch(self, texts, model):
            rows = super().embed_batch(texts, model)
            self.spoilt, spoilt = 0, self.spoilt
            return rows * math.nan if spoilt else rows

    rig = Rig(SpoilsOnce()).serve(["x"], probe=True)
    assert set(rig.delivered) == {"x"}
    assert rig.embedder.sent["x"] == 2
