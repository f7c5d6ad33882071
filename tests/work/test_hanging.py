"""A call that hangs, of an embedder without a time limit: it keeps neither its items, nor its place, nor the probe."""

from __future__ import annotations

import threading

import pytest
import tenacity

from embedqueue import BatchFailed, ConfigurationError, ItemRejected, TransientError
from embedqueue.embedders.protocol import CANARY
from tests.inside import FIRST_PAUSE_SECONDS, LONGEST_TRY_SECONDS, inside
from tests.parts import ONE_TRY, PATIENCE_SECONDS, GatedEmbedder, eventually, expected, in_flight

SOON = {"lease_seconds": 0.9, "api_batch_limit": 1, "max_concurrency": 1, "retry": ONE_TRY}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(*LONGEST_TRY_SECONDS, 1.5)  # a stall of a busy machine is shorter


class Hanging(GatedEmbedder):
    """The i-th call of the text "hang" waits until ``go[i]`` is set. Then the first raises ``error``, if any."""

    def __init__(self):
        super().__init__()
        self.go = [threading.Event() for _ in range(9)]
        self.hung = threading.Semaphore(0)
        self.error = None

    def embed_batch(self, texts, model):
        rows = super().embed_batch(texts, model)
        if texts[0] == "hang":
            time = self.sent["hang"] - 1
            self.hung.release()
            self.go[time].wait(2 * PATIENCE_SECONDS)
            if time == 0 and self.error:
                raise self.error
        return rows

    def release(self):
        super().release()
        for go in self.go:
            go.set()


@pytest.fixture
def embedder():
    return Hanging()


def test_a_text_that_hangs(make_queue, embedder):
    """The others go on in its place. The provider serves them, so it counts as what kills its worker, and dies."""
    queue = make_queue(max_deliveries=2, **SOON)
    bad, good = queue.enqueue_many([("doc:1", "hang"), ("doc:2", "good")])
    assert good.result(PATIENCE_SECONDS) == expected("good")
    with pytest.raises(ItemRejected, match="max_deliveries"):
        bad.result(PATIENCE_SECONDS)
    assert embedder.sent["hang"] == 2
    assert queue.enqueue("doc:3", "after").result(PATIENCE_SECONDS) == expected("after")


@pytest.mark.parametrize("probe", [False, True])
def test_a_provider_that_hangs(make_queue, embedder, redis_client, monkeypatch, probe):
    """It has failed: who waits is told, nothing is charged, and a later probe decides, also of another process."""
    monkeypatch.setattr(*FIRST_PAUSE_SECONDS, 60.0)
    if probe:
        redis_client.set("embed_queue:pause:level", 1, ex=600)
    queue = make_queue(**SOON)
    embedder.hold()
    with pytest.raises(BatchFailed, match="no answer within"):
        queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS)
    inside(queue).claim_nothing_more()
    assert redis_client.hget("embed_queue:claims", "doc:1") is None
    redis_client.delete("embed_queue:pause")
    other = make_queue(embedder=GatedEmbedder(), **SOON)
    assert other.enqueue("doc:2", "two").result(PATIENCE_SECONDS) == expected("two")
    eventually(lambda: redis_client.hexists("doc:1", "embedding"), "so is what hung")
    assert other.stats().dead == 0


@pytest.fixture
def sent_twice(make_queue, embedder, monkeypatch, caplog):
    """A queue whose one text was given up, and then sent anew by a call that has the time it needs; its future."""
    queue = make_queue(**SOON | {"retry": tenacity.Retrying(stop=tenacity.stop_after_attempt(2))})
    future = queue.enqueue("doc:1", "hang")
    queue.flush_now()
    eventually(lambda: "hangs" in caplog.text, "it is given up")
    monkeypatch.setattr(*LONGEST_TRY_SECONDS, 600)
    for _ in range(2):
        assert embedder.hung.acquire(timeout=PATIENCE_SECONDS)
    return queue, future


def test_a_late_answer_is_written(sent_twice, embedder, redis_client):
    """While its item is in flight anew. The second answer does no harm then."""
    queue, future = sent_twice
    embedder.go[0].set()
    assert future.result(PATIENCE_SECONDS) == expected("hang")
    embedder.go[1].set()
    eventually(lambda: inside(queue).held == inside(queue).calls == 0, "both are back")
    assert in_flight(redis_client) == queue.pending_count() == queue.stats().dead == 0


@pytest.mark.parametrize("error", [ConfigurationError, TransientError])
def test_a_late_failure_is_no_news(sent_twice, embedder, redis_client, error):
    """It pauses nobody, its texts are not tried again, and the second call keeps its items."""
    queue, future = sent_twice
    threads = set(threading.enumerate())
    embedder.error = error("late")
    embedder.go[0].set()
    eventually(lambda: threads - set(threading.enumerate()), "its thread has ended")
    assert not future.done()
    assert in_flight(redis_client) == inside(queue).held == 1
    assert redis_client.get("embed_queue:pause") is None
    embedder.go[1].set()
    assert future.result(PATIENCE_SECONDS) == expected("hang")
    assert embedder.sent["hang"] == 2


def test_its_reservation_in_the_cache_ends(make_queue, embedder):
    """Another process sends the text."""
    queue = make_queue(cache_ttl=60, **SOON)
    queue.enqueue("doc:1", "hang")
    queue.flush_now()
    assert embedder.hung.acquire(timeout=PATIENCE_SECONDS)
    other = make_queue(embedder=GatedEmbedder(), cache_ttl=60, **SOON)
    assert other.enqueue("doc:2", "hang").result(PATIENCE_SECONDS) == expected("hang")


def test_a_probe_that_hangs_is_left_to_others_where_the_provider_is_well(make_queue, embedder, redis_client):
    """Else all would wait until its lease has run out."""
    redis_client.set("embed_queue:pause:level", 1, ex=600)
    queue, left = make_queue(start=False, **SOON), threading.Event()
    store = inside(queue).store
    release_probe = store.release_probe
    store.release_probe = lambda owner: (release_probe(owner), left.set())
    queue.enqueue("doc:1", "hang")
    queue.start()
    assert left.wait(PATIENCE_SECONDS)
    assert embedder.sent["hang"] >= 1


def test_an_answer_that_comes_while_it_is_found_out_who_is_at_fault_is_written(
    make_queue, embedder, monkeypatch, caplog
):
    """The provider is well, and so is the text: nothing more becomes of the call."""
    asked, go_on = threading.Event(), threading.Event()

    def hold_the_canary(texts):
        if texts == [CANARY]:
            monkeypatch.setattr(*LONGEST_TRY_SECONDS, 600)  # it has the time it needs
            asked.set()
            assert go_on.wait(PATIENCE_SECONDS)

    embedder.rule = hold_the_canary
    queue = make_queue(**SOON | {"lease_seconds": 2.0})
    future = queue.enqueue("doc:1", "hang")
    queue.flush_now()
    assert asked.wait(PATIENCE_SECONDS)
    for go in embedder.go:
        go.set()
    assert future.result(PATIENCE_SECONDS) == expected("hang")
    go_on.set()
    assert queue.enqueue("doc:2", "after").result(PATIENCE_SECONDS) == expected("after")
    assert queue.stats().dead == 0
    assert "will be made again" not in caplog.text


def test_what_verifies_a_batch_job_and_hangs_keeps_no_call_from_being_given_up(make_queue, embedder):
    """And once it is back, its thread makes calls again."""
    queue, rows = make_queue(max_deliveries=1, **SOON), []

    def verify():
        rows.extend(inside(queue).verify(["hang"]))
        rows.extend(inside(queue).verify(["good"]))

    verifies = threading.Thread(target=verify, daemon=True)
    verifies.start()
    assert embedder.hung.acquire(timeout=PATIENCE_SECONDS)
    bad = queue.enqueue("doc:1", "hang")
    assert isinstance(bad.exception(PATIENCE_SECONDS), ItemRejected)
    embedder.go[0].set()
    verifies.join(PATIENCE_SECONDS)
    assert [row.tolist() for row in rows] == [expected("hang"), expected("good")]
