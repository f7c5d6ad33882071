"""What may wait for long goes into batch jobs, and comes back verified, behind the same future."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from embedqueue import EmbeddingBatchQueue, InputRejected
from embedqueue.embedders import VoyageEmbedder
from embedqueue.embedders.batch_jobs import batch_jobs_of
from embedqueue.testing import FakeEmbedder
from tests.inside import LATENESS_LOOK_SECONDS, REFRESH_SECONDS, inside
from tests.jobs.options import OPTIONS, PATIENT
from tests.jobs.standin import as_batch, vector_of
from tests.parts import PATIENCE_SECONDS, eventually


def pairs(count: int, prefix: str = "text") -> list[tuple[str, str]]:
    return [(f"doc:{number}", f"{prefix} {number}") for number in range(count)]


def stored(client, key: str) -> np.ndarray | None:
    found = client.hget(key, "embedding")
    return None if found is None else np.frombuffer(found, "<f4")


def all_written(client, items) -> bool:
    return all(stored(client, key) is not None for key, _ in items)


def is_of(vector, text: str) -> bool:
    return vector is not None and (np.allclose(vector, as_batch(text)) or np.allclose(vector, vector_of(text)))


def in_jobs(queue, count: int):
    """Wait until so many items are in jobs that the provider has."""
    try:
        eventually(lambda: queue.stats().outsourced == count and any(job.provider_id for job in queue.jobs()))
    except AssertionError:
        client = inside(queue).store.client
        kept = [client.hgetall(f"embed_queue:{name}") for name in ("settings", "jobs")]
        told = (
            queue.stats(),
            queue.workers(),
            client.get("embed_queue:pause"),
            client.client_list(),
            threading.enumerate(),
        )
        pytest.fail("\n".join(map(str, [*kept, *told])))


def over(queue):
    """The job, once it is over."""
    eventually(lambda: queue.jobs() and all(job.state == "over" for job in queue.jobs()), "a job that is over")
    return queue.jobs()[0]


def test_a_job_from_enqueue_to_vector(make, redis_client, stand_in):
    """Patient items go into one job, come back under their keys, and the provider keeps no file of them."""
    queue, items = make(), pairs(5)
    futures = queue.enqueue_many(items, within=PATIENT)
    for (key, text), future in zip(items, futures, strict=True):
        eventually(lambda future=future: future.done())
        assert np.allclose(stored(redis_client, key), as_batch(text))
        assert np.allclose(future.result(timeout=0), as_batch(text))
        assert redis_client.hget(key, "embedding_of").startswith(b"m/16/")
    job = over(queue)
    assert (job.texts, job.items, job.written, job.back, job.note) == (5, 5, 5, 0, "")
    assert stand_in.files == {}
    assert sum(stand_in.live.values()) == 2, "canaries only"
    assert max(stand_in.charged.values()) == 1
    stats = queue.stats()
    assert (stats.waiting, stats.in_flight, stats.outsourced, stats.for_jobs) == (0, 0, 0, 0)
    assert stats.embedded == 5


def test_equal_texts_share_a_line(make, redis_client, stand_in):
    items = [(f"doc:{number}", f"text {number % 2}") for number in range(6)]
    queue = make()
    queue.enqueue_many(items, within=PATIENT)
    eventually(lambda: all_written(redis_client, items))
    assert stand_in.charged == {"text 0": 1, "text 1": 1}
    assert (over(queue).texts, over(queue).items) == (2, 6)


def test_a_text_that_the_cache_has_goes_into_no_job(make, redis_client, stand_in):
    """The live lane answers it from there; all others go into the job."""
    queue = make(cache_ttl=3600)
    for future in queue.enqueue_many([("doc:a", "text 0"), ("doc:b", "text 1")]):
        future.result(timeout=PATIENCE_SECONDS)
    live, items = dict(stand_in.live), pairs(5)
    queue.enqueue_many(items, within=PATIENT)
    job = over(queue)
    assert (job.items, job.written, job.back) == (3, 3, 2)
    queue.flush(timeout=PATIENCE_SECONDS)
    assert all(is_of(stored(redis_client, key), text) for key, text in items)
    assert stand_in.charged == {"text 2": 1, "text 3": 1, "text 4": 1}
    assert {text: stand_in.live[text] for text in live} == live == {"text 0": 1, "text 1": 1}


def test_what_a_job_has_made_is_in_the_cache(make, redis_client, stand_in):
    """The same texts under other keys are not paid for again."""
    queue = make(cache_ttl=3600)
    queue.enqueue_many(pairs(4), within=PATIENT)
    assert over(queue).written == 4
    canaries = dict(stand_in.live)
    for future, (_, text) in zip(queue.enqueue_many((f"{key}/again", text) for key, text in pairs(4)), pairs(4)):
        assert np.allclose(future.result(timeout=PATIENCE_SECONDS), as_batch(text))
    assert stand_in.live == canaries


def test_what_may_not_wait_is_embedded_as_ever(make, redis_client, stand_in):
    """A drain leaves what is meant for a job, and takes all else."""
    queue = make(economy_min_texts=3, max_batch_size=1000)
    queue.enqueue_many([("patient:0", "a"), ("patient:1", "b")], within=PATIENT)
    queue.enqueue("doc:now", "c").result(timeout=PATIENCE_SECONDS)
    queue.flush(timeout=PATIENCE_SECONDS)
    assert stand_in.live == {"c": 1}
    assert (queue.stats().waiting, queue.stats().for_jobs, queue.stats().outsourced) == (2, 2, 0)
    assert not queue.jobs()


def test_below_the_least_nothing_spins(make, redis_client, stand_in, monkeypatch):
    """What waits for company starts no drain, whatever its number is, and Redis is asked next to nothing."""
    monkeypatch.setattr(*REFRESH_SECONDS, 30.0)
    queue = make(economy_min_texts=100, max_batch_size=5, lease_seconds=60)
    queue.enqueue_many(pairs(60), within=PATIENT)
    eventually(lambda: queue.stats().for_jobs == 60)

    def commands():
        return redis_client.info("stats")["total_commands_processed"]

    def rests():
        before = commands()
        threading.Event().wait(0.5)
        return commands() - before < 20

    eventually(rests, "Redis is asked next to nothing: a loop makes thousands")
    assert not stand_in.live
    assert not stand_in.requests


def test_few_go_live_when_they_come_near(make, redis_client, stand_in):
    """Fewer than a job is worth wait until they are nearly too late for one; then any drain takes them."""
    queue = make(economy_min_texts=100, economy_after=4999.0, economy_deadline=1)
    queue.enqueue_many(pairs(3), within=PATIENT)
    eventually(lambda: queue.stats().for_jobs == 0)
    queue.flush(timeout=PATIENCE_SECONDS)
    assert sum(stand_in.live.values()) == 3


def test_somebody_who_waits_takes_an_item_out_of_its_job(make, redis_client, stand_in):
    """It is embedded at once; the job's late vector is not written; it is counted as paid for twice."""
    stand_in.looks = None
    queue, items = make(), pairs(3)
    futures = queue.enqueue_many(items, within=PATIENT)
    in_jobs(queue, 3)
    assert np.allclose(futures[0].result(timeout=PATIENCE_SECONDS), vector_of("text 0"))
    assert queue.stats().outsourced == 2
    stand_in.looks = 1
    eventually(lambda: all_written(redis_client, items))
    assert np.array_equal(stored(redis_client, "doc:0"), vector_of("text 0")), "not the rounded one of the job"
    assert np.allclose(stored(redis_client, "doc:1"), as_batch("text 1"))
    queue.stop()  # writes the history
    assert sum(period.maybe_twice for period in queue.history().days) == 1


def test_who_waits_strictly_waits(make, redis_client, stand_in, monkeypatch):
    """With ``economy_promote=False`` the item stays in its job."""
    monkeypatch.setattr(*LATENESS_LOOK_SECONDS, PATIENCE_SECONDS)  # Redis may take long to tell why
    stand_in.looks = None
    queue = make(economy_promote=False)
    [future, _] = queue.enqueue_many(pairs(2), within=PATIENT)
    in_jobs(queue, 2)
    with pytest.raises(TimeoutError, match="batch job"):
        future.result(timeout=1)
    stand_in.looks = 1
    assert np.allclose(future.result(timeout=PATIENCE_SECONDS), as_batch("text 0"))
    assert sum(stand_in.live.values()) == 2


@pytest.mark.parametrize("change", ["newer", "blank", "forgotten"])
def test_what_changes_while_the_job_runs(make, redis_client, stand_in, change):
    """A newer text takes the item out of the job at once: what the job brings of the older is never written."""
    stand_in.looks = None
    queue, items = make(max_batch_size=1000), pairs(3)
    queue.enqueue_many(items, within=PATIENT)
    in_jobs(queue, 3)
    if change == "newer":
        queue.enqueue("doc:0", "newer").result(timeout=PATIENCE_SECONDS)
    elif change == "blank":
        queue.enqueue("doc:0", " ")
    else:
        queue.forget("doc:0")
    assert queue.stats().outsourced == 2
    stand_in.looks = 1
    over(queue)
    found = stored(redis_client, "doc:0")
    assert np.allclose(found, vector_of("newer")) if change == "newer" else found is None
    assert is_of(stored(redis_client, "doc:1"), "text 1")


def test_the_same_text_again_stays(make, redis_client, stand_in):
    stand_in.looks = None
    queue = make()
    queue.enqueue_many(pairs(2), within=PATIENT)
    in_jobs(queue, 2)
    future = queue.enqueue("doc:0", "text 0", within=PATIENT)
    assert queue.stats().outsourced == 2
    stand_in.looks = 1
    eventually(future.done)
    assert np.allclose(future.result(timeout=0), as_batch("text 0"))


def test_the_same_text_again_and_soon(make, redis_client, stand_in):
    """A sooner time holds: the item leaves the job when that comes near."""
    stand_in.looks = None
    queue = make()
    queue.enqueue_many(pairs(3), within=PATIENT)
    in_jobs(queue, 3)
    queue.enqueue("doc:0", "text 0", within=1)
    eventually(lambda: is_of(stored(redis_client, "doc:0"), "text 0"))
    assert stand_in.live == {"text 0": 1}
    assert queue.stats().outsourced == 2


def test_the_deadline(make, redis_client, stand_in):
    """What is nearly due leaves its job, and the next drain takes it; what then comes of the job is not written."""
    stand_in.looks = None
    queue = make(economy_after=1000, economy_deadline=999.9)
    queue.enqueue_many(pairs(3), within=1006)
    in_jobs(queue, 3)
    eventually(lambda: queue.stats().outsourced == 0)
    queue.flush(timeout=PATIENCE_SECONDS)
    assert stand_in.live == {f"text {number}": 1 for number in range(3)}
    assert over(queue).note == "none of its items waits for it any more"
    assert stand_in.job().status == "cancelled"


def test_a_flush_of_the_live_lane_waits_for_ends_under_way(make, stand_in, monkeypatch):
    """As it does without jobs: what it calls finished is counted, and its future has ended."""
    stand_in.looks = None
    queue = make()
    queue.enqueue_many(pairs(2), within=PATIENT)
    in_jobs(queue, 2)
    waiters, outcomes, flusher = queue._engine.waiters, queue._engine.outcomes, threading.current_thread()
    written, find_out, go_on = waiters.written, outcomes.find_out, threading.Event()
    monkeypatch.setattr(waiters, "written", lambda *item: go_on.wait(PATIENCE_SECONDS) and written(*item))

    def found_out(*arguments, **options):
        find_out(*arguments, **options)
        if threading.current_thread() is flusher:  # Redis has it; the thread that brings its vector goes on only now
            go_on.set()

    monkeypatch.setattr(outcomes, "find_out", found_out)
    future = queue.enqueue("doc:live", "live")
    try:
        queue.flush(PATIENCE_SECONDS)
        assert future.done()
    finally:
        go_on.set()


@pytest.mark.parametrize("way", ["leave", "wait", "pull"])
def test_flush(make, redis_client, stand_in, way):
    """By default a flush leaves jobs alone; it waits for them, or takes everything out of them, when told."""
    stand_in.looks = None
    queue, items = make(max_batch_size=1000), pairs(4)
    queue.enqueue_many(items, within=PATIENT)
    in_jobs(queue, 4)
    live = [(f"live:{number}", f"live {number}") for number in range(3)]
    queue.enqueue_many(live)
    if way == "wait":
        queue.flush(timeout=PATIENCE_SECONDS)
        with pytest.raises(TimeoutError, match="4 items"):
            queue.flush(timeout=1, outsourced="wait")
        stand_in.looks = 1
    queue.flush(timeout=PATIENCE_SECONDS, outsourced=way)
    assert all_written(redis_client, live)
    assert all_written(redis_client, items) == (way != "leave")
    assert queue.stats().outsourced == (4 if way == "leave" else 0)
    assert sum(stand_in.live.values()) == {"leave": 3, "wait": 5, "pull": 7}[way]


def test_flush_waits_for_what_comes_back_meanwhile(make, redis_client, stand_in):
    """And never returns early because something of a job has ended."""
    stand_in.looks = None
    queue, items = make(max_batch_size=1000), pairs(4)
    queue.enqueue_many(items, within=PATIENT)
    in_jobs(queue, 4)
    queue.enqueue("live:0", "held back")
    hold = stand_in.hold("live")
    done = threading.Event()
    flusher = threading.Thread(target=lambda: (queue.flush(PATIENCE_SECONDS), done.set()))
    flusher.start()
    assert hold.arrived.wait(PATIENCE_SECONDS)
    stand_in.looks = 1
    eventually(lambda: all_written(redis_client, items))
    assert not done.wait(0.6), "it has counted what the job has written"
    hold.go_on.set()
    flusher.join(PATIENCE_SECONDS)
    assert done.is_set()
    assert stored(redis_client, "live:0") is not None


def test_stopping_leaves_jobs(make, redis_client, stand_in):
    """``stop(drain=True)`` does not wait for jobs; another process, or a later one, brings them home."""
    stand_in.looks = None
    queue, items = make(), pairs(3)
    queue.enqueue_many(items, within=PATIENT)
    in_jobs(queue, 3)
    began = time.monotonic()
    queue.stop(timeout=PATIENCE_SECONDS, drain=True)
    assert time.monotonic() - began < PATIENCE_SECONDS / 2
    stand_in.looks = 1
    other = make()
    eventually(lambda: all_written(redis_client, items))
    over(other)
    assert max(stand_in.charged.values()) == 1


def test_one_process_polls(make, redis_client, stand_in):
    """Of several, one has the lease; the others send nothing."""
    stand_in.looks = None
    queues, items = [make() for _ in range(3)], pairs(3)
    queues[0].enqueue_many(items, within=PATIENT)
    in_jobs(queues[0], 3)
    leaders = {queue._engine.store.jobs.look().leader for queue in queues for _ in range(5)}
    assert len(leaders) == 1
    stand_in.looks = 1
    eventually(lambda: all_written(redis_client, items))
    over(queues[0])
    assert stand_in.requests.count("create") == 1
    assert stand_in.requests.count("download") == 2, "to verify, and to write"


def test_a_process_without_economy_works_beside(make, redis_client, stand_in):
    """It takes out of pending whatever waits, and leaves what is in a job."""
    stand_in.looks = None
    queue = make()
    queue.enqueue_many(pairs(2), within=PATIENT)
    in_jobs(queue, 2)
    plain = make(economy=False)
    plain.enqueue_many([("other:0", "x"), ("other:1", "y")])
    plain.flush(timeout=PATIENCE_SECONDS)
    assert stored(redis_client, "other:0") is not None
    assert plain.stats().outsourced == 2


def test_an_embedder_without_jobs_is_refused(redis_client):
    with pytest.raises(ValueError, match="batch jobs") as error:
        EmbeddingBatchQueue(FakeEmbedder(), redis_client, economy=True)
    assert error.value.name == "economy"


def test_cancelling(make, redis_client, stand_in):
    """A person cancels a job: its items go to the live lane at once."""
    stand_in.looks = None
    queue = make()
    queue.enqueue_many(pairs(3), within=PATIENT)
    in_jobs(queue, 3)
    [job] = queue.jobs()
    assert queue.cancel_job(job.name) == 3
    assert stand_in.job().status == "cancelled"
    assert (queue.stats().outsourced, queue.stats().for_jobs) == (0, 0)
    queue.flush(timeout=PATIENCE_SECONDS)
    assert sum(stand_in.live.values()) == 3
    over(queue)
    with pytest.raises(KeyError):
        queue.cancel_job(job.name)


@pytest.mark.parametrize("vendor", ["openai"], indirect=True)
def test_what_a_cancelled_job_had_done_is_booked(make, redis_client, stand_in):
    """A provider takes minutes to cancel one, and charges for what was done by then; its result is deleted as well."""
    stand_in.looks, stand_in.cancelling = None, 3
    queue = make()
    queue.enqueue_many(pairs(3), within=PATIENT)
    in_jobs(queue, 3)
    queue.flush(timeout=PATIENCE_SECONDS, outsourced="pull")
    over(queue)
    assert stand_in.job().tokens > 0
    eventually(lambda: queue.stats().used_tokens == stand_in.job().tokens + sum(stand_in.live.values()))
    assert stand_in.files == {}


def test_a_long_text_is_for_the_live_lane(make, redis_client, stand_in):
    """What is cut, or rejected, for its length goes into no job: the live lane tells of it."""
    queue = make(on_long="truncate")
    queue.enqueue_many([*pairs(3), ("doc:long", "word " * 2000)], within=PATIENT)
    job = over(queue)
    assert (job.items, job.back) == (3, 1)
    queue.flush(timeout=PATIENCE_SECONDS)
    assert stored(redis_client, "doc:long") is not None
    assert queue.stats().truncated == 1


def test_options_are_seen_by_name():
    assert set(OPTIONS) - {"model", "lease_seconds", "flush_interval"} <= {
        name for name in EmbeddingBatchQueue.__init__.__signature__.parameters if name.startswith("economy")
    }


def test_a_job_whose_vectors_go_to_a_sink(make, redis_client, stand_in):
    """A sink that is down for a while gets them from the result, which waits at the provider; nothing is sent again."""
    down, rows = threading.Event(), {}
    down.set()

    class Table:
        def write(self, some):
            if down.is_set():
                raise ConnectionError("down")
            for index, row in enumerate(some):
                if row.redis_key == "doc:3":
                    raise InputRejected("no such document", index=index)
            rows.update({row.redis_key: row for row in some})
            assert not any(redis_client.hexists(row.redis_key, "embedding") for row in some)

    queue, items = make(sink=Table()), pairs(5)
    queue.enqueue_many(items, within=PATIENT)
    in_jobs(queue, 5)
    eventually(lambda: queue.jobs()[0].used_tokens, "it was verified, and could not be written")
    assert rows == {} and redis_client.zcard("embed_queue:inflight") == 5
    down.clear()
    job = over(queue)
    assert (job.written, job.back) == (4, 0)
    assert {letter.redis_key for letter in queue.dead_letters()} == {"doc:3"}
    for key, text in items:
        assert key == "doc:3" or np.allclose(rows[key].vector, as_batch(text))
        assert key == "doc:3" or rows[key].provenance.encode() == redis_client.hget(key, "embedding_of")
    assert max(stand_in.charged.values()) == 1


@pytest.mark.parametrize("vendor", ["openai"], indirect=True)
def test_what_is_told_of_jobs(make, redis_client, stand_in):
    """Metrics and ``stats()`` count what jobs were charged; the history has them on their own way."""
    prometheus = pytest.importorskip("prometheus_client", reason="the extra prometheus is not installed")
    from embedqueue.metrics import Metrics

    registry = prometheus.CollectorRegistry()
    stand_in.looks = None
    queue = make(observers=[Metrics(registry)])
    queue.enqueue_many(pairs(4), within=PATIENT)
    in_jobs(queue, 4)
    labels = {"queue": "embed_queue"}
    assert registry.get_sample_value("embedqueue_outsourced", labels) == 4
    stand_in.looks = 1
    used = over(queue).used_tokens
    assert used > 0
    eventually(lambda: queue.stats().used_tokens >= used)
    measured = registry.get_sample_value("embedqueue_tokens_used_total", {**labels, "counted": "measured"})
    assert measured == queue.stats().used_tokens
    queue.stop()
    [sent] = [one for period in queue.history().days for one in period.sent if one.lane == "batch"]
    assert (sent.model, sent.texts, sent.measured) == ("m", 4, used)


def test_jobs_without_usage_are_estimated():
    from embedqueue.observers.tally import Tally
    from embedqueue.values.observer import CallReport

    tally = Tally()
    tally.job_ended(CallReport(texts=2, tokens=7, seconds=0.0, outcome="ok", lane="batch"))
    assert (tally.used_tokens, tally.estimated_tokens) == (0, 7)


@pytest.mark.parametrize("vendor", ["voyage"], indirect=True)
def test_voyage(make, redis_client, stand_in):
    """Its lines hold a text alone; model, role and length are told once."""
    queue, items = make(model="voyage-4"), pairs(4)
    queue.enqueue_many(items, within=PATIENT)
    assert over(queue).written == 4
    for key, text in items:
        assert np.allclose(stored(redis_client, key), as_batch(text))
    assert redis_client.hget("doc:0", "embedding_of").startswith(b"voyage-4/16/input_type=document ")
    assert batch_jobs_of(VoyageEmbedder("key", "http://host/v1?a=b"), "voyage-4") is None


@pytest.mark.parametrize("vendor", ["voyage"], indirect=True)
def test_a_provider_that_does_not_know_the_file_yet_is_asked_again(make, redis_client, stand_in, monkeypatch):
    """Voyage was seen to: the file is sent once, and no text waits for the next job."""
    monkeypatch.setattr("embedqueue.jobs.submission.FILE_SECONDS", (0.01, 0.1))
    stand_in.refuse["create"] = [(404, "Input file not found")] * 5
    queue, items = make(model="voyage-4", economy_lag=4 * PATIENCE_SECONDS), pairs(4)
    queue.enqueue_many(items, within=PATIENT)
    job = over(queue)
    assert (job.written, job.back, len(queue.jobs())) == (4, 0, 1)
    assert (stand_in.requests.count("upload"), stand_in.requests.count("create")) == (1, 6)


@pytest.mark.parametrize("vendor", ["voyage"], indirect=True)
def test_a_provider_that_never_knows_the_file_has_refused_the_job(make, redis_client, stand_in):
    """For as long as lists may lag it is asked; then its items wait for another job."""
    stand_in.refuse["create"] = [(404, "Input file not found")] * 1000
    queue, items = make(model="voyage-4"), pairs(4)
    queue.enqueue_many(items, within=PATIENT)
    job = over(queue)
    assert (job.written, job.back) == (0, 4)
    assert "Input file not found" in job.note
    assert stand_in.requests.count("create") > 1
    queue.flush(timeout=PATIENCE_SECONDS, outsourced="pull")
    assert all_written(redis_client, items)
