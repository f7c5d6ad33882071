"""The torture rig's checker can fail: a history for each broken promise."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from embedqueue.values.item import encode_member
from tests.proof.torture.actor import calm
from tests.proof.torture.checker import AFTERMATH_SECONDS, LEAST_SAMPLES, check, table
from tests.proof.torture.failpoints import RigMemoryError
from tests.proof.torture.history import OUR_KEYS, Fault, History, Send, read_complaints, read_redis
from tests.proof.torture.texts import DIMENSIONS, digest, text_of
from tests.provider import vector_of

KEY = "doc:p1:0"


def vector(version):
    return digest(vector_of(text_of(KEY, version), DIMENSIONS))


def line(event, at=10.0, process="p1", **facts):
    return {"event": event, "at": at, "process": process, **facts}


def sound():
    """A history that kept every promise: two versions of one key, one future, one send each."""
    return History(
        lines=[
            line("started"),
            line("try", versions={KEY: 1}),
            line("accepted", versions={KEY: 1}),
            line("try", versions={KEY: 2}),
            line("accepted", versions={KEY: 2}),
            line("waits", future=1, key=KEY),
            line("ended", future=1, key=KEY, version=2, vector=vector(2), hash=vector(2)),
            line("stopped"),
        ],
        sends=[Send(text_of(KEY, 1), 10.1, "p1"), Send(text_of(KEY, 2), 10.2, "p1")],
        hashes={KEY: vector(2)},
        names={KEY, *OUR_KEYS},
    )


def broken(history):
    return [fault.promise for fault in check(history).broken]


def test_a_sound_history_passes():
    verdict = check(sound())
    assert verdict.broken == []
    assert (verdict.items, verdict.keys, verdict.sent, verdict.futures, verdict.vectors) == (2, 1, 2, 1, 1)


def test_an_item_without_its_vector_is_lost():
    history = sound()
    history.hashes = {}
    assert broken(history) == ["lost"]


def test_an_item_that_is_left_in_the_queue_is_told():
    history = sound()
    history.live = {KEY}
    assert broken(history) == ["lost"]


def test_a_dead_letter_needs_a_reason():
    history = sound()
    history.faults = [Fault("status 400", "provider", 1.0, 1.0)]
    history.dead = {KEY: "bad input"}
    assert broken(history) == []
    history.dead = {KEY: ""}
    assert broken(history) == ["lost"]


def test_a_dead_letter_needs_a_provider_that_failed():
    history = sound()
    history.faults = [Fault("SIGKILL", "process", 1.0, 1.0, "p2")]
    history.dead = {KEY: "its worker died 5 times"}
    assert broken(history) == ["lost"]


def test_the_vector_of_an_older_text_is_stale():
    history = sound()
    history.hashes = {KEY: vector(1)}
    assert broken(history) == ["stale"]


def test_the_vector_of_no_text_is_stale():
    history = sound()
    history.hashes = {KEY: "0123456789abcdef"}
    assert broken(history) == ["stale"]


def test_a_hash_that_went_back_for_a_while_is_stale():
    history = sound()
    history.watched = [(11.0, f"{KEY} went back from version 2 to 1")]
    assert broken(history) == ["stale"]


def test_a_newer_text_that_was_refused_may_stand_in_the_hash():
    history = sound()
    history.lines.insert(5, line("try", versions={KEY: 3}))
    history.hashes = {KEY: vector(3)}
    assert broken(history) == []


@pytest.mark.parametrize(
    "ended",
    [
        {"version": 2, "vector": vector(1)},
        {"version": 1, "vector": "0123456789abcdef"},
        {"version": 1, "vector": vector(2), "hash": vector(1)},
        {"version": 1, "vector": vector(1), "hash": digest([])},
    ],
    ids=["older than its text", "of no text", "newer than its hash", "nothing in its hash"],
)
def test_a_future_that_says_something_else_than_its_hash_is_wrong(ended):
    history = sound()
    history.lines[6] = line("ended", future=1, key=KEY, **ended)
    assert broken(history) == ["future"]


def test_a_future_may_hold_what_is_newer_than_its_text():
    history = sound()
    history.lines[6] = line("ended", future=1, key=KEY, version=1, vector=vector(2), hash=vector(2))
    assert broken(history) == []


def test_a_future_that_never_ended_is_told_unless_its_process_was_killed():
    history = sound()
    del history.lines[6:]
    assert broken(history) == ["open", "process"]
    history.killed = {"p1"}
    assert broken(history) == []


def test_a_future_that_did_not_end_in_time_is_told():
    history = sound()
    history.lines[6] = line("ended", at=100.0, future=1, key=KEY, version=2, error="TimeoutError")
    assert broken(history) == ["open"]
    history.faults = [Fault("restarted", "redis", 10.0, 40.0), Fault("restarted", "redis", 70.0, 79.0)]
    assert broken(history) == ["open"]
    history.faults.append(Fault("restarted", "redis", 95.0, 105.0))  # it was away for 14 of the 40 seconds
    assert broken(history) == []


def test_futures_that_are_open_after_stop_are_told():
    history = sound()
    history.lines.insert(7, line("unfinished", count=3))
    assert broken(history) == ["open"]


class TestSends:
    def again(self, *, faults=(), failed=False, later=1.0):
        history = sound()
        history.sends[1:1] = [Send(text_of(KEY, 1), 10.15, "p1", failed)]
        history.sends.append(Send(text_of(KEY, 1), 10.1 + later, "p2"))
        history.faults = list(faults)
        return broken(history)

    def test_a_text_sent_again_for_nothing_is_told(self):
        assert self.again(failed=True) == ["sent again"]

    def test_a_text_whose_call_failed_may_be_sent_again(self):
        history = sound()
        history.sends = [Send(text_of(KEY, 1), 10.1, "p1", failed=True), *history.sends]
        assert broken(history) == []

    def test_a_text_that_was_asked_for_again_may_be_sent_again(self):
        history = sound()
        history.lines.insert(3, line("try", versions={KEY: 1}))
        history.sends.append(Send(text_of(KEY, 1), 10.3, "p1"))
        assert broken(history) == []

    def test_each_fault_that_hit_its_sender_allows_one_more(self):
        kill = Fault("SIGKILL", "process", 10.5, 10.5, "p1")
        assert self.again(faults=[kill], failed=True) == []
        assert self.again(faults=[kill]) == ["sent again"]
        assert self.again(faults=[kill, Fault("restarted", "redis", 10.6, 10.7)]) == []

    def test_a_fault_of_a_child_hits_the_sends_of_its_parent(self):
        assert self.again(faults=[Fault("exit after claim", "process", 10.5, 10.5, "p1.2")], failed=True) == []

    @pytest.mark.parametrize(
        "fault",
        [
            Fault("SIGKILL", "process", 10.5, 10.5, "p3"),
            Fault("SIGKILL", "process", 11.5, 11.5, "p1"),
            Fault("restarted", "redis", 1.0, 10.0 - AFTERMATH_SECONDS),
            Fault("status 503", "provider", 10.5, 10.5),
        ],
        ids=["of another process", "afterwards", "long before", "the provider's, which no call met"],
    )
    def test_a_fault_that_did_not_hit_it_allows_nothing(self, fault):
        assert self.again(faults=[fault], failed=True) == ["sent again"]


@pytest.mark.parametrize(("step_mb", "expected"), [(0.0, []), (1.0, ["memory"])])
def test_a_process_that_grows_and_grows_is_told(step_mb, expected):
    history = sound()
    history.lines[1:1] = [line("size", mb=60.0 + step_mb * second) for second in range(2 * LEAST_SAMPLES)]
    assert broken(history) == expected


def test_a_key_that_is_not_ours_is_told():
    history = sound()
    history.names |= {"embed_queue:surprise"}
    assert broken(history) == ["stranger"]


def test_a_process_that_ended_by_itself_is_told():
    history = sound()
    history.lines.append(line("started", process="p2"))
    history.exits = {"p2": 1}
    assert broken(history) == ["process"]


def test_an_error_that_nobody_handled_is_told():
    history = sound()
    history.complaints = ["Traceback ..."]
    assert broken(history) == ["process"]


def test_a_forked_child_that_never_came_to_its_journal_is_told():
    history = sound()
    history.lines.insert(3, line("forked", child="p1.1", pid=7))
    assert broken(history) == ["process"]
    history.lines.append(line("stopped", process="p1.1"))
    assert broken(history) == []


@pytest.mark.parametrize(
    ("name", "level", "error", "told"),
    [
        ("urllib3.connection", logging.WARNING, ValueError("header"), False),
        ("concurrent.futures", logging.ERROR, RigMemoryError("in a callback"), False),
        ("embedqueue", logging.ERROR, RigMemoryError("in a call"), False),
        ("concurrent.futures", logging.ERROR, MemoryError(), True),
        ("urllib3.connection", logging.ERROR, ValueError("header"), True),
        ("embedqueue", logging.WARNING, ValueError("in a way that it should not"), True),
        ("root", logging.ERROR, ValueError("a forked child failed"), True),
    ],
)
def test_a_logged_traceback_is_told_unless_another_library_warns_of_it(tmp_path, name, level, error, told):
    record = logging.LogRecord(name, level, __file__, 1, "told of %s", ("it",), None)
    try:
        raise error
    except Exception:
        record.exc_info = sys.exc_info()
    handler = logging.FileHandler(tmp_path / "p1.log")
    handler.addFilter(calm)
    handler.handle(record)
    handler.close()
    assert "told of it" in (tmp_path / "p1.log").read_text()
    assert bool(read_complaints(tmp_path)) == told


@pytest.mark.parametrize(
    "code",
    [
        "1 / 0",
        "import threading; threading.Thread(target=lambda: 1 / 0).start()",
        "type('C', (), {'__del__': lambda self: 1 / 0})()",
        "raise ExceptionGroup('many', [ValueError()])",
        "import faulthandler, os; faulthandler.enable(); os.abort()",
    ],
    ids=["the process", "a thread", "a destructor", "a group", "the interpreter"],
)
def test_what_nobody_handled_is_told_with_what_the_log_says_of_it(tmp_path, code):
    with (tmp_path / "p1.log").open("w") as log:
        log.write("before\n")
        log.flush()
        subprocess.run([sys.executable, "-c", code], stderr=log, timeout=30)
        log.write("after\n" * 2000)
    (complaint,) = read_complaints(tmp_path)
    assert "before" in complaint
    assert any(word in complaint for word in ("ZeroDivisionError", "ExceptionGroup: many", "Aborted"))


def test_a_quiet_log_is_no_complaint(tmp_path):
    (tmp_path / "p1.log").write_text("WARNING:embedqueue:Redis does not answer, trying again\n")
    assert read_complaints(tmp_path) == []


def test_books_that_do_not_agree_are_told():
    history = sound()
    history.leftovers = ["claims name 'doc:p1:0'"]
    assert broken(history) == ["lost"]


def test_a_flush_that_would_not_end_is_told():
    history = sound()
    history.flushes = {"w1:7": 299.0}
    assert broken(history) == []
    history.flushes = {"w1:7": 3600.0}
    assert broken(history) == ["lost"]
    history.faults = [Fault("stepped back", "clock", 1.0, 1.0)]
    assert broken(history) == []


@pytest.mark.parametrize(
    ("place", "named", "told"),
    [
        ("pending", True, 0),
        ("inflight", True, 0),
        ("alone", True, 0),
        ("alone", False, 2),  # nothing names it, and the counts differ
        ("dead", True, 2),  # latest names what stands nowhere, and the counts differ
    ],
)
def test_books_are_read_in_the_layout_that_they_have(redis_client, place, named, told):
    redis_client.zadd(f"embed_queue:{place}", {encode_member(KEY, "text"): 1.0})
    if named:
        redis_client.hset("embed_queue:latest", KEY, b"1700000000000000/5.0 " + encode_member(KEY, "text"))
    history = sound()
    read_redis(history, redis_client)
    assert len(history.leftovers) == told
    assert history.live == ({KEY} if named and place != "dead" else set())


def test_a_flush_is_read_with_the_seconds_that_it_has_left(redis_client):
    redis_client.hset("embed_queue:flushes", "w1:7", f"5 1 {redis_client.time()[0] + 100}.5")
    history = sound()
    read_redis(history, redis_client)
    assert 90 < history.flushes["w1:7"] < 102


def test_the_table_counts_each_fault_with_what_came_of_it():
    history = sound()
    history.faults = [
        Fault("SIGKILL", "process", 9.0, 9.0, "p1", at_stake=7),
        Fault("SIGKILL", "process", 10.05, 10.05, "p2", at_stake=3),
    ]
    history.sends.append(Send(text_of(KEY, 1), 11.0, "p2"))
    history.hashes = {KEY: vector(1)}
    rows = table(history, check(history)).splitlines()
    assert rows[2:] == ["| process: SIGKILL | 2 | 10 | 0 | 1 | 1 |", "| **all** | 2 | 10 | 0 | 1 | 1 |"]
