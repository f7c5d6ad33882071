"""What the queue's node was told, and its answer was lost: it is asked again, and nothing counts twice."""

from __future__ import annotations

import pytest
import redis

from embedqueue import Budget
from embedqueue.store.scripts import Scripts
from tests.inside import inside
from tests.parts import eventually


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
