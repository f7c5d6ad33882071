"""What a node was told, and its answer was lost, or of the past: it is asked again, and nothing counts twice."""

from __future__ import annotations

import pytest
import redis

from embedqueue import Budget
from embedqueue.store import scripts
from embedqueue.store.cluster.line import Line
from embedqueue.store.records import Asked, Terms
from embedqueue.store.scripts import Scripts
from embedqueue.values.provenance import digest
from tests.inside import inside
from tests.parts import PATIENCE_SECONDS, eventually, expected, stored


@pytest.fixture
def lose(monkeypatch):
    """Loses one answer of each of these scripts."""
    lost: list[str] = []
    call = Scripts.call

    def losing(scripts, name, *args, **kwargs):
        answer = call(scripts, name, *args, **kwargs)
        if name in lost:
            lost.remove(name)
            raise redis.ConnectionError("lost")
        return answer

    monkeypatch.setattr(Scripts, "call", losing)
    return lost


def test_a_query_is_booked_once(make_queue, client, lose):
    budget = Budget(usd_per_day=1.0, usd_per_million_tokens=1.0)
    queue = make_queue(client, budget=budget, worker=False, start=False)
    book = inside(queue).store.budget
    queue.embed_query("x" * 400)
    eventually(lambda: book.state().held == 0, "the call is settled")
    once = book.state().day
    lose += ["reserve_budget", "settle_budget"]
    queue.embed_query("y" * 400)
    eventually(lambda: not lose and book.state().held == 0, "the other one is")
    assert book.state().day == pytest.approx(2 * once)
    assert once > 0


def test_what_is_gone_is_asked_for_once_more_of_who_is_the_master_then(make_queue, cluster, client, monkeypatch):
    """A master that has stood still while it was replaced tells of the past, and holds itself for the master."""
    queue = make_queue(client)
    queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS)
    store, asked_nodes = inside(queue).store, []
    each_of, slots_by = store._lines.each_of, store._nodes._slots_by
    past = [[[stored("older")], [b"gemini-embedding-001/8/- 0123456789abcdef 5"]]]
    monkeypatch.setattr(store._lines, "each_of", lambda *args: past.pop() if past else each_of(*args))
    monkeypatch.setattr(store._nodes, "_slots_by", lambda node: asked_nodes.append(node[1]) or slots_by(node))
    terms = Terms("embedding", "embedding_of", "gemini-embedding-001", 8, "gemini-embedding-001/8/-", "create")
    asked = Asked("doc:1", int(client.hget("doc:1", "embedding_of").split()[2]), digest("one"))
    owners = {cluster.master_of(key).port for key in ("doc:1", "{embed_queue}")}
    assert store.look([asked], terms) == [("done", stored("one"))]
    assert not past
    assert asked_nodes[0] not in owners
    client.delete("doc:1", "{embed_queue}:events")
    assert store.look([asked], terms) == [("gone", b"")]


def test_a_node_that_says_readonly_is_asked_again(make_queue, client, monkeypatch):
    """As one does that is being replaced: of the queue, and of a hash."""
    queue = make_queue(client)
    queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS)
    by_queue, by_hash, refusal = (
        [1, 2, 3],
        [1, 2, 3],
        redis.exceptions.ReadOnlyError("You can't write against a replica"),
    )
    ask, answer = scripts.ask, Line._answer

    def refusing(*args):
        try:
            by_queue.pop()  # in one step, for the worker asks as well
        except IndexError:
            return ask(*args)
        raise refusal

    def refused(line, order, asking):
        told = answer(line, order, asking)
        return by_hash.pop() and refusal if by_hash and order.script == "write" else told

    monkeypatch.setattr(scripts, "ask", refusing)
    monkeypatch.setattr(Line, "_answer", refused)
    assert queue.enqueue("doc:2", "two").result(PATIENCE_SECONDS) == expected("two")
    assert client.hget("doc:2", "embedding") == stored("two")
    assert not by_queue
    assert not by_hash


@pytest.mark.parametrize(
    ("model", "dimensions", "word"),
    [("m", 8, "done"), ("m", None, "done"), ("other", 8, "differs"), ("m", 16, "differs")],
)
def test_a_vector_of_another_model_is_nobodys_answer(make_queue, client, model, dimensions, word):
    """It was written while another model ruled; whoever waits for it has been adopted since, and could not use it."""
    queue = make_queue(client, model="m")
    queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS)
    terms = Terms("embedding", "embedding_of", model, dimensions, f"{model}/{dimensions or 0}/-", "create")
    inside(queue).store.agree(terms)
    stamp = int(client.hget("doc:1", "embedding_of").split()[2])
    for newer in (0, 1):  # enqueued again while it was in flight, an item keeps its stamp
        assert inside(queue).store.look([Asked("doc:1", stamp + newer, digest("one"))], terms)[0][0] == word


def test_a_write_that_was_sent_twice_is_in_the_air_until_no_copy_can_come(make_queue, client, monkeypatch):
    """The first copy may be held back by the network. So a forgotten key has no vector, whatever comes late."""
    queue = make_queue(client)
    answers, lost = Line.answers, []

    def losing(line):
        found = answers(line)
        if b"done" in found and not lost:
            lost.append(line)
            raise redis.ConnectionError("the answer is lost")
        return found

    monkeypatch.setattr(Line, "answers", losing)
    assert queue.enqueue("doc:1", "one").result(PATIENCE_SECONDS) == expected("one")
    assert lost
    assert queue.enqueue("doc:2", "two").result(PATIENCE_SECONDS) == expected("two")
    assert client.hkeys("{embed_queue}:air") == [b"doc:1"]
    queue.forget("doc:1", vector=True)
    ends = float(client.hget("{embed_queue}:air", "doc:1").split()[0])
    assert client.time(target_nodes=client.get_node_from_key("{embed_queue}"))[0] >= ends - 1
    assert not client.exists("doc:1")
