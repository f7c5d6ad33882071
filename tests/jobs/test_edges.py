"""The rarer answers of providers, and what the one who looks after the jobs does when its own ground shakes."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import redis

from embedqueue import Budget, GeminiEmbedder, OpenAIEmbedder
from embedqueue.embedders import AzureOpenAIEmbedder, MistralEmbedder, OpenRouterEmbedder, VoyageEmbedder
from embedqueue.embedders.batch_jobs import JobSeen, batch_jobs_of, was_refused
from embedqueue.jobs import runner
from embedqueue.jobs.desk import Lost
from embedqueue.values.errors import ConfigurationError, TransientError
from tests.jobs.options import PATIENT
from tests.jobs.standin import DIMENSIONS, GeminiJob, OpenAIJob, as_batch
from tests.jobs.test_jobs import all_written, in_jobs, over, pairs
from tests.parts import PATIENCE_SECONDS, eventually


@pytest.fixture
def openai(stand_in):
    return batch_jobs_of(OpenAIEmbedder("key", f"{stand_in.url}/v1", DIMENSIONS, batches=True), "m")


@pytest.fixture
def gemini(stand_in):
    return batch_jobs_of(GeminiEmbedder("key", f"{stand_in.url}/v1beta", DIMENSIONS), "m")


def answers(jobs, monkeypatch, *found):
    """Let a provider's next answers be these; or, for the last one, all that follow."""
    rest = list(found)

    def ask(method, url, body=None, **more):
        asked.append((method, url))
        answer = rest.pop(0) if len(rest) > 1 else rest[0]
        if isinstance(answer, Exception):
            raise answer
        return answer, {}

    asked = []
    monkeypatch.setattr(jobs._http, "ask", ask)
    return asked


def test_who_has_batch_jobs(stand_in):
    """OpenAI, Gemini, and whatever speaks OpenAI's format, unless it is known or said to have none."""
    assert batch_jobs_of(OpenAIEmbedder("key"), "m") is not None
    assert batch_jobs_of(OpenAIEmbedder("key", "http://host:1/v1"), "m") is not None
    assert batch_jobs_of(OpenAIEmbedder("key", "http://host:1/v1", batches=False), "m") is None
    assert batch_jobs_of(OpenRouterEmbedder("key"), "m") is None
    assert batch_jobs_of(AzureOpenAIEmbedder("key", "https://name.openai.azure.com/openai/v1"), "m") is None
    assert batch_jobs_of(OpenAIEmbedder("key", "http://host:1/v1?a=b", batches=True), "m") is None
    assert batch_jobs_of(GeminiEmbedder("key", "http://host:1/v1beta?a=b"), "m") is None
    assert batch_jobs_of(object(), "m") is None


@pytest.mark.parametrize("status", [404, 409, 425, 429])
def test_a_refusal_is_certain(status):
    assert was_refused(TransientError("no", status=status))


@pytest.mark.parametrize("error", [TransientError("cut"), TransientError("oops", status=500)])
def test_no_answer_is_not_certain(error):
    assert not was_refused(error)


def test_lists_have_pages(openai, gemini, monkeypatch):
    """A job of the second page is found; one that is older than the first of a page ends the search at OpenAI."""
    rows = [{"id": "b1", "created_at": 2e9, "metadata": "?"}, {"id": "b2", "metadata": {"embedqueue": "mine"}}]
    asked = answers(openai, monkeypatch, {"data": rows[:1], "has_more": True}, {"data": rows[1:]})
    assert openai.find("mine", 1e9) == "b2"
    assert "after=b1" in asked[1][1]
    answers(openai, monkeypatch, {"data": [{"id": "b1", "created_at": 1.0}], "has_more": True})
    assert openai.find("mine", 1e9) is None
    answers(openai, monkeypatch, {"data": rows[:1], "has_more": True})
    assert openai.find("mine", 1e9) is None, "it ends at last"
    named = {"name": "batches/2", "metadata": {"displayName": "mine"}}
    other = {"name": "batches/1", "metadata": {"displayName": "other"}}
    asked = answers(gemini, monkeypatch, {"operations": [other], "nextPageToken": "t/"}, {"operations": [named]})
    assert gemini.find("mine", 1e9) == "batches/2"
    assert "pageToken=t" in asked[1][1]
    answers(gemini, monkeypatch, {"operations": [other], "nextPageToken": "t"})
    assert gemini.find("mine", 1e9) is None


@pytest.mark.parametrize("form", ["inlinedResponses", "inlinedEmbedContentResponses"])
@pytest.mark.parametrize("where", ["metadata", "response", "bare"])
def test_gemini_answers_within_the_answer(gemini, monkeypatch, form, where):
    """As ``metadata.output`` or as ``response``, under both names, also without the operation around it."""
    done = {"response": {"embedding": {"values": as_batch("a")}, "tokenCount": 3}, "metadata": {"key": "k"}}
    output = {form: {"inlinedResponses": [done, {"error": {"code": 8, "message": "no"}, "metadata": {"key": "l"}}]}}
    batch = {"state": "JOB_STATE_SUCCEEDED", "batchStats": {"successfulRequestCount": "1"}}
    answer = {
        "metadata": {"metadata": {**batch, "output": output}},
        "response": {"metadata": batch, "response": output},
        "bare": {**batch, "output": output},
    }[where]
    answers(gemini, monkeypatch, answer)
    seen = gemini.look("batches/1")
    assert (seen.standing, seen.done) == ("done", 1)
    first, second = gemini.results(seen)
    assert np.allclose(first.vector, as_batch("a"))
    assert (first.key, first.tokens, second.key, second.vector) == ("k", 3, "l", None)
    assert "no" in second.error


def test_broken_answers(openai, gemini, monkeypatch):
    """What has no name, no key or no vector is told as such, and nothing else happens."""
    for jobs, word in ((openai, "id"), (gemini, "name")):
        answers(jobs, monkeypatch, {})
        with pytest.raises(TransientError, match=word):
            jobs.create("file", {}, "label")
        assert (jobs._read(None, (0, 1)).key, jobs._read(None, (0, 1)).error) == ("", "a line that is no JSON")
        assert jobs._read({"response": {}}, (0, 1)).key == ""
    answers(gemini, monkeypatch, {})
    with pytest.raises(TransientError, match="where the file goes"):
        gemini.upload({"k": "a"}, "label")
    assert gemini.look("batches/1").standing == "waiting"
    answers(gemini, monkeypatch, {"metadata": {"state": "BATCH_STATE_FAILED"}, "error": "quota"})
    assert gemini.look("batches/1").quota
    answers(gemini, monkeypatch, {"metadata": {"state": "BATCH_STATE_RUNNING", "batchStats": ["?"]}})
    assert gemini.look("batches/1").done is None
    assert gemini._read({"metadata": "?"}, (0, 1)).error == "a line without key"
    for number in ("\u00b2", "9" * 5000, [3], True):
        line = {"key": "k", "response": {"embedding": {"values": [1.0] * 16}, "tokenCount": number}}
        assert gemini._read(line, (0, 1)).tokens is None
    answers(gemini, monkeypatch, [])
    assert gemini.look("batches/1").parts == ()
    assert list(gemini.results(JobSeen("done"))) == []
    for odd in ("?", ["?"], 3):
        done = {"status": "completed", "output_file_id": "f", "request_counts": odd, "usage": odd}
        answers(openai, monkeypatch, done)
        seen = openai.look("batch_1")
        assert (seen.standing, seen.parts, seen.done, seen.used_tokens) == ("done", ("f",), None, None)
    answers(openai, monkeypatch, {"status": "failed", "errors": "a word"})
    assert openai.look("b").reason == "a word"
    line = {"custom_id": "k", "response": {"status_code": 500, "body": {"error": {"message": "m"}}}}
    assert openai._read(line, (0, 1)).error == "500: m"


def test_what_is_over_is_left_alone(openai, gemini, monkeypatch):
    """To cancel what has ended, and to delete what is gone, is no fault; any other refusal is."""
    gone = ConfigurationError("host answered 404: no such thing")
    ended = TransientError("host answered 409: it has ended", status=409)
    precondition = ConfigurationError("host answered 400: FAILED_PRECONDITION: it is not running")
    wrong = ConfigurationError("host answered 401: the key")
    for jobs in (openai, gemini):
        for error in (gone, ended, precondition):
            answers(jobs, monkeypatch, error)
            jobs.cancel("batches/1")
        answers(jobs, monkeypatch, gone)
        jobs.delete("", "file", "label")
        assert jobs.look("batches/1").standing == "gone"
        answers(jobs, monkeypatch, wrong)
        for move in (
            lambda jobs=jobs: jobs.cancel("batches/1"),
            lambda jobs=jobs: jobs.delete("", "file", "label"),
            lambda jobs=jobs: jobs.look("batches/1"),
        ):
            with pytest.raises(ConfigurationError):
                move()


def job_of(jobs, stand_in, content: bytes):
    """What the stand-in has as a result."""
    stand_in.files["file-1"] = type("File", (), {"name": "out", "content": content})()
    return JobSeen("done", parts=("file-1",))


def test_results_that_are_no_lines(openai, stand_in, monkeypatch):
    """The last line needs no end; one that is cut is tried again, and one without end is given up."""
    line = OpenAIJob("b", "", "", [], 0.0).render([("k", {"text": "a", "vector": as_batch("a"), "tokens": 1})])
    assert [one.key for one in openai.results(job_of(openai, stand_in, b"\n" + line.rstrip()))] == ["k"]
    with pytest.raises(TransientError, match="midst"):
        list(openai.results(job_of(openai, stand_in, line + line[:40])))
    end = (0, len(line))
    assert list(openai.results(job_of(openai, stand_in, line), end)) == [], "there is nothing behind its end"
    monkeypatch.setattr("embedqueue.embedders.batch_http.MOST_LINE_BYTES", 10)
    with pytest.raises(ConfigurationError, match="no end"):
        list(openai.results(job_of(openai, stand_in, b"x" * 100)))


def test_addresses_that_are_none_and_answers_that_are_no_json(stand_in, monkeypatch):
    embedder = OpenAIEmbedder("key", f"{stand_in.url}/v1", DIMENSIONS, batches=True, headers={"X": "y"})
    jobs = batch_jobs_of(embedder, "m")
    monkeypatch.setattr(
        "embedqueue.embedders.documents.parse", lambda body: __import__("embedqueue").embedders.documents.BROKEN
    )
    with pytest.raises(TransientError, match="no JSON"):
        jobs.find("label", 0.0)
    monkeypatch.undo()
    monkeypatch.setattr(jobs._http, "_headers", lambda: {"X": "a\nb"})
    with pytest.raises(ConfigurationError, match="no request"):
        jobs.find("label", 0.0)


# -- the budget ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vendor", ["openai"], indirect=True)
@pytest.mark.parametrize("what", ["usd_per_day", "usd_per_month"])
def test_a_budget_holds(make, redis_client, stand_in, what):
    """No job is begun for which there is no room; what one has cost is booked at half the price."""
    prices = {"m": 1e6}  # a dollar a token
    queue = make(budget=Budget(**{what: 1.0}), prices=prices)
    queue.enqueue_many(pairs(4), within=PATIENT)
    eventually(lambda: queue._engine.store.jobs.look().leader)
    threading.Event().wait(0.5)
    assert not queue.jobs()
    assert queue.stats().for_jobs == 4
    queue.stop()
    rich = make(budget=Budget(**{what: 1e9}), prices=prices)
    eventually(lambda: all_written(redis_client, pairs(4)))
    used = over(rich).used_tokens
    eventually(lambda: rich._engine.store.budget.state().day >= used * 0.5)
    assert rich._engine.store.budget.state().day < used * 0.5 + 10, "two canaries at the full price"


def booked_once(queue, stand_in) -> None:
    """What the one job has cost is in the budget at half a dollar a token, and in the history."""
    used = over(queue) and stand_in.job().tokens
    assert used * 0.5 <= queue._engine.store.budget.state().day < used * 0.5 + 3, "and two canaries at most"
    queue.stop(timeout=PATIENCE_SECONDS)
    [sent] = [one for period in queue.history().days for one in period.sent if one.lane == "batch"]
    assert (sent.texts, sent.measured) == (4, used)


RICH = {"budget": Budget(usd_per_day=1e9), "prices": {"m": 1e6}}


@pytest.mark.parametrize("vendor", ["openai"], indirect=True)
def test_a_budget_that_is_smaller_than_a_job_may_be(make, redis_client, stand_in):
    """It has room for what waits, and that goes into a job: not for the million tokens that a job may have at most."""
    queue = make(budget=Budget(usd_per_day=0.05), prices={"m": 0.13})
    queue.enqueue_many(pairs(4), within=PATIENT)
    assert over(queue).written == 4


@pytest.mark.parametrize("vendor", ["openai"], indirect=True)
@pytest.mark.parametrize("wrong", ["", "wrong"])
def test_a_job_whose_files_cannot_be_deleted_is_booked_once(make, redis_client, stand_in, wrong):
    """Also where nothing of it can be used: each try to delete them begins anew."""
    stand_in.refuse["delete"] = [(500, "try later")] * 3
    stand_in.batch_vector = lambda text: as_batch(text + wrong)
    queue = make(**RICH)
    queue.enqueue_many(pairs(4), within=PATIENT)
    booked_once(queue, stand_in)
    assert not stand_in.refuse["delete"]


@pytest.mark.parametrize("vendor", ["openai"], indirect=True)
def test_redis_is_away_when_a_job_is_booked(make, redis_client, stand_in, monkeypatch):
    """It has ended by then, and what it has cost is booked all the same."""
    queue = make(start=False, **RICH)
    book, faults = queue._engine.store.budget, [redis.ConnectionError("away")]
    settle = book.settle

    def settled(owner, dollars):
        if owner.startswith("job:") and faults:
            raise faults.pop()
        return settle(owner, dollars)

    monkeypatch.setattr(book, "settle", settled)
    queue.start()
    queue.enqueue_many(pairs(4), within=PATIENT)
    booked_once(queue, stand_in)
    assert not faults


@pytest.mark.parametrize("vendor", ["openai"], indirect=True)
def test_whoever_books_a_job_dies(make, redis_client, stand_in, monkeypatch):
    """Before it has noted that it has: whoever comes next does not book it again."""
    queue = make(start=False, **RICH)
    jobs, kept = queue._engine.store.jobs, queue._engine.store.jobs.keep
    deaths = [redis.ConnectionError("as if it died")]

    def keep(who, job, *more):
        if job.booked and deaths:
            raise deaths.pop()
        return kept(who, job, *more)

    monkeypatch.setattr(jobs, "keep", keep)
    queue.start()
    queue.enqueue_many(pairs(4), within=PATIENT)
    booked_once(queue, stand_in)
    assert not deaths


@pytest.mark.parametrize("embedder", [VoyageEmbedder, MistralEmbedder])
def test_whoever_wants_no_batch_jobs_has_none(embedder):
    assert batch_jobs_of(embedder("key"), "m") is not None
    assert batch_jobs_of(embedder("key", batches=False), "m") is None


# -- the one who looks after the jobs ------------------------------------------------------------------------------

one_vendor = pytest.mark.parametrize("vendor", ["openai"], indirect=True)


@one_vendor
def test_a_job_that_never_ends(make, redis_client, stand_in, monkeypatch):
    """After three days it is cancelled, whatever its provider says."""
    monkeypatch.setattr("embedqueue.jobs.runner.LONGEST_JOB_SECONDS", 1.0)
    stand_in.looks = None
    queue, items = make(), pairs(3)
    queue.enqueue_many(items, within=PATIENT)
    assert "three days" in over(queue).note
    assert stand_in.job().status == "cancelled"
    queue.flush(timeout=PATIENCE_SECONDS)
    assert all_written(redis_client, items)


@one_vendor
def test_looks_in_vain_end(make, redis_client, stand_in, monkeypatch, caplog):
    """A provider that never tells anything, for three days; and files that cannot be deleted, for a day."""
    monkeypatch.setattr("embedqueue.jobs.runner.LONGEST_JOB_SECONDS", 0.5)
    monkeypatch.setattr("embedqueue.jobs.runner.LONGEST_CLEANING_SECONDS", 0.5)
    stand_in.looks = None
    queue, items = make(), pairs(3)
    stand_in.refuse["look"] = [(500, "oops")] * 1000
    queue.enqueue_many(items, within=PATIENT)
    job = over(queue)
    assert "given up" in job.note
    assert "files may still be" in job.note
    queue.flush(timeout=PATIENCE_SECONDS)
    assert all_written(redis_client, items)


@one_vendor
def test_what_was_only_planned_goes_back(make, redis_client, stand_in):
    """Whoever planned it has died before it brought anything to the provider."""
    queue, items = make(start=False), pairs(3)
    queue.enqueue_many(items, within=PATIENT)
    engine = queue._engine
    from embedqueue.store.jobs import Job

    assert engine.store.jobs.lead("dead", 60).ours
    how = {"least": 1, "most": 9, "most_bytes": 1 << 20, "max_deliveries": 5}
    found = engine.store.jobs.outsource("dead", Job("j1"), engine.terms(), **how)
    assert len(found.members) == 3
    engine.store.jobs.lead("dead", 0)
    queue.start()
    eventually(lambda: all_written(redis_client, items))
    eventually(lambda: all(job.state == "over" for job in queue.jobs()))
    assert {job.name: job.back for job in queue.jobs()}["j1"] == 3
    assert set(stand_in.charged.values()) == {1}
    # What comes late from the dead one changes nothing.
    assert not engine.store.jobs.keep("dead", replace(Job("j1"), state="submitting"))
    who = engine.store.jobs.look().leader or "w"
    engine.store.jobs.lead(who, 5)
    assert not engine.store.jobs.keep(who, replace(Job("j1"), state="submitting"))
    assert engine.store.jobs.outsource(who, Job("j1"), engine.terms(), **how).word == "lost"
    assert engine.store.jobs.outsource("dead", Job("j2"), engine.terms(), **how).word == "lost"


@one_vendor
def test_a_quota_that_is_learned_holds(make, redis_client, stand_in):
    """No more estimated tokens are in jobs than the provider has been found to take; old jobs are forgotten at last."""
    queue = make(start=False, economy_min_texts=1)
    jobs = queue._engine.store.jobs
    jobs.lead("somebody", 60)
    jobs.learn_quota("somebody", 20)
    jobs.lead("somebody", 0)
    queue.start()
    queue.enqueue_many([(f"doc:{number}", "x" * 50) for number in range(4)], within=PATIENT)
    eventually(lambda: redis_client.hlen(queue._engine.store.keys.latest) == 0)
    assert all(job.items <= 2 for job in queue.jobs())


@one_vendor
def test_redis_is_away_for_a_while(make, redis_client, stand_in, monkeypatch):
    """Whoever looks after the jobs goes on when it is back."""
    queue, items = make(start=False), pairs(3)
    jobs, real = queue._engine.store.jobs, queue._engine.store.jobs.lead
    faults = [__import__("redis").ConnectionError("away"), RuntimeError("a fault of ours")]

    def lead(who, seconds, terms=None):
        if faults:
            raise faults.pop()
        return real(who, seconds, terms)

    monkeypatch.setattr(jobs, "lead", lead)
    queue.start()
    queue.enqueue_many(items, within=PATIENT)
    eventually(lambda: all_written(redis_client, items))
    assert not faults


@one_vendor
def test_another_takes_over(make, redis_client, stand_in):
    """The lease is taken away under the one who has it: the other goes on, and the text is paid for once."""
    stand_in.looks = None
    queue, items = make(), pairs(3)
    queue.enqueue_many(items, within=PATIENT)
    in_jobs(queue, 3)
    names = queue._engine.store.keys
    redis_client.hset(names.jobs, ":lead", f"other {redis_client.time()[0] + 1.5:.3f}")
    stand_in.looks = 1
    eventually(lambda: all_written(redis_client, items))
    assert max(stand_in.charged.values()) == 1


def test_gemini_has_one_file(stand_in):
    assert GeminiJob("b", "", "", [], 0.0).render([("k", 13)]).count(b"error 13") == 1


@one_vendor
def test_the_lease_is_lost_in_the_middle_of_a_step(make, redis_client, stand_in, monkeypatch):
    """Nothing more is done with the job until it is led again; then it goes on, and is paid for once."""
    step, lost = runner._one_step, []

    def losing(desk, job):
        if not lost:
            lost.append(job.name)
            raise Lost
        return step(desk, job)

    monkeypatch.setattr(runner, "_one_step", losing)
    queue, items = make(), pairs(3)
    queue.enqueue_many(items, within=PATIENT)
    assert over(queue).written == 3
    assert lost
    assert max(stand_in.charged.values()) == 1


@one_vendor
def test_what_fails_when_the_queue_ends_is_no_news(make, redis_client, stand_in, monkeypatch, caplog):
    """The job waits for whoever looks after it next."""
    failed = threading.Event()

    def failing(desk, job):
        desk.closing.set()
        failed.set()
        raise RuntimeError("the connections are closed")

    monkeypatch.setattr(runner, "_one_step", failing)
    queue = make()
    queue.enqueue_many(pairs(3), within=PATIENT)
    assert failed.wait(PATIENCE_SECONDS)
    queue.stop(timeout=PATIENCE_SECONDS)
    assert "has to wait" not in caplog.text
    assert "should not" not in caplog.text


@one_vendor
def test_an_embedder_that_has_batch_jobs_no_more_is_asked_for_none(make, redis_client, stand_in, monkeypatch):
    """The queue goes on with its calls."""
    queue, asked = make(start=False), threading.Event()
    monkeypatch.setattr("embedqueue.engine.batch_jobs_of", lambda *_: asked.set())
    queue.start()
    queue.enqueue_many(pairs(3), within=PATIENT)
    assert asked.wait(PATIENCE_SECONDS)
    assert queue.enqueue("doc:live", "now").result(PATIENCE_SECONDS)
    assert stand_in.jobs == {}
