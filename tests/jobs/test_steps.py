"""Single steps of a job, one after another in the test's own thread, and what may come between them."""

from __future__ import annotations

import json
import random
import threading
import time
from dataclasses import replace

import pytest
import redis

from embedqueue import Budget
from embedqueue.embedders.batch_jobs import was_refused
from embedqueue.jobs import collection, submission
from embedqueue.jobs import runner as running
from embedqueue.jobs.collection import Gone, collect
from embedqueue.jobs.desk import Lost, Stopped
from embedqueue.jobs.submission import submit
from embedqueue.store.jobs import Job
from embedqueue.values.errors import ConfigurationError, TransientError
from embedqueue.values.item import encode_member
from tests.inside import inside
from tests.jobs.options import PATIENT
from tests.jobs.standin import as_batch, vector_of
from tests.jobs.test_jobs import all_written, is_of, over, pairs, stored
from tests.parts import PATIENCE_SECONDS, eventually

pytestmark = pytest.mark.parametrize("vendor", ["openai"], indirect=True)


@pytest.fixture
def desk(make):
    """The desk of a queue that is not started."""
    queue = make(start=False, lease_seconds=60)  # nobody renews it between the steps
    desk = queue._engine.runner._new_desk()
    desk.queue = queue
    desk.renew()
    return desk


@pytest.fixture
def job(desk, stand_in):
    """A job of three texts that has ended at the provider, and how that sees it."""
    desk.queue.enqueue_many(pairs(3), within=PATIENT)
    assert submit(desk)
    stand_in.looks = 1
    [made] = desk.renew().jobs
    return made, desk.batches.look(made.provider_id)


def test_who_has_lost_the_lease_stops(desk):
    desk.led_since = 0.0
    desk.queue._engine.store.jobs.lead(desk.who, 0)
    desk.queue._engine.store.jobs.lead("other", 60)
    with pytest.raises(Lost):
        desk.renew()
    with pytest.raises(Lost):
        desk.keep(Job("j1"))
    assert was_refused(ConfigurationError("no"))


def test_who_has_lost_the_lease_for_a_while_begins_anew(desk):
    """It is his again, but not without a break: what he knows of the jobs may be wrong."""
    desk.led_since = desk.led.since
    assert desk.renew().ours
    jobs = desk.queue._engine.store.jobs
    for who, seconds in ((desk.who, 0), ("other", 60), ("other", 0), (desk.who, 60)):
        jobs.lead(who, seconds)
    with pytest.raises(Lost):
        desk.renew()


def test_what_others_may_have_created_is_looked_for_before_more_is(make, stand_in, monkeypatch):
    """Somebody else had the lease for a while, and left a job of which nobody knows whether it was created."""
    queue = make(start=False, economy_max_texts=3)
    queue.enqueue_many(pairs(3), within=PATIENT)
    other = make(start=False)._engine.runner._new_desk()
    other.renew()
    stand_in.drop["create"] = 1
    assert submit(other)
    other.jobs.lead(other.who, 0)
    queue.enqueue_many([(f"more:{number}", f"more {number}") for number in range(3)], within=PATIENT)
    runner = queue._engine.runner
    runner._next = {job.name: time.monotonic() + 600 for job in other.led.jobs + other.jobs.look().jobs}
    stand_in.requests.clear()
    monkeypatch.setattr(runner, "_rest", lambda desk, seconds: False)
    runner._run()
    steps = [step for step in stand_in.requests if step in ("list", "create")]
    assert steps == ["list", "create"]
    assert [job.state for job in queue.jobs()] == ["submitted", "submitted"]
    assert set(stand_in.charged.values()) == {1}


def test_the_list_may_lag_from_when_a_create_has_failed(desk, redis_client, monkeypatch):
    """However long the upload took and the answer was waited for."""
    failed_at = []

    def create(*_):
        seconds, micros = redis_client.time()
        failed_at.append(seconds + micros / 1e6)
        raise TransientError("no answer")

    monkeypatch.setattr(desk.batches, "create", create)
    desk.queue.enqueue_many(pairs(3), within=PATIENT)
    assert submit(desk)
    [job] = desk.renew().jobs
    assert (job.state, job.since >= failed_at[0]) == ("submitting", True)


def test_a_stop_while_the_file_is_waited_for_leaves_the_job_to_others(desk, stand_in):
    """It was not created; whoever comes next does not find it, and sends its items back."""
    stand_in.refuse["create"] = [(404, "Input file not found")] * 1000
    desk.queue.enqueue_many(pairs(3), within=PATIENT)
    desk.closing.set()
    with pytest.raises(Stopped):
        submit(desk)
    [job] = desk.renew().jobs
    assert (job.state, stand_in.jobs) == ("submitting", {})


def test_a_job_that_is_refused_decides_nothing(desk, stand_in):
    """Its settings may be wrong: what vectors are is kept with the first that are written."""
    stand_in.refuse["create"] = [(400, "there is no such model")]
    desk.queue.enqueue_many(pairs(3), within=PATIENT)
    assert not submit(desk)
    assert desk.store.agreed() == {}
    desk.jobs.rest(desk.who, 0.0, 0)
    assert submit(desk)
    assert desk.store.agreed()["model"] == "m", "from now on it is paid for"


def test_a_job_of_another_model_that_is_found_decides_nothing(desk, stand_in):
    """Whoever finds it may be the one whose settings are wrong."""
    stand_in.drop["create"] = 1
    desk.queue.enqueue_many(pairs(3), within=PATIENT)
    assert submit(desk)
    [made] = desk.renew().jobs
    assert submission.recover(desk, replace(made, space="other/16/-")).state == "submitted"
    assert desk.store.agreed() == {}


def test_of_two_times_that_a_job_is_not_known_each_counts_for_itself(desk, job, stand_in):
    """In between it was there, though its result could not be verified."""
    desk.options = replace(desk.options, economy_lag=60.0)
    stand_in.hidden_looks = 1
    made = running._one_step(desk, job[0])
    desk.gone_since[made.name] -= 3600
    stand_in.refuse["live"] = [(503, "down")] * 9
    with pytest.raises(Exception, match="503|down"):
        running._one_step(desk, made)
    stand_in.hidden_looks = 1
    assert running._one_step(desk, made).state == "submitted"


@pytest.mark.parametrize("step", ["look", "download"])
def test_what_is_not_known_for_a_moment_is_no_loss(desk, job, stand_in, step):
    """Of a job that has run for hours, too: what counts is for how long nobody has known it."""
    desk.options = replace(desk.options, economy_lag=60.0)
    made = desk.keep(job[0], since=job[0].since - 3600)
    stand_in.hidden_looks = 3 * (step == "look")
    stand_in.refuse["download"] = [(404, "no such file")] * 3 * (step == "download")
    for misses in (1, 2, 3):
        made = running._one_step(desk, made)
        assert (made.state, made.misses) == ("submitted", misses)
    assert running._one_step(desk, made).written == 3


def test_what_a_result_has_proved_stays_proved_when_it_is_not_known_for_a_moment(desk, job, stand_in, monkeypatch):
    """It is compared with calls once, which are paid for."""

    def gone(*_):
        raise Gone

    with monkeypatch.context() as patched:
        patched.setattr(collection, "_write", gone)
        made = running._one_step(desk, job[0])
    assert (made.verified, made.misses) == (True, 1)
    desk.gone_since[made.name] -= 3600
    made = desk.keep(made, verified=False)
    with monkeypatch.context() as patched:
        patched.setattr(collection, "_write", gone)
        made = running._one_step(desk, made)
    assert (made.state, made.verified) == ("submitted", True), "it was read in between"
    paid = sum(stand_in.live.values())
    assert running._one_step(desk, made).written == 3
    assert sum(stand_in.live.values()) == paid


def test_all_changes_while_it_is_verified(desk, job, redis_client, monkeypatch):
    """Every text has a newer one by now: there is nothing to compare, and nothing is written."""

    def sample(chosen, count):
        desk.queue.enqueue_many([(key, "newer") for key, _ in pairs(3)])
        return chosen

    monkeypatch.setattr(random, "sample", sample)
    assert collect(desk, *job).written == 0
    assert not any(redis_client.exists(key) for key, _ in pairs(3))


def test_calls_refuse_the_canaries(desk, job, stand_in, redis_client):
    """Then nothing proves the result, and nothing of it is written."""
    stand_in.refuse["live"] = [(400, "this text is bad")] * 20
    assert "calls refuse" in collect(desk, *job).note
    assert not all_written(redis_client, pairs(1))


def test_no_hash_takes_a_vector(desk, job, redis_client):
    for key, _ in pairs(3):
        redis_client.set(key, "a string")
    ended = collect(desk, *job)
    assert (ended.written, ended.back) == (0, 3)


def test_parts_of_a_write(desk, job, redis_client, monkeypatch):
    monkeypatch.setattr(collection, "CHUNK_BYTES", 100)
    assert collect(desk, *job).written == 3


def test_a_stop_in_between(desk, job, redis_client):
    """What is left is done by whoever comes next."""
    desk.closing.set()
    with pytest.raises(Stopped):
        collect(desk, *job)
    desk.closing.clear()
    assert collect(desk, *job).written == 3


def test_what_was_verified_before(desk, job, stand_in, redis_client):
    """It is not compared again; an embedder that has yet to learn its length learns it before anything is written."""
    made, seen = job
    terms = desk.terms()
    desk.terms = lambda: replace(terms, dimensions=None)
    ended = collect(desk, replace(made, verified=True), seen)
    assert ended.written == 3
    assert stand_in.live == {"ok": 1}
    assert is_of(stored(redis_client, "doc:0"), "text 0")


def test_a_width_that_is_wrong_at_last(desk, job, redis_client):
    """It was not known when the job was made."""
    made, seen = job
    redis_client.hdel("embed_queue:settings", "dimensions")
    terms = desk.terms()
    desk.terms = lambda: replace(terms, dimensions=8)
    ended = collect(desk, replace(made, verified=True), seen)
    assert (ended.written, ended.back) == (0, 3)


def test_a_job_is_written_no_further_once_there_is_another_model(desk, job, make, stand_in, redis_client, monkeypatch):
    """Its result was verified and half written, for the old model: the rest is embedded with the new one."""
    monkeypatch.setattr(collection, "CHUNK_LINES", 1)

    def stop_after_one(count):
        desk.closing.set()

    desk.wrote = stop_after_one
    with pytest.raises(Stopped):
        collect(desk, *job)
    desk.jobs.lead(desk.who, 0)
    stand_in.live_vector = lambda text: vector_of(f"new {text}")
    stand_in.batch_vector = lambda text: as_batch(f"new {text}")
    queue = make(start=False, model="m-new")
    inside(queue).store.agree(inside(queue).terms())
    queue.start()
    eventually(lambda: all_written(redis_client, pairs(3)))
    spaces = [redis_client.hget(key, "embedding_of").split()[0] for key, _ in pairs(3)]
    assert spaces == [b"m/16/-", b"m-new/16/-", b"m-new/16/-"]
    assert is_of(stored(redis_client, "doc:0"), "text 0")
    assert all(is_of(stored(redis_client, key), f"new {text}") for key, text in pairs(3)[1:])
    over(queue)
    assert queue.jobs()[-1].note == "its model is not the queue's any more"


def test_a_provider_that_does_not_know_the_job_of_another_model(desk, job, stand_in, caplog):
    """With the model the provider may have changed, and the key with it: the items wait for no answer of his."""
    stand_in.refuse["cancel"] = [(401, "no such key")]
    ended = running._one_step(desk, replace(job[0], space="older/16/-"))
    assert (ended.state, ended.back, desk.queue.stats().for_jobs) == ("ended", 3, 3)
    assert "has not cancelled batch job" in caplog.text


def test_a_worker_of_a_model_that_nobody_has_adopted_lets_the_jobs_alone(desk, job, make, stand_in, redis_client):
    """In a rolling deployment it comes before somebody decides: the jobs wait for a worker of the old model."""
    desk.store.agree(desk.terms())
    desk.jobs.lead(desk.who, 0)
    stand_in.requests.clear()
    barred, asked = make(start=False, model="m-new"), []
    jobs, lead = inside(barred).store.jobs, inside(barred).store.jobs.lead
    jobs.lead = lambda *how: asked.append(lead(*how)) or asked[-1]
    barred.start()
    eventually(lambda: len(asked) > 1, "it has asked whether the lease is for it")
    assert not any(led.ours or led.leader for led in asked)
    assert stand_in.requests == []
    make()
    eventually(lambda: all_written(redis_client, pairs(3)))
    assert all(redis_client.hget(key, "embedding_of").startswith(b"m/16/") for key, _ in pairs(3))
    assert redis_client.hget("embed_queue:settings", "economy") is None, "economy is not off"


def test_who_looks_after_the_jobs_leaves_them_once_another_model_is_adopted(desk, job):
    desk.store.agree(replace(desk.terms(), model="another"))
    with pytest.raises(Lost):
        desk.renew()
    assert desk.jobs.look().leader == "", "the next one need not wait until the lease runs out"


def test_what_is_nearly_due_leaves_a_job_that_nobody_may_look_after(desk, job, monkeypatch):
    """Another model is adopted, whose workers may be without ``economy``: those of the old one put it back."""
    desk.store.agree(replace(desk.terms(), model="another"))
    desk.jobs.lead(desk.who, 0)
    runner = desk.queue._engine.runner
    options = replace(runner._options, economy_deadline=PATIENT + 1, economy_after=PATIENT + 2)
    monkeypatch.setattr(runner, "_options", options)
    assert desk.queue.stats().outsourced == 3
    desk.queue.start()
    eventually(lambda: desk.queue.stats().outsourced == 0, "they are in the live lane")
    assert desk.queue.pending_count() == 3


def test_who_has_died_with_the_lease_is_not_told_of(desk):
    desk.jobs.lead(desk.who, 0.01)
    eventually(lambda: desk.jobs.look().leader == "", "its lease has run out")


def test_another_model_is_adopted_while_a_job_is_written(desk, job, redis_client):
    """Nothing is written from then on, and nothing counts as read: should it be taken back, the job goes on there."""
    ours = desk.terms()

    def adopt(owner, items):
        desk.store.agree(replace(ours, model="another"))
        return set(), set()

    desk.offer = adopt
    with pytest.raises(Lost):
        collect(desk, *job)
    assert not any(redis_client.exists(key) for key, _ in pairs(3))
    assert desk.queue.stats().outsourced == 3
    [kept] = desk.jobs.look().jobs
    assert kept.place == (0, 0)
    desk.store.agree(ours)
    desk.offer = lambda owner, items: (set(), set())
    assert collect(desk, kept, job[1]).written == 3


def test_an_embedder_that_learns_its_length_after_the_job_was_made_has_no_other_model(desk, stand_in):
    terms = desk.terms()
    desk.terms = lambda: replace(terms, dimensions=None, space="m/0/-")
    desk.queue.enqueue_many(pairs(3), within=PATIENT)
    assert submit(desk)
    desk.terms = lambda: terms
    stand_in.looks = 1
    assert running._one_step(desk, desk.renew().jobs[0]).written == 3


def test_a_job_of_an_earlier_release_goes_on(desk, job, redis_client):
    """It does not tell its space; nor, once it has ended, that its cost is booked, as it was then."""
    kept = json.loads(redis_client.hget(desk.store.keys.jobs, job[0].name))
    del kept["space"], kept["booked"]
    redis_client.hset(desk.store.keys.jobs, job[0].name, json.dumps(kept))
    ended = running._one_step(desk, desk.renew().jobs[0])
    assert (ended.written, ended.booked) == (3, False)
    kept |= {"state": "ended", "verified": True}
    redis_client.hset(desk.store.keys.jobs, job[0].name, json.dumps(kept))
    assert desk.renew().jobs[0].booked


@pytest.mark.parametrize("what", ["usd_per_day", "usd_per_month"])
def test_a_job_is_no_larger_than_what_the_budget_has_room_for(make, what):
    """Three of six texts fit; and no other job is made while what this one costs is in no sum."""
    items = [(key, text.ljust(400, "x")) for key, text in pairs(6)]
    room = 3 * len(encode_member(*items[0])) // 4 + 1  # tokens, of half a dollar each in a job
    queue = make(start=False, budget=Budget(**{what: room * 0.5}), prices={"m": 1e6})
    desk = queue._engine.runner._new_desk()
    queue.enqueue_many(items, within=PATIENT)
    assert submit(desk)
    [made] = desk.renew().jobs
    assert made.items == 3
    assert made.tokens <= room
    assert not submit(desk)
    assert (queue.stats().for_jobs, len(queue.jobs())) == (3, 1)


@pytest.mark.parametrize("texts", [pairs(3), [("doc:0", "x" * 2000), *pairs(3)[1:]]], ids=["few", "a long one first"])
def test_a_budget_with_room_for_less_than_a_job_is_worth(make, texts):
    """Nothing goes to the provider, and no job that has nothing in it is told of."""
    member = len(encode_member(*pairs(1)[0]))
    queue = make(start=False, economy_min_texts=3, budget=Budget(usd_per_day=member / 4), prices={"m": 1e6})
    desk = queue._engine.runner._new_desk()
    queue.enqueue_many(texts, within=PATIENT)
    assert not submit(desk)
    assert (queue.stats().for_jobs, queue.jobs()) == (3, [])


def test_a_price_of_nothing_bounds_no_job(make):
    queue = make(start=False, budget=Budget(usd_per_day=1, usd_per_million_tokens=0))
    queue.enqueue_many(pairs(3), within=PATIENT)
    assert submit(queue._engine.runner._new_desk())


def test_nothing_waits(desk):
    assert not submit(desk)
    assert not list(submission._ours([b"no JSON"]))


def test_a_slice_of_which_nobody_has_heard(desk, monkeypatch):
    """Redis has moved it, but its answer was lost, so that redis-py asked again: it waits for the next job."""
    call, unheard = desk.jobs._call, []

    def twice(name, *how):
        if name == "outsource" and not unheard:
            unheard.append(call(name, *how))
        return call(name, *how)

    monkeypatch.setattr(submission, "MOVE_ITEMS", 2)
    monkeypatch.setattr(desk.jobs, "_call", twice)
    desk.queue.enqueue_many(pairs(5), within=PATIENT)
    assert submit(desk)
    [made] = desk.renew().jobs
    assert (len(unheard[0]), made.items, made.back) == (1 + 2, 3, 2)
    assert desk.queue.stats().for_jobs == 2
    assert submit(desk)
    assert desk.queue.stats().for_jobs == 0


def test_only_texts_that_fit_no_job(desk, redis_client):
    """All go to the live lane, and no job is made of nothing."""
    desk.queue.enqueue_many(pairs(3), within=PATIENT)

    def fit(text):
        raise ValueError("too long")

    desk.fit = fit
    assert not submit(desk)
    [made] = desk.renew().jobs
    assert (made.state, made.back) == ("ended", 3)
    assert desk.queue.stats().for_jobs == 0


def test_a_good_create_ends_the_rests(desk):
    desk.jobs.rest(desk.who, 0.0, 3)
    desk.queue.enqueue_many(pairs(3), within=PATIENT)
    desk.renew()
    assert submit(desk)
    assert desk.renew().rests == 0
    desk.jobs.drop(desk.who, desk.led.jobs[0].name)
    assert not desk.renew().jobs


def test_an_entry_that_is_no_json(desk, job, redis_client):
    """Somebody has meddled with ``latest``: that item is left alone."""
    made, _ = job
    redis_client.hset(desk.store.keys.latest, "doc:0", "1 no JSON")
    assert {live.redis_key for live in desk.jobs.live(made.name, ["doc:0", "doc:1"])} == {"doc:1"}


def test_a_job_that_failed_otherwise(make, redis_client, stand_in):
    """A file that the provider does not like: nothing is learned of quotas, its items are served live."""
    stand_in.ending, stand_in.reason = "failed", "invalid file"
    queue, items = make(), pairs(3)
    queue.enqueue_many(items, within=PATIENT)
    assert "invalid file" in over(queue).note
    assert queue._engine.store.jobs.look().quota is None
    queue.flush(timeout=PATIENCE_SECONDS)
    assert all_written(redis_client, items)


def test_old_jobs_are_forgotten(make, redis_client, stand_in, monkeypatch):
    monkeypatch.setattr(running, "KEPT_JOBS", 1)
    queue = make()
    for number in range(3):
        items = [(f"doc:{number}:{at}", f"text {number} {at}") for at in range(2)]
        queue.enqueue_many(items, within=PATIENT)
        eventually(lambda items=items: all_written(redis_client, items))
    eventually(lambda: len(queue.jobs()) <= 2)


def test_a_download_from_nowhere(desk):
    with pytest.raises(TransientError):
        list(desk.batches._http.lines("http://127.0.0.1:9/v1/files/x/content"))


def test_the_threads_own_troubles(make, redis_client, monkeypatch):
    """No thread to be had, a lease that is lost, a stop within a step: each is borne."""
    runner = make(start=False)._engine.runner
    real = threading.Thread.start

    def start(thread):
        if "jobs" in thread.name:
            raise RuntimeError("no more threads")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    runner.seen(5, 0)
    assert runner._thread is None
    monkeypatch.undo()
    monkeypatch.setattr(runner, "_new_desk", lambda: None)
    runner._run()
    monkeypatch.undo()
    for error in (Lost(), Stopped()):
        left = [error, Stopped()]

        def step(desk, left=left):
            raise left.pop(0)

        monkeypatch.setattr(runner, "_step", step)
        monkeypatch.setattr(runner, "_rest", lambda desk, seconds: True)
        runner._run()
        assert len(left) < 2

    def stopped(desk):
        runner._quit = True
        raise RuntimeError("closed under us")

    monkeypatch.setattr(runner, "_step", stopped)
    runner._run()
    runner._run()
    runner.seen(50, 0)


def test_the_lease_is_renewed_beside_the_steps(desk, monkeypatch, caplog):
    """Also where Redis does not answer once; and whoever cannot leave it lets it run out."""
    runner = desk.queue._engine.runner
    desk.options = replace(desk.options, lease_seconds=0.03)
    told = threading.Event()
    calls = []

    def lead(who, seconds, terms=None):
        calls.append(seconds)
        if len(calls) > 2:
            told.set()
        raise redis.ConnectionError("away")

    monkeypatch.setattr(desk.jobs, "lead", lead)
    desk.led_since = 1.0
    over_ = runner._keep_lease(desk)
    assert told.wait(PATIENCE_SECONDS)
    over_.set()
    runner._leave(desk)
    assert calls[-1] == 0
