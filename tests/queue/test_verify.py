"""``verify()``: which hashes have the vectors of their texts, and what puts the others right."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import redis

import embedqueue.backlog.filler
from embedqueue import EmbedQueueError, QueueFull, Verified
from embedqueue.backlog.filler import to_fix
from embedqueue.backlog.inspection import EVERYTHING
from embedqueue.testing import eager_queue
from embedqueue.values.item import encode_member
from tests.inside import FILLER_TIME
from tests.parts import DIMENSIONS, PATIENCE_SECONDS, Unlearned, eventually, provenance, stored


def hashes(client):
    """One of each kind; those named ``right`` and ``unlabelled`` are no fault."""
    vector = stored("text")
    client.hset("doc:right", mapping={"text": "text", "embedding": vector, "embedding_of": provenance("text")})
    client.hset("doc:missing", mapping={"text": "text"})
    client.hset("doc:other_text", mapping={"text": "new", "embedding": vector, "embedding_of": provenance("text")})
    other = provenance("text").replace("gemini-embedding-001", "other")
    client.hset("doc:other_space", mapping={"text": "text", "embedding": vector, "embedding_of": other})
    client.hset("doc:unlabelled", mapping={"text": "text", "embedding": vector})
    client.hset("doc:short", mapping={"text": "text", "embedding": vector[:-4], "embedding_of": provenance("text")})
    client.hset("doc:other_length", mapping={"text": "text", "embedding": vector[:-4]})
    client.hset("doc:strange", mapping={"text": "text", "embedding": vector, "embedding_of": "what?"})
    client.hset("doc:blank", mapping={"text": " ", "embedding": vector, "embedding_of": provenance("text")})
    client.hset("doc:blank_right", mapping={"text": ""})
    client.hset("doc:no_text", mapping={"title": "A"})
    client.set("doc:string", "no hash")


COUNTS = Verified(checked=10, missing=1, other_text=2, other_space=1, unlabelled=1, malformed=3, waiting=0, fixed=0)


@pytest.fixture
def queue(make_queue, redis_client):
    hashes(redis_client)
    return make_queue(start=False)


def test_each_kind_is_counted_and_nothing_is_changed(queue, redis_client):
    before = {key: redis_client.hgetall(key) for key in redis_client.keys("doc:*") if key != b"doc:string"}
    found = queue.verify(match="doc:*", text_field="text")
    assert found == COUNTS
    assert found.faults == 7
    assert before == {key: redis_client.hgetall(key) for key in before}
    assert queue.pending_count() == 0


def test_fix_enqueues_exactly_what_is_wrong(queue, redis_client, embedder):
    assert queue.verify(match="doc:*", text_field="text", fix=True).fixed == 7
    waiting = {member.split(b'"')[3] for member in redis_client.zrange("embed_queue:pending", 0, -1)}
    assert waiting == {
        b"doc:missing", b"doc:other_text", b"doc:other_space", b"doc:short", b"doc:other_length", b"doc:strange"
    }  # fmt: skip
    assert redis_client.hgetall("doc:blank") == {b"text": b" "}
    again = queue.verify(match="doc:*", text_field="text")
    assert (again.faults, again.waiting) == (0, 6)
    queue.start()
    queue.flush(PATIENCE_SECONDS)
    final = queue.verify(match="doc:*", text_field="text")
    assert (final.faults, final.waiting, final.unlabelled) == (0, 0, 1)
    assert embedder.sent == {"text": 1, "new": 1}


def test_relabel_takes_the_unlabelled_as_well(queue, redis_client):
    assert queue.verify(match="doc:*", text_field="text", fix=True, relabel=True).fixed == 8
    assert any(b"doc:unlabelled" in member for member in redis_client.zrange("embed_queue:pending", 0, -1))


def test_pairs_of_ones_own(queue):
    found = queue.verify([("doc:right", "text"), ("doc:right", "other"), ("doc:nothing", "text"), ("doc:string", "x")])
    assert (found.checked, found.missing, found.other_text) == (4, 2, 1)


def test_a_text_that_waits_is_not_another(queue):
    """Only the very text of the row counts as waiting."""
    queue.enqueue("doc:missing", "older")
    assert queue.verify([("doc:missing", "text")]).missing == 1
    queue.enqueue("doc:missing", "text")
    assert queue.verify([("doc:missing", "text")]).waiting == 1


def test_a_text_that_others_enqueue_while_blank_ones_are_emptied_is_kept(queue, redis_client, monkeypatch):
    """They may be many, and a sink may be slow."""
    erase = queue._erase
    monkeypatch.setattr(queue, "_erase", lambda *args: queue.enqueue("doc:missing", "newer") and erase(*args))
    assert queue.verify([("doc:blank", " "), ("doc:missing", "text")], fix=True).fixed == 2
    assert encode_member("doc:missing", "newer") in redis_client.zrange("embed_queue:pending", 0, -1)


def test_a_blank_text_loses_no_newer_vector(queue, redis_client, monkeypatch):
    """Between the look and the removal somebody gives the row a text, and its vector is quick."""
    erase = queue._engine.store.hashes.erase

    def late(redis_key, terms, stamp):
        with queue:
            queue.enqueue("doc:blank", "new").result(PATIENCE_SECONDS)
        return erase(redis_key, terms, stamp)

    monkeypatch.setattr(queue._engine.store.hashes, "erase", late)
    found = queue.verify([("doc:blank", " ")], fix=True)
    assert (found.fixed, found.waiting, found.faults) == (0, 1, 0)
    assert redis_client.hget("doc:blank", "embedding") == stored("new")


def test_a_newer_text_that_comes_meanwhile_stays(queue, make_queue, redis_client):
    """The texts are as they were when somebody began to read them, which may be long ago."""

    def read():
        yield from [("doc:1", "old"), ("doc:2", "old"), ("doc:3", "old"), ("doc:4", "")]
        with make_queue() as other:
            other.enqueue_many([("doc:1", "new"), ("doc:4", "new")])
            other.flush(PATIENCE_SECONDS)
        queue.enqueue("doc:2", "new")

    verified = queue.verify(read(), fix=True)
    assert (verified.fixed, verified.waiting, verified.missing) == (1, 3, 1)
    queue.start()
    queue.flush(PATIENCE_SECONDS)
    found = {key: redis_client.hget(key, "embedding") for key in ("doc:1", "doc:2", "doc:3", "doc:4")}
    new, old = stored("new"), stored("old")
    assert found == {"doc:1": new, "doc:2": new, "doc:3": old, "doc:4": new}


def test_of_texts_that_come_in_parts_the_last_one_of_a_key_wins(queue, redis_client, monkeypatch):
    monkeypatch.setattr(embedqueue.backlog.filler, "LOOK_ITEMS", 2)
    texts = [("doc:1", "first"), ("doc:2", "text"), ("doc:3", "text"), ("doc:1", "last"), ("doc:1", "text")]
    assert queue.verify(texts, fix=True).fixed == 5
    queue.start()
    queue.flush(PATIENCE_SECONDS)
    assert redis_client.hget("doc:1", "embedding") == stored("text")


ALL_OR_WRONG = pytest.mark.parametrize("kinds", [to_fix(relabel=False), EVERYTHING], ids=["wrong", "all"])
UNSEEN_TOO = pytest.mark.parametrize("kinds", [to_fix(relabel=False), EVERYTHING, None], ids=["wrong", "all", "unseen"])


@UNSEEN_TOO
def test_a_newer_text_that_comes_while_there_is_no_room_stays(queue, redis_client, monkeypatch, kinds):
    queue.enqueue("doc:0", "waits")

    def full(_waiting):
        with queue:
            queue.enqueue("doc:missing", "newer").result(PATIENCE_SECONDS)
            queue.flush(PATIENCE_SECONDS)

    filler = queue._filler(kinds, 1, full)
    monkeypatch.setattr(*FILLER_TIME, SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setattr(queue, "flush_now", lambda: None)
    list(filler.fill([("doc:missing", "text")]))
    assert queue.pending_count() == 0
    assert redis_client.hget("doc:missing", "embedding") == stored("newer")


@UNSEEN_TOO
def test_a_newer_text_that_comes_while_somebody_is_asked_stays(queue, redis_client, kinds):
    """Whether it may cost that much, for example."""

    def ask(_texts):
        with queue:
            queue.enqueue("doc:missing", "newer").result(PATIENCE_SECONDS)

    assert [count for count, _ in queue._filler(kinds, before=ask).fill([("doc:missing", "text")])] == [0]
    assert redis_client.hget("doc:missing", "embedding") == stored("newer")


@ALL_OR_WRONG
@pytest.mark.parametrize("quick", [False, True], ids=["waits", "is embedded"])
def test_a_newer_text_that_comes_at_the_last_moment_stays(queue, make_queue, redis_client, monkeypatch, kinds, quick):
    """After the look, just before the older text is put in."""
    other, fill_in = make_queue(start=False), queue._engine.intake.fill_in

    def late(*args):
        other.enqueue("doc:missing", "newer")
        if quick:
            other.start().flush(PATIENCE_SECONDS)
        return fill_in(*args)

    monkeypatch.setattr(queue._engine.intake, "fill_in", late)
    ((put, found),) = queue._filler(kinds).fill([("doc:missing", "text"), ("doc:short", "text")])
    assert (put, found) == (1, {"waiting": 1, "malformed": 1})
    other.start().flush(PATIENCE_SECONDS)
    assert redis_client.hget("doc:missing", "embedding") == stored("newer")
    assert redis_client.hget("doc:short", "embedding") == stored("text")


def test_what_others_are_quicker_with_is_no_fault_that_stays(queue, monkeypatch):
    fill_in = queue._engine.intake.fill_in

    def late(*args):
        queue.enqueue("doc:missing", "newer")
        return fill_in(*args)

    monkeypatch.setattr(queue._engine.intake, "fill_in", late)
    found = queue.verify([("doc:missing", "text")], fix=True)
    assert (found.faults, found.waiting, found.fixed) == (0, 1, 0)


def test_whoever_waits_for_an_older_text_gets_the_vector_of_what_was_put_right(queue):
    """Also where both were enqueued by one process."""
    older = queue.enqueue("doc:missing", "older")
    assert queue.verify([("doc:missing", "text")], fix=True).fixed == 1
    queue.start()
    assert older.result(PATIENCE_SECONDS) == np.frombuffer(stored("text"), "<f4").tolist()


def test_what_is_put_right_is_counted_and_wakes_the_queues_own_worker(make_queue, redis_client):
    queue = make_queue(max_batch_size=1, flush_interval=3600.0)
    assert queue.verify([("doc:1", "text")], fix=True).fixed == 1
    assert queue.stats().enqueued == 1
    eventually(lambda: redis_client.hexists("doc:1", "embedding"))


def test_what_others_enqueue_while_a_part_is_put_in_is_not_taken_for_our_own(queue, monkeypatch, redis_client):
    """The same source has an older text of it later."""
    monkeypatch.setattr(embedqueue.backlog.filler, "LOOK_ITEMS", 1)
    fill_in = queue._engine.intake.fill_in

    def beside(*args):
        queue.enqueue("doc:2", "before")
        filled = fill_in(*args)
        queue.enqueue("doc:3", "after")
        return filled

    monkeypatch.setattr(queue._engine.intake, "fill_in", beside)
    found = queue.verify([(f"doc:{number}", "text") for number in (1, 2, 3)], fix=True)
    assert (found.fixed, found.waiting) == (1, 2)
    waiting = redis_client.zrange("embed_queue:pending", 0, -1)
    assert {encode_member("doc:2", "before"), encode_member("doc:3", "after")} < set(waiting)


def test_a_part_that_goes_in_by_halves_is_counted_whole(queue, monkeypatch, redis_client):
    """Redis refuses it as too large; then there is no room for the second half, and for a while nobody makes any."""
    fill_in, tries = queue._engine.intake.fill_in, []

    def small(pairs, *args):
        tries.append(len(pairs))
        if len(pairs) == 4:
            raise redis.ResponseError("max number of arguments")
        if len(tries) == 3:
            raise QueueFull(2)
        return fill_in(pairs, *args)

    monkeypatch.setattr(queue._engine.intake, "fill_in", small)
    monkeypatch.setattr(*FILLER_TIME, SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setattr(queue, "flush_now", lambda: None)
    filler = queue._filler(to_fix(relabel=False), None, lambda _waiting: None)
    ((put, found),) = filler.fill([(f"doc:{number}", "text") for number in range(4)])
    assert tries == [4, 2, 2, 2]
    assert (put, found) == (4, {"missing": 4})
    assert queue.pending_count() == 4


def test_a_process_at_odds_with_the_workers_pays_for_nothing(make_queue, embedder):
    """They would write the same again."""
    queue = make_queue(max_batch_size=1)
    queue.enqueue("doc:1", "text").result(PATIENCE_SECONDS)
    other = make_queue(start=False, model="other")
    assert other.verify([("doc:1", "text")]).other_space == 1
    with pytest.raises(EmbedQueueError, match="another model"):
        other.verify([("doc:1", "text")], fix=True)
    assert other.pending_count() == 0


def test_without_provenance_only_the_length_is_known(make_queue, redis_client):
    hashes(redis_client)
    found = make_queue(start=False, provenance_field=None).verify(match="doc:*", text_field="text")
    assert (found.missing, found.malformed, found.unlabelled, found.other_text) == (1, 2, 5, 1)


def test_a_full_queue_says_so(make_queue, redis_client):
    hashes(redis_client)
    with pytest.raises(QueueFull):
        make_queue(start=False, max_pending=1).verify(match="doc:*", text_field="text", fix=True)


@pytest.mark.parametrize("options", [{}, {"match": "doc:*"}, {"text_field": "text"}])
def test_what_to_look_at_must_be_said(make_queue, options):
    with pytest.raises(TypeError, match="match and text_field"):
        make_queue(start=False).verify(**options)


def test_an_upgrade_costs_nobody_anything(make_queue, redis_client):
    """Vectors of before there was any provenance are left alone, by a backfill and by a broken run that is repeated."""
    redis_client.hset("doc:1", mapping={"text": "text", "embedding": bytes(range(4 * DIMENSIONS))})
    assert make_queue(start=False).verify([("doc:1", "text")], fix=True).fixed == 0


def test_eager():
    queue = eager_queue()
    queue.enqueue("doc:1", "text")
    queue.redis.hset("doc:2", "text", "two")
    assert queue.verify([("doc:1", "text")]).faults == 0
    assert queue.verify(match="doc:*", text_field="text", fix=True).fixed == 1
    assert queue.redis.hexists("doc:2", "embedding")


def test_where_the_length_of_vectors_is_yet_to_be_learned(queue, make_queue, redis_client):
    """It is that of the namespace: no vector is of another space for the lack of it, and none is paid for again."""
    queue.enqueue("doc:1", "text")
    with queue:
        queue.flush(PATIENCE_SECONDS)
    other = make_queue(embedder=Unlearned(DIMENSIONS), start=False)
    found = other.verify([("doc:1", "text")], fix=True)
    assert (found.checked, found.faults, found.fixed) == (1, 0, 0)
    assert other.verify([("doc:1", "new")]).other_text == 1


def test_a_blank_text_asks_no_provider_for_what_the_namespace_knows(queue, make_queue):
    queue.start()
    queue.enqueue("doc:1", "text").result(PATIENCE_SECONDS)
    unlearned = Unlearned(DIMENSIONS)
    assert make_queue(embedder=unlearned, start=False).enqueue("doc:2", " ").result(0) == [0.0] * DIMENSIONS
    assert unlearned.calls == []
    of_another = make_queue(embedder=Unlearned(2), model="another", start=False)
    assert of_another.enqueue("doc:2", " ").result(0) == [0.0] * 2


class Silent(Unlearned):
    """Never says how long its vectors are, not even when it has made some."""

    def embed_batch(self, texts, model):
        rows = super().embed_batch(texts, model)
        self.dimensions = None
        return rows


def test_blank_texts_cost_one_canary_where_nothing_is_known_yet(make_queue, redis_client):
    """However many they are."""
    silent = Silent(DIMENSIONS)
    queue = make_queue(embedder=silent, start=False)
    assert queue.enqueue("doc:1", " ").result(0) == [0.0] * DIMENSIONS
    futures = queue.enqueue_many([(f"more:{number}", "") for number in range(9)])
    assert [future.result(0) for future in futures] == [[0.0] * DIMENSIONS] * 9
    assert silent.calls == [["ok"]]


@pytest.mark.parametrize("fix", [False, True])
def test_a_text_that_cannot_be_enqueued_holds_up_no_other(make_queue, redis_client, caplog, fix):
    """It is a fault that is told by its key, and no part of the text is."""
    queue = make_queue(start=False, max_text_chars=9)
    items = [
        ("doc:1", "short"),
        ("doc:2", "much too long"),
        ("doc:3", "\ud83d"),
        ("embed_queue:x", "x"),
        ("doc:4", "x"),
    ]
    found = queue.verify(items, fix=fix)
    assert (found.checked, found.unfit, found.missing, found.fixed, found.faults) == (5, 3, 2, 2 * fix, 5)
    assert redis_client.zcard("embed_queue:pending") == 2 * fix
    told = "".join(caplog.messages)
    assert all(f"{key} cannot be enqueued" in told for key in ("doc:2", "doc:3", "embed_queue:x"))
    assert "much" not in told
    with pytest.raises(TypeError):
        queue.verify([("doc:1", 1)])


def test_a_limit_that_came_later_makes_no_fault_of_what_is_right(make_queue, redis_client):
    """Nor does it keep a blank text's vector in its hash."""
    with make_queue() as before:
        before.enqueue("doc:1", "much too long").result(PATIENCE_SECONDS)
        before.enqueue("doc:2", "short").result(PATIENCE_SECONDS)
    queue = make_queue(start=False, max_text_chars=9)
    found = queue.verify([("doc:1", "much too long"), ("doc:2", " " * 50), ("doc:3", "much too long")], fix=True)
    assert (found.checked, found.unfit, found.other_text, found.fixed, found.faults) == (3, 1, 1, 1, 2)
    assert not redis_client.exists("doc:2")


def test_a_vector_that_stays_is_not_counted_as_taken_out(make_queue, redis_client):
    """With a sink, too, which is told of it; and who has none any more is."""

    class Removing:
        def write(self, rows):
            pass

        def remove(self, redis_keys, stamp):
            pass

    queue = make_queue(start=False, sink=Removing())
    redis_client.hset("doc:1", "embedding", b"\0" * 4 * DIMENSIONS)
    queue.enqueue("doc:1", "older")
    assert queue.verify([("doc:1", " ")], fix=True).fixed == 0
    redis_client.delete("embed_queue:pending", "embed_queue:latest")
    assert queue.verify([("doc:1", " "), ("doc:1", " ")], fix=True).fixed == 2
