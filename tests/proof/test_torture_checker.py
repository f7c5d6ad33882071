"""The torture rig's checker can fail: a history for each broken promise."""

from __future__ import annotations

import logging
import subprocess
import sys
import time

import pytest

from embedqueue.values.item import encode_member
from embedqueue.values.provenance import digest as text_digest
from tests.parts import PROGRAM_SECONDS
from tests.proof.torture.__main__ import UNTRIED, exit_code, report
from tests.proof.torture.actor import calm
from tests.proof.torture.checker import AFTERMATH_SECONDS, LEAST_SAMPLES, check, table
from tests.proof.torture.failpoints import RigLogError, RigMemoryError
from tests.proof.torture.history import (
    OUR_KEYS,
    Fault,
    History,
    Seen,
    Send,
    Versions,
    Watch,
    read_complaints,
    read_redis,
)
from tests.proof.torture.reigns import BARRED_SECONDS, CALL_SECONDS
from tests.proof.torture.texts import DIMENSIONS, MODELS, SPACE, digest, short, space_of, text_of, vector_by
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


def test_a_run_in_which_no_text_was_accepted_has_tried_nothing(capsys):
    verdict = check(History(lines=[line("started"), line("try", versions={KEY: 1}), line("stopped")]))
    report(verdict)
    assert "nothing was tried" in capsys.readouterr().out
    assert exit_code(verdict) == UNTRIED not in (0, 1)
    report(check(sound()))
    assert "broken promises: 0" in capsys.readouterr().out
    assert exit_code(check(sound())) == 0


def test_a_broken_promise_is_told_where_no_text_was_accepted(capsys):
    verdict = check(History(lines=[line("started")]))
    report(verdict)
    assert "BROKEN process" in capsys.readouterr().out
    assert exit_code(verdict) == 1


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
        ("concurrent.futures", logging.ERROR, RigLogError("in a log"), False),
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


@pytest.mark.parametrize(("error", "told"), [("SystemExit(0)", False), ("ValueError()", True)])
def test_what_python_swallows_is_told_unless_a_handler_left(tmp_path, error, told):
    code = f"""
import sys
from tests.proof.torture.actor import swallow
sys.unraisablehook = swallow
class Dies:
    def __del__(self):
        raise {error}
Dies()
"""
    with (tmp_path / "p1.log").open("w") as log:
        subprocess.run([sys.executable, "-c", code], stderr=log, timeout=PROGRAM_SECONDS, check=True)
    assert "__del__" in (tmp_path / "p1.log").read_text()
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
        subprocess.run([sys.executable, "-c", code], stderr=log, timeout=PROGRAM_SECONDS)
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


def taken(event="taken", at=10.0, version=2, process="other", **facts):
    return line(event, at=at, process=process, key=KEY, version=version, **facts)


def left_by_another(key, version):
    events = [line(event, process="other", versions={key: version}) for event in ("try", "accepted")]
    return [*events, line("stopped", process="other")]


class TestAnotherProgram:
    """What it took is not lost by us; what it put back, or what was enqueued again, is ours again."""

    def test_what_was_taken_need_not_be_embedded(self):
        history = sound()
        history.lines += [taken(at=11.0), line("stopped", process="other")]
        history.hashes = {KEY: vector(1)}
        history.lines[6] = line("ended", future=1, key=KEY, version=2, since=10.0, error="ItemRejected", words="gone")
        assert broken(history) == []

    @pytest.mark.parametrize(
        ("later", "promise"),
        [
            ([line("try", at=12.0, versions={KEY: 2}), line("accepted", at=12.0, versions={KEY: 2})], ["stale"]),
            ([taken("returned", at=12.0)], ["stale"]),
            ([taken("returned", at=12.0), taken(at=13.0)], []),
            ([taken("returned", at=12.0, version=1)], []),
        ],
        ids=["enqueued again", "put back", "taken again", "another version put back"],
    )
    def test_what_is_ours_again_must_be_embedded(self, later, promise):
        history = sound()
        history.lines += [taken(at=11.0), line("stopped", process="other"), *later]
        history.hashes = {KEY: vector(1)}
        assert broken(history) == promise

    def test_another_version_that_was_taken_excuses_nothing(self):
        history = sound()
        history.lines += [taken(at=11.0, version=1), line("stopped", process="other")]
        history.hashes = {}
        assert broken(history) == ["lost"]

    @pytest.mark.parametrize(
        ("taken_at", "since", "promise"), [(11.0, 10.0, []), (11.0, 12.0, ["future"]), (None, 10.0, ["future"])]
    )
    def test_a_future_is_rejected_only_if_its_item_was_taken(self, taken_at, since, promise):
        history = sound()
        ended = line("ended", future=1, key=KEY, version=2, since=since, error="ItemRejected", words="gone")
        history.lines[6] = ended
        if taken_at:
            history.lines += [taken(at=taken_at), line("stopped", process="other")]
        assert broken(history) == promise
        history.faults = [Fault("status 400", "provider", 1.0, 1.0)]
        assert broken(history) == []
        ended["words"] = "neither queued, nor dead, nor does its hash hold a vector that is known to be of it"
        assert broken(history) == promise

    def test_what_it_left_must_be_embedded(self):
        history = sound()
        for event in ("try", "accepted", "stopped"):
            history.lines.append(
                line(event, process="other", versions={} if event == "stopped" else {"doc:other:0": 1})
            )
        assert broken(history) == ["lost"]

    def test_where_the_clock_was_set_an_older_text_of_its_keys_may_win(self):
        key = "doc:other:0"
        history = sound()
        history.lines += left_by_another(key, 2)
        history.hashes[key] = digest(vector_of(text_of(key, 1), DIMENSIONS))
        history.names.add(key)
        assert broken(history) == ["stale"]
        history.faults = [Fault("stepped back", "clock", 1.0, 1.0)]
        assert broken(history) == []

    def test_what_nobody_can_embed_must_be_a_dead_letter(self):
        history = sound()
        history.lines += [line("junk", process="other", name="no JSON 1"), line("stopped", process="other")]
        assert broken(history) == ["lost"]
        history.dead = {"no JSON 1": "not our JSON"}
        assert broken(history) == []

    def test_a_text_that_was_put_back_is_not_sent_twice(self):
        history = sound()
        history.lines += [taken(at=11.0), taken("returned", at=12.0), line("stopped", process="other")]
        history.faults = [Fault("members taken away", "foreign", 11.0, 11.0)]
        history.sends.append(Send(text_of(KEY, 2), 13.0, "p2"))
        assert broken(history) == ["sent again"]


def beside(version, stamp, *, space=SPACE, of=None, at=10.0, **facts):
    line = f"{space} {text_digest(text_of(KEY, of or version))} {stamp}"
    return Seen(at, KEY, vector(version), line, **facts)


@pytest.mark.parametrize(
    ("seen", "promises"),
    [
        ([beside(1, 5), beside(2, 6)], []),
        ([beside(1, 5), beside(1, 7)], []),  # the same text was enqueued and embedded again
        ([beside(1, 5), beside(2, 5)], ["provenance"]),
        ([beside(1, 5), beside(2, 4)], ["provenance"]),
        ([beside(2, 5, of=1)], ["provenance"]),
        ([beside(2, 5, space="another/16/-")], ["provenance"]),
        ([beside(2, 5, space="torture/8/-")], ["provenance"]),
        ([Seen(10.0, KEY, vector(2), "")], ["provenance"]),
        ([Seen(10.0, KEY, vector(2), "torture/16/-")], ["provenance"]),
        ([beside(2, 5, others=("other", "other_of"))], ["settings"]),
    ],
)
def test_what_stands_beside_a_vector_is_of_that_vector(seen, promises):
    history = sound()
    history.seen = seen
    assert broken(history) == promises


def test_what_another_program_wrote_has_an_older_line_beside_it_but_no_stamp_goes_back():
    history = sound()
    history.lines += [taken(at=11.0, vector=vector(2)), line("stopped", process="other")]
    history.seen = [beside(1, 5), beside(2, 5, of=1)]
    assert broken(history) == []
    history.seen = [beside(1, 5), beside(2, 4, of=1)]
    assert broken(history) == ["provenance"]


class TestOtherSettings:
    def test_who_has_other_settings_sends_nothing(self):
        history = sound()
        history.lines.insert(1, line("differs", process="p1", setting="model"))
        assert broken(history) == ["settings", "settings"]

    @pytest.mark.parametrize(("process", "promise"), [("p1", []), ("p2", ["settings"])])
    def test_nobody_else_is_refused(self, process, promise):
        history = sound()
        history.sends = []
        words = "this process claims nothing: the namespace is kept with model 'torture'"
        history.lines[1:1] = [line("differs", setting="model"), line("started", process="p2")]
        ended = line("ended", process=process, future=7, key=KEY, version=2, error="BatchFailed", words=words)
        history.lines += [ended, line("stopped", process="p2")]
        assert broken(history) == promise


class TestSignals:
    def left(self, seconds):
        history = sound()
        del history.lines[6:]  # its future was left behind by sys.exit
        history.lines += [line("leaving", at=11.0, deed="exit")]
        return history, line("stopped", at=11.0 + seconds)

    def test_who_leaves_in_a_handler_waits_for_no_future(self):
        history, stopped = self.left(1.0)
        assert broken(history) == ["process"]
        history.lines.append(stopped)
        assert broken(history) == []

    def test_who_leaves_in_a_handler_ends_in_time(self):
        history, stopped = self.left(60.0)
        history.lines.append(stopped)
        assert broken(history) == ["process"]

    def test_what_a_handler_enqueued_is_not_lost(self):
        history = sound()
        key = "doc:p1:signal:1"
        history.lines[5:5] = [line("try", versions={key: 1}), line("accepted", versions={key: 1})]
        assert broken(history) == ["lost"]


@pytest.mark.parametrize("kind", ["late", "foreign", "settings", "large", "log", "signals"])
def test_these_faults_are_no_reason_to_send_a_text_again(kind):
    history = sound()
    history.sends.append(Send(text_of(KEY, 1), 10.3, "p1"))
    history.faults = [Fault("any", kind, 10.2, 10.2, "p1")]
    assert broken(history) == ["sent again"]
    history.faults = [Fault("any", "process", 10.2, 10.2, "p1")]
    assert broken(history) == []


def test_a_large_text_is_told_by_its_beginning():
    key = "doc:p1:large:0"
    text = text_of(key, 1)
    assert len(text) > 990_000
    history = sound()
    history.lines[5:5] = [line("try", versions={key: 1}), line("accepted", versions={key: 1})]
    history.names.add(key)
    assert broken(history) == ["lost"]
    history.hashes[key] = digest(vector_of(text, DIMENSIONS))
    history.sends.append(Send(short(text), 10.3, "p1"))
    assert broken(history) == []
    history.sends.append(Send(short(text), 10.4, "p1"))
    assert broken(history) == ["sent again"]


def test_a_watch_notes_what_is_new(redis_client):
    def write(version, line, **others):
        redis_client.hset(KEY, mapping={"embedding": vector_of(text_of(KEY, version), DIMENSIONS).tobytes(), **others})
        redis_client.hset(KEY, "embedding_of", line)

    watch = Watch(Versions())
    for version, words in ((1, "a"), (1, "a"), (2, "a"), (2, "b")):
        write(version, words)
        assert watch.look(redis_client, 10.0) == {KEY: vector(version)}
    assert [(seen.vector, seen.line) for seen in watch.seen] == [(vector(1), "a"), (vector(2), "a"), (vector(2), "b")]
    assert watch.found == []
    write(1, "c", other="x")
    before = time.time()
    watch.look(redis_client, 11.0)
    last = watch.seen[-1]
    assert last == Seen(11.0, KEY, vector(1), "c", ("other",), 10.0, last.until)
    assert before <= last.until <= time.time()
    assert watch.found == [(11.0, f"{KEY} went back from version 2 to 1")]


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


class TestModels:
    """From 20 s on another model rules: p1 has the first one, p2 the second."""

    NEXT = MODELS[1]

    def history(self, *lines):
        history = sound()
        started = [line("started", process="p2", model=self.NEXT), line("stopped", process="p2")]
        rule = [line(event, at=20.0, process="rule", model=self.NEXT) for event in ("adopts", "adopted")]
        history.lines += [*started, *rule, line("stopped", process="rule"), *lines]
        return history

    def broken(self, history):
        return [fault.promise for fault in check(history, Versions(MODELS)).broken]

    def seen(self, model, since, *, beside=None, stamp=5):
        stands = f"{space_of(beside or model)} {text_digest(text_of(KEY, 2))} {stamp}"
        return Seen(since + 1, KEY, self.vector(model), stands, (), since, since + 1)

    def vector(self, model):
        return digest(vector_by(model, text_of(KEY, 2)))

    @pytest.mark.parametrize(
        ("model", "since", "promises"),
        [
            (MODELS[0], 18.0, []),
            (MODELS[0], 19.5, []),
            (MODELS[0], 20.5, ["provenance"]),
            (MODELS[1], 20.5, []),
            (MODELS[1], 19.5, []),
            (MODELS[1], 18.0, ["provenance"]),
            (MODELS[2], 20.5, ["provenance"]),
        ],
    )
    def test_a_vector_is_written_only_while_its_model_rules(self, model, since, promises):
        history = self.history()
        history.seen = [self.seen(model, since)]
        assert self.broken(history) == promises

    def test_what_stands_beside_a_vector_names_its_model(self):
        history = self.history()
        history.seen = [self.seen(MODELS[1], 20.5, beside=MODELS[0])]
        assert self.broken(history) == ["provenance"]

    def test_in_the_end_all_vectors_are_of_the_model_that_rules(self):
        history = self.history()
        history.seen, history.model = [self.seen(MODELS[0], 18.0)], self.NEXT
        assert self.broken(history) == ["provenance"]
        history.seen.append(self.seen(MODELS[1], 20.5, stamp=6))
        assert self.broken(history) == []
        history.seen.append(self.seen(MODELS[0], 19.0, stamp=7))
        history.dead = {KEY: "bad input"}
        history.faults = [Fault("status 400", "provider", 1.0, 1.0)]
        assert self.broken(history) == []

    @pytest.mark.parametrize(
        ("process", "at", "promises"),
        [
            ("p1", 20.0 + CALL_SECONDS - 1, []),
            ("p1", 20.0 + CALL_SECONDS + 1, ["settings"]),
            ("p2", 19.0, ["settings"]),
            ("p2.1", 19.0, ["settings"]),
            ("p2", 21.0, []),
        ],
    )
    def test_who_has_a_model_that_does_not_rule_sends_nothing(self, process, at, promises):
        key = "doc:p1:1"
        history = self.history(line("try", at=18.0, versions={key: 1}))
        history.sends.append(Send(text_of(key, 1), at, process))
        assert self.broken(history) == promises

    @pytest.mark.parametrize(
        "words", ["this process claims nothing: ...", f"{KEY} was embedded by workers with another model ..."]
    )
    @pytest.mark.parametrize(
        ("process", "at", "promises"),
        [
            ("p1", 19.0, ["settings"]),
            ("p1", 21.0, []),
            ("p2", 21.0, []),
            ("p2", 20.0 + BARRED_SECONDS + 1, ["settings"]),
        ],
    )
    def test_who_has_the_model_that_rules_is_not_refused(self, words, process, at, promises):
        ended = line("ended", at, process, future=7, key=KEY, version=2, error="BatchFailed", words=words)
        assert self.broken(self.history(ended)) == promises

    @pytest.mark.parametrize(("at", "promises"), [(59.0, []), (61.0, ["open"])])
    def test_a_future_may_wait_for_processes_of_the_new_model(self, at, promises):
        ended = line("ended", at, future=7, key=KEY, version=2, error="TimeoutError")
        assert self.broken(self.history(ended)) == promises

    def test_a_future_has_a_vector_of_its_process_model(self):
        ended = line("ended", 21.0, "p2", future=7, key=KEY, version=2, vector=self.vector(MODELS[0]))
        assert self.broken(self.history(ended)) == ["future"]
        ended["vector"] = self.vector(MODELS[1])
        assert self.broken(self.history(ended)) == []
