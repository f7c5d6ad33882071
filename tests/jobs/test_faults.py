"""What goes wrong with batch jobs, and what becomes of their items: nothing is lost, nothing wrong is written."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import closing

import numpy as np
import pytest

from embedqueue.embedders.batch_jobs import batch_jobs_of
from tests.inside import inside
from tests.jobs.options import PATIENT, embedder_of
from tests.jobs.standin import GeminiJob, OpenAIJob, _Handler, as_batch, vector_of
from tests.jobs.test_jobs import all_written, in_jobs, is_of, over, pairs, stored
from tests.parts import PATIENCE_SECONDS, eventually, in_thread, join


def served_by_both(queue, client, items) -> None:
    """What the job has left is taken by the next live drain; then all vectors are of their texts."""
    over(queue)
    queue.flush(timeout=PATIENCE_SECONDS)
    for key, text in items:
        assert is_of(stored(client, key), text), key
    assert queue.stats().dead == 0


def paid(stand_in, text: str) -> int:
    return stand_in.charged[text] + stand_in.live[text]


def test_order_does_not_count(make, redis_client, stand_in):
    stand_in.lines = lambda out, err: (out[::-1], err)
    queue, items = make(), pairs(7)
    queue.enqueue_many(items, within=PATIENT)
    served_by_both(queue, redis_client, items)
    assert queue.jobs()[0].written == 7


@pytest.mark.parametrize("shift", [1, 3])
def test_values_under_wrong_keys(make, redis_client, stand_in, shift, caplog):
    """Nothing of the job is written, the live lane does it, and nothing goes into jobs for a day."""

    def mixed(out, err):
        return [(key, out[(at + shift) % len(out)][1]) for at, (key, _) in enumerate(out)], err

    stand_in.lines = mixed
    queue, items = make(), pairs(6)
    queue.enqueue_many(items, within=PATIENT)
    job = over(queue)
    assert "not that of its text" in job.note
    assert (job.written, job.back) == (0, 6)
    queue.flush(timeout=PATIENCE_SECONDS)
    for key, text in items:
        assert np.array_equal(stored(redis_client, key), vector_of(text))
    assert [one.levelno for one in caplog.records].count(logging.ERROR) == 1
    queue.enqueue_many(pairs(6, "later"), within=PATIENT)
    assert queue.stats().for_jobs == 0, "economy is off for a day"
    queue.flush(timeout=PATIENCE_SECONDS)
    assert len(queue.jobs()) == 1


def _first(change):
    def changed(out, err):
        key, done = out[0]
        return change(key, done, out), err

    return changed


WRONG = {
    "a key twice": lambda key, done, out: [*out, (key, out[1][1])],
    "another length": lambda key, done, out: [(key, {**done, "vector": done["vector"][:8]}), *out[1:]],
    "all keys strange": lambda key, done, out: [(f"x{at}", one) for at, (_, one) in enumerate(out)],
}


@pytest.mark.parametrize("how", WRONG)
def test_what_cannot_be_trusted_is_thrown_away(make, redis_client, stand_in, how):
    """Also where the fault is in the last line: all is verified before the first vector is written."""
    stand_in.lines = _first(WRONG[how])
    queue, items = make(), pairs(5)
    queue.enqueue_many(items, within=PATIENT)
    job = over(queue)
    assert job.written == 0
    assert job.note.startswith("thrown away")
    served_by_both(queue, redis_client, items)
    assert all(np.array_equal(stored(redis_client, key), vector_of(text)) for key, text in items)


LEFT = {
    "missing": lambda key, done, out: out[1:],
    "zeros": lambda key, done, out: [(key, {**done, "vector": [0.0] * 16}), *out[1:]],
    "not a number": lambda key, done, out: [(key, {**done, "vector": [float("nan")] * 16}), *out[1:]],
    "one number, and none": lambda key, done, out: [(key, {**done, "vector": [float("nan")]}), *out[1:]],
    "no vector": lambda key, done, out: [(key, {**done, "vector": None}), *out[1:]],
    "a strange key beside": lambda key, done, out: [("strange", done), *out[1:]],
}


@pytest.mark.parametrize("how", LEFT)
def test_what_a_job_lacks(make, redis_client, stand_in, how):
    """One text has no vector that can be written: the next live drain takes it, and none but it."""
    stand_in.lines = _first(LEFT[how])
    queue, items = make(), pairs(5)
    queue.enqueue_many(items, within=PATIENT)
    served_by_both(queue, redis_client, items)
    [job] = queue.jobs()
    assert (job.written, job.back) == (4, 1)


@pytest.mark.parametrize("fault", [429, 500, 400, "batch_expired"])
def test_lines_that_failed(make, redis_client, stand_in, fault):
    """They stand in the error file, or among the others; the live lane decides."""
    stand_in.lines = lambda out, err: (out[2:], [(key, fault) for key, _ in out[:2]])
    queue, items = make(), pairs(5)
    queue.enqueue_many(items, within=PATIENT)
    served_by_both(queue, redis_client, items)
    assert (queue.jobs()[0].written, queue.jobs()[0].back) == (3, 2)


def rendered(monkeypatch, change) -> None:
    """Have each line of a result come out as ``change`` makes it, by its number."""

    def changed(plain):
        lines = lambda job, rows: plain(job, rows).splitlines(keepends=True)  # noqa: E731
        return lambda job, rows: b"".join(change(at, line) for at, line in enumerate(lines(job, rows)))

    for kind in (OpenAIJob, GeminiJob):
        monkeypatch.setattr(kind, "render", changed(kind.render))


def test_one_line_that_cannot_be_read(make, redis_client, stand_in, monkeypatch, caplog):
    """Its text goes to the live lane; all others are paid, and written."""
    rendered(monkeypatch, lambda at, line: b"texte refus\xe9\n" if at == 2 else line)
    queue, items = make(), pairs(5)
    queue.enqueue_many(items, within=PATIENT)
    served_by_both(queue, redis_client, items)
    assert (queue.jobs()[0].written, queue.jobs()[0].back) == (4, 1)
    assert caplog.text.count("1 lines of the result") == 1


def test_no_line_that_can_be_read(make, redis_client, stand_in, monkeypatch):
    """That is no result in which nothing has come about: nothing proves what it is."""
    rendered(monkeypatch, lambda at, line: b"<html>\n")
    queue, items = make(), pairs(5)
    queue.enqueue_many(items, within=PATIENT)
    assert over(queue).note == "thrown away: none of its 5 lines can be read: a line that is no JSON"
    served_by_both(queue, redis_client, items)


@pytest.mark.parametrize("empty", ["null", "all failed", "an empty string", "both null"])
def test_completed_is_no_success(make, redis_client, stand_in, empty):
    """No output file, whatever stands for that: all goes to the live lane."""
    stand_in.null_output = True
    stand_in.empty_error = None if empty == "both null" else ""
    if empty == "all failed":
        stand_in.lines = lambda out, err: ([], [(key, 400) for key, _ in out])
    queue, items = make(), pairs(4)
    queue.enqueue_many(items, within=PATIENT)
    served_by_both(queue, redis_client, items)
    assert queue.jobs()[0].written == 0


QUOTING = "1 validation error: input_value='the patient has a private illness', input_type=str"


@pytest.mark.parametrize(
    ("step", "status", "ending"),
    [("upload", 400, ""), ("create", 400, ""), ("create", 503, ""), ("", 0, "failed"), ("", 0, "expired")],
)
def test_a_refusal_that_quotes_a_text(make, redis_client, stand_in, caplog, step, status, ending):
    """The text is in no note of the job, and not in the log; the provider's other words are."""
    caplog.set_level(logging.INFO, "embedqueue")
    if step:
        stand_in.refuse[step] = [(status, QUOTING)]
    else:
        stand_in.ending, stand_in.reason = ending, QUOTING
        stand_in.lines = lambda out, err: (out[1:], err)
    queue = make()
    queue.enqueue_many([("note:0", "the patient has a private illness"), *pairs(3)], within=PATIENT)
    eventually(lambda: "validation error" in caplog.text if step else over(queue).note, "it is told")
    told = [caplog.text, queue.jobs()[0].note, str(redis_client.hgetall("embed_queue:jobs"))]
    assert "private illness" not in " ".join(told)
    if status != 503:
        assert "1 validation error" in queue.jobs()[0].note


@pytest.mark.parametrize("some", [True, False])
def test_expired(make, redis_client, stand_in, some):
    """What it has done is paid, and written; all else goes to the live lane."""
    stand_in.ending = "expired"
    stand_in.lines = lambda out, err: (out[:3] if some else [], err)
    queue, items = make(), pairs(5)
    queue.enqueue_many(items, within=PATIENT)
    served_by_both(queue, redis_client, items)
    [job] = queue.jobs()
    assert (job.written, job.back) == ((3, 2) if some else (0, 5))
    assert "expired" in job.note


def test_failed_for_its_quota(make, redis_client, stand_in):
    """Minutes after a good create: its items are served live, the quota is learned, and no job is made for a while."""
    stand_in.ending, stand_in.reason = "failed", "Enqueued token limit exceeded. Limit: 12,000 enqueued tokens"
    queue, items = make(), pairs(5)
    queue.enqueue_many(items, within=PATIENT)
    served_by_both(queue, redis_client, items)
    led = queue._engine.store.jobs.look()
    assert led.quota == max(led.jobs[0].tokens // 2, led.jobs[0].tokens * 3 // 4)
    assert led.rest_until > led.now + 600


def test_create_is_refused(make, redis_client, stand_in, caplog):
    """429 at create: the items wait for the next job, none is made for 15 minutes, and the live lane is not paused."""
    stand_in.refuse["create"] = [(429, "resource exhausted")]
    queue, items = make(), pairs(4)
    queue.enqueue_many(items, within=PATIENT)
    job = over(queue)
    assert (job.written, job.back) == (0, 4)
    assert stand_in.files == {}, "nor does a file stay"
    stats = queue.stats()
    assert (stats.for_jobs, stats.outsourced, stats.pause_reason) == (4, 0, None)
    assert queue._engine.store.jobs.look().rest_until > queue._engine.store.jobs.look().now + 600
    queue.enqueue("now:0", "at once").result(timeout=PATIENCE_SECONDS)
    assert stand_in.requests.count("create") == 1
    queue.flush(timeout=PATIENCE_SECONDS, outsourced="pull")
    assert all_written(redis_client, items)
    assert "900 s" in caplog.text


@pytest.mark.parametrize("step", ["create", "upload"])
def test_a_server_error_while_submitting(make, redis_client, stand_in, step):
    """500 at create says nothing: the job is looked for by its label, then its items wait for another."""
    stand_in.refuse[step] = [(500, "oops")]
    queue, items = make(), pairs(4)
    queue.enqueue_many(items, within=PATIENT)
    eventually(lambda: queue.jobs() and queue.jobs()[-1].state == "over")
    assert max(stand_in.charged.values(), default=0) <= 1  # the next job may have them already
    queue.flush(timeout=PATIENCE_SECONDS, outsourced="pull")
    assert all_written(redis_client, items)


@pytest.mark.parametrize("lists", [0, 2])
def test_the_answer_to_create_is_lost(make, redis_client, stand_in, lists):
    """The job is found by its label, also where the list lags, and adopted; nothing is paid for twice."""
    stand_in.drop["create"], stand_in.hidden_lists = 1, lists
    queue, items = make(economy_lag=30), pairs(4)
    queue.enqueue_many(items, within=PATIENT)
    eventually(lambda: all_written(redis_client, items))
    assert over(queue).written == 4
    assert max(stand_in.charged.values()) == 1
    assert len(stand_in.jobs) == 1


def test_the_answer_is_lost_and_the_list_lags_for_longer(make, redis_client, stand_in, caplog):
    """The one window in which a text is paid for twice: it is said, and the texts come all the same."""
    stand_in.drop["create"], stand_in.hidden_lists = 1, 100
    queue, items = make(), pairs(4)
    queue.enqueue_many(items, within=PATIENT)
    eventually(lambda: all_written(redis_client, items))
    assert set(stand_in.charged.values()) == {2}
    assert "paid for twice" in caplog.text
    assert "paid for twice" in " ".join(job.note for job in queue.jobs())


@pytest.mark.parametrize("vendor", ["openai"], indirect=True)
def test_what_is_found_at_last_is_cancelled(make, redis_client, stand_in, monkeypatch):
    """Its items are in another job by then; nor does the provider keep its files."""
    monkeypatch.setattr("embedqueue.jobs.runner.LATE_LAGS", 1000)
    stand_in.drop["create"], stand_in.looks, stand_in.hidden_lists = 1, None, 10**9
    stand_in.cancelling = 1
    queue, items = make(), pairs(4)
    queue.enqueue_many(items, within=PATIENT)
    eventually(lambda: len(stand_in.jobs) == 2, "another job")
    stand_in.hidden_lists = 0
    lost, other = stand_in.jobs.values()
    eventually(lambda: lost.status == "cancelled")
    stand_in.looks = 1
    eventually(lambda: all_written(redis_client, items))
    eventually(lambda: all(job.state == "over" for job in queue.jobs()))
    assert (other.status, stand_in.files) == ("completed", {})


def test_a_look_lags(make, redis_client, stand_in):
    """404 right after the create is no loss."""
    stand_in.hidden_looks = 2
    queue, items = make(economy_lag=10), pairs(3)
    queue.enqueue_many(items, within=PATIENT)
    eventually(lambda: all_written(redis_client, items))
    assert over(queue).written == 3


def test_a_call_that_verifies_a_result_and_is_answered_404_says_nothing_of_the_result(make, redis_client, stand_in):
    """Access to the model is gone for a while, or a gateway is away: what the job has done is paid, and written."""
    stand_in.refuse["live"] = [(404, "no such model")] * 3
    queue, items = make(economy_lag=0.01), pairs(3)
    queue.enqueue_many(items, within=PATIENT)
    eventually(lambda: all_written(redis_client, items))
    assert (over(queue).written, stand_in.refuse["live"]) == (3, [])


def test_a_job_that_nobody_knows(make, redis_client, stand_in, caplog):
    """The key is of another project, or the result is older than it is kept: the live lane does it."""
    stand_in.looks = None
    queue, items = make(), pairs(3)
    queue.enqueue_many(items, within=PATIENT)
    in_jobs(queue, 3)
    stand_in.jobs.clear()
    served_by_both(queue, redis_client, items)
    assert "does not know it" in queue.jobs()[0].note
    assert "does not know it" in caplog.text


def test_texts_that_the_provider_has_deleted(make, redis_client, stand_in):
    """Gemini keeps them for two days, and says 403 of a file that is gone: the rest is deleted as ever."""
    stand_in.looks = None
    queue, items = make(), pairs(3)
    queue.enqueue_many(items, within=PATIENT)
    in_jobs(queue, 3)
    del stand_in.files[stand_in.job().file]
    stand_in.looks = 1
    assert over(queue).written == 3
    assert stand_in.files == {}


def test_a_result_that_is_deleted(make, redis_client, stand_in):
    stand_in.refuse["download"] = [(404, "no such file")] * 20
    queue, items = make(), pairs(3)
    queue.enqueue_many(items, within=PATIENT)
    served_by_both(queue, redis_client, items)
    assert queue.jobs()[0].back == 3


@pytest.mark.parametrize("word", ["COMPLETED", " Completed ", "Job_State_Completed"])
def test_states_in_another_form(make, redis_client, stand_in, word, vendor):
    """Upper case, blanks and prefixes do not matter."""
    if vendor == "gemini":
        word = word.replace("ompleted", "SUCCEEDED"[1:].lower()).replace("COMPLETED", "SUCCEEDED")
        word = word.replace("Csucceeded", "Succeeded").replace("Cucceeded", "Succeeded")
    stand_in.status_word = lambda said: word if said == "completed" else said
    queue, items = make(), pairs(3)
    queue.enqueue_many(items, within=PATIENT)
    eventually(lambda: all_written(redis_client, items))
    assert over(queue).written == 3


def test_a_state_of_which_nobody_has_heard(make, redis_client, stand_in):
    """It is waited for: what it means, the next one tells, or the deadline."""
    words = iter(["MARINATING"] * 3)
    stand_in.status_word = lambda said: next(words, said)
    queue, items = make(), pairs(3)
    queue.enqueue_many(items, within=PATIENT)
    eventually(lambda: all_written(redis_client, items))
    assert over(queue).written == 3


def test_gzip(make, redis_client, stand_in):
    stand_in.folded = True
    queue, items = make(), pairs(50)
    queue.enqueue_many(items, within=PATIENT)
    eventually(lambda: all_written(redis_client, items))
    assert over(queue).written == 50


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("breaks", [[900], [1200, 1500, 10], [0, 0]])
def test_a_download_that_breaks(make, redis_client, stand_in, ranges, breaks):
    """It goes on where it was, by a part of the file or by reading it again; each text is written once."""
    stand_in.ranges, stand_in.break_after = ranges, list(breaks)
    queue, items = make(), pairs(30)
    queue.enqueue_many(items, within=PATIENT)
    eventually(lambda: all_written(redis_client, items))
    job = over(queue)
    assert (job.written, job.back) == (30, 0)
    assert all(np.allclose(stored(redis_client, key), as_batch(text)) for key, text in items)
    assert not stand_in.break_after


def test_the_live_api_fails_while_a_job_is_verified(make, redis_client, stand_in):
    """Nothing is written before it has answered; nothing is thrown away either."""
    stand_in.refuse["live"] = [(503, "busy")] * 2
    queue, items = make(), pairs(4)
    queue.enqueue_many(items, within=PATIENT)
    eventually(lambda: all_written(redis_client, items))
    assert over(queue).written == 4


def test_the_key_is_wrong_for_a_while(make, redis_client, stand_in):
    """401 is no end of a job."""
    queue, items = make(), pairs(4)
    stand_in.looks = None
    queue.enqueue_many(items, within=PATIENT)
    in_jobs(queue, 4)
    stand_in.refuse["look"] = [(401, "key rotated")] * 2
    eventually(lambda: not stand_in.refuse["look"])
    stand_in.looks = 1
    eventually(lambda: all_written(redis_client, items))
    assert over(queue).written == 4


def test_a_hash_of_another_type(make, redis_client, stand_in):
    """The live lane decides about it: a dead letter that says so."""
    redis_client.set("doc:1", "a string")
    queue, items = make(), pairs(4)
    queue.enqueue_many(items, within=PATIENT)
    over(queue)
    queue.flush(timeout=PATIENCE_SECONDS)
    [letter] = queue.dead_letters()
    assert letter.redis_key == "doc:1"
    assert all_written(redis_client, [items[0], *items[2:]])


def test_a_paused_queue_makes_no_job(make, redis_client, stand_in):
    queue = make(start=False)
    queue._engine.store.hold(None, "by hand")
    queue.start()
    queue.enqueue_many(pairs(4), within=PATIENT)
    eventually(lambda: queue._engine.store.jobs.look().leader)
    assert queue.stats().for_jobs == 4
    assert not queue.jobs()
    queue._engine.store.unhold()
    eventually(lambda: queue.jobs())


@pytest.mark.parametrize(
    ("options", "within"), [({}, PATIENT), ({"flush_interval": PATIENT}, None)], ids=["within", "interval"]
)
def test_what_is_due_leaves_its_job_though_nobody_has_economy_any_more(
    make, redis_client, stand_in, caplog, options, within
):
    """The option was taken away while items were in a job, and that is their own affair: they are embedded in time."""
    stand_in.looks = None
    queue, items = make(**options), pairs(3)
    queue.enqueue_many(items, within=within)
    in_jobs(queue, 3)
    queue.stop()
    later = make(**options, economy=False)
    eventually(lambda: inside(later).has_looked)
    assert later.stats().outsourced == 3, "they are not due"
    held = redis_client.zrange("embed_queue:inflight", 0, -1, withscores=True)
    redis_client.zadd("embed_queue:inflight", {member: score - 2 * PATIENT for member, score in held})
    inside(later).agenda.refresh()
    eventually(lambda: all_written(redis_client, items))
    assert "3 items are due and leave their batch jobs" in caplog.text


def test_an_answer_that_nobody_foresaw_keeps_no_other_job_waiting(make, redis_client, stand_in, monkeypatch, caplog):
    """The first job waits for a better answer, and is left to its time; the next one is served."""
    stand_in.looks = None
    queue, items = make(economy_max_texts=3), pairs(6)
    embedder_jobs = type(batch_jobs_of(queue._embedder, queue.options.model))
    queue.enqueue_many(items, within=PATIENT)
    in_jobs(queue, 6)
    eventually(lambda: len(stand_in.jobs) == 2)
    first = next(iter(stand_in.jobs.values()))
    look = embedder_jobs.look
    strange = {first.id: KeyError("unforeseen")}

    def looking(jobs, job_id):
        if job_id in strange:
            raise strange[job_id]
        return look(jobs, job_id)

    monkeypatch.setattr(embedder_jobs, "look", looking)
    stand_in.looks = 1
    eventually(lambda: all_written(redis_client, items[3:]), "the items of the second job")
    assert not all_written(redis_client, items[:3])
    eventually(lambda: "has to wait" in caplog.text)
    monkeypatch.undo()
    eventually(lambda: all_written(redis_client, items), "the items of the first")
    assert max(stand_in.charged.values()) == 1


def test_a_provider_that_fails_at_each_create_is_left_in_peace(make, redis_client, stand_in, caplog):
    """It is not known whether the job was created. It is looked for, and no other one is made at once."""
    stand_in.refuse["create"] = [(500, "broken")] * 50
    queue, items = make(), pairs(3)
    queue.enqueue_many(items, within=PATIENT)
    over(queue)
    eventually(lambda: "no batch job is made for 900 s" in caplog.text)
    assert queue.stats().for_jobs == 3, "they wait for another job"
    assert len(queue.jobs()) == 1


def test_a_stop_in_the_middle_of_a_step_leaves_the_jobs_to_others(make, redis_client, monkeypatch):
    """And not only when something would have been due next, which here is in a minute."""
    queue = make(start=False, economy_poll=(0.001, 0.2))
    queue.enqueue_many(pairs(3), within=PATIENT)
    redis_client.hset("embed_queue:jobs", ":rest", f"{time.time() + 900} 1")
    status, asked, stopping = inside(queue).store.status, [], []

    def stops():
        if threading.current_thread().name.startswith("embedqueue-jobs"):
            asked.append(1)
            if len(asked) == 2:  # the first step rests for nothing: it was woken meanwhile
                stopping.append(in_thread(queue.stop))
                eventually(lambda: inside(queue).looks_after_no_jobs, "it has been told to stop")
        return status()

    monkeypatch.setattr(inside(queue).store, "status", stops)
    queue.start()
    eventually(lambda: stopping, "it is in the middle of a step")
    join(*stopping)
    eventually(lambda: "embedqueue-jobs-embed_queue" not in [thread.name for thread in threading.enumerate()])


def test_another_host_gets_no_key(stand_in, monkeypatch):
    """Gemini says where the file goes. That may be elsewhere, and whoever is there shall not learn the key."""
    seen = []
    plain = _Handler._serve
    begin = _Handler._gemini_begin

    def elsewhere(handler):
        answer, headers = begin(handler)
        return answer, {name: url.replace("127.0.0.1", "localhost") for name, url in headers.items()}

    def serve(handler):
        seen.append((handler.headers["host"], handler.headers.get("x-goog-api-key")))
        plain(handler)

    monkeypatch.setattr(_Handler, "_gemini_begin", elsewhere)
    monkeypatch.setattr(_Handler, "_serve", serve)
    with closing(embedder_of("gemini", stand_in.url)) as embedder:
        embedder.batch_jobs("m").upload({"k": "a text"}, "a label")
    [(_, first), (host, second)] = seen
    assert (first, host.partition(":")[0], second) == ("key", "localhost", None)
