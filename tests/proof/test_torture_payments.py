"""Payments for texts of batch jobs are judged: by two jobs only in the window, by a call as well with a reason."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.proof.test_torture_checker import KEY, broken, line, sound, vector
from tests.proof.torture.checker import check, told
from tests.proof.torture.history import Send
from tests.proof.torture.jobs import JobMade
from tests.proof.torture.payments import COMPARED, judge
from tests.proof.torture.texts import digest, text_of

TEXT = text_of(KEY, 2)


def in_jobs(*names, sends=(), faulty=False, **facts):
    """The second text was in these jobs, and in these calls, and was accepted with facts."""
    history = sound()
    history.jobs = [JobMade(name, 9.0, (TEXT,), faulty) for name in names]
    history.sends = [Send(text_of(KEY, 1), 10.1, "p1"), *(Send(TEXT, at, "p1") for at in sends)]
    history.lines = [one for one in history.lines if one["event"] not in ("waits", "ended")]
    history.lines += [line("accepted", versions={KEY: 2}, **facts)]
    return history


def reasons(history):
    payments = judge(history, Counter({TEXT: 1, text_of(KEY, 1): 1}), {})
    return dict(+payments.reasons), [why for _, why, _ in payments.unexplained]


def test_a_text_in_one_job_is_paid_for_once():
    history = in_jobs("j1")
    assert broken(history) == []
    assert reasons(history) == ({}, [])
    assert told(check(history).payments).startswith("batch jobs 1 with 1 texts, 0 of them lost")


def test_two_jobs_with_a_text_need_one_that_was_lost():
    history = in_jobs("j1", "j2")
    assert broken(history) == ["sent again"]
    history.lost_jobs = {"j1"}
    assert broken(history) == []
    assert reasons(history)[0] == {"in a job that was lost in the window": 1}


def test_a_text_that_was_asked_for_twice_may_be_in_two_jobs():
    history = in_jobs("j1", "j2")
    history.lines.insert(0, line("try", versions={KEY: 2}))
    assert broken(history) == []


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"lines": [line("waits", future=9, key=KEY)]}, "somebody waited"),
        ({"faulty": True}, "its job had left it"),
        ({"lines": [line("flushes", outsourced="pull")]}, "pulled"),
        ({"within": 6.0, "sends": [13.5]}, "nearly due"),
    ],
    ids=["waited for", "left", "pulled", "due"],
)
def test_a_call_beside_a_job_has_a_reason(facts, reason):
    lines = facts.pop("lines", [])
    history = in_jobs("j1", **{"sends": [11.0], **facts})
    history.lines += lines
    assert reasons(history) == ({reason: 1}, [])


def test_a_job_is_verified_by_so_many_calls_and_no_more():
    history = in_jobs("j1", sends=[11.0] * (COMPARED + 1))
    found, unexplained = reasons(history)
    assert found == {"a result was verified": COMPARED}
    assert len(unexplained) == 1


def test_a_flush_that_leaves_jobs_alone_is_no_reason():
    history = in_jobs("j1", sends=[11.0] * (COMPARED + 1))
    history.lines += [line("flushes", outsourced="leave")]
    assert broken(history) == ["sent again"]


def test_a_key_that_was_forgotten_needs_no_vector_and_gets_none():
    history = sound()
    history.hashes = {}
    history.lines += [line("forgets", at=11.0, key=KEY), line("forgot", at=11.1, key=KEY, hash=digest([]))]
    assert broken(history) == []
    history.hashes = {KEY: vector(2)}
    assert broken(history) == ["stale"]
    history.lines += [line("try", at=12.0, versions={KEY: 3})]
    assert broken(history) == []
