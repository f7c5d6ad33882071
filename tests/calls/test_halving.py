"""What becomes of a call's texts when the provider refuses some: none dies for another's fault, in few calls."""

from __future__ import annotations

import contextlib
import math
import random

import numpy as np
import pytest

import embedqueue.calls.caller as calling
import embedqueue.calls.crashes as crashing
from embedqueue.calls.batching import Limits
from embedqueue.calls.caller import CANARY
from embedqueue.calls.crashes import TIMES_ALONE
from embedqueue.calls.failures import OverLimits, Unserved
from embedqueue.calls.retry import ATTEMPTS
from embedqueue.testing import FakeEmbedder
from embedqueue.values.errors import CallTooLarge, ConfigurationError, InputRejected, TransientError
from tests.calls.rig import LOG2, TEXTS, Rig, limited, poison
from tests.parts import ONE_TRY

# -- one bad text ------------------------------------------------------------------------------------------------------


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


def test_refused_while_busy():
    """A 429 between the halves of a refused call is waited out like any other; the work goes on."""
    rig = Rig(rule=poison(TEXTS[10]))
    busy = iter([False, True, False, True, True] + [False] * 100)
    inner = rig.embedder.rule
    rig.embedder.rule = lambda texts: TransientError("429", status=429) if next(busy) else inner(texts)
    rig.serve().check(TEXTS[10])
    assert len(rig.slept) == 3


# -- a text that looks like a broken provider --------------------------------------------------------------------------


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


def test_the_canary_waits_as_long_as_the_provider_says():
    """Like any other try. What it says in a probe for more than some seconds is not sat out: its texts hold up all."""
    rig = Rig(rule=lambda texts: TransientError("503", status=503, suspect_input=True, retry_after=5.0))
    rig.unserved(["a text", "another"])
    assert rig.calls == [*[["a text", "another"]] * ATTEMPTS, [CANARY]]
    assert rig.slept == [5.0] * ATTEMPTS
    rig.embedder.rule = lambda texts: TransientError("503", status=503, suspect_input=True, retry_after=60.0)
    rig.unserved(["a text", "another"], probe=True)
    assert rig.slept == [5.0] * ATTEMPTS


def test_a_server_that_is_back_when_it_has_said_so_buries_no_text():
    """It was away when the text failed: that its canary is served afterwards is nothing against the text."""
    rig = Rig(rule=lambda texts: TransientError("500", status=500, suspect_input=True, retry_after=5.0))

    def sleep(seconds):
        rig.slept.append(seconds)
        if len(rig.slept) == ATTEMPTS:
            rig.embedder.rule = None

    rig.caller._patient.sleep = sleep
    rig.serve(["a text"])
    assert (set(rig.delivered), rig.refused) == ({"a text"}, {})
    assert rig.slept == [5.0] * ATTEMPTS


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


@pytest.mark.parametrize("texts", [TEXTS, TEXTS[:1]], ids=["many", "one"])
def test_who_says_how_long_to_wait_is_believed_before_a_text_is_blamed(texts):
    """A pod that restarts answers one call so; the next one, and a canary, would get through."""
    rig = Rig(rule=poison(TEXTS[0], error=TransientError, status=503, suspect_input=True, retry_after=30))
    assert rig.unserved(texts).retry_after == 30
    assert rig.calls == [list(texts)]


def test_a_text_for_which_a_probe_is_told_to_wait_is_isolated():
    """Else it would keep the queue closed."""
    rule = poison(TEXTS[5], error=TransientError, status=503, suspect_input=True, retry_after=30)
    Rig(rule=rule).serve(probe=True).check(TEXTS[5])


def test_a_probe_that_our_own_limits_hold_back_blames_nobody():
    """What they say has no status, as a connection that broke has none."""
    rig = Rig(rule=lambda texts: OverLimits(61.0) if TEXTS[5] in texts else None)
    rig.unserved(probe=True)
    assert rig.canaries == 0


def test_a_text_for_which_an_embedder_of_ones_own_names_a_wait_is_isolated_by_a_probe():
    """It wraps whatever fails so, without a status: the text would keep the queue closed for ever."""
    Rig(rule=poison(TEXTS[5], error=TransientError, retry_after=0.2)).serve(probe=True).check(TEXTS[5])


def test_probe_meets_poison():
    """A poison text under a pause must not keep the queue closed: the probe isolates it, though no status was given."""
    rig = Rig(rule=lambda texts: TransientError("cut off") if TEXTS[5] in texts else None).serve(probe=True)
    rig.check(TEXTS[5])


# -- too large ---------------------------------------------------------------------------------------------------------


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


def test_too_large_while_busy():
    """So is one between the parts of a call that was too large."""
    rig = Rig(rule=limited(10, limit=10))
    busy = iter([False, False, True, False, True] + [False] * 100)
    inner = rig.embedder.rule
    rig.embedder.rule = lambda texts: TransientError("429", status=429) if next(busy) else inner(texts)
    rig.serve().check()


# -- vectors that must not be written ----------------------------------------------------------------------------------


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


def test_what_halving_has_found_out_is_remembered(caplog):
    """A server that answers a list with one vector is not asked at full size each time. One warning says so."""
    texts = [f"text {place}" for place in range(16)]
    rig = Rig(retry=ONE_TRY)
    embed = rig.embedder.embed_batch
    rig.embedder.embed_batch = lambda texts, model: embed(texts, model)[:1]
    sent = []
    for _ in range(3):
        rig.delivered.clear()
        before = rig.caller.texts_sent
        rest = list(texts)
        while rest:
            most = rig.caller.limits.texts
            rig.serve(rest[:most])
            rest = rest[most:]
        assert set(rig.delivered) == set(texts)
        sent.append(rig.caller.texts_sent - before)
    assert sent[0] > 4 * 16
    assert sum(sent[1:]) < 2.5 * 16
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "embedqueue: after a call of 16 texts that failed, calls hold 1 texts for now"
    ]


def test_a_limit_in_words_that_nobody_knows_is_not_run_into_each_time():
    """What is refused in halves of halves, and served alone, was too much."""
    rig = Rig(rule=lambda texts: InputRejected("nine is a crowd") if len(texts) > 8 else None)
    rig.serve()
    for _ in range(20):
        rig.delivered.clear()
        rest = list(TEXTS)
        while rest:
            most = rig.caller.limits.texts
            rig.serve(rest[:most])
            rest = rest[most:]
    texts = len(TEXTS) * 21
    assert sum(len(call) for call in rig.calls) < 1.3 * texts
    assert len(rig.calls) < 1.8 * texts / 8
    assert not rig.refused


def test_a_refusal_by_chance_makes_no_calls_small():
    """Calls as large have been served, so it was not their size."""
    refused = []

    def rule(texts):
        return refused.append(texts) or InputRejected("?") if texts == ["text 0", "text 1"] and not refused else None

    rig = Rig(rule=rule).serve()
    rig.delivered.clear()
    rig.serve(["text 0", "text 1"])
    assert refused and set(rig.delivered) == {"text 0", "text 1"}
    assert rig.caller.limits.texts == 50


@pytest.mark.parametrize(
    "error", [TransientError("?", suspect_input=True), InputRejected("?"), InputRejected("?", index=3)], ids=repr
)
def test_a_text_that_makes_its_calls_fail_says_nothing_of_their_size(error):
    rig = Rig(rule=lambda texts: error if "text 3" in texts else None, retry=ONE_TRY)
    rig.serve([f"text {place}" for place in range(8)])
    assert list(rig.refused) == ["text 3"]
    assert rig.caller.limits.texts == 50


@pytest.mark.parametrize(
    "slow",
    [
        TransientError("no answer in time", suspect_input=True, cause="timeout"),
        TransientError("host answered 408", status=408),
    ],
    ids=["timeout", "408"],
)
def test_a_call_that_had_no_answer_in_time_is_smaller_the_next_time(slow):
    """Also where nothing is served in between: the server may still be busy with what nobody waits for any more."""
    rig = Rig(rule=lambda texts: slow if len(texts) > 5 or texts == [CANARY] else None, retry=ONE_TRY)
    for most in (50, 25, 12, 6):
        assert rig.caller.limits.texts == most
        rig.unserved([f"text {place}" for place in range(most)])
    rig.serve([f"text {place}" for place in range(3)])
    assert len(rig.delivered) == 3


# -- servers that a text takes down ------------------------------------------------------------------------------------


class Fragile(FakeEmbedder):
    """A server that one text takes down: for some calls nobody reaches it. A gateway before it may say so."""

    def __init__(self, *, down=2, status=None):
        super().__init__()
        self.down, self.left, self.status = down, 0, status

    def embed_batch(self, texts, model):
        self.calls.append(list(texts))
        if self.left:
            self.left -= 1
            raise TransientError("refused", cause="connection", status=self.status, suspect_input=bool(self.status))
        if "text 20" in texts:
            self.left = self.down
            raise TransientError("cut", cause="connection", status=self.status, suspect_input=True)
        return np.stack([self.vector_of(text) for text in texts])


@pytest.mark.parametrize("status", [None, 502], ids=["cut", "gateway"])
@pytest.mark.parametrize("probe", [False, True])
def test_a_text_that_takes_its_server_down_is_found(monkeypatch, status, probe):
    """While it is started again, the canary waits: else that text would keep the queue closed for ever."""
    monkeypatch.setattr(calling, "RESTART_SECONDS", (0.001,) * 4)
    rig = Rig(Fragile(status=status)).serve(probe=probe)
    rig.check("text 20")


def test_where_the_server_stays_down_the_canary_soon_gives_up(monkeypatch):
    monkeypatch.setattr(calling, "RESTART_SECONDS", (0.001,) * 4)
    rig = Rig(Fragile(down=10**6))
    rig.unserved(probe=True)
    assert rig.calls == [TEXTS, *[[CANARY]] * 5]


class Slow(FakeEmbedder):
    """A server that is back when the next probe comes, and no sooner; it may answer with a 500 before it goes."""

    def __init__(self, *texts, words=None):
        super().__init__()
        self.up, self.texts, self.refusal, self.times, self.allowed = True, set(texts), None, 0, math.inf
        self.words = words or TransientError("cut", cause="connection", suspect_input=True)

    def embed_batch(self, texts, model):
        self.calls.append(list(texts))
        if not self.up:
            raise TransientError("refused", cause="connection")
        self.allowed -= 1
        if self.allowed < 0:
            raise TransientError("slow down", status=429)
        if texts == [CANARY] and self.refusal:
            raise self.refusal
        if self.texts & set(texts):
            self.up, self.times = self.refusal is not None, self.times + 1
            raise self.words
        return np.stack([self.vector_of(text) for text in texts])


def work_off(rig, texts, *, most=100):
    """What a worker does: one probe, and then the next if that has failed; else all others, call by call."""
    probes = 0
    while left := [text for text in texts if text not in rig.delivered and text not in rig.refused]:
        probes += 1
        assert probes <= most
        rig.embedder.up = True
        try:
            rig.serve(left[: rig.caller.probe_texts], probe=True)
            while left := [text for text in texts if text not in rig.delivered and text not in rig.refused]:
                rig.serve(left[: rig.caller.limits.texts])
        except Unserved:
            continue
    return probes


@pytest.fixture
def quick(monkeypatch):
    """The canary is soon tried again."""
    monkeypatch.setattr(calling, "RESTART_SECONDS", (0.001,) * 2)


@pytest.mark.parametrize("words", [None, TransientError("?", status=500, suspect_input=True)], ids=["cut", "500"])
@pytest.mark.parametrize("at", [0, 1, 20, 49])
@pytest.mark.parametrize("size", [1, 50])
def test_a_text_that_takes_down_a_server_which_is_long_away_is_found(quick, at, words, size):
    """Each probe meets it anew: the canary says then that the server was well before it was sent these texts."""
    rig = Rig(Slow(TEXTS[at], words=words), limits=Limits(size, 10**6))
    rig.unserved(TEXTS[at : at + 1])
    assert work_off(rig, TEXTS) <= 14
    rig.check(TEXTS[at])
    assert "went away" in rig.refused[TEXTS[at]]


def test_several_texts_that_take_down_their_server_are_found(quick):
    rig = Rig(Slow("text 3", "text 4", "text 40"))
    work_off(rig, TEXTS)
    rig.check("text 3", "text 4", "text 40")


def times_until_given_up(rig, text):
    before = rig.embedder.times
    while text not in rig.refused:
        rig.embedder.up = True
        with contextlib.suppress(Unserved):
            rig.serve([text], probe=True)
    return rig.embedder.times - before


def test_where_only_the_canary_is_served_fewer_and_fewer_texts_are_given_up(quick):
    """It is the server's fault, who knows why; and who mends it finds the queue nearly as it was."""
    rig = Rig(Slow(*TEXTS))
    rig.unserved(["text 0"])
    assert [times_until_given_up(rig, text) for text in TEXTS[:4]] == [4, 6, 12, 24]
    rig.embedder.texts = {"text 9"}
    rig.serve(["text 8"], probe=True)
    assert times_until_given_up(rig, "text 9") == TIMES_ALONE


def test_a_text_that_was_put_back_gets_another_chance(quick):
    rig = Rig(Slow("a text"))
    rig.unserved(["a text"])
    times_until_given_up(rig, "a text")
    rig.refused.clear()
    rig.embedder.texts, rig.embedder.up = set(), True
    rig.serve(["another"]).serve(["a text"], probe=True)
    assert set(rig.delivered) == {"another", "a text"}


def test_a_text_that_is_served_is_not_to_blame_for_what_was_before(quick):
    """Somebody else took the server down, and did so again later."""
    rig = Rig(Slow("a text"))
    rig.unserved(["a text"])
    for _ in range(2):
        for _ in range(TIMES_ALONE - 1):
            rig.embedder.up = True
            rig.unserved(["a text"], probe=True)
        rig.embedder.texts, rig.embedder.up = set(), True
        rig.serve(["a text"], probe=True)
        rig.delivered.clear()
        rig.embedder.texts = {"a text"}
    rig.unserved(["a text"], probe=True)


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (None, TransientError("slow down", status=429)),
        (None, TransientError("nobody knows")),
        (None, ConfigurationError("no such key")),
        (TransientError("?", status=500, suspect_input=True), TransientError("?", status=503, suspect_input=True)),
    ],
    ids=["429", "nameless", "key", "503"],
)
def test_a_text_after_which_the_server_still_answers_did_not_take_it_down(quick, words, refusal):
    """Its call was cut off, or failed with a 500; and what the canary is told has other reasons."""
    rig = Rig(Slow("a text", words=words))
    for i in range(8):
        rig.embedder.up, rig.embedder.refusal = True, None
        rig.serve([f"text {i}"])  # so it has served since the last time
        rig.embedder.refusal = refusal
        rig.unserved(["a text"], probe=True)
    rig.embedder.texts, rig.embedder.refusal = set(), None
    assert "a text" in rig.serve(["a text"], probe=True).delivered


@pytest.mark.parametrize(
    "refusal",
    [
        InputRejected("too short"),
        TransientError("?", status=500, suspect_input=True),
        TransientError("no answer", suspect_input=True, cause="timeout"),
    ],
    ids=["refused", "500", "timeout"],
)
def test_where_nothing_but_the_canary_is_refused_texts_are_sent(quick, refusal):
    """And it is not asked again: the server is there."""
    rig = Rig(Slow("a text"))
    rig.unserved(["a text"])
    rig.embedder.texts, rig.embedder.up, rig.embedder.refusal = set(), True, refusal
    before = rig.canaries
    rig.serve(["a text"], probe=True).serve(["another"], probe=True)
    assert set(rig.delivered) == {"a text", "another"} and rig.canaries == before + 1


def test_health_is_shown_after_the_last_time(quick):
    """The server is away for long, and the text was alone often enough: it stays until the server is back."""
    rig = Rig(Slow("a text"))
    rig.unserved(["a text"])
    for _ in range(1 + TIMES_ALONE):  # it was not seen to be well enough before the first of them
        for up in (False, False, True):
            rig.embedder.up = up
            rig.unserved(["a text"], probe=True)
    for _ in range(10):
        rig.unserved(["a text"], probe=True)
    rig.embedder.up = True
    rig.serve(["a text"], probe=True)
    assert rig.embedder.times == 2 + TIMES_ALONE and set(rig.refused) == {"a text"}


def test_equal_texts_do_not_take_the_server_down_as_often_each(quick):
    """They are of several documents, and each comes in a probe of its own."""
    rig = Rig(Slow("a text"))
    rig.unserved(["a text"])
    times = []
    for _ in range(4):
        times.append(times_until_given_up(rig, "a text"))
        rig.refused.clear()
    assert times == [4, 1, 1, 1]


def test_that_a_gateway_fails_at_random_is_no_evidence(quick):
    """Four calls of five get a 502, whatever is in them: the canary is served, and the text is not, by chance."""
    chance = random.Random(0)

    def rule(texts):
        return TransientError("?", status=502, suspect_input=True) if chance.random() < 0.8 else None

    rig = Rig(rule=rule)
    for _ in range(500):
        rig.delivered.clear()
        rig.refused.clear()
        with contextlib.suppress(Unserved):
            rig.serve(TEXTS[: rig.caller.probe_texts], probe=True)
        assert "went away" not in str(rig.refused)
    assert rig.caller.limits.texts >= 10


@pytest.mark.parametrize("allowed", [2, 3])
def test_the_canary_does_not_take_what_a_small_quota_leaves(quick, allowed):
    """Two outages were before. Of what the provider allows in a while the canary spends all, but only once."""
    rig = Rig(Slow("a text"))
    rig.unserved(["a text"])
    rig.embedder.up = True
    rig.serve(["another"]).unserved(["a text"])
    assert rig.caller.probe_texts == 1
    rig.embedder.up, rig.embedder.texts = True, set()
    rig.embedder.allowed = allowed
    rig.unserved(TEXTS, probe=True)
    rig.embedder.allowed = allowed
    rig.serve(TEXTS, probe=True)


@pytest.mark.parametrize(("status", "texts"), [(None, 12), (502, 50)], ids=["cut", "gateway"])
def test_calls_become_smaller_where_they_are_cut_off_again(quick, status, texts):
    """And not where a gateway says so: it may do that at random, and smaller calls would cost more."""
    words: list[TransientError] = []
    rig = Rig(rule=lambda texts: words[0] if words else None)
    for first in (0, 50):
        rig.serve([f"text {i}" for i in range(first, first + 50)])
        cause = None if status else "connection"
        words.append(TransientError("?", status=status, cause=cause, suspect_input=True))
        rig.unserved()
        words.clear()
    assert rig.caller.limits.texts == texts


def test_what_happened_long_ago_says_nothing(quick, monkeypatch):
    rig = Rig(Slow("a text"))
    rig.unserved(["a text"])
    for _ in range(TIMES_ALONE):
        rig.embedder.up = True
        rig.unserved(["a text"], probe=True)
    assert rig.caller.probe_texts == 1
    monkeypatch.setattr(crashing, "FORGET_SECONDS", 0.0)
    assert rig.caller.probe_texts == 50
    rig.embedder.up = True
    rig.unserved(["a text"], probe=True)


@pytest.mark.parametrize("errors", [[429] * 4 + [500], [None] * 4 + [503]], ids=str)
def test_one_failure_among_others_buries_no_text(errors):
    """The provider was busy, or away, and what came in the end was chance: the text waits."""
    words = iter([TransientError("?", status=one, suspect_input=(one or 0) >= 500) for one in errors])
    rig = Rig(rule=lambda texts: next(words, None))
    rig.unserved(["a text"])
    assert rig.canaries == 0


def test_a_busy_server_buries_a_text_only_after_many_tries():
    """Whether it may be chance: three times as often as where the text seems to be at fault."""
    for status, rounds in ((500, 1), (503, 3)):
        rig = Rig(rule=poison("a text", error=TransientError, status=status, suspect_input=True)).serve(["a text"])
        assert rig.calls.count(["a text"]) == rounds * ATTEMPTS
        assert set(rig.refused) == {"a text"}


class Away(FakeEmbedder):
    """A server that is started again: so many calls are cut off."""

    def __init__(self, calls):
        super().__init__()
        self.left = calls

    def embed_batch(self, texts, model):
        self.left -= 1
        if self.left >= 0:
            self.calls.append(list(texts))
            raise TransientError("cut", cause="connection", suspect_input=True)
        return super().embed_batch(texts, model)


@pytest.mark.parametrize("texts", [["a text"], TEXTS], ids=["one", "many"])
@pytest.mark.parametrize("calls", [5, 6, 7])
def test_a_restart_of_the_server_buries_no_text(monkeypatch, texts, calls):
    """All tries of the first call meet it, and some canaries: that it is up again says nothing of before."""
    monkeypatch.setattr(calling, "RESTART_SECONDS", (0.001,) * 4)
    rig = Rig(Away(calls)).serve(texts)
    assert set(rig.delivered) == set(texts)
    assert rig.caller.limits.texts == 50


def test_a_server_that_fails_once_and_is_away_then_buries_no_text(monkeypatch):
    """It goes down with a 500, all further tries meet nobody, and it is back when the canary asks."""
    monkeypatch.setattr(calling, "RESTART_SECONDS", (0.001,) * 4)
    words = [TransientError("going down", status=500, suspect_input=True)]
    words += [TransientError("refused", cause="connection")] * (ATTEMPTS - 1)
    left = iter(words)
    assert set(Rig(rule=lambda texts: next(left, None)).serve(["a text"]).delivered) == {"a text"}


@pytest.mark.parametrize("probe", [False, True])
def test_a_restart_in_the_midst_of_a_call_buries_no_text(monkeypatch, probe):
    """It has served a part just before: who is sent alone then meets the restart in all its tries, and once more."""
    monkeypatch.setattr(calling, "RESTART_SECONDS", (0.001,) * 4)
    server, texts = Away(0), ["a", "b"]
    serve = server.embed_batch

    def embed(texts, model):
        if texts == ["b"] and server.left < 0 and "b" not in gone:
            gone.append("b")
            server.left = 4 if probe else 7
        return serve(texts, model)

    gone: list[str] = []
    server.embed_batch = embed
    rig = Rig(server, limits=Limits(1, 10**6))
    rig.serve(texts, probe=probe)
    assert gone and set(rig.delivered) == {"a", "b"}


@pytest.mark.parametrize(
    ("tries", "retry_after"),
    [
        ([500, 500, 429], 60),
        ([500, 500, 429, 429, 429], 0),
        (["NaN", 429, "NaN", 429, 429], 0),
        ([429] * 4 + ["NaN"], 0),
    ],
    ids=str,
)
def test_what_the_provider_said_last_counts(tries, retry_after):
    """It is busy: no text is to blame for that, nor for what it answered before."""

    class Busy(FakeEmbedder):
        words = iter(tries)

        def embed_batch(self, texts, model):
            word = next(self.words, None)
            if word == "NaN":
                return np.full((len(texts), self.dimensions), np.nan)
            if word is not None:
                wait = retry_after if word == 429 else None
                raise TransientError("?", status=word, suspect_input=word == 500, retry_after=wait)
            return super().embed_batch(texts, model)

    assert Rig(Busy()).unserved(["a text", "another"]).retry_after == retry_after


# -- limits that were learned, though the call does not end well -------------------------------------------------------


def test_a_limit_is_remembered_though_the_provider_fails_then():
    served = []

    def rule(texts):
        return limited(10, limit=10)(texts) or (served.append(texts) if len(served) < 2 else TransientError("429"))

    rig = Rig(rule=rule)
    rig.unserved()
    assert rig.caller.limits == Limits(10, 10**6)


def test_a_text_that_is_too_large_says_nothing_of_the_number_of_texts():
    """The limit of the same call that was said in texts stands; that of its tokens was about that text."""

    def rule(texts):
        if TEXTS[0] in texts and len(texts) <= 10:
            return CallTooLarge("too large", measure="bytes", status=413)
        return limited(10, limit=10)(texts)

    rig = Rig(rule=rule).serve()
    rig.check(TEXTS[0])
    assert rig.caller.limits == Limits(10, 10**6)


def test_a_bare_413_to_few_bytes_is_about_the_number_of_texts():
    """No server calls a kilobyte large; a limit of bytes learned from it would send each longer text by itself."""
    rig = Rig(rule=lambda texts: CallTooLarge("413", measure="bytes", status=413) if len(texts) > 10 else None)
    rig.serve().check()
    assert rig.caller.limits.texts <= 10 and rig.caller.limits.tokens == 10**6
    large = [f"{place} {'x' * 20_000}" for place in range(10)]
    rig = Rig(rule=lambda texts: CallTooLarge("413", measure="bytes", status=413) if len(texts) > 5 else None)
    rig.serve(large)
    assert rig.caller.limits.tokens < 10**5
